"""Names of people on the command line and in the file are the hub's, and doctor knows them."""

from __future__ import annotations

import sqlite3

import pytest

from tests.unit.cli.conftest import Install

FINDINGS = "names"


def hub_database(install: Install, users: list[str], groups: list[str]) -> None:
    """The tables of a hub's database that are looked at."""
    with sqlite3.connect(install.directory / "jupyterhub.sqlite") as connection:
        for table, names in (("users", users), ("groups", groups)):
            connection.execute(f"CREATE TABLE {table} (id INTEGER PRIMARY KEY, name TEXT)")
            connection.executemany(
                f"INSERT INTO {table} (name) VALUES (?)", [(name,) for name in names]
            )
    connection.close()


def names_found(install: Install) -> list[dict[str, str]]:
    answer = install.run("doctor", "--json")
    return [each for each in answer.json if each["check"] == FINDINGS]


def test_doctor_names_whom_the_hub_has_never_seen_as_a_hint(install: Install) -> None:
    install.edit('"users": ["grace"]}', '"users": ["Grace", "adda"]}')
    install.edit('["group:pi"]', '["group:pi", "user:Eve", {"approvers": ["group:heads"]}]')
    hub_database(install, ["ada", "grace", "eve"], ["pi"])
    users, groups = names_found(install)
    assert (users["state"], groups["state"]) == ("warning", "warning")
    assert "never seen the user 'adda' (tier 'hers') (did you mean 'ada'?)" in users["message"]
    assert "groups 'heads' (approvers) and 'vision' (tier 'large')" in groups["message"]
    assert "Correct misspelt names" in users["mend"]


def test_doctor_is_content_where_the_hub_knows_everybody(install: Install) -> None:
    hub_database(install, ["grace"], ["pi", "vision"])
    (found,) = names_found(install)
    assert found["state"] == "ok"


def test_doctor_is_silent_where_no_hub_has_started_yet(install: Install) -> None:
    assert names_found(install) == []


def test_doctor_says_when_the_hubs_database_cannot_be_read(install: Install) -> None:
    (install.directory / "jupyterhub.sqlite").write_text("this is none, and long enough for one")
    (found,) = names_found(install)
    assert found["state"] == "warning"
    assert "cannot be checked" in found["message"]


def test_a_long_list_of_unknown_names_is_cut(install: Install) -> None:
    install.edit('"users": ["grace"]}', f'"users": {[f"u{n:02}" for n in range(30)]}}}')
    hub_database(install, ["ada"], ["pi", "vision"])
    (found,) = names_found(install)
    assert "'u09' (tier 'hers') and 20 more" in found["message"]
    assert "u10" not in found["message"]


@pytest.mark.parametrize("name", ["Ada", "ADA"])
def test_a_name_that_is_typed_is_the_hubs(install: Install, name: str) -> None:
    made = install.run(
        *("requests", "create", "--user", name, "--tier", "card", "--hours", "2"),
        *("--reason", "training", "--json"),
    ).json
    assert made["user"] == "ada"
    assert [each["id"] for each in install.run("requests", "--user", name, "--json").json] == [1]
    denied = install.run("requests", "approve", "1", "--by", name)
    assert denied.status == 1  # her own, however she writes her name
    assert install.run("requests", "approve", "1", "--by", "Grace", "--json").json[
        "decided_by"
    ] == ("grace")


def test_groups_and_admins_of_the_file_are_the_hubs_users(install: Install) -> None:
    install.edit('"vision": ["ada"]', '"vision": ["Ada"]')
    install.edit('admin_users = {"admin"}', 'admin_users = {"Admin"}')
    tiers = [each["name"] for each in install.run("tiers", "--user", "ada", "--json").json]
    assert "large" in tiers
    lifted = install.run(
        *("quotas", "lift", "--user", "Ada", "--field", "live", "--limit", "3"),
        *("--until", "7d", "--reason", "deadline", "--by", "admin", "--json"),
    ).json
    assert (lifted["user"], lifted["granted_by"]) == ("ada", "admin")
