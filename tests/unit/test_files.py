"""Files of this package are private whatever the umask, and whole whatever happens."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from jupyterhub_migspawner import files
from jupyterhub_migspawner.agent.lock import CuttingLock
from jupyterhub_migspawner.db import migrations


@pytest.fixture(params=[0o000, 0o002, 0o022, 0o077, 0o277])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_what_is_made_is_private_under_every_umask(tmp_path: Path, umask: int) -> None:
    files.make_folder(tmp_path / "a" / "b")
    assert mode(tmp_path / "a") == mode(tmp_path / "a" / "b") == 0o700
    os.close(files.open_file(tmp_path / "opened"))
    files.replace(tmp_path / "replaced", "text")
    assert files.create(tmp_path / "created", b"bytes")
    for name in ("opened", "replaced", "created"):
        assert mode(tmp_path / name) == 0o600


def test_a_lease_database_is_private_with_its_log(tmp_path: Path, umask: int) -> None:
    from jupyterhub_migspawner.db.store import Store

    store = Store.open(f"sqlite:///{tmp_path}/leases.sqlite", create=True)
    with store.transaction():
        found = {file.name: mode(file) for file in tmp_path.iterdir()}
    store.close()
    assert {"leases.sqlite", "leases.sqlite-wal", "leases.sqlite-shm"} <= set(found)
    assert set(found.values()) == {0o600}
    migrations.upgrade(f"sqlite:///{tmp_path}/other.sqlite")
    assert mode(tmp_path / "other.sqlite") == 0o600


def test_the_cutting_lock_is_private(tmp_path: Path, umask: int) -> None:
    turn = CuttingLock(tmp_path, "n1")
    with turn.taken():
        assert turn.path is not None
        assert mode(turn.path) == 0o600


def test_a_file_that_is_there_keeps_its_content_and_mode(tmp_path: Path) -> None:
    file = tmp_path / "kept"
    file.write_text("old")
    file.chmod(0o640)
    assert not files.create(file, "new")
    os.close(files.open_file(file))
    assert (file.read_text(), mode(file)) == ("old", 0o640)
    assert [each.name for each in tmp_path.iterdir()] == ["kept"]


def test_a_replaced_file_becomes_private(tmp_path: Path) -> None:
    file = tmp_path / "open"
    file.write_text("old")
    file.chmod(0o666)
    files.replace(file, "new")
    assert (file.read_text(), mode(file)) == ("new", 0o600)


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "another's").write_text("theirs")
    (tmp_path / "link").symlink_to(tmp_path / "another's")
    assert not files.create(tmp_path / "link", "mine")
    files.replace(tmp_path / "link", "mine")
    assert (tmp_path / "another's").read_text() == "theirs"
    assert not (tmp_path / "link").is_symlink()


def test_what_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "full").write_text("x")
    with pytest.raises(OSError):  # noqa: PT011
        files.replace(tmp_path / "folder", "text")
    with pytest.raises(OSError):  # noqa: PT011
        files.create(tmp_path / "missing" / "file", "text")
    with pytest.raises(FileExistsError):
        files.make_folder(tmp_path / "folder" / "full")
    assert [each.name for each in tmp_path.iterdir()] == ["folder"]
