"""Sessions by command line: listed with what becomes of them, extended, protected; the doctor."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from jupyterhub_migspawner.broker.readings import Answer
from jupyterhub_migspawner.cli.doctor import dcgm
from jupyterhub_migspawner.gpu.nvml import Nvml
from jupyterhub_migspawner.gpu.simulator import create_state
from jupyterhub_migspawner.policy.people import Person
from jupyterhub_migspawner.policy.reclaim import KERNELS, PROCESSES
from tests.exporters import HEAD, Site, line, page
from tests.unit.cli.conftest import Install


@pytest.fixture
def idle(install: Install) -> Install:
    install.edit(
        '"profile": "1g.5gb", "default"', '"profile": "1g.5gb", "idle_minutes": 60, "default"'
    )
    return install


def run(install: Install, user: str = "ada") -> str:
    """A session that both sources have been asked about; its lease's number."""
    broker = install.broker
    lease = broker.leases.acquire(Person(user), "", "small", f"attempt of {user}")
    assert lease is not None
    broker.leases.activate(lease.attempt)
    broker.readings.note([Answer(lease.id, source, "x") for source in (KERNELS, PROCESSES)])
    return str(lease.id)


def test_sessions_are_listed_with_what_becomes_of_them(idle: Install) -> None:
    assert "No session is running" in idle.run("sessions").out
    number = run(idle)
    run(idle, "grace")
    (row,) = idle.run("sessions", "--user", "ada", "--json").json
    assert (row["lease"], row["rule"], row["unknown"]) == (int(number), "idle", [])
    assert [each["source"] for each in row["signals"]] == [KERNELS, PROCESSES]
    assert len(idle.run("sessions", "--json").json) == 2
    assert "IDLE SINCE" in idle.run("sessions").out


def test_a_session_is_extended_and_protected(idle: Install) -> None:
    number = run(idle)
    refused = idle.run("sessions", "extend", number, "--by", "eve")
    assert refused.status == 1
    assert "There is no lease" in refused.err
    done = idle.run("sessions", "extend", number, "--by", "ada", "--json").json
    assert done["extended_until"]
    words = ("sessions", "protect", number, "--until", "2d", "--reason", "a deadline", "--by")
    assert "Only admins" in idle.run(*words, "ada").err
    protected = idle.run(*words, "admin", "--json").json
    assert (protected["protected_by"], protected["protected_why"]) == ("admin", "a deadline")
    assert "no longer protected" in idle.run("sessions", "unprotect", number, "--by", "admin").out
    assert idle.run("sessions", "--json").json[0]["protected_until"] is None
    kinds = [event["kind"] for event in idle.run("events", "--user", "ada", "--json").json]
    assert kinds[-3:] == ["lease.extended", "lease.protected", "lease.protected"]
    assert idle.run("sessions", "extend", "99", "--by", "ada").status == 1
    assert idle.run("sessions", "protect", number, "--by", "admin").status == 2


def said(install: Install) -> list[tuple[str, str]]:
    findings = install.run("doctor", "--json").json
    return [(each["state"], each["message"]) for each in findings if each["check"] == "culler"]


def test_the_doctor_says_when_two_would_end_idle_servers(idle: Install) -> None:
    assert said(idle) == [
        ("ok", "Idle sessions of small end; nothing else in this file ends them.")
    ]
    line = "c.JupyterHub.cleanup_servers = False"
    culler = '["python3", "-m", "jupyterhub_idle_culler", "--timeout=3600"]'
    idle.edit(line, f'{line}\nc.JupyterHub.services = [{{"name": "cull", "command": {culler}}}]')
    ((state, message),) = said(idle)
    assert state == "warning"
    assert "the service 'cull'" in message
    idle.edit(line, f'{line}\nc.Spawner.args = ["--MappingKernelManager.cull_idle_timeout=60"]')
    assert "the service 'cull' and c.Spawner.args" in said(idle)[0][1]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (
            'c.JupyterHub.services.append({"name": "cull", "command": ["jupyterhub-idle-culler"]})',
            "the service 'cull'",
        ),
        (
            'c.JupyterHub.services.extend([{"name": "x", "command": "python3 -m '
            'jupyterhub_idle_culler --timeout=9"}])',
            "the service 'x'",
        ),
        (
            'c.Spawner.args.append("--MappingKernelManager.cull_idle_timeout=600")',
            "c.Spawner.args",
        ),
        (
            'c.LocalProcessSpawner.args = ["--ServerApp.shutdown_no_activity_timeout=600"]',
            "c.LocalProcessSpawner.args",
        ),
        (
            'c.JupyterHub.load_roles.append({"name": "r", "services": ["away"], '
            '"scopes": ["list:users", "read:users:activity", "delete:servers"]})',
            "perhaps the service 'away'",
        ),
        (
            'c.JupyterHub.load_roles.append({"name": "r", "services": ["broad"], '
            '"scopes": ["users", "admin:servers"]})',
            "perhaps the service 'broad'",
        ),
        (
            'c.Spawner.args = ["--TerminalManager.cull_inactive_timeout=600"]',
            "c.Spawner.args",
        ),
    ],
)
def test_the_doctor_finds_another_culler_however_it_is_written(
    idle: Install, line: str, words: str
) -> None:
    setting = "c.JupyterHub.cleanup_servers = False"
    idle.edit(setting, f"{setting}\n{line}")
    ((state, message),) = said(idle)
    assert (state, words in message) == ("warning", True), message


