"""What the doctor says about servers in containers, with engines that answer this and that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import docker
import pytest
import requests
import yaml

from jupyterhub_migspawner.cli.doctor import containers
from jupyterhub_migspawner.spawner.launchers.docker import MigDockerSpawner
from tests.launchers.test_docker_cdi import device, own, specification
from tests.unit.cli.conftest import Install, install

__all__ = ["install"]  # the fixture


class Client:
    """An engine's client with these answers."""

    create_host_config = docker.APIClient.create_host_config

    def __init__(self, info: dict[str, Any], images: tuple[str, ...] = ("lab:1",)) -> None:
        self._version = "1.45"
        self._info = info
        self._images = images

    def version(self) -> dict[str, Any]:
        return {"Version": "26.1.5", "ApiVersion": "1.45", "Components": [{"Name": "Engine"}]}

    def info(self) -> dict[str, Any]:
        return self._info

    def inspect_image(self, name: str) -> None:
        if name not in self._images:
            response = requests.Response()
            response.status_code = 404
            raise docker.errors.NotFound("no such image", response=response)


@pytest.fixture
def specifications(tmp_path: Path) -> Path:
    folder = tmp_path / "cdi"
    folder.mkdir()
    return folder


@pytest.fixture(autouse=True)
def as_with_a_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """The nodes of the simulated cards count as if they existed."""
    monkeypatch.setattr(containers, "_existing", lambda nodes, simulated: list(nodes))


def found(
    install: Install, monkeypatch: pytest.MonkeyPatch, client: Any, *lines: str
) -> dict[str, list[dict[str, Any]]]:
    """The doctor's findings about containers and CDI, by their state."""
    if client is not None:
        monkeypatch.setattr(MigDockerSpawner, "client", client)
    with install.config.open("a") as file:
        file.write('c.JupyterHub.spawner_class = "mig-docker"\n')
        file.write('c.MigDockerSpawner.image = "lab:1"\n')
        file.writelines(f"{line}\n" for line in lines)
    by_state: dict[str, list[dict[str, Any]]] = {"ok": [], "warning": [], "wrong": []}
    for finding in install.run("doctor", "--json").json:
        if finding["check"] in ("containers", "cdi"):
            by_state[finding["state"]].append(finding)
    assert all(finding["mend"] for finding in by_state["wrong"] + by_state["warning"])
    return by_state


def write(folder: Path, install: Install, *, moved: int = 0) -> None:
    cards = install.mig.open_nvml().inventory().cards
    devices = [
        device(f"{card.index}:{index}", own(card.minor, each.gi_id - moved))
        for card in cards
        for index, each in enumerate(card.instances)
    ]
    (folder / "nvidia.yaml").write_text(yaml.safe_dump(specification(*devices)))


def test_an_engine_that_has_every_slice(
    install: Install, monkeypatch: pytest.MonkeyPatch, specifications: Path
) -> None:
    write(specifications, install)
    client = Client({"CDISpecDirs": [str(specifications)]})
    said = found(install, monkeypatch, client)
    assert [each["message"] for each in said["ok"]] == [
        "Docker 26.1.5 answers at unix:///var/run/docker.sock (API 1.45).",
        "The image lab:1 is on this machine.",
        f"The specifications in {specifications} have every slice.",
    ]
    assert said["wrong"] == []


def test_a_specification_from_before_a_cut(
    install: Install, monkeypatch: pytest.MonkeyPatch, specifications: Path
) -> None:
    write(specifications, install, moved=1)
    client = Client({"CDISpecDirs": [str(specifications)]})
    (finding,) = found(install, monkeypatch, client)["warning"]
    assert "does not have the slice as it is now" in finding["message"]
    assert "nvidia-ctk cdi generate" in finding["mend"]
    (finding,) = found(install, monkeypatch, client, "c.MigDockerSpawner.devices = 'cdi'")["wrong"]
    assert "The same holds for" in finding["message"]


def test_an_engine_without_cdi(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    said = found(install, monkeypatch, Client({}))
    assert "Containers get device files by their path." in said["ok"][-1]["message"]
    (finding,) = found(install, monkeypatch, None, "c.MigDockerSpawner.devices = 'cdi'")["wrong"]
    assert "No server can start." in finding["message"]
    said = found(install, monkeypatch, None, "c.MigDockerSpawner.devices = 'nodes'")
    assert not [each for each in said["ok"] if each["check"] == "cdi"]


def test_an_engine_that_is_not_there(
    install: Install, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(MigDockerSpawner, "_client", None)
    kwargs = {"base_url": f"unix://{tmp_path}/none.sock"}
    (finding,) = found(
        install, monkeypatch, None, f"c.MigDockerSpawner.client_kwargs = {kwargs!r}"
    )["wrong"]
    assert f"{tmp_path}/none.sock does not answer" in finding["message"]
    assert "docker.io" in finding["mend"]


def test_an_image_that_is_missing(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    (finding,) = found(install, monkeypatch, Client({}, images=()))["warning"]
    assert finding["mend"] == "Pull it: docker pull lab:1"
    said = found(install, monkeypatch, None, "c.MigDockerSpawner.pull_policy = 'never'")
    assert said["wrong"][0]["message"] == "The image lab:1 is not on this machine."


def test_options_that_open_other_slices(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    option = "c.MigDockerSpawner.extra_host_config = {'privileged': True, 'pid_mode': 'host'}"
    said = found(install, monkeypatch, Client({}), option)["wrong"]
    assert ["Privileged = True" in said[0]["message"], "PidMode" in said[1]["message"]] == [
        True
    ] * 2
    option = "c.MigDockerSpawner.extra_host_config = {'no_such_option': True}"
    (finding,) = found(install, monkeypatch, None, option)["wrong"]
    assert "is not what the engine takes" in finding["message"]


def test_containers_that_would_be_kept(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    option = "c.DockerSpawner.remove = False"
    (finding,) = found(install, monkeypatch, Client({}), option)["wrong"]
    assert "remove cannot be False" in finding["message"]


def test_settings_with_less_isolation_than_usual(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = ["c.MigDockerSpawner.network_name = 'host'"]
    lines += ["c.MigDockerSpawner.client_kwargs = {'base_url': 'tcp://elsewhere:2375'}"]
    messages = [
        each["message"] for each in found(install, monkeypatch, Client({}), *lines)["warning"]
    ]
    assert any("tcp://elsewhere:2375" in each for each in messages)
    assert any("network_name = 'host'" in each for each in messages)


def test_an_environment_without_dockerspawner(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(containers, "find_spec", lambda name: None)
    (finding,) = found(install, monkeypatch, None)["wrong"]
    assert "pip install 'dockerspawner>=14'" in finding["mend"]
