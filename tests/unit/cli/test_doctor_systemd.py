"""What the doctor says about servers in units of systemd."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from jupyterhub_migspawner.cli.doctor import systemd
from jupyterhub_migspawner.errors import UnitError
from jupyterhub_migspawner.spawner.launchers import units
from tests.unit.cli.conftest import Install


class Machine:
    """What the doctor finds of systemd; a good machine, unless a test says otherwise."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.unified = tmp_path / "cgroup.controllers"
        self.unified.touch()
        self._patch = monkeypatch
        self._patch.setattr(systemd, "UNIFIED", self.unified)
        self._patch.setattr(os, "geteuid", lambda: 0)
        self.version(252)
        self.problem("")
        self.rules("")

    def version(self, number: int | None) -> None:
        self._patch.setattr(systemd, "systemd_version", lambda: number)

    def problem(self, why: str) -> None:
        self._patch.setattr(units, "problem", lambda: why)

    def rules(self, why: str | UnitError) -> None:
        def tried() -> str:
            if isinstance(why, UnitError):
                raise why
            return why

        self._patch.setattr(units, "rules_problem", tried)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


def findings(install: Install, *settings: str) -> list[tuple[str, str, str]]:
    lines = ["c.JupyterHub.spawner_class = 'mig-systemd'", *settings]
    with install.config.open("a") as file:
        file.write("".join(f"{line}\n" for line in lines))
    checks = ("systemd", "isolation", "limits")
    found: list[dict[str, Any]] = install.run("doctor", "--json").json
    assert all(each["mend"] for each in found if each["state"] != "ok")
    return [(e["check"], e["state"], e["message"]) for e in found if e["check"] in checks]


def test_a_machine_on_which_units_work(install: Install, machine: Machine) -> None:
    install.edit('"profile": "1g.5gb"', '"profile": "1g.5gb", "cpus": 2')
    assert findings(install) == [
        ("systemd", "ok", "systemd 252, one hierarchy of control groups."),
        ("isolation", "ok", "Servers can open their own slice only (systemd)."),
    ]


def test_a_machine_without_systemd(install: Install, machine: Machine) -> None:
    machine.problem("systemd is not the first process of this machine.")
    ((check, state, message),) = findings(install)
    assert (check, state) == ("systemd", "wrong")
    assert message.endswith("No server can start.")


@pytest.mark.parametrize("version", [None, 241])
def test_a_systemd_that_is_too_old(install: Install, machine: Machine, version: int | None) -> None:
    machine.version(version)
    (check, state, message), _ = findings(install)
    assert (check, state) == ("systemd", "wrong")
    assert "247 is needed" in message


def test_control_groups_of_older_kernels(install: Install, machine: Machine) -> None:
    machine.unified.unlink()
    (check, state, message), _ = findings(install)
    assert (check, state) == ("systemd", "warning")
    assert "control groups of older kernels" in message


@pytest.mark.parametrize(
    ("isolation", "state"), [("auto", "warning"), ("systemd", "wrong"), ("none", "warning")]
)
def test_rules_without_effect(
    install: Install, machine: Machine, isolation: str, state: str
) -> None:
    machine.rules("Device rules have no effect.")
    _, (check, found, _) = findings(install, f"c.MigSystemdSpawner.isolation = '{isolation}'")
    assert (check, found) == ("isolation", state)


def test_a_unit_that_cannot_be_tried(install: Install, machine: Machine) -> None:
    machine.rules(UnitError("No unit can be started: no."))
    assert findings(install)[1][:2] == ("isolation", "wrong")


def test_what_only_root_can_try_is_left_to_root(
    install: Install, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    _, (check, state, message) = findings(install)
    assert (check, state) == ("isolation", "warning")
    assert "Only root can try" in message


@pytest.mark.parametrize("owner", ["SystemdSpawner", "MigSystemdSpawner"])
def test_settings_that_weaken_units_or_are_not_used(
    install: Install, machine: Machine, owner: str
) -> None:
    settings = [f"c.{owner}.disable_user_sudo = False"]
    settings += [f"c.{owner}.unit_name_template = 'mine-{{USERNAME}}'"]
    _, _, sudo, name = findings(install, *settings)
    assert sudo[:2] == ("isolation", "warning")
    assert "become root" in sudo[2]
    assert name[:2] == ("systemd", "warning")
    assert "unit_name_template is set and not used" in name[2]


def test_the_version_is_read_from_systemd_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "systemctl"
    tool.write_text("#!/bin/sh\necho 'systemd 249 (249.11-0ubuntu3.9)'; echo +PAM\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert systemd.systemd_version() == 249
    tool.write_text("#!/bin/sh\nexit 1\n")
    assert systemd.systemd_version() is None
    monkeypatch.setenv("PATH", "/nonexistent")
    assert systemd.systemd_version() is None
