"""``migspawner events`` and ``db compact``: the log listed, searched, followed and compacted."""

from __future__ import annotations

import json
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from jupyterhub_migspawner.broker import Broker
from jupyterhub_migspawner.db.store import Store
from jupyterhub_migspawner.policy.people import Person
from tests.unit.cli.conftest import Install

Start = Callable[..., "subprocess.Popen[str]"]


def lend(install: Install, user: str, *, days_ago: float = 0, server: str = "") -> int:
    """A lease that a user took so long ago."""
    at = datetime.now(timezone.utc) - timedelta(days=days_ago)
    install.report(minutes_ago=days_ago * 24 * 60)
    store = Store.open(install.mig.resolved_database_url())
    broker = Broker(store, install.mig.settings(), clock=lambda: at)
    lease = broker.leases.acquire(Person(user), server, "small", f"{user} {server} {days_ago}")
    store.close()
    assert lease is not None
    return lease.id


def kinds(install: Install, *words: str) -> list[str]:
    found: list[dict[str, Any]] = install.run("events", "--json", *words).json
    return [event["kind"] for event in found]


def test_events_are_found_by_person_lease_card_kind_and_time(install: Install) -> None:
    lease = lend(install, "ada", days_ago=3)
    lend(install, "grace")
    assert kinds(install, "--user", "ada") == ["lease.pending"]
    assert kinds(install, "--lease", str(lease)) == ["lease.pending"]
    assert kinds(install, "--user", "eve") == []
    assert kinds(install, "--kind", "node", "--kind", "lease.pending") == [
        *("node.seen", "lease.pending", "lease.pending")
    ]
    assert kinds(install, "--since", "2d", "--kind", "lease") == ["lease.pending"]
    assert kinds(install, "--since", "4d", "--kind", "lease") == ["lease.pending"] * 2
    assert kinds(install, "--since", "2001-01-01", "--user", "ada", "--kind", "card") == []
    card = install.broker.cards.find()[1].uuid
    assert set(kinds(install, "--card", card)) >= {"card.seen", "slice.seen"}
    assert "card.seen" in install.run("events", "--card", card, "--limit", "1000").out
    assert install.run("events", "--user", "eve").out == "No event matches --user.\n"


def test_all_since_a_time_are_listed_however_many_they_are(install: Install) -> None:
    uuid = install.broker.cards.find()[0].uuid
    for number in range(150):
        install.broker.layouts.record_step(uuid, "n1", f"step {number}")
    assert len(kinds(install, "--kind", "card.step")) == 100
    assert len(kinds(install, "--kind", "card.step", "--since", "1h")) == 150
    last = install.run("events", "--json", "--since", "1h", "--limit", "2").json
    assert [event["detail"]["step"] for event in last] == ["step 148", "step 149"]


@pytest.fixture
def start(install: Install) -> Iterator[Start]:
    """The program as a process; its standard output is read line by line."""
    running: list[subprocess.Popen[str]] = []

    def begin(*words: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "jupyterhub_migspawner.cli", *words, "-f", str(install.config)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        running.append(process)
        return process

    yield begin
    for process in running:
        process.kill()
        process.communicate()


def test_events_are_followed_until_ctrl_c(install: Install, start: Start) -> None:
    lend(install, "ada")
    process = start("events", "--follow", "--json", "--kind", "lease", "--limit", "1")
    assert process.stdout is not None
    first = json.loads(process.stdout.readline())
    assert (first["kind"], first["user"]) == ("lease.pending", "ada")
    for server in ("a", "b"):
        lease = lend(install, "grace", server=server)
        event = json.loads(process.stdout.readline())
        assert (event["kind"], event["lease_id"]) == ("lease.pending", lease)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert (process.returncode, out) == (0, "")
    assert "Traceback" not in err


def test_events_are_followed_from_one_on_in_words(install: Install, start: Start) -> None:
    lease = lend(install, "ada")
    newest = install.broker.events.last(1).events[0].id
    process = start("events", "--follow", "--wide", "--after", str(newest - 1))
    assert process.stdout is not None
    line = process.stdout.readline()
    assert f"lease {lease}" in line
    assert "by ada" in line
    process.send_signal(signal.SIGINT)
    process.communicate()
    assert process.returncode == 0


def test_events_to_come_alone_are_followed_by_default(install: Install, start: Start) -> None:
    before = lend(install, "ada")
    process = start("events", "--follow", "--json", "--user", "ada")
    assert process.stdout is not None
    answered = select.poll()
    answered.register(process.stdout, select.POLLIN)
    for number in range(600):
        install.broker.requests.cancel(
            install.broker.requests.create(Person("ada"), "card", 1, str(number)).id, Person("ada")
        )
        if answered.poll(200):
            break
    event = json.loads(process.stdout.readline())
    assert event["kind"].startswith("request.")
    assert event["lease_id"] != before


def test_old_events_are_compacted_by_hand(install: Install) -> None:
    for days_ago in (500, 450):
        lend(install, f"user{days_ago}", days_ago=days_ago)
    ended = install.broker.leases.release_server("user450", "", "stopped", "hub")[0]
    install.broker.leases.confirm_empty(ended.id)
    listed = kinds(install, "--since", "600d")
    dry = install.run("db", "compact", "--dry-run", "--json").json
    assert dry == {"days": 400, "compacted": 1, "kept": 1, "dry_run": True}
    assert kinds(install, "--since", "600d") == listed
    done = install.run("db", "compact")
    assert (done.status, done.out.split()[:2]) == (0, ["1", "event"])
    assert len(kinds(install, "--since", "600d")) == len(listed) - 1
    assert kinds(install, "--user", "user500") == ["lease.pending"]
    (count,) = install.broker.events.counts()
    assert (count.kind, count.user, count.tier, count.number) == (
        *("lease.pending", "user450", "small", 1),
    )
    assert install.run("db", "compact", "--json").json["compacted"] == 0


def test_events_that_are_kept_for_ever_are_not_compacted(install: Install) -> None:
    lend(install, "ada", days_ago=5_000)
    for_ever = install.run("db", "compact", "--MigBroker.event_days=0")
    assert for_ever.status == 0
    assert "forever" in for_ever.out
    assert install.broker.events.counts() == ()
