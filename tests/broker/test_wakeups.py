"""Waiters are woken by what others commit, in this process or another, and never held up."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from jupyterhub_migspawner.db import wakeups
from jupyterhub_migspawner.policy.people import Person
from tests.broker.lab import Lab
from tests.broker.postgres import Cluster

SOON = 60.0
"""Seconds after which a test that waits has failed."""

RELEASE = """
import sys
from jupyterhub_migspawner.broker import Broker
from jupyterhub_migspawner.db.store import Store
from jupyterhub_migspawner.policy.settings import Settings
from jupyterhub_migspawner.policy.tiers import parse_tiers

settings = Settings(tiers=parse_tiers([{"name": "small", "profile": "1g.5gb"}]))
broker = Broker(Store.open(sys.argv[1]), settings)
(lease,) = broker.leases.release_server("ada", "", "stopped", "hub")
broker.leases.confirm_empty(lease.id)
"""


@pytest.fixture
def server_lab(postgres: Cluster) -> Iterator[Lab]:
    """On PostgreSQL alone."""
    lab = Lab(postgres.new_database())
    yield lab
    lab.close()


class Bell(threading.Event):
    """Rung by wake-ups; counts nothing, since some come for nothing."""

    def next(self) -> None:
        """Wait for one."""
        assert self.wait(SOON)
        self.clear()


@contextmanager
def heard(lab: Lab) -> Iterator[Bell]:
    """A bell, after the ring that says that it is listening."""
    bell = Bell()
    with lab.broker.events.heard(bell.set):
        bell.next()
        yield bell


def until(bell: Bell, holds: Callable[[], bool]) -> None:
    """What a waiter does: look, and sleep until woken."""
    while not holds():
        bell.next()


def free(lab: Lab) -> int:
    return lab.broker.tiers.of(Person("grace"))[0].free


def test_a_waiter_is_woken_by_another_process(lab: Lab) -> None:
    lab.report()
    lab.broker.leases.activate(lab.start("ada").attempt)
    with heard(lab) as bell:
        assert free(lab) == 13
        other = subprocess.Popen([sys.executable, "-c", RELEASE, lab.url])
        until(bell, lambda: free(lab) == 14)
        assert other.wait(SOON) == 0


def test_a_waiter_is_woken_by_another_thread_of_this_process(lab: Lab) -> None:
    lab.report()
    lease = lab.start("ada")
    with heard(lab) as bell:
        thread = threading.Thread(target=lab.stop, args=(lease,))
        thread.start()
        until(bell, lambda: free(lab) == 14)
        thread.join()


def test_whoever_comes_later_is_woken_too_and_whoever_left_is_not(lab: Lab) -> None:
    lab.report()
    gone = Bell()
    with lab.broker.events.heard(gone.set):
        gone.next()
    first, second = lab.start("ada"), lab.start("grace")
    with heard(lab) as early:
        late = Bell()
        with lab.broker.events.heard(late.set):
            lab.stop(first)
            late.next()
        early.clear()
        gone.clear()
        lab.stop(second)
        early.next()
    assert not gone.is_set()


def test_a_waiter_that_fails_costs_the_others_nothing(lab: Lab) -> None:
    lab.report()
    lease = lab.start("ada")

    def fail() -> None:
        raise RuntimeError("its event loop is closed")

    with lab.broker.events.heard(fail), heard(lab) as bell:
        lab.stop(lease)
        bell.next()


def test_closing_ends_the_thread_and_leaves_waiters_alone(lab: Lab) -> None:
    with heard(lab):
        lab.store.close()
        assert lab.store.wakeups._thread is not None
        assert not lab.store.wakeups._thread.is_alive()
    bell = Bell()
    with lab.broker.events.heard(bell.set):
        assert not bell.is_set()


def test_nobody_listens_before_somebody_waits(lab: Lab) -> None:
    lab.report()
    lab.stop(lab.start("ada"))
    assert lab.store.wakeups._thread is None


def test_taking_a_lease_tells_nobody_and_giving_it_back_does(server_lab: Lab) -> None:
    """Commits that notify follow each other, also those of people who only start something."""
    said: list[str] = []
    server_lab.report()
    server_lab.store.watch = lambda sql, _: said.append(sql)
    lease = server_lab.start("ada")
    server_lab.broker.leases.activate(lease.attempt)
    assert not any("pg_notify" in sql for sql in said)
    server_lab.broker.leases.release_server("ada", "", "stopped", "hub")
    assert sum("pg_notify" in sql for sql in said) == 1
    server_lab.store.watch = None


def test_a_waiter_outlasts_a_restart_of_the_server(
    postgres: Cluster,
    server_lab: Lab,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(wakeups, "FIRST_PAUSE", 0.01)
    server_lab.report()
    lease = server_lab.start("ada")
    with heard(server_lab) as bell, caplog.at_level(logging.WARNING):
        postgres.stop(at_once=True)
        postgres.start()
        # Woken once for what it may have missed, and then as before.
        bell.next()
        server_lab.stop(lease)
        until(bell, lambda: free(server_lab) == 14)
    assert "are only checked at intervals" in caplog.text
    assert "Traceback" not in caplog.text


def test_a_server_that_cannot_be_listened_to_holds_nobody_up(
    server_lab: Lab, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tried = threading.Event()

    def refuse(*_: object, **__: object) -> None:
        tried.set()
        raise OSError("no more connections")

    monkeypatch.setattr(wakeups.Wakeups, "_listen", refuse)
    server_lab.report()
    with server_lab.broker.events.heard(lambda: None), caplog.at_level(logging.WARNING):
        assert tried.wait(SOON)
        server_lab.stop(server_lab.start("ada"))
        server_lab.store.close()
    assert caplog.text.count("no more connections") == 1


def test_a_file_that_was_moved_away_is_not_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tried = threading.Event()
    lab = Lab(f"sqlite:///{tmp_path}/lea ses.sqlite")
    lab.store.close()
    (file,) = tmp_path.glob("*.sqlite")
    file.rename(tmp_path / "elsewhere")
    poll = wakeups.Wakeups._poll

    def noted(self: wakeups.Wakeups, listened: threading.Event) -> None:
        try:
            poll(self, listened)
        finally:
            tried.set()

    monkeypatch.setattr(wakeups.Wakeups, "_poll", noted)
    other = wakeups.Wakeups(lab.store._engine, lab.store.name)
    with other.heard(lambda: None), caplog.at_level(logging.WARNING):
        assert tried.wait(SOON)
    other.close()
    assert not file.exists()
