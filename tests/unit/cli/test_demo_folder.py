"""What a demo keeps in its folder, and what it never overwrites."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from traitlets.config import Config

from jupyterhub_migspawner.cli.demo import cards, command, files
from jupyterhub_migspawner.cli.demo.tour import Tour
from jupyterhub_migspawner.config import MigBroker
from jupyterhub_migspawner.config.file import load_config_file
from jupyterhub_migspawner.errors import MigspawnerError, Refusal
from jupyterhub_migspawner.gpu.simulator import find_model, profiles_of
from tests.unit.strangers import STRANGER, needs_root

PORTS = files.Ports(public=8000, hub=20001, proxy_api=20002)
TOOLS = ["/opt/hub/bin", "/opt/node/bin"]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    # Quotes and spaces in a path are possible in a folder, too.
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
    assert config.JupyterHub.spawner_class.endswith(".demo.spawner.DemoSpawner")
    assert config.JupyterHub.authenticator_class.endswith(".authenticator.DemoAuthenticator")
    assert config.Authenticator.allowed_users == {"admin", "ada", "grace", "linus"}
    assert config.Authenticator.admin_users == {"admin"}
    assert "--allow-root" not in config.Spawner.args
    assert "--ServerApp.ip=127.0.0.1" in config.Spawner.args
    assert config.Spawner.environment == {"MIGSPAWNER_DEMO": str(directory)}
    assert os.environ["PATH"] == "/opt/hub/bin:/opt/node/bin:/usr/bin"
    mig = MigBroker(config=config)
    assert [tier.name for tier in mig.settings().tiers] == [
        "cpu", "small", "medium", "large", "course", "card",
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


def test_the_demo_says_what_there_is_to_try_and_with_whom(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/usr/bin")
    tour = Tour(load_config_file(written(directory)))
    assert tour.people() == (
        "ada, grace (group pi, may approve), linus (group students), admin (may approve)"
    )
    assert tour.steps() == [
        "Course as ada and grace: they share one slice",
        "Medium as ada, left alone: it ends after 10 minutes, 4 while others wait",
        "A second server with a GPU as linus: the quota allows one",
        "Whole card as ada: grace may approve the request",
    ]


def test_a_configuration_of_an_earlier_version_has_less_to_try(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/usr/bin")
    file = written(directory)
    head, _, tail = file.read_text().partition("# What people can pick.")
    file.write_text(
        f'{head}c.MigBroker.tiers = [{{"name": "small", "profile": "1g.5gb"}}]\n'
        f"# People sign in{tail.partition('# People sign in')[2]}"
    )
    tour = Tour(load_config_file(file))
    assert tour.people() == "ada, grace, linus, admin (may approve)"
    assert tour.steps() == []
    # A later start leaves it as it is.
    before = file.read_text()
    written(directory)
    assert file.read_text() == before


def test_what_is_changed_by_hand_is_what_the_demo_tells(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/usr/bin")
    file = written(directory)
    text = file.read_text().replace('"users": ["grace"]', '"users": ["linus", "grace"]')
    file.write_text(text.replace('"idle_minutes": 10', '"idle_minutes": 30'))
    tour = Tour(load_config_file(file))
    assert "linus (group pi, group students, may approve)" in tour.people()
    assert "ends after 30 minutes" in tour.steps()[1]


@pytest.mark.parametrize(
    ("lines", "traits"),
    [
        ('c.Authenticator.admin_users.add("linus")', "linus (may approve)"),
        ("c.Authenticator.admin_users = None", "linus, admin"),
        ('c.JupyterHub.load_groups.update({"pi": ["linus"]})', "linus (group pi)"),
        ('c.JupyterHub.load_groups = {"pi": None, "students": {"users": ["ada"]}}', "ada (group"),
        ("c.JupyterHub.load_groups = None", "ada, grace, linus"),
        ("c.JupyterHub.load_groups = lambda: {}", "ada, grace, linus"),
    ],
)
def test_the_demo_says_what_it_can_of_whatever_the_hub_takes(lines: str, traits: str) -> None:
    config = Config()
    config.MigBroker.tiers = [{"name": "small", "profile": "1g.5gb"}]
    exec(lines, {"c": config})
    tour = Tour(config)
    assert traits in tour.people()
    assert tour.steps() == []


def test_a_file_without_its_rulers_is_not_guessed_at(directory: Path) -> None:
    file = written(directory)
    kept = file.read_text().replace("yours to change", "mine to change")
    file.write_text(kept)
    with pytest.raises(MigspawnerError, match="marker lines"):
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


def test_the_folder_and_what_it_holds_are_private(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    before = os.umask(0)
    try:
        with files.claim(folder):
            files.write_record(
                folder, files.Record(cards=1, model="A100-SXM4-40GB", layout="mixed")
            )
            for _ in range(2):
                files.write_config(folder, PORTS, TOOLS, [])
    finally:
        os.umask(before)
    modes = {file.name: file.stat().st_mode & 0o777 for file in folder.iterdir()}
    assert len(modes) == 3
    assert set(modes.values()) == {0o600}
    assert folder.stat().st_mode & 0o777 == 0o700


@needs_root
def test_root_is_told_where_another_user_can_replace_the_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "theirs" / "demo"
    folder.mkdir(parents=True)
    folder.chmod(0o700)
    command._warn_of_others(folder)
    assert capsys.readouterr().err == ""
    for change in (
        lambda: os.chown(folder.parent, STRANGER, -1),
        lambda: folder.parent.chmod(0o777),
    ):
        change()
        command._warn_of_others(folder)
        assert f"Another user can replace the folder {folder}" in capsys.readouterr().err
        os.chown(folder.parent, 0, -1)
    folder.parent.chmod(0o1777)
    command._warn_of_others(folder)
    assert capsys.readouterr().err == ""
