"""``migspawner quotas``: exceptions made, listed and ended from the command line."""

from __future__ import annotations

import pytest

from tests.unit.cli.conftest import Install

LIFT = ("quotas", "lift", "--user", "ada", "--field", "live", "--limit", "3", "--reason", "x")


@pytest.fixture
def limited(install: Install) -> Install:
    """One server at a time."""
    with install.config.open("a") as file:
        file.write('c.MigBroker.quotas = {"default": {"live": 1}}\n')
    return install


def test_an_exception_from_its_making_to_its_end(limited: Install) -> None:
    assert limited.run("quotas", "--user", "ada", "--json").json == [
        {"field": "live", "limit": 1, "used": 0, "frees_at": None, "exceptions": []}
    ]
    made = limited.run(*LIFT, "--until", "7d", "--by", "admin")
    assert made.status == 0
    assert made.out.startswith("Exception 1: ada has live 3 until ")
    said = limited.run("quotas").out
    assert "ada" in said
    assert "admin" in said
    (live,) = limited.run("quotas", "--user", "ada", "--json").json
    assert (live["limit"], live["exceptions"][0]["id"]) == (3, 1)
    assert limited.run("quotas", "restore", "1", "--by", "admin").status == 0
    assert limited.run("quotas").out == "There is no current exception from a quota.\n"
    assert len(limited.run("quotas", "--all", "--json").json) == 1
    assert limited.run("quotas", "restore", "1", "--by", "admin").status == 1


def test_no_limit_until_a_date(limited: Install) -> None:
    words = [word if word != "3" else "none" for word in LIFT]
    assert limited.run(*words, "--until", "7d", "--by", "admin").status == 0
    assert limited.run("quotas", "--user", "ada").out == "ada has no limits.\n"
    assert "no limit" in limited.run("quotas").out


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("--until", "7d", "--by", "grace"), 1, "Only admins"),
        (("--until", "2020-01-01", "--by", "admin"), 1, "in the next 366 days"),
        (("--until", "soon", "--by", "admin"), 2, "'soon'"),
        (("--until", "9999w", "--by", "admin"), 1, "in the next"),
        (("--until", "7d"), 2, "--by"),
        (("--until", "7d", "--by", "admin", "--limit", "lots"), 2, "'lots'"),
        (("--until", "7d", "--by", "admin", "--limit", "1.5"), 1, "whole number"),
        (("--until", "7d", "--by", "admin", "--field", "lives"), 2, "lives"),
    ],
)
def test_what_cannot_be(limited: Install, words: tuple[str, ...], status: int, said: str) -> None:
    answer = limited.run(*LIFT, *words)
    assert answer.status == status
    assert said in answer.err
    assert limited.run("quotas", "--all", "--json").json == []
