"""Files that cannot be read: a sentence that names them and status 1, never a traceback."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from jupyterhub_migspawner.cli import grid, leases
from jupyterhub_migspawner.cli.doctor import command
from jupyterhub_migspawner.service import app
from tests.unit.cli.conftest import Install

# Imported before the tests change the user: that one may not read the folders of Python itself.
IMPORTED = (grid, leases, command)

LONG = "a" * 300 + ".py"


def make_nothing(path: Path) -> None:
    """There is none."""


def make_link_to_nothing(path: Path) -> None:
    path.symlink_to("gone.py")


def make_loop(path: Path) -> None:
    path.symlink_to(path)


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def make_secret(path: Path) -> None:
    path.write_text("c = get_config()")
    path.chmod(0)


def written(content: bytes) -> Callable[[Path], None]:
    return lambda path: void(path.write_bytes(content))


def void(value: object) -> None:
    """For a callable that must return nothing."""


FILES: dict[str, tuple[Callable[[Path], None], str]] = {
    "missing": (make_nothing, "There is no configuration file"),
    "dangling link": (make_link_to_nothing, "There is no configuration file"),
    "loop of links": (make_loop, "cannot be read (Too many levels of symbolic links)"),
    "folder": (Path.mkdir, "is a directory"),
    "pipe": (make_pipe, "is not a regular file"),
    "without the right to read": (make_secret, "This user is not permitted to read"),
    "not UTF-8": (written(b'c.X.y = "\xff"\n'), "cannot be read as a configuration"),
    "with a NUL": (written(b"x = 1\0"), "cannot be read as a configuration"),
    "syntax error": (written(b"c = ("), "cannot be read as a configuration"),
    "raises": (written(b"raise KeyError('x')"), "KeyError: 'x'"),
    "endless recursion": (written(b"def f(): f()\nf()"), "RecursionError"),
    "exits": (written(b"import sys; sys.exit(3)"), "ends the program (exit status 3)"),
    "exits with a word": (written(b"raise SystemExit('bye')"), "ends the program"),
}


@contextmanager
def as_nobody() -> Iterator[None]:
    """Root may read everything; another user may not."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for folder in (tmp_path, *tmp_path.parents[:-2]):
        if folder.stat().st_uid == os.geteuid() and folder != Path("/tmp"):
            folder.chmod(0o755)
    return tmp_path / "hub" / "config.py"


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("command", ["leases", "doctor", "service"])
def test_a_configuration_file_that_cannot_be_read(
    install: Install,
    place: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    command: str,
) -> None:
    make, expected = FILES[name]
    place.parent.mkdir(mode=0o755)
    make(place)
    with as_nobody():
        if command == "service":
            status, said = serve(place, caplog, monkeypatch)
        else:
            answer = install.run(command, "-f", str(place), config=False)
            status, said = answer.status, answer.out + answer.err
    assert status == 1
    assert expected in said
    assert "config.py" in said


@pytest.mark.parametrize("command", ["leases", "doctor", "service"])
def test_a_configuration_file_in_a_folder_that_cannot_be_entered(
    install: Install,
    place: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
) -> None:
    place.parent.mkdir()
    place.write_text("")
    place.parent.chmod(0)
    with as_nobody():
        if command == "service":
            status, said = serve(place, caplog, monkeypatch)
        else:
            answer = install.run(command, "-f", str(place), config=False)
            status, said = answer.status, answer.out + answer.err
    place.parent.chmod(0o755)
    assert status == 1
    assert f"not permitted to read the configuration file {place};" in " ".join(said.split())


@pytest.mark.parametrize("path", [LONG, "~nobody-at-all/config.py", "a\0b"])
def test_a_path_that_cannot_be_one(install: Install, path: str) -> None:
    answer = install.run("leases", "-f", path, config=False)
    assert answer.status == 1
    assert "configuration file" in answer.err


def test_a_default_configuration_that_cannot_be_read_is_not_passed_over(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    (folder / "jupyterhub_config.py").symlink_to("gone.py")
    monkeypatch.chdir(folder)
    answer = install.run("leases", config=False)
    assert answer.status == 1
    assert "There is no configuration file" in answer.err
    assert "here/jupyterhub_config.py" in answer.err


@pytest.mark.parametrize(
    "setting",
    [
        'c.MigBroker.database_url = "sqlite:////proc/1/nothing/leases.sqlite"',
        'c.MigBroker.database_url = "sqlite:///{secret}/leases.sqlite"',
        'c.MigBroker.database_url = "sqlite:///{folder}"',
        'c.MigBroker.database_url = "sqlite:///{long}"',
        'c.MigBroker.database_url = "sqlite:///~nobody-at-all/leases.sqlite"',
        'c.MigBroker.directory = "~nobody-at-all/x"',
        'c.MigBroker.directory = "{secret}"',
        'c.MigBroker.nvml = "sim:{secret}/cards.json"',
        'c.MigBroker.nvml = "sim:{folder}"',
        'c.MigBroker.nvml = "sim:{long}"',
    ],
)
@pytest.mark.parametrize("words", ["slices", "doctor", "layout export", "leases"])
def test_a_path_in_the_configuration_that_cannot_be_used(
    install: Install, place: Path, setting: str, words: str
) -> None:
    secret, folder = place.parent / "secret", place.parent / "folder"
    for made in (place.parent, secret, folder):
        made.mkdir(mode=0o755)
    names = {"secret": secret, "folder": folder, "long": LONG}
    with install.config.open("a") as file:
        for name, value in names.items():
            setting = setting.replace("{" + name + "}", str(value))
        file.write(f"\n{setting}\n")
    for path in install.directory.iterdir():
        path.chmod(0o755 if path.is_dir() else 0o666)
    secret.chmod(0)
    with as_nobody():
        answer = install.run(*words.split())
    secret.chmod(0o755)
    assert answer.status in (0, 1)
    last = (answer.err.strip() or "-").splitlines()[-1]
    assert answer.status == 0 or answer.out or last.startswith("migspawner: ")


@pytest.mark.parametrize("name", ["missing", "folder", "without the right to read", "not UTF-8"])
def test_a_layout_file_that_cannot_be_read(install: Install, place: Path, name: str) -> None:
    place.parent.mkdir(mode=0o755)
    FILES[name][0](place)
    for path in install.directory.iterdir():
        path.chmod(0o755 if path.is_dir() else 0o666)
    with as_nobody():
        answer = install.run("layout", "assert", str(place), "all")
    assert answer.status in (1, 2)
    assert str(place) in answer.err


def serve(
    place: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> tuple[int, str]:
    """Start the service with this configuration; its status and what it has logged."""
    monkeypatch.setattr(app, "set_up_log", lambda: None)
    for name in app.FROM_HUB:
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    status = app.main(["--config", str(place)])
    assert not any(record.exc_info for record in caplog.records)
    return status, caplog.text
