"""What the mixin adds to a spawn, and what it takes from the hub's event loop."""

from __future__ import annotations

import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.benchmarks.hub import Hub
from tests.launchers.engines import engine_with_cards
from tests.launchers.systemd_machine import booted


def spawn_added_ms(directory: Path, pairs: int = 25) -> dict[str, float]:
    """Median of what the mixin adds to request-to-ready, spawn by spawn against the base spawner.

    The two hubs run side by side and take turns, so that a machine whose speed drifts drifts for
    both.
    """
    with (
        Hub(directory / "with", mixin=True) as ours,
        Hub(directory / "without", mixin=False) as base,
    ):
        found = _turns(ours, base, pairs)
    added, plain = [with_us - without for with_us, without in found], [each[1] for each in found]
    return {
        "spawn_added_ms": round(statistics.median(added) * 1000, 2),
        "spawn_base_ms": round(statistics.median(plain) * 1000, 2),
    }


def launch_bubblewrap_ratio(directory: Path, pairs: int = 8) -> dict[str, float]:
    """Request-to-ready of a notebook server behind bubblewrap, over that of the base spawner.

    The servers are what people start, JupyterLab's; the hubs take turns.
    """
    with (
        Hub(directory / "with", mixin=True, notebook=True) as ours,
        Hub(directory / "without", mixin=False, notebook=True) as base,
    ):
        ratio, seconds = _ratio(ours, base, pairs)
    return {"launch_bubblewrap_ratio": ratio, "launch_base_seconds": seconds}


def launch_systemd_ratio(directory: Path, pairs: int = 8) -> dict[str, float]:
    """Request-to-ready of a notebook server in a unit, over that of systemdspawner's own."""
    directory.mkdir(parents=True)
    with (
        booted(directory) as machine,
        Hub(directory / "with", mixin=True, notebook=True, machine=machine) as ours,
        Hub(directory / "without", mixin=False, notebook=True, machine=machine) as base,
    ):
        ratio, seconds = _ratio(ours, base, pairs)
    return {"launch_systemd_ratio": ratio, "launch_systemd_base_seconds": seconds}


def launch_docker_ratio(directory: Path, pairs: int = 8) -> dict[str, float]:
    """Request-to-ready of a notebook server in a container, over that of dockerspawner's own."""
    with (
        engine_with_cards() as engine,
        Hub(directory / "with", mixin=True, notebook=True, engine=engine) as ours,
        Hub(directory / "without", mixin=False, notebook=True, engine=engine) as base,
    ):
        ratio, seconds = _ratio(ours, base, pairs)
    return {"launch_docker_ratio": ratio, "launch_docker_base_seconds": seconds}


def _ratio(ours: Hub, base: Hub, pairs: int) -> tuple[float, float]:
    """The median of the ratios of two hubs that take turns, and the seconds of the base."""
    found = _turns(ours, base, pairs)
    ratios, plain = [with_us / without for with_us, without in found], [each[1] for each in found]
    return round(statistics.median(ratios), 3), round(statistics.median(plain), 2)


def _turns(ours: Hub, base: Hub, pairs: int) -> list[tuple[float, float]]:
    """Seconds of a spawn at each of two hubs that take turns, after one to warm up."""
    for hub in (ours, base):
        hub.api("POST", "users/ada")
        hub.spawn_seconds("ada")
    found = []
    for turn in range(pairs):
        first, second = (ours, base) if turn % 2 else (base, ours)
        seconds = {hub: hub.spawn_seconds("ada") for hub in (first, second)}
        found.append((seconds[ours], seconds[base]))
    return found


def loop_block_ms(directory: Path, users: int = 40, rounds: int = 5) -> dict[str, float]:
    """The longest single callback on the hub's event loop while 40 spawns ask for 56 slices.

    The median of a few rounds and the worst of them, with the same for the base spawner beside it.
    The servers are one process that runs already: forking forty processes would block a hub for
    tens of milliseconds at a time with and without a broker.
    """
    result = {}
    for name, mixin in (("loop_block", True), ("loop_block_base", False)):
        with Hub(directory / name, mixin=mixin, cards=8, shared_server=True) as hub:
            names = [f"user{number}" for number in range(users)]
            for user in names:
                hub.api("POST", f"users/{user}")
            blocks = [_longest_block(hub, names) for _ in range(rounds)]
        result[f"{name}_ms"] = round(statistics.median(blocks) * 1000, 2)
        result[f"{name}_worst_ms"] = round(max(blocks) * 1000, 2)
    return result


def _longest_block(hub: Hub, names: list[str]) -> float:
    """Seconds of the longest callback while everybody starts at once; then all stop again."""
    hub.measure()
    with ThreadPoolExecutor(len(names)) as pool:
        answers = list(pool.map(lambda user: hub.api("POST", f"users/{user}/server", {}), names))
    longest = hub.longest_block()
    refused = [answer for status, answer in answers if status not in (201, 202)]
    if refused:
        raise RuntimeError(f"{len(refused)} of {len(names)} spawns failed: {refused[0]}")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda user: hub.api("DELETE", f"users/{user}/server"), names))
    while any(hub.api("GET", f"users/{user}")[1]["servers"] for user in names):
        time.sleep(0.05)
    return longest
