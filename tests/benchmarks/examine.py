"""What a round over 2,000 sessions that may lie idle costs the service."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from jupyterhub_migspawner.broker.readings import Answer
from jupyterhub_migspawner.keys import KeyFile
from jupyterhub_migspawner.policy.reclaim import PROCESSES
from jupyterhub_migspawner.service.clients.hub import HubApi
from jupyterhub_migspawner.service.garbage import keep_short
from jupyterhub_migspawner.service.parts import Parts
from jupyterhub_migspawner.service.workers.sessions import Examiner
from tests.broker.lab import Lab, card
from tests.sealing import reach

SESSIONS = 2_000
TIERS = [{"name": "small", "profile": "1g.5gb", "idle_minutes": 60}]


def examine_block_ms(directory: Path) -> dict[str, float]:
    """The longest time for which a round over 2,000 sessions keeps the event loop from others.

    With the same for a loop that does nothing else beside it, the seconds of the round, and the
    longest time where two in a hundred servers answer so that it is long in reading.
    """
    longest = {}
    for name, every in (("well", SESSIONS + 2), ("strange", 100)):
        longest[name] = examined(directory / name, every)
    return {**longest["well"], "examine_strange_block_ms": longest["strange"]["examine_block_ms"]}


def examined(directory: Path, every: int) -> dict[str, float]:
    """One such round; two in ``every`` servers are strange."""
    directory.mkdir(parents=True)
    lab = Lab(f"sqlite:///{directory}/leases.sqlite", tiers=TIERS)
    key_file = KeyFile(directory / "migspawner_key")
    lab.report(*(card(index) for index in range(SESSIONS // 7 + 1)))
    with quiet_server() as origin:
        leases = []
        for number in range(SESSIONS):
            lease = lab.broker.leases.activate(lab.start(f"user{number}").attempt)
            assert lease is not None
            way = "user" if number % every < every - 2 else "strange"
            reach(lab.broker, key_file, lease, f"{origin}/{way}/{number}/", "a-token")
            leases.append(lease)
        lab.broker.readings.note([Answer(lease.id, PROCESSES, "x") for lease in leases])
        try:
            return asyncio.run(measured(lab, key_file, origin, every))
        finally:
            lab.close()


async def measured(lab: Lab, key_file: KeyFile, origin: str, every: int) -> dict[str, float]:
    with ThreadPoolExecutor(4) as database:
        parts = Parts(
            broker=lab.broker,
            settings=lab.broker.settings,
            hub=HubApi(f"{origin}/hub/api", "a-token"),
            database=database,
            key_file=key_file,
            home="here",
            prefix="/",
            hub_prefix="/hub/",
        )
        examiner = Examiner(parts)
        keep_short()  # as the service does before its first round
        base = await longest_block(asyncio.sleep(3))
        begin = time.perf_counter()
        block = await longest_block(examiner.round())
        seconds = time.perf_counter() - begin
        examiner.close()
    heard = [each for each in lab.broker.sessions.standings() if not each.verdict.unknown]
    # Those that answer in chunks are not.
    assert len(heard) == SESSIONS - SESSIONS // every, f"only {len(heard)} were heard"
    return {
        "examine_block_ms": round(1000 * block, 2),
        "examine_block_base_ms": round(1000 * base, 2),
        "examine_2000_seconds": round(seconds, 2),
    }


async def longest_block(doing: object) -> float:
    """Do it; by how much the loop came latest to something that was due, in seconds.

    That reports everything that keeps it from others: its own callbacks, other threads that hold
    the interpreter, the garbage collector.
    """
    worst, over = 0.0, asyncio.Event()

    async def tick() -> None:
        nonlocal worst
        while not over.is_set():
            due = time.perf_counter() + 0.001
            await asyncio.sleep(0.001)
            worst = max(worst, time.perf_counter() - due)

    ticking = asyncio.ensure_future(tick())
    await doing  # type: ignore[misc]
    over.set()
    await ticking
    return worst


@contextmanager
def quiet_server() -> Iterator[str]:
    command = [sys.executable, "-m", "tests.benchmarks.quiet_server"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        assert process.stdin is not None
        process.stdin.close()
        process.wait(20)
