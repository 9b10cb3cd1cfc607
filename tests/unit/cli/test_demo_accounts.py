"""Whom a demo that root starts lets its servers be, and that such a program has no rights left."""

from __future__ import annotations

import json
import os
import pwd
import re
import subprocess
import sys
from pathlib import Path

import pytest

from jupyterhub_migspawner.cli.demo import accounts, unprivileged
from jupyterhub_migspawner.cli.demo.accounts import Accounts
from jupyterhub_migspawner.errors import MigspawnerError

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="root's demo is meant")
UID = 60_999


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder like /var/tmp that is the test's own."""
    folder = tmp_path / "places"
    folder.mkdir()
    folder.chmod(0o1777)
    monkeypatch.setattr(accounts, "_PLACES", (str(folder),))
    return folder


@as_root
def test_each_person_has_a_user_and_a_home_and_keeps_them(tmp_path: Path, places: Path) -> None:
    ada, grace = (Accounts(tmp_path).account(name) for name in ("ada", "grace"))
    assert ada != grace
    assert Accounts(tmp_path).account("ada") == ada
    for account in (ada, grace):
        assert account.uid not in {entry.pw_uid for entry in pwd.getpwall()}
        found = account.home.stat()
        assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (
            account.uid,
            account.uid,
            0o700,
        )
        above = account.home.parent.stat()
        assert (above.st_uid, above.st_mode & 0o777) == (0, 0o711)
        assert account.home.parent.parent == places


@as_root
def test_a_user_that_has_processes_is_not_taken(
    tmp_path: Path, places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accounts, "_UIDS", range(UID, UID + 2))
    made = Accounts(tmp_path, in_use=lambda: {UID})
    assert made.account("ada").uid == UID + 1
    with pytest.raises(MigspawnerError, match=f"from {UID} to {UID + 1} are in use"):
        made.account("grace")


@as_root
def test_a_user_that_has_become_an_account_is_not_used(
    tmp_path: Path, places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Accounts(tmp_path).account("ada")
    kept = json.loads((tmp_path / "accounts.json").read_text())
    kept["uids"]["ada"] = pwd.getpwnam("nobody").pw_uid
    (tmp_path / "accounts.json").write_text(json.dumps(kept))
    with pytest.raises(MigspawnerError, match="belongs to the account nobody"):
        Accounts(tmp_path).account("ada")


@as_root
@pytest.mark.parametrize("trap", ["theirs", "writable", "link", "gone"])
def test_homes_are_never_in_a_folder_of_others(tmp_path: Path, places: Path, trap: str) -> None:
    before = Accounts(tmp_path).homes
    before.rename(places / "away")
    if trap == "theirs":
        before.mkdir()
        os.chown(before, UID, UID)
    elif trap == "writable":
        before.mkdir()
        before.chmod(0o777)
    elif trap == "link":
        before.symlink_to(tmp_path)
    account = Accounts(tmp_path).account("ada")
    assert account.home.parent != before
    assert account.home.parent.parent == places


@pytest.mark.parametrize("text", ["", "{", "[]", '{"uids": 3}', '{"uids": {"ada": "x"}}'])
def test_a_damaged_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "accounts.json").write_text(text)
    with pytest.raises(MigspawnerError, match=r"accounts\.json is damaged"):
        Accounts(tmp_path).account("ada")


def test_what_root_lacks_in_a_container_is_named(tmp_path: Path) -> None:
    status = tmp_path / "status"
    # The capabilities that Docker leaves to root by default.
    status.write_text("Name:\tcat\nCapEff:\t00000000a80425fb\n")
    assert accounts.missing_capabilities(status) == ["CAP_SYS_PTRACE"]
    status.write_text("CapEff:\t000001ffffffffff\n")
    assert accounts.missing_capabilities(status) == []


def run(program: str, *needs: Path, uid: int = UID, home: str = "/") -> str:
    words = [word for need in needs for word in ("--need", str(need))]
    done = subprocess.run(
        [
            *(sys.executable, "-I", "-S", unprivileged.__file__, str(uid), home, *words),
            *("--", "/bin/sh", "-c", program),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr


@as_root
def test_the_program_has_no_right_of_roots() -> None:
    said = run("id -u; id -g; id -G; umask; cat /proc/self/status; cat /etc/shadow")
    assert said.startswith(f"{UID}\n{UID}\n{UID}\n0077\n")
    assert re.search(r"^CapPrm:\s*0+$", said, re.MULTILINE)
    assert re.search(r"^NoNewPrivs:\s*1$", said, re.MULTILINE)
    assert "Permission denied" in said
    assert "must not be root" in run("id -u", uid=0)


@pytest.fixture
def closed(tmp_path: Path) -> Path:
    """Folders below ones that are closed to others, with things beside them."""
    for name in ("tool/bin", "other/lib", "inner/closed/deep"):
        folder = tmp_path / "closed" / name
        folder.mkdir(parents=True)
        (folder / "program").write_text("echo found\n")
    (tmp_path / "closed" / "secret").write_text("hidden")
    for folder in (tmp_path / "closed", tmp_path / "closed" / "inner" / "closed"):
        folder.chmod(0o700)
    return tmp_path / "closed"


@as_root
def test_what_it_needs_is_there_read_only_and_nothing_else(closed: Path) -> None:
    look = f"cd {closed}; sh tool/bin/program; sh inner/closed/deep/program; cat secret; ls"
    look += "; echo x > tool/bin/program; echo x > new; mkdir inner/closed/more"
    said = run(look, closed / "tool", closed / "inner" / "closed" / "deep")
    assert said.count("found") == 2
    assert "hidden" not in said
    assert "inner\ntool\n" in said
    assert said.lower().count("read-only") + said.lower().count("permission denied") == 3, said
    # Outside everything is as it was.
    assert (closed / "secret").read_text() == "hidden"
    assert (closed / "tool" / "bin" / "program").read_text() == "echo found\n"
    assert sorted(entry.name for entry in closed.iterdir()) == ["inner", "other", "secret", "tool"]
    assert str(closed) not in Path("/proc/self/mounts").read_text()


@as_root
def test_without_what_it_needs_it_says_so(closed: Path) -> None:
    assert "Permission denied" in run(f"ls {closed}")
    (closed / "tool").chmod(0o700)
    said = run("echo it runs", closed / "tool")
    assert "closed to other users" in said
    assert "it runs" not in said