@pytest.mark.parametrize(
    ("command", "seconds"),
    [
        ('["jupyterhub-idle-culler"]', None),
        ('["python3", "-m", "jupyterhub_idle_culler", "--timeout", "300"]', 300),
        ('"jupyterhub-idle-culler --IdleCuller.timeout=9"', 9),
        ('["jupyterhub-idle-culler", "--timeout=599"]', 599),
        ('["jupyterhub-idle-culler", "--api-page-size=5", "--timeout=3600"]', None),
    ],
)
def test_the_doctor_says_which_culler_does_not_wait_for_the_hub_to_be_told(
    idle: Install, command: str, seconds: int | None
) -> None:
    line = "c.JupyterHub.cleanup_servers = False"
    idle.edit(line, f'{line}\nc.JupyterHub.services = [{{"name": "cull", "command": {command}}}]')
    ((_, message),) = said(idle)
    assert ("'cull' ends work even so" in message) == (seconds is not None)
    assert seconds is None or f"it waits {seconds} seconds" in message


def test_what_is_switched_off_ends_nothing(idle: Install) -> None:
    setting = "c.JupyterHub.cleanup_servers = False"
    off = '["--MappingKernelManager.cull_idle_timeout=0"]'
    idle.edit(setting, f"{setting}\nc.Spawner.args = {off}")
    assert [state for state, _ in said(idle)] == ["ok"]


def test_the_doctor_says_nothing_of_it_where_nothing_is_ended(install: Install) -> None:
    line = "c.JupyterHub.cleanup_servers = False"
    install.edit(
        line,
        f'{line}\nc.Spawner.cmd = ["jupyterhub-singleuser", "--shutdown_no_activity_timeout=9"]',
    )
    assert said(install) == []


def test_a_longer_time_than_there_is_is_named(idle: Install) -> None:
    number = run(idle)
    until = idle.broker.now() + timedelta(days=200)
    words = ("sessions", "protect", number, "--until", f"{until:%Y-%m-%dT%H:%M}", "--by", "admin")
    assert "the next 90 days" in idle.run(*words, "--reason", "x").err


def test_the_doctor_says_whether_dcgm_tells_of_every_slice(idle: Install) -> None:
    def said() -> list[tuple[str, str]]:
        findings = idle.run("doctor", "--json").json
        return [(each["state"], each["message"]) for each in findings if each["check"] == "dcgm"]

    assert said() == []
    site = Site()
    try:
        setting = "c.JupyterHub.cleanup_servers = False"
        idle.edit(setting, f'{setting}\nc.MigBroker.dcgm_url = "{site.url}"')
        rows = [status.row for status in idle.broker.slices.find()]
        lines = [line(0, str(row.gi_id), row.card_uuid) for row in rows]
        site.answer = page((HEAD + "".join(lines)).encode())
        ((state, message),) = said()
        assert state == "ok"
        assert f"reports {len(rows)} slices" in message
        site.answer = page((HEAD + "".join(lines[1:])).encode())
        ((state, message),) = said()
        assert state == "wrong"
        assert f"reports nothing about 1 slice of {len(rows)}" in message
    finally:
        site.close()
    ((state, message),) = said()
    assert (state, "does not answer" in message) == ("wrong", True)


def test_what_nvml_measures_itself_the_exporter_need_not_tell(tmp_path: Path) -> None:
    create_state(tmp_path / "cards.json", cards=1, model="h100", layouts=[["1g.10gb"] * 2])
    nvml, site = Nvml(f"sim:{tmp_path / 'cards.json'}"), Site()
    try:
        site.answer = page(HEAD.encode())
        (finding,) = dcgm.check(site.url, nvml)
    finally:
        site.close()
        nvml.close()
    assert (finding.state, finding.message) == ("ok", f"The dcgm-exporter at {site.url} is there.")


@pytest.mark.parametrize("url", ["localhost:9400", "ftp://x/", "http://a:b@x/", "http:///metrics"])
def test_an_exporter_that_is_no_web_address_is_refused(idle: Install, url: str) -> None:
    setting = "c.JupyterHub.cleanup_servers = False"
    idle.edit(setting, f'{setting}\nc.MigBroker.dcgm_url = "{url}"')
    ran = idle.run("sessions")
    assert ran.status == 1
    assert "MigBroker.dcgm_url is" in ran.err


def test_the_doctor_names_sessions_of_a_tier_that_is_gone(idle: Install) -> None:
    run(idle)
    assert [state for state, _ in said(idle)] == ["ok"]
    idle.edit('"name": "small"', '"name": "tiny"')
    warnings = [message for state, message in said(idle) if state == "warning"]
    assert any("'small', which is no longer a tier" in message for message in warnings)


def test_the_doctor_says_when_sessions_are_looked_at_too_seldom(idle: Install) -> None:
    idle.edit('"idle_minutes": 60', '"idle_minutes": 60, "idle_minutes_when_wanted": 5')
    warnings = [message for state, message in said(idle) if state == "warning"]
    assert len(warnings) == 1
    assert "Tier 'small' lets sessions be idle for 5 minutes" in warnings[0]
    idle.edit('"idle_minutes_when_wanted": 5', '"idle_minutes_when_wanted": 6')
    assert [state for state, _ in said(idle)] == ["ok"]
