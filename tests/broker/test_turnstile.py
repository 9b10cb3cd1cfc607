"""Threads pass one at a time, in the order in which they came."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest

from jupyterhub_migspawner.db.engine import begin_writing
from jupyterhub_migspawner.db.turnstile import Turnstile


def test_threads_pass_in_the_order_of_arrival() -> None:
    turnstile = Turnstile()
    passed: list[int] = []

    def go(number: int) -> None:
        with turnstile.passing(60) as entered:
            assert entered
            passed.append(number)

    threads = [threading.Thread(target=go, args=(number,)) for number in range(20)]
    with turnstile.passing(60):
        for waiting, thread in enumerate(threads, start=1):
            thread.start()
            while len(turnstile._waiting) < waiting:
                thread.join(0.001)
    for thread in threads:
        thread.join()
    assert passed == list(range(20))


def test_only_one_is_inside_at_any_time() -> None:
    turnstile = Turnstile()
    inside: list[int] = []
    most: list[int] = []

    def go() -> None:
        for _ in range(200):
            with turnstile.passing(60):
                inside.append(1)
                most.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=go) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(most) == 1200
    assert max(most) == 1


def test_whoever_waits_too_long_gives_up_and_is_not_handed_the_turn() -> None:
    turnstile = Turnstile()
    answers: list[bool] = []

    def impatient() -> None:
        with turnstile.passing(0.01) as entered:
            answers.append(entered)

    with turnstile.passing(60):
        thread = threading.Thread(target=impatient)
        thread.start()
        thread.join()
    assert answers == [False]
    with turnstile.passing(0) as entered:
        assert entered


def test_an_exception_inside_lets_the_next_one_pass() -> None:
    turnstile = Turnstile()

    def fail() -> None:
        with turnstile.passing(60):
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    with turnstile.passing(0) as entered:
        assert entered


def test_between_processes_a_short_gap_is_enough_to_become_the_writer(tmp_path: Path) -> None:
    holder, late = (
        sqlite3.connect(tmp_path / "file.sqlite", isolation_level=None, timeout=0) for _ in range(2)
    )
    holder.execute("BEGIN IMMEDIATE")
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 50:
            holder.execute("COMMIT")

    assert begin_writing(late.cursor(), 60, pause)
    assert late.in_transaction
    assert len(pauses) == 50
    # However short the gaps are that others leave, there are many tries to meet one.
    assert max(pauses) < 0.005
    assert len(set(pauses)) > 1
    late.execute("COMMIT")


def test_whoever_cannot_become_the_writer_in_time_is_told(tmp_path: Path) -> None:
    holder, late = (
        sqlite3.connect(tmp_path / "file.sqlite", isolation_level=None, timeout=0) for _ in range(2)
    )
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        begin_writing(late.cursor(), 0)
    assert not late.in_transaction
    holder.execute("COMMIT")
    assert not begin_writing(late.cursor(), 0)
    assert late.in_transaction
