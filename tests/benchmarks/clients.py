"""Many clients of one database at once: processes with threads, as hubs and services are."""

from __future__ import annotations

import itertools
import multiprocessing
import sqlite3
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

import psycopg

from jupyterhub_migspawner.policy.people import Person
from tests.benchmarks.bare import Life, again, live
from tests.benchmarks.clusters import QUOTAS, TIERS
from tests.broker.lab import Lab

PATIENCE = 60
"""Seconds to wait for the other clients to be ready."""

# A new interpreter each, that shares nothing with the one that measures.
_processes = multiprocessing.get_context("spawn")


def bare_sqlite(url: str) -> sqlite3.Connection:
    """A connection with what the broker sets, and transactions begun by hand."""
    connection = sqlite3.connect(
        url.removeprefix("sqlite:///"), isolation_level=None, check_same_thread=False
    )
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}").close()
    return connection


def bare_postgres(url: str) -> psycopg.Connection[Any]:
    """A connection with what the broker sets."""
    connection = psycopg.connect(url)
    connection.execute("SET timezone = 'UTC'")
    connection.execute("SET random_page_cost = 1.1")
    connection.commit()
    return connection


def rates(
    url: str,
    bare_url: str,
    life: Life,
    *,
    processes: int,
    threads: int,
    seconds: float,
    rounds: int,
) -> tuple[list[float], list[float]]:
    """Leases a second of all clients together, round by round: through the broker, and bare.

    Each has a database of its own; the two take turns, so that a machine whose speed drifts drifts
    for both.
    """
    counts = _at_once(_count, processes, (url, bare_url, life, threads, seconds, rounds))
    each = [sum(of_phase) / seconds for of_phase in zip(*counts, strict=True)]
    return each[0::2], each[1::2]


def acquire_times(url: str, *, processes: int, threads: int, rounds: int) -> list[float]:
    """Seconds of each acquire, while every client takes and gives back without a pause."""
    return [each for times in _at_once(_times, processes, (url, threads, rounds)) for each in times]


def _at_once(work: Any, processes: int, args: tuple[Any, ...]) -> list[Any]:
    meeting = _processes.Barrier(processes)
    with ProcessPoolExecutor(
        processes, mp_context=_processes, initializer=_expect, initargs=(meeting,)
    ) as pool:
        running = [pool.submit(work, number, *args) for number in range(processes)]
        return [each.result() for each in running]


_meeting: Any = None


def _expect(meeting: Any) -> None:
    global _meeting
    _meeting = meeting


def _count(
    number: int,
    url: str,
    bare_url: str,
    life: Life,
    threads: int,
    seconds: float,
    rounds: int,
) -> list[int]:
    lab = Lab(url, tiers=TIERS, quotas=QUOTAS)
    # Names that no earlier client of this database had.
    prefix = f"{number} {time.time_ns()}"
    ready = threading.Barrier(threads + 1)
    end = [0.0]

    def client(thread: int) -> list[int]:
        connection = bare_postgres(bare_url)
        cursor = connection.cursor()
        names = (f"{prefix} {thread} {count}" for count in itertools.count())

        def broker() -> None:
            name = next(names)
            live(lab, f"user of {name}", f"attempt of {name}")

        def bare() -> None:
            again(life, cursor, next(names), "", connection.commit, connection.rollback)

        counts = []
        for once in (broker, bare):
            for _ in range(8):
                once()
        for once in (broker, bare) * rounds:
            ready.wait(PATIENCE)
            ready.wait(PATIENCE)
            done = 0
            while time.perf_counter() < end[0]:
                once()
                done += 1
            counts.append(done)
        connection.close()
        return counts

    with ThreadPoolExecutor(threads) as pool:
        counting = [pool.submit(client, thread) for thread in range(threads)]
        for _ in range(2 * rounds):
            ready.wait(PATIENCE)
            _meeting.wait(PATIENCE)
            end[0] = time.perf_counter() + seconds
            ready.wait(PATIENCE)
        totals = [sum(each) for each in zip(*(one.result() for one in counting), strict=True)]
    lab.close()
    return totals


def _times(number: int, url: str, threads: int, rounds: int) -> list[float]:
    lab = Lab(url, tiers=TIERS, quotas=QUOTAS)
    prefix = f"{number} {time.time_ns()}"
    together = threading.Barrier(threads + 1)

    def user(thread: int) -> list[float]:
        times = []
        for turn in range(-2, rounds):
            if turn == 0:
                together.wait(PATIENCE)
                together.wait(PATIENCE)
            name = f"{prefix} {thread}"
            begin = time.perf_counter()
            lease = lab.broker.leases.acquire(Person(name), "", "small", f"{name} {turn}")
            seconds = time.perf_counter() - begin
            assert lease is not None
            lab.broker.leases.release_server(name, "", "stopped", name)
            lab.broker.leases.confirm_empty(lease.id)
            if turn >= 0:
                times.append(seconds)
        return times

    with ThreadPoolExecutor(threads) as pool:
        running = [pool.submit(user, thread) for thread in range(threads)]
        together.wait(PATIENCE)
        _meeting.wait(PATIENCE)
        together.wait(PATIENCE)
        all_times = [each for one in running for each in one.result()]
    lab.close()
    return all_times
