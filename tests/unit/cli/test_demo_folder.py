"""What a demo keeps in its folder, and what it never overwrites."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from jupyterhub_migspawner.cli.demo import cards, files
from jupyterhub_migspawner.config import MigBroker, load_config_file
from jupyterhub_migspawner.errors import MigspawnerError, Refusal
from jupyterhub_migspawner.gpu.simulator import find_model, profiles_of

PORTS = files.Ports(public=8000, hub=20001, proxy_api=20002)
TOOLS = ["/opt/hub/bin", "/opt/node/bin"]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    # Quotes and spaces in a path are somebody's folder, too.
    found = tmp_path / 'ada\'s "first" demo'
    found.mkdir()
    return found


def written(directory: Path, ports: files.Ports = PORTS) -> Path:
    profiles = profiles_of(find_model("A100-SXM4-40GB"))
    tiers = cards.tiers_for(profiles, cards.cut(profiles, cards.MIXED, 2))
    return files.write_config(directory, ports, TOOLS, tiers)


def test_the_file_is_one_that_the_hub_reads(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/usr/bin")
    config = load_config_file(written(directory))
    assert config.JupyterHub.bind_url == "http://127.0.0.1:8000"
    assert config.JupyterHub.hub_bind_url == "http://127.0.0.1:20001"
    assert config.ConfigurableHTTPProxy.api_url == "http://127.0.0.1:20002"
    assert config.JupyterHub.spawner_class == "mig-simple"
    assert config.Authenticator.allowed_users == {"admin", "ada", "grace", "linus"}
    assert config.Authenticator.admin_users == {"admin"}
    assert ("--allow-root" in config.Spawner.args) == (os.geteuid() == 0)
    assert config.Spawner.environment == {"MIGSPAWNER_DEMO": str(directory)}
    assert os.environ["PATH"] == "/opt/hub/bin:/opt/node/bin:/usr/bin"
    mig = MigBroker(config=config)
    assert [tier.name for tier in mig.settings().tiers] == [
        "cpu", "small", "medium", "large", "card",
    ]  # fmt: skip
    assert mig.resolved_database_url() == f"sqlite:///{directory}/migspawner.sqlite"
    assert mig.resolved_nvml() == f"sim:{directory}/cards.json"


def test_a_later_start_changes_its_own_lines_and_no_others(directory: Path) -> None:
    file = written(directory)
    mine = file.read_text().replace("Whole card", "All of it") + "\n# a note of mine\n"
    file.write_text(mine)
    written(directory, files.Ports(public=9000, hub=30001, proxy_api=30002))
    assert file.read_text() == (
        mine.replace("8000", "9000").replace("20001", "30001").replace("20002", "30002")
    )


def test_a_file_without_its_rulers_is_not_guessed_at(directory: Path) -> None:
    file = written(directory)
    kept = file.read_text().replace("yours to change", "mine to change")
    file.write_text(kept)
    with pytest.raises(MigspawnerError, match="ruler lines"):
        written(directory)
    assert file.read_text() == kept


def test_one_demo_at_a_time(directory: Path) -> None:
    with (
        files.claim(directory),
        pytest.raises(Refusal, match=f"process {os.getpid()}"),
        files.claim(directory),
    ):
        pass
    with files.claim(directory):
        pass


def test_a_configuration_of_somebody_else_is_left_alone(directory: Path) -> None:
    (directory / files.CONFIG).write_text("c = get_config()\n")
    with pytest.raises(Refusal, match="was not written by the demo"), files.claim(directory):
        pass


def test_a_folder_that_cannot_be_made_is_named(directory: Path) -> None:
    (directory / "file").write_text("")
    with (
        pytest.raises(MigspawnerError, match=r"cannot use the folder .*file"),
        files.claim(directory / "file" / "demo"),
    ):
        pass


def test_the_record_of_the_cards_comes_back(directory: Path) -> None:
    assert files.read_record(directory) is None
    record = files.Record(cards=3, model="A30", layout="balanced")
    files.write_record(directory, record)
    assert files.read_record(directory) == record


@pytest.mark.parametrize("text", ["", "{", "[]", '{"cards": 2}', '{"cards": 2, "colour": 1}'])
def test_a_damaged_record_is_named(directory: Path, text: str) -> None:
    (directory / "demo.json").write_text(text)
    with pytest.raises(MigspawnerError, match=r"demo\.json is damaged"):
        files.read_record(directory)
