"""What ``make`` does again when nothing has changed: nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import LONGEST

HERE = Path(__file__).parents[2]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A clone in which everything is installed, as far as ``make`` can tell."""
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(HERE / name, tmp_path / name)
    notebook = "jupyterhub_migspawner/notebook"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(HERE / notebook, tmp_path / notebook, ignore=ignored)
    made = [
        ".venv/bin/python",
        *(f".venv/.installed/{name}" for name in ("demo", "proxy", "check", "test")),
    ]
    for number, name in enumerate(made):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
        os.utime(file, (2_000_000_000 + number, 2_000_000_000 + number))
    return tmp_path


def would_install(tree: Path) -> bool:
    """Whether ``make install`` has something to do (``make --question``)."""
    stamps = [f".venv/.installed/{name}" for name in ("check", "test")]
    command = ["make", "--question", "install", *stamps]
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


def commands(tree: Path, target: str) -> list[str]:
    """What ``make`` would run for a target (``make --dry-run``)."""
    done = subprocess.run(
        ["make", "--dry-run", target], cwd=tree, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_check_installs_no_more_than_it_needs(tree: Path) -> None:
    shutil.rmtree(tree / ".venv/.installed")
    ran = commands(tree, "check")
    assert [line for line in ran if "install " in line or "packages" in line] == [
        ".venv/bin/python -m pip install --quiet -e '.[check]'"
    ]
    assert not any("npm" in line or "node-path" in line for line in ran)


def test_a_check_is_a_part_of_the_tests(tree: Path) -> None:
    (tree / ".ci").symlink_to(HERE / ".ci")
    parts = (".venv/bin/ruff", ".venv/bin/mypy", ".venv/bin/lint-imports", " tests/fast")
    checked, tested = ("\n".join(commands(tree, target)) for target in ("check", "test"))
    for part in parts:
        assert part in checked
        assert part in tested
    assert " tests/unit" not in checked


@pytest.fixture
def parts(tree: Path) -> list[str]:
    """What ``make test`` would run, the lines of each command joined."""
    (tree / ".ci").symlink_to(HERE / ".ci")
    (tree / "tests").symlink_to(HERE / "tests")
    return "\n".join(commands(tree, "test")).replace("\\\n", " ").splitlines()


def test_everything_is_tested(parts: list[str]) -> None:
    words = {word for part in parts for word in part.split()}
    left_out = {word.removeprefix("--ignore=") for word in words if word.startswith("--ignore=")}
    # The hub suite has runs of its own.
    assert left_out - words == {"tests/acceptance/hub_suite"}
    assert all((HERE / each).exists() for each in left_out)
    for folder in ("fast", "unit", "broker", "acceptance", "browser", "chaos"):
        assert f"tests/{folder}" in words
    suite = [part.split()[-1] for part in parts if "run_hub_suite.sh" in part]
    assert sorted(suite) == sorted(
        ["api", "app", "named_servers", "pages", "pitfalls", "named_servers", "pitfalls"]
    )


def test_what_computes_follows_one_another(parts: list[str]) -> None:
    """More than one of these at a time would slow each other down."""
    row = (".venv/bin/mypy", "tests/fast", "tests/unit", "tests/broker", "tests/browser")
    places = [[n for n, part in enumerate(parts) if word in part.split()] for word in row]
    assert [len(found) for found in places] == [1] * len(row)
    assert places == sorted(places)


def test_the_files_that_begin_first_are_there() -> None:
    there = {path.name for path in (HERE / "tests").rglob("test_*.py")}
    assert set(LONGEST) <= there
