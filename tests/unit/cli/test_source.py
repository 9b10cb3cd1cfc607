"""Whose settings a command uses: the running hub's, or those of the file."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timezone

import pytest
from traitlets.config import Config
from traitlets.config.loader import DeferredConfigString

from jupyterhub_migspawner.cli import source
from jupyterhub_migspawner.config import MigBroker
from jupyterhub_migspawner.config.file import home_of, load_config_file
from jupyterhub_migspawner.config.resolved import Resolved, resolve
from jupyterhub_migspawner.config.settings import resolved_values
from tests.handovers import offering
from tests.unit.cli.conftest import Answer, Install
from tests.unit.strangers import STRANGER, needs_root


def what_the_hub_read(install: Install, **overrides: str) -> Resolved:
    config, given = load_config_file(install.config), Config()
    for name, value in overrides.items():
        given.MigBroker[name] = DeferredConfigString(value)
    config.merge(given)
    return resolve(
        config,
        resolved_values(MigBroker(config=config)),
        file=install.config,
        text=install.config.read_bytes(),
        overrides=given,
        read_at=datetime(2026, 3, 1, 12, 0, tzinfo=timezone.utc),
    )


@contextmanager
def hub(install: Install, read: Resolved, uid: int = 0) -> Iterator[subprocess.Popen[bytes]]:
    with offering(home_of(install.config), read.to_bytes(), uid) as process:
        yield process


def names(answer: Answer) -> list[str]:
    assert answer.status == 0, answer.err
    return [tier["name"] for tier in answer.json]


def test_the_hubs_while_it_runs(install: Install) -> None:
    read = what_the_hub_read(install)
    install.edit('"name": "hers"', '"name": "his"')
    with hub(install, read):
        assert "hers" in names(install.run("tiers", "--json"))
    assert "his" in names(install.run("tiers", "--json"))


def test_a_change_of_the_file_is_said(install: Install) -> None:
    read = what_the_hub_read(install)
    with hub(install, read):
        assert install.run("tiers", "--json").err == ""
        install.edit('"name": "hers"', '"name": "his"')
        changed = f"{install.config} has changed since the hub (pid {os.getpid()}) read"
        assert changed in install.run("tiers", "--json").err
        doctor = {each["check"]: each for each in install.run("doctor", "--json").json}
        assert doctor["settings"]["state"] == "warning"
        assert changed in doctor["settings"]["message"]
        install.config.unlink()
        assert "cannot be read here any more" in install.run("tiers").err


def test_a_broken_file_stops_no_command_but_the_doctor_says_so(install: Install) -> None:
    read = what_the_hub_read(install)
    install.edit("c.MigBroker.approvers", "c.MigBroker.aprovers")
    with hub(install, read):
        assert "hers" in names(install.run("tiers", "--json"))
        answer = install.run("doctor", "--json")
    assert answer.status == 1
    wrong = [each for each in answer.json if each["state"] == "wrong"]
    assert "did you mean approvers?" in wrong[0]["message"]
    assert "it will not start again" in wrong[0]["mend"]


def test_its_command_line_is_named_and_this_one_goes_first(install: Install) -> None:
    with hub(install, what_the_hub_read(install, warn_minutes="7")):
        assert "its command line (MigBroker.warn_minutes)" in install.run("tiers").err
        assert install.run("tiers", "--json").err == ""
        other = f"sqlite:///{install.directory}/other.sqlite"
        answer = install.run("db", "check", "--json", f"--MigBroker.database_url={other}")
        assert "other.sqlite" in answer.json["database"]


def test_verbose_says_where_they_come_from(install: Install) -> None:
    assert f"read from {install.config}" in install.run("tiers", "-v", "--json").err
    with hub(install, what_the_hub_read(install)):
        answer = install.run("tiers", "--json", "--verbose")
    assert "those of the running hub" in answer.err
    assert names(answer)


def test_a_hub_of_another_version_is_named(install: Install) -> None:
    document = what_the_hub_read(install).to_bytes().replace(b'"format": 1', b'"format": 99')
    with offering(home_of(install.config), document):
        answer = install.run("tiers", "--json")
    assert names(answer)
    assert "another version" in answer.err


def test_of_several_hubs_the_oldest_counts(install: Install) -> None:
    first = what_the_hub_read(install)
    install.edit('"name": "hers"', '"name": "his"')
    second = replace(what_the_hub_read(install), read_at=datetime.now(timezone.utc))
    with hub(install, second), hub(install, first):
        assert "hers" in names(install.run("tiers", "--json"))


def test_the_hubs_way_to_its_database_is_used(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGSSLMODE", "disable")
    monkeypatch.delenv("PGPASSFILE", raising=False)
    ways = {"PGPASSFILE": "/srv/pgpass", "PGSSLMODE": "require"}
    with hub(install, replace(what_the_hub_read(install), ways=ways)):
        assert names(install.run("tiers", "--json"))
    assert os.environ["PGPASSFILE"] == "/srv/pgpass"
    assert os.environ["PGSSLMODE"] == "disable"
    monkeypatch.delenv("PGPASSFILE")


@needs_root
def test_root_believes_no_other_user(install: Install) -> None:
    """With its settings that user could have root run commands and open files."""
    read = what_the_hub_read(install)
    install.edit('"name": "hers"', '"name": "his"')
    with hub(install, read, STRANGER):
        answer = install.run("tiers", "--json")
        assert "his" in names(answer)
        assert f"it runs as #{STRANGER}, to whom {install.config} does not belong" in answer.err
        os.chown(install.config, STRANGER, -1)
        assert "hers" in names(install.run("tiers", "--json"))


def test_a_hub_that_does_not_answer(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = source.ask_running
    monkeypatch.setattr(source, "ask_running", lambda *who: asked(*who, patience=0.1))
    with hub(install, what_the_hub_read(install)) as process:
        process.send_signal(19)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
        answer = install.run("tiers", "--json")
    assert names(answer)
    assert "it does not answer. The configuration file is read instead." in answer.err
