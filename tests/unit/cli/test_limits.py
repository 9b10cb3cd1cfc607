"""Listings on the command line have an end, and the command line no limit of its own."""

from __future__ import annotations

from dataclasses import replace

import pytest

from jupyterhub_migspawner.cli.invocation import USUAL_ROWS
from jupyterhub_migspawner.policy.people import Person
from tests.unit.cli.conftest import Install

ADA = Person("ada", frozenset({"vision"}))
ROOT = Person("root", admin=True)


def test_long_listings_are_cut_and_say_so(install: Install) -> None:
    broker = install.broker
    broker.context.settings = replace(broker.settings, actions_per_minute=0)
    numbers = []
    for _ in range(USUAL_ROWS + 3):
        numbers.append(broker.requests.create(ADA, "card", 2, "x").id)
        broker.requests.cancel(numbers[-1], ROOT)
    cut = install.run("requests", "--json")
    assert [row["id"] for row in cut.json] == numbers[3:]
    assert cut.err.splitlines()[-1] == (
        f"The newest {USUAL_ROWS} are shown; --limit 0 shows all of them."
    )
    every = install.run("requests", "--limit", "0", "--json")
    assert [row["id"] for row in every.json] == numbers
    assert "newest" not in every.err
    few = install.run("requests", "--user", "ada", "--limit", "2", "--json")
    assert [row["id"] for row in few.json] == numbers[-2:]
    assert len(install.run("requests", "--limit", "2", "--wide").out.splitlines()) == 3
    assert "newest" not in install.run("requests", "--limit", str(len(numbers))).err


@pytest.mark.parametrize("words", ["leases --all", "queue", "quotas --all", "requests"])
def test_every_long_listing_takes_a_limit(install: Install, words: str) -> None:
    assert install.run(*words.split(), "--limit", "1").status == 0
    assert install.run(*words.split(), "--limit", "0").status == 0
    for wrong in ("-1", "x", "1.5", "9" * 30):
        assert install.run(*words.split(), f"--limit={wrong}").status == 2


def test_the_command_line_is_not_limited_and_the_hub_is(install: Install) -> None:
    install.config.write_text(install.config.read_text() + "\nc.MigBroker.actions_per_minute = 1\n")
    for _ in range(3):
        made = install.run(
            *("requests", "create", "--user", "ada", "--tier", "card", "--hours", "1"),
            *("--reason", "x", "--json"),
        )
        assert made.status == 0, made.err


@pytest.mark.parametrize("value", ["-1", "1.5", "'many'", "True"])
def test_a_wrong_limit_is_said(install: Install, value: str) -> None:
    install.config.write_text(
        install.config.read_text() + f"\nc.MigBroker.actions_per_minute = {value}\n"
    )
    told = install.run("requests")
    assert told.status == 1
    assert "actions_per_minute" in told.err
