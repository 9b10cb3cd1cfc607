from __future__ import annotations

from pathlib import Path

import pytest

from jupyterhub_migspawner.cli.people import person_named
from jupyterhub_migspawner.cli.source import read_quietly
from jupyterhub_migspawner.errors import ConfigError
from jupyterhub_migspawner.policy.people import Person


def config(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "jupyterhub_config.py"
    file.write_text(f"c = get_config()\n{text}")
    return file


@pytest.mark.parametrize(
    "groups",
    [
        'c.JupyterHub.load_groups = {"pi": ["grace"], "vision": ["ada", "grace"]}',
        'c.JupyterHub.load_groups = {"pi": {"users": ["grace"]}, '
        '"vision": {"users": ["ada", "grace"]}}',
        'c.JupyterHub.load_groups.update({"pi": ["grace"], "vision": ["ada", "grace"]})',
    ],
)
@pytest.mark.parametrize(
    "admins",
    [
        'c.Authenticator.admin_users = {"admin"}',
        'c.Authenticator.admin_users = ["admin"]',
        'c.Authenticator.admin_users.add("admin")',
        'c.DummyAuthenticator.admin_users = {"admin"}',
    ],
)
def test_groups_and_admins_are_those_of_the_file(tmp_path: Path, groups: str, admins: str) -> None:
    found = read_quietly(config(tmp_path, f"{groups}\n{admins}\n"))
    assert person_named(found, "grace") == Person("grace", frozenset({"pi", "vision"}))
    assert person_named(found, "ada") == Person("ada", frozenset({"vision"}))
    assert person_named(found, "admin") == Person("admin", admin=True)
    assert person_named(found, "eve") == Person("eve")


def test_a_file_without_either_makes_everybody_nobody_in_particular(tmp_path: Path) -> None:
    assert person_named(read_quietly(config(tmp_path, "")), "admin") == Person("admin")


def test_what_the_file_prints_does_not_reach_standard_output(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    read_quietly(config(tmp_path, 'print("loading")\n'))
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "loading\n")


def test_a_file_that_ends_the_program_is_an_error(tmp_path: Path) -> None:
    file = config(tmp_path, "raise SystemExit(3)\n")
    with pytest.raises(ConfigError, match=r"exit status 3"):
        read_quietly(file)
