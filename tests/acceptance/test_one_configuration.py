"""One configuration, read once: what the hub read is what its service, agent and commands use."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.acceptance.hubs import Hub

SECRET = "T0pSecret"

EXTRA = """
import os
c.ConfigurableHTTPProxy.auth_token = os.environ["CONFIGPROXY_AUTH_TOKEN"]
ALLOWED = os.environ["JUPYTERHUB_LAB_MEMBER"]
c.MigBroker.tiers = [
    {"name": "cpu", "profile": "none"},
    {"name": "small", "profile": os.environ.get("JUPYTERHUB_GPU_PROFILE", "3g.20gb")},
    {"name": "mine", "profile": "2g.10gb", "allow": lambda person: person.name == ALLOWED},
]
c.MigBroker.notices = {"admins": ["json://127.0.0.1:9/T0pSecret"]}
c.MigBroker.tick_seconds = 0.2
"""


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    directory = tmp_path_factory.mktemp("hub")
    made = Hub(directory, layouts=[["3g.20gb", "2g.10gb", "1g.5gb"]], extra=EXTRA)
    made.environ = {
        "CONFIGPROXY_AUTH_TOKEN": f"{SECRET}-proxy",
        "JUPYTERHUB_LAB_MEMBER": "ada",
        "JUPYTERHUB_GPU_PROFILE": "1g.5gb",
    }
    made.overrides = {"database_url": f"sqlite:///{directory}/elsewhere.sqlite"}
    with made.running():
        for name in ("ada", "bob"):
            assert made.api("POST", f"users/{name}")[0] == 201
        yield made


def profiles(hub: Hub) -> dict[str, str]:
    status, tiers = hub.service("GET", "tiers", token=hub.token_of("ada"))
    assert status == 200, tiers
    return {tier["name"]: tier["profile"] for tier in tiers}


def test_the_service_uses_what_the_hub_read(hub: Hub) -> None:
    assert profiles(hub) == {"cpu": "none", "small": "1g.5gb", "mine": "2g.10gb"}
    assert (hub.directory / "elsewhere.sqlite").exists()
    assert not (hub.directory / "migspawner.sqlite").exists()


def test_a_function_decides_with_the_hubs_environment(hub: Hub) -> None:
    assert "mine" in profiles(hub)
    status, tiers = hub.service("GET", "tiers", token=hub.token_of("bob"))
    assert status == 200
    assert "mine" not in [tier["name"] for tier in tiers]
    for user, allowed in (("ada", True), ("bob", False)):
        tiers = hub.cli("tiers", "--user", user)
        assert ("mine" in [tier["name"] for tier in tiers]) is allowed


def test_the_hub_lends_what_the_service_shows(hub: Hub) -> None:
    status, answer = hub.api("POST", "users/bob/server", {"tier": "small"})
    assert status in (201, 202), answer
    (lease,) = [each for each in hub.cli("leases") if each["user"] == "bob"]
    (slice_,) = [each for each in hub.cli("slices") if each["uuid"] == lease["slice_uuid"]]
    assert slice_["profile"] == "1g.5gb"


def test_the_command_line_uses_it_and_says_so(hub: Hub) -> None:
    tiers = {tier["name"]: tier["profile"] for tier in hub.cli("tiers")}
    assert tiers["small"] == "1g.5gb"
    said = hub.run_cli("tiers").stderr
    assert "The settings are those of the running hub (pid" in said
    assert "its command line (MigBroker.database_url)" in said
    assert "JUPYTERHUB_GPU_PROFILE" in said
    assert hub.run_cli("tiers", "--json").stderr == ""
    assert "of the running hub" in hub.run_cli("tiers", "--json", "-v").stderr


def test_the_doctor_looks_at_both(hub: Hub) -> None:
    findings = json.loads(hub.run_cli("doctor", "--json").stdout)
    (settings,) = [each for each in findings if each["check"] == "settings"]
    assert settings["state"] == "ok"
    assert "of the running hub" in settings["message"]
    valid, here = [each for each in findings if each["check"] == "configuration"]
    assert valid["state"] == "ok"
    assert here["state"] == "warning"
    assert "needs the environment variable CONFIGPROXY_AUTH_TOKEN" in here["message"]


def test_no_secret_is_in_an_argument_or_in_an_environment(hub: Hub) -> None:
    pids = hub.service_pids()
    assert pids
    looked = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            line = (entry / "cmdline").read_bytes()
            environ = (entry / "environ").read_bytes()
        except OSError:
            continue
        if b"jupyterhub_migspawner.service" in line and str(hub.config).encode() in line:
            looked.append(int(entry.name))
            assert SECRET.encode() not in line + environ
            assert not [each for each in environ.split(b"\0") if each.startswith(b"CONFIGPROXY_")]
    assert set(pids) <= set(looked)
    for path in hub.directory.rglob("*"):
        if path.is_file() and path not in (hub.config, hub.directory / "hub.log"):
            content = b""
            with suppress(FileNotFoundError):  # SQLite's journals come and go
                content = path.read_bytes()
            assert f"{SECRET}-proxy".encode() not in content, path


def test_a_changed_file_counts_at_the_next_start_of_the_hub(hub: Hub) -> None:
    before = hub.config.read_text()
    try:
        hub.config.write_text(before + "\nc.MigBroker.tiers = [this is wrong\n")
        hub.kill_service()
        hub.until(lambda: bool(hub.service_pids()))
        hub.until(hub.service_answers)
        assert profiles(hub)["small"] == "1g.5gb"
        done = hub.run_cli("tiers", "--json")
        assert done.returncode == 0
        assert f"{hub.config} has changed since the hub" in done.stderr
        assert "it will not start again" in hub.run_cli("doctor", "--wide").stdout
    finally:
        hub.config.write_text(before)
    assert "has changed" not in hub.run_cli("tiers").stderr


def test_without_the_hub_it_says_which_line_needs_what(hub: Hub) -> None:
    hub.kill()
    try:
        done = hub.run_cli("tiers")
        assert done.returncode == 1
        line = 1 + hub.config.read_text().split("\n").index(
            'c.ConfigurableHTTPProxy.auth_token = os.environ["CONFIGPROXY_AUTH_TOKEN"]'
        )
        needs = f"{hub.config}, line {line}, needs the environment variable CONFIGPROXY_AUTH_TOKEN"
        assert needs in done.stderr
        assert "Traceback" not in done.stderr
        environ = {**os.environ, **hub.environ, "JUPYTERHUB_GPU_PROFILE": "2g.10gb"}
        environ.pop("MIGSPAWNER_NVML", None)
        program = [sys.executable, "-m", "jupyterhub_migspawner.cli"]
        command = [*program, "tiers", "-v", "-f", str(hub.config)]
        database = f"--MigBroker.database_url={hub.overrides['database_url']}"
        read = subprocess.run(
            [*command, database], capture_output=True, text=True, check=False, env=environ
        )
        assert read.returncode == 0, read.stderr
        assert "2g.10gb" in read.stdout
        assert f"The settings are read from {hub.config}" in read.stderr
    finally:
        hub.until(lambda: not hub.service_pids())
        hub.start()
