"""A file that cannot be read outside the hub's unit: the line, and what is missing there."""

from __future__ import annotations

from pathlib import Path

import pytest

from jupyterhub_migspawner.config.file import NotHere, load_config_file
from jupyterhub_migspawner.errors import ConfigError


def why(folder: Path, text: str, kind: type[ConfigError] = NotHere) -> str:
    file = folder / "jupyterhub_config.py"
    file.write_text("import os\nc = get_config()\n" + text)
    with pytest.raises(kind) as caught:
        load_config_file(file)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "variable", "line"),
    [
        ("c.X.token = os.environ['CONFIGPROXY_AUTH_TOKEN']\n", "CONFIGPROXY_AUTH_TOKEN", 3),
        ("\n\nx = os.environb[b'JUPYTERHUB_X']\n", "JUPYTERHUB_X", 5),
        ("os.environ.pop('LAB_X')\n", "LAB_X", 3),
        ("del os.environ['LAB_X']\n", "LAB_X", 3),
        ("def f():\n    return os.environ['LAB_X']\nf()\n", "LAB_X", 4),
        ("c.X.port = int(os.environ.get('LAB_X'))\n", "LAB_X", 3),
        ("c.X.port = '/' + os.getenv('LAB_X')\n", "LAB_X", 3),
    ],
)
def test_a_missing_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, variable: str, line: int
) -> None:
    monkeypatch.delenv(variable, raising=False)
    said = why(tmp_path, text)
    assert f"line {line}" in said
    assert f"needs the environment variable {variable}" in said
    assert "Start the hub" in said


def test_in_a_subconfiguration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LAB_X", raising=False)
    (tmp_path / "more.py").write_text("import os\n\nc.X.y = os.environ['LAB_X']\n")
    said = why(tmp_path, "load_subconfig('more.py')\n")
    assert f"{tmp_path}/more.py, line 3, needs the environment variable LAB_X" in said


def test_another_key_is_no_variable(tmp_path: Path) -> None:
    said = why(tmp_path, "{}['x']\n", ConfigError)
    assert said.endswith("KeyError: 'x' (line 3)")
    assert "environment" not in said


def test_a_missing_module(tmp_path: Path) -> None:
    assert "line 3, imports 'nowhere_to_be_found'" in why(tmp_path, "import nowhere_to_be_found\n")


def test_a_file_that_cannot_be_opened(tmp_path: Path) -> None:
    said = why(tmp_path, "open('/run/credentials/none/db')\n")
    assert "line 3, uses '/run/credentials/none/db', which cannot be used here: No such" in said
