"""What the doctor says about what keeps servers off other slices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jupyterhub_migspawner.policy.people import Person
from tests.unit.cli.conftest import Install


def findings(install: Install, *settings: str) -> tuple[int, list[dict[str, Any]]]:
    with install.config.open("a") as file:
        file.write(
            "".join(f"{line}\n" for line in ('c.ConfigurableHTTPProxy.command = ["p"]', *settings))
        )
    install.config.chmod(0o600)
    answer = install.run("doctor", "--json")
    return answer.status, [each for each in answer.json if each["check"] == "isolation"]


@pytest.fixture
def no_bubblewrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.mark.usefixtures("no_bubblewrap")
def test_without_bubblewrap_servers_run_without_isolation(install: Install) -> None:
    status, (finding,) = findings(install)
    assert (status, finding["state"]) == (0, "warning")
    assert finding["message"].startswith("bubblewrap is not installed. Servers run without")
    assert "Install the package 'bubblewrap'" in finding["mend"]


@pytest.mark.usefixtures("no_bubblewrap")
def test_a_hub_that_demands_bubblewrap_cannot_start_servers_without_it(install: Install) -> None:
    status, (finding,) = findings(install, "c.MigLocalSpawner.isolation = 'bubblewrap'")
    assert (status, finding["state"]) == (1, "wrong")
    assert finding["message"].endswith("No server can start without that.")


def test_isolation_that_is_switched_off_is_not_silent(install: Install) -> None:
    status, (finding,) = findings(install, "c.MigLocalSpawner.isolation = 'none'")
    assert (status, finding["state"]) == (0, "warning")
    assert "any server can open the slices of others" in finding["message"]
    assert finding["mend"].startswith("Set c.MigLocalSpawner.isolation = 'auto'")


def test_the_spawner_is_found_by_its_name_or_as_a_class(install: Install) -> None:
    settings = ["from jupyterhub_migspawner.spawner.launchers.local import MigSimpleSpawner"]
    settings += ["c.JupyterHub.spawner_class = MigSimpleSpawner"]
    settings += ["c.MigSimpleSpawner.isolation = 'none'"]
    _, (finding,) = findings(install, *settings)
    assert "MigSimpleSpawner.isolation is 'none'" in finding["message"]


def test_another_spawner_makes_no_promise(install: Install) -> None:
    _, found = findings(install, "c.JupyterHub.spawner_class = 'simple'")
    assert found == []


def test_servers_that_run_without_isolation_are_counted(install: Install) -> None:
    install.report()
    for user, isolation in (("ada", "none"), ("grace", "bubblewrap"), ("eve", "none")):
        install.broker.leases.acquire(Person(user), "", "small", f"of {user}")
        install.broker.leases.note_launch(f"of {user}", isolation)
    _, found = findings(install)
    (finding,) = [each for each in found if each["state"] == "warning"]
    assert finding["message"].startswith("2 servers of 3 with a GPU run without isolation")


def test_servers_of_unknown_isolation_are_not_passed_over(install: Install) -> None:
    install.report()
    install.broker.leases.acquire(Person("ada"), "", "small", "of ada")
    install.broker.leases.activate("of ada")
    _, found = findings(install)
    (finding,) = [each for each in found if each["state"] == "warning"]
    assert finding["message"].startswith("It is not known what isolates 1 server with a GPU")


def test_a_spawner_that_cannot_be_loaded_is_named(install: Install) -> None:
    with install.config.open("a") as file:
        file.write("c.JupyterHub.spawner_class = 'no.such.Spawner'\n")
    answer = install.run("doctor", "--json")
    (finding,) = [each for each in answer.json if each["check"] == "spawner"]
    assert (answer.status, finding["state"]) == (1, "wrong")
    assert "is 'no.such.Spawner', which cannot be loaded" in finding["message"]
