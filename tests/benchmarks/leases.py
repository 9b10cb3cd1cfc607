"""What a lease costs: against the bare driver, under load, and in a large old cluster."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from jupyterhub_migspawner.policy.people import Person
from tests.benchmarks.bare import again, live, record
from tests.benchmarks.clients import acquire_times, bare_sqlite, rates
from tests.benchmarks.clusters import filled
from tests.broker.lab import Lab
from tests.broker.postgres import Cluster, programs

Figures = dict[str, float]
NewUrl = Callable[[], str]

SMALL, LARGE = 8, 1429
"""Cards in sevenths: 56 slices, and 10,003."""

PAST = 1_000_000


@contextmanager
def sqlite(directory: Path) -> Iterator[NewUrl]:
    """New database files in a directory."""
    directory.mkdir(parents=True, exist_ok=True)
    numbers = iter(range(100))
    yield lambda: f"sqlite:///{directory / f'leases-{next(numbers)}.sqlite'}"


@contextmanager
def postgres(_: Path) -> Iterator[NewUrl]:
    """New databases of a server of our own, which writes to disk as it does by default."""
    found = programs()
    if found is None:
        raise RuntimeError("PostgreSQL is not installed: apt-get install postgresql")
    cluster = Cluster(found, durable=True)
    try:
        yield cluster.new_database
    finally:
        cluster.remove()


def lease_sqlite_vs_raw(directory: Path, rounds: int = 7, lives: int = 300) -> Figures:
    """One client: leases a second through the broker over those of the bare driver."""
    with sqlite(directory) as new_url:
        ours, theirs = (filled(new_url(), SMALL, 0) for _ in range(2))
        recorded = record(theirs)
        theirs.close()
        connection = bare_sqlite(theirs.url)
        cursor = connection.cursor()

        def bare(name: str) -> None:
            again(recorded, cursor, name, "BEGIN IMMEDIATE", connection.commit, connection.rollback)

        def broker(name: str) -> None:
            live(ours, f"user of {name}", f"attempt of {name}")

        spent: dict[str, list[float]] = {"broker": [], "bare": []}
        for turn in range(-1, rounds):
            for kind, work in (("broker", broker), ("bare", bare)):
                begin = time.perf_counter()
                for number in range(lives):
                    work(f"{turn} {number}")
                if turn >= 0:
                    spent[kind].append(lives / (time.perf_counter() - begin))
        connection.close()
        ours.close()
    return _ratio("lease_sqlite", spent["broker"], spent["bare"])


def lease_postgres_vs_raw(directory: Path, rounds: int = 5, seconds: float = 3) -> Figures:
    """As above with 32 clients: 8 processes with 4 threads each, as many as a hub has for this."""
    with postgres(directory) as new_url:
        ours, theirs = (filled(new_url(), 2 * SMALL, 0, held=False) for _ in range(2))
        recorded = record(theirs)
        for lab in (ours, theirs):
            lab.close()
        broker, bare = rates(
            ours.url, theirs.url, recorded, processes=8, threads=4, seconds=seconds, rounds=rounds
        )
    return _ratio("lease_postgres", broker, bare)


def _ratio(name: str, broker: list[float], bare: list[float]) -> Figures:
    ratios = [ours / theirs for ours, theirs in zip(broker, bare, strict=True)]
    return {
        f"{name}_vs_raw": round(statistics.median(ratios), 3),
        f"{name}_per_second": round(statistics.median(broker), 1),
        f"{name}_raw_per_second": round(statistics.median(bare), 1),
    }


def lease_p99_over_median(directory: Path, rounds: int = 20) -> Figures:
    """How much longer than usual the slowest acquires of 64 users at once take.

    SQLite is for one machine: one process with 64 threads. PostgreSQL: 8 processes with 8 each.
    """
    figures = {}
    for kind, databases, processes in (("sqlite", sqlite, 1), ("postgres", postgres, 8)):
        with databases(directory) as new_url:
            url = new_url()
            filled(url, 2 * SMALL, 0, held=False).close()
            times = acquire_times(url, processes=processes, threads=64 // processes, rounds=rounds)
        median = statistics.median(times)
        p99 = statistics.quantiles(times, n=100)[98]
        figures[f"lease_p99_over_median_{kind}"] = round(p99 / median, 2)
        figures[f"lease_median_64_users_ms_{kind}"] = round(median * 1000, 2)
    return {"lease_p99_over_median": _worst(figures, "lease_p99_over_median_"), **figures}


def lease_flat_10k(directory: Path, turns: int = 400) -> Figures:
    """Acquire and the form's availability in a large cluster after years, over a small new one.

    10,003 slices and a million past leases against 56 slices and none; half of the slices are held
    in both. The two take turns, and every look at the form comes after a lease, so that there is
    always something new to count.
    """
    figures: Figures = {}
    for kind, databases in (("sqlite", sqlite), ("postgres", postgres)):
        with databases(directory) as new_url:
            labs = [filled(new_url(), SMALL, 0), filled(new_url(), LARGE, PAST)]
            acquires: list[list[float]] = [[], []]
            looks: list[list[float]] = [[], []]
            for turn in range(-20, turns):
                for lab, acquire, look in zip(labs, acquires, looks, strict=True):
                    spent = _visit(lab, f"user{turn % 997}", f"turn {turn}")
                    if turn >= 0:
                        acquire.append(spent[0])
                        look.append(spent[1])
            for lab in labs:
                lab.close()
        for name, (small, large) in (("lease", acquires), ("tiers", looks)):
            ratio = statistics.median(large) / statistics.median(small)
            figures[f"{name}_flat_10k_{kind}"] = round(ratio, 3)
            figures[f"{name}_small_ms_{kind}"] = round(statistics.median(small) * 1000, 3)
    worst = {
        f"{name}_flat_10k": _worst(figures, f"{name}_flat_10k_") for name in ("lease", "tiers")
    }
    return {**worst, **figures}


def _visit(lab: Lab, user: str, attempt: str) -> tuple[float, float]:
    """Seconds of an acquire, and of a look at the form while the lease is held."""
    person = Person(user)
    begin = time.perf_counter()
    lease = lab.broker.leases.acquire(person, "", "small", attempt)
    taken = time.perf_counter()
    assert lease is not None
    middle = time.perf_counter()
    lab.broker.tiers.of(person)
    end = time.perf_counter()
    lab.broker.leases.release_server(user, "", "stopped", user)
    lab.broker.leases.confirm_empty(lease.id)
    return taken - begin, end - middle


def _worst(figures: Figures, prefix: str) -> float:
    return max(value for name, value in figures.items() if name.startswith(prefix))
