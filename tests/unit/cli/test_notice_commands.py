"""Notices and drafts by command line."""

from __future__ import annotations

import re

import pytest

from jupyterhub_migspawner.policy.notices import TOPICS
from tests.sinks import hook, refused_port
from tests.unit.cli.conftest import Install

SECRET = "hunter2T0K3N"


def configure(install: Install, notices: str) -> None:
    install.edit(
        'c.MigBroker.node = "n1"', f'c.MigBroker.node = "n1"\nc.MigBroker.notices = {notices}'
    )


def test_channels_are_listed_and_tried(install: Install) -> None:
    assert "Nobody is notified" in install.run("notices").out
    assert (
        "has no channel to try; it has channels for: nobody" in install.run("notices", "test").err
    )
    with hook() as web:
        bad = f"json://127.0.0.1:{refused_port()}/{SECRET}"
        configure(
            install,
            f"{{'admins': ['{web.url}/admins'], 'approvers': ['{bad}'], "
            f"'users': ['{web.url}/{{user}}']}}",
        )
        listed = install.run("notices", "--json").json
        assert [row["channel"] for row in listed] == [
            "admins[0] (json)",
            "approvers[0] (json)",
            "users[0] (json)",
        ]
        tried = install.run("notices", "test", "--json")
        assert tried.status == 1
        assert [row["sent"] for row in tried.json] == [True, False]
        assert "onnection" in tried.json[1]["problem"]
        assert SECRET not in tried.out + tried.err
        assert install.run("notices", "test", "--to", "admins").status == 0
        assert install.run("notices", "test", "--to", "user:ada").status == 0
        assert [path for path, _ in web.heard] == ["/admins", "/admins", "/ada"]
        strange = install.run("notices", "test", "--to", "user:a b", "--json")
        assert strange.status == 1
        assert "no name or address" in strange.json[0]["problem"]
        nobody = install.run("notices", "test", "--to", "group:pi")
        assert nobody.status == 1
        assert "no channel for 'group:pi'" in nobody.err


def test_an_address_that_cannot_be_found_is_said(install: Install) -> None:
    configure(install, "{'users': ['json://x/{address}'], 'addresses': lambda user: 1 / 0}")
    answer = install.run("notices", "test", "--to", "user:ada")
    assert answer.status == 1
    assert "'addresses' fails for 'ada': ZeroDivisionError" in answer.err


def test_doctor_names_a_channel_that_apprise_does_not_know(install: Install) -> None:
    configure(install, f"{{'admins': ['bogus://{SECRET}/x', 'json://x/{SECRET}']}}")
    answer = install.run("doctor", "--json")
    assert answer.status == 1
    [finding] = [found for found in answer.json if found["check"] == "notices"]
    assert finding["state"] == "wrong"
    assert "admins[0] (bogus) is not a URL that Apprise can use" in finding["message"]
    assert SECRET not in answer.out + answer.err
    listed = install.run("notices", "--json").json
    assert ["not a URL" in row["problem"] for row in listed] == [True, False]


def test_doctor_says_when_nobody_is_told_and_how_to_try_it(install: Install) -> None:
    def said() -> str:
        findings = install.run("doctor", "--json").json
        return next(found["message"] for found in findings if found["check"] == "notices")

    assert said() == "Nobody is notified: MigBroker.notices is empty."
    configure(install, "{'admins': ['json://x']}")
    assert said() == "1 channel; `migspawner notices test` sends to them."


ASK = ("requests", "create", "--user", "ada", "--tier", "card", "--hours", "4", "--reason", "x")


@pytest.mark.parametrize(
    ("notices", "sentence"),
    [
        (f"['json://{SECRET}']", "MigBroker.notices is a list; expected a dict such as"),
        (f"{{'admin': ['json://{SECRET}']}}", "there is no key 'admin' (did you mean 'admins'?)"),
    ],
)
def test_a_mistake_is_said_without_secrets(install: Install, notices: str, sentence: str) -> None:
    configure(install, notices)
    answer = install.run("tiers")
    assert answer.status == 1
    assert sentence in answer.err
    assert SECRET not in answer.err


def test_what_a_user_is_told(install: Install) -> None:
    every = dict.fromkeys(TOPICS, True)
    assert install.run("notices", "--user", "ada", "--json").json == every
    chosen = install.run(
        "notices", "choose", "--user", "ada", "--off", "offers", "sessions", "--json"
    )
    assert chosen.json == {**every, "offers": False, "sessions": False}
    told = install.run("notices", "choose", "--user", "ada", "--on", "offers", "--off", "requests")
    assert told.out == "ada gets notices of: offers.\n"
    assert re.search(r"sessions +no", install.run("notices", "--user", "ada").out)
    both = install.run("notices", "choose", "--user", "ada", "--on", "offers", "--off", "offers")
    assert both.status == 1
    assert "offers is in both --on and --off" in both.err
    assert install.run("notices", "choose", "--user", "ada", "--on", "weather").status == 2


def test_a_draft_from_its_first_word_to_a_request(install: Install) -> None:
    drafts = ("requests", "drafts")
    assert "ada has no drafts" in install.run(*drafts, "--user", "ada").out
    saved = install.run(*drafts, "save", "--user", "ada", "--tier", "card", "--json").json
    number = str(saved["id"])
    refused = install.run(*drafts, "file", number, "--user", "ada")
    assert refused.status == 1
    assert "hours" in refused.err
    assert install.run(*drafts, "file", number, "--user", "grace").status == 1
    written = install.run(
        *(*drafts, "save", "--user", "ada", "--id", number, "--tier", "card"),
        *("--hours", "4", "--reason", "a run"),
    )
    assert written.out == f"Draft {number} of ada is kept.\n"
    assert "a run" in install.run(*drafts, "--user", "ada").out
    filed = install.run(*drafts, "file", number, "--user", "ada", "--json").json
    assert (filed["user"], filed["hours"], filed["state"]) == ("ada", 4, "pending")
    assert install.run(*drafts, "--user", "ada", "--json").json == []
    other = install.run(*drafts, "save", "--user", "ada", "--json").json["id"]
    assert install.run(*drafts, "drop", str(other), "--user", "eve").status == 1
    assert install.run(*drafts, "drop", str(other), "--user", "ada").status == 0
    assert install.run(*drafts).status == 2


def test_a_grant_is_revoked(install: Install) -> None:
    number = str(install.run(*ASK, "--json").json["id"])
    early = install.run("requests", "revoke", number, "--by", "admin", "--reason", "x")
    assert early.status == 1
    assert "is pending; only a grant can be revoked" in early.err
    install.run("requests", "approve", number, "--by", "admin")
    assert install.run("requests", "revoke", number, "--by", "admin").status == 2
    refused = install.run("requests", "revoke", number, "--by", "ada", "--reason", "x")
    assert refused.status == 1
    done = install.run("requests", "revoke", number, "--by", "grace", "--reason", "a fire")
    assert (done.status, done.out) == (
        0,
        f"Grant {number} of ada is revoked: no server runs on it.\n",
    )
    assert install.run("requests", "--json").json[0]["decision_reason"] == "a fire"


def test_a_request_for_a_coming_time(install: Install) -> None:
    for moment in ("yesterday", "2020-01-01", "2099-01-01"):
        assert install.run(*ASK, "--from", moment).status in (1, 2), moment
