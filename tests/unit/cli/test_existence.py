"""A filter that matches nothing says so; a name or number that does not exist is an error."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from jupyterhub_migspawner.policy.people import Person
from tests.unit.cli.conftest import Install

ADA = Person("ada", frozenset({"vision"}))

UNKNOWN = [
    "slices --node nope",
    "cards --node nope",
    "leases --user nobody",
    "leases --all --user nobody",
    "leases adopt --user nobody",
    "sessions --user nobody",
    "queue --user nobody",
    "requests --user nobody",
    "requests drafts --user nobody",
    "quotas --user nobody",
    "notices --user nobody",
    "tiers --user nobody",
    "events --user nobody",
    "events --lease 999",
    "events --request 999",
    "events --card GPU-999",
    "events --after 9999999",
    "events --follow --user nobody",
    "events --follow --lease 999",
    "leases release 999",
    "sessions extend 999 --by ada",
    "queue leave 999 --by admin",
    "requests cancel 999 --by admin",
    "requests approve 999 --by admin",
    "requests drafts file 999 --user ada",
    "quotas restore 999 --by admin",
    "cards drain GPU-999",
    "cards resume GPU-999",
]


NAMES = ("nope", "nobody")


def hub_database(path: Path, *users: str) -> None:
    """The tables of a hub's database that are looked at."""
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT)")
        connection.execute("CREATE TABLE groups (id INTEGER PRIMARY KEY, name TEXT)")
        connection.executemany("INSERT INTO users (name) VALUES (?)", [(user,) for user in users])
    connection.close()


@pytest.mark.parametrize("words", UNKNOWN)
@pytest.mark.parametrize("as_json", [False, True])
def test_what_does_not_exist_is_an_error_that_names_it(
    install: Install, words: str, as_json: bool
) -> None:
    hub_database(install.directory / "jupyterhub.sqlite", "ada")
    answer = install.run(*words.split(), *(["--json"] if as_json else []))
    assert (answer.status, answer.out) == (1, "")
    named = next(word for word in words.split() if word.strip("GPU-9") == "" or word in NAMES)
    assert named in answer.err
    assert answer.err.splitlines()[-1].startswith("migspawner: ")


@pytest.mark.parametrize("words", [words for words in UNKNOWN if "nobody" in words])
def test_a_user_whom_only_the_hub_knows_is_no_error(install: Install, words: str) -> None:
    if "--follow" in words:
        return
    hub_database(install.directory / "jupyterhub.sqlite", "nobody")
    answer = install.run(*words.split())
    assert answer.status == 0, answer.err
    assert answer.out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("leases", "Nobody holds a slice. Past leases: --all."),
        ("leases --all", "There are no leases yet."),
        ("leases --user ada", "ada holds no slice. Past leases: --all."),
        ("leases --user ada --all", "ada has had no lease yet."),
        ("sessions --user ada", "No session of ada is running."),
        ("queue --user ada", "ada is not in the waiting list."),
        ("requests --user ada", "ada has made no request yet."),
        ("events --user ada --kind lease", "No event matches --kind and --user."),
        ("leases adopt --user ada", "No server of ada runs without a lease."),
    ],
)
def test_an_empty_answer_is_about_what_was_asked(install: Install, words: str, said: str) -> None:
    answer = install.run(*words.split())
    assert (answer.status, answer.out) == (0, f"{said}\n")


@pytest.mark.parametrize(
    "words",
    [
        "requests create --user {} --tier card --hours 1 --reason x",
        "queue join --user {} --tier small",
        "requests drafts save --user {} --reason x",
    ],
)
def test_nothing_is_asked_for_a_user_whom_nothing_knows(install: Install, words: str) -> None:
    hub_database(install.directory / "jupyterhub.sqlite", "newcomer")
    before = install.broker.events.last(1)
    refused = install.run(*words.format("nobody").split())
    assert (refused.status, refused.out) == (1, "")
    assert "There is no user 'nobody'" in refused.err
    assert "allowed_users" in refused.err
    assert install.broker.events.last(1) == before
    near = install.run(*words.format("newcomr").split())
    assert "did you mean 'newcomer'?" in near.err
    assert install.run(*words.format("newcomer").split()).status in (0, 1)
    assert "There is no user" not in install.run(*words.format("newcomer").split()).err


def test_a_hub_database_that_cannot_be_read_refuses_nobody(install: Install) -> None:
    (install.directory / "jupyterhub.sqlite").write_text("no database at all")
    words = "requests create --user newcomer --tier card --hours 1 --reason x"
    made = install.run(*words.split())
    assert made.status == 0
    assert "hub's database cannot be read" in made.err
    assert "Check that the name is right" in made.err
    listed = install.run("leases", "--user", "nobody")
    assert listed.status == 1
    assert "hub's database cannot be read" in listed.err


@pytest.mark.parametrize(
    "words",
    [
        "quotas lift --user newcomer --field live --limit 3 --until 7d --reason x --by admin",
        "notices choose --user newcomer --off sessions",
    ],
)
def test_what_may_be_settled_beforehand_is_done_with_a_warning(
    install: Install, words: str
) -> None:
    done = install.run(*words.split())
    assert done.status == 0
    assert "There is no user 'newcomer'" in done.err
    assert "as soon as a user with that name logs in" in done.err
    # From then on the lease database has the name.
    assert "no user" not in install.run(*words.split()).err


def test_a_user_of_the_past_is_known_though_the_hub_has_deleted_them(install: Install) -> None:
    hub_database(install.directory / "jupyterhub.sqlite", "grace")
    install.broker.leases.acquire(Person("left"), "", "small", "attempt-1")
    assert install.run("requests", "--user", "left").status == 0


def test_a_node_without_cards_yet_is_known_by_its_configuration(install: Install) -> None:
    install.edit('c.MigBroker.node = "n1"', 'c.MigBroker.node = "n2"')
    assert install.run("slices", "--node", "n2").out == "Node n2 has reported no card yet.\n"
    assert install.run("slices", "--node", "n1").status == 0
    unknown = install.run("slices", "--node", "n12")
    assert "did you mean 'n1'?" in unknown.err
    assert "There is 'n1'." in unknown.err


def test_the_passwords_of_the_hubs_database_are_not_shown(install: Install) -> None:
    with install.config.open("a") as file:
        file.write('c.JupyterHub.db_url = "postgresql://hub:hunter2@127.0.0.1:1/hub"\n')
    listed = install.run("leases", "--user", "nobody")
    assert listed.status == 1
    assert "hunter2" not in listed.err
