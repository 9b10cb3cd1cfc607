"""What ``make`` does again when nothing has changed: nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parents[2]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A clone in which everything is installed, as far as ``make`` can tell."""
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(HERE / name, tmp_path / name)
    notebook = "jupyterhub_migspawner/notebook"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(HERE / notebook, tmp_path / notebook, ignore=ignored)
    made = [".venv/bin/python", *(f".venv/.installed/{name}" for name in ("demo", "proxy", "test"))]
    for number, name in enumerate(made):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
        os.utime(file, (2_000_000_000 + number, 2_000_000_000 + number))
    return tmp_path


def would_install(tree: Path) -> bool:
    """Whether ``make install`` has something to do (``make --question``)."""
    command = ["make", "--question", "install", ".venv/.installed/test"]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    return done.returncode == 1


def later(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    for path in (file, file.parent):
        os.utime(path, (2_100_000_000, 2_100_000_000))


def test_nothing_is_installed_again_when_nothing_has_changed(tree: Path) -> None:
    assert not would_install(tree)
    # What running the package leaves in the tree.
    later(tree / "jupyterhub_migspawner/notebook/__pycache__/kernels.cpython-311.pyc")
    later(tree / "jupyterhub_migspawner/notebook/labextension/static/__pycache__/x.pyc")
    assert not would_install(tree)


@pytest.mark.parametrize(
    "changed",
    [
        "pyproject.toml",
        "jupyterhub_migspawner/notebook/server.json",
        "jupyterhub_migspawner/notebook/labextension/package.json",
        "jupyterhub_migspawner/notebook/labextension/static/remoteEntry.js",
    ],
)
def test_what_is_copied_at_an_install_is_installed_again(tree: Path, changed: str) -> None:
    assert (tree / changed).is_file()
    later(tree / changed)
    assert would_install(tree)
