"""The hub's key: sealed tokens open for their lease, their address and their hub alone."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from jupyterhub_migspawner.errors import ConfigError
from jupyterhub_migspawner.keys import Binding, KeyFile, Keys, SealError

TOKEN = "0123456789abcdef0123456789abcdef"
MINE = Binding(7, "attempt", "http://127.0.0.1:4000/user/ada/")


@pytest.fixture
def file(tmp_path: Path) -> KeyFile:
    return KeyFile(tmp_path / "migspawner_key")


def test_a_sealed_token_opens_again_and_does_not_show_it(file: KeyFile) -> None:
    keys = file.make()
    sealed = keys.seal(TOKEN, MINE)
    assert keys.open(sealed, MINE) == TOKEN
    assert TOKEN not in sealed
    assert keys.seal(TOKEN, MINE) != sealed
    assert keys.values[0].hex() not in repr(keys)
    assert str(keys.values[0]) not in repr(keys)


@pytest.mark.parametrize(
    "other",
    [
        replace(MINE, lease_id=8),
        replace(MINE, attempt="another"),
        replace(MINE, url="http://127.0.0.1:6666/user/ada/"),
        replace(MINE, url=""),
    ],
)
def test_it_opens_for_no_other_lease_and_no_other_address(file: KeyFile, other: Binding) -> None:
    keys = file.make()
    with pytest.raises(SealError) as raised:
        keys.open(keys.seal(TOKEN, MINE), other)
    assert TOKEN not in str(raised.value)


@pytest.mark.parametrize(
    "damage",
    [
        lambda sealed: "",
        lambda sealed: TOKEN,
        lambda sealed: sealed[:-4],
        lambda sealed: sealed[:20] + ("A" if sealed[20] != "A" else "B") + sealed[21:],
        lambda sealed: "v1:",
        lambda sealed: "v1:not base64 \u20ac",
        lambda sealed: "v2:" + sealed[3:],
    ],
)
def test_what_was_changed_does_not_open(file: KeyFile, damage: Callable[[str], str]) -> None:
    keys = file.make()
    with pytest.raises(SealError):
        keys.open(damage(keys.seal(TOKEN, MINE)), MINE)


def test_another_hub_s_key_does_not_open_it(file: KeyFile, tmp_path: Path) -> None:
    other = KeyFile(tmp_path / "other").make()
    with pytest.raises(SealError):
        other.open(file.make().seal(TOKEN, MINE), MINE)


def test_the_file_is_private_and_kept(file: KeyFile) -> None:
    keys = file.make()
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert KeyFile(file.path).make() == keys
    assert [each.name for each in file.path.parent.iterdir()] == [file.path.name]


def test_of_many_that_create_it_at_once_all_have_the_same_key(tmp_path: Path) -> None:
    made = [KeyFile(tmp_path / "key") for _ in range(16)]
    with ThreadPoolExecutor(16) as pool:
        assert len(set(pool.map(lambda each: each.make(), made))) == 1


def test_a_new_key_above_the_old_one_seals_and_both_open(file: KeyFile) -> None:
    before = file.make().seal(TOKEN, MINE)
    lines = file.path.read_text().splitlines()
    file.path.write_text("\n".join([*lines[:-1], "ab" * 32, lines[-1], ""]))
    keys = file.make()
    assert len(keys.values) == 2
    assert keys.open(before, MINE) == TOKEN
    after = keys.seal(TOKEN, MINE)
    file.path.write_text("ab" * 32)
    assert file.read().open(after, MINE) == TOKEN
    with pytest.raises(SealError):
        file.read().open(before, MINE)


def test_a_file_that_is_gone_is_said_and_the_next_server_brings_a_new_one(file: KeyFile) -> None:
    before = file.make()
    file.path.unlink()
    with pytest.raises(ConfigError, match="does not exist"):
        file.read()
    assert file.make() != before


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620, 0o602, 0o660, 0o666, 0o777])
def test_a_file_that_others_can_use_is_not_used_until_it_is_mended(
    file: KeyFile, mode: int
) -> None:
    keys = file.make()
    file.path.chmod(mode)
    for use in (file.read, file.make, KeyFile(file.path).read):
        with pytest.raises(ConfigError, match=f"chmod 600 {file.path}"):
            use()
    file.path.chmod(0o600)
    assert file.read() == keys


@pytest.mark.parametrize(
    "text", ["", "# only this\n", "short", "ab" * 33, "zz" * 32, "ab" * 32 + "\nsecret words\n"]
)
def test_a_damaged_file_is_said_and_not_overwritten(file: KeyFile, text: str) -> None:
    file.path.write_text(text)
    file.path.chmod(0o600)
    with pytest.raises(ConfigError, match="cannot be used") as raised:
        file.make()
    assert "secret words" not in str(raised.value)
    assert file.path.read_text() == text


def test_what_is_no_file_is_said_at_once(file: KeyFile) -> None:
    os.mkfifo(file.path, 0o600)
    with pytest.raises(ConfigError, match="not a file"):
        file.make()
    file.path.unlink()
    file.path.mkdir(0o700)
    with pytest.raises(ConfigError, match="not a file"):
        file.make()


def test_a_link_to_a_private_file_is_followed(file: KeyFile, tmp_path: Path) -> None:
    real = KeyFile(tmp_path / "secrets")
    keys = real.make()
    file.path.symlink_to(real.path)
    assert file.make() == keys


def test_a_folder_that_cannot_be_written_is_said_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"c\.MigBroker\.key_file") as raised:
        KeyFile(tmp_path / "missing" / "key").make()
    assert str(tmp_path / "missing" / "key") in str(raised.value)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_file_of_another_user_is_not_used(file: KeyFile) -> None:
    keys = file.make()
    os.chown(file.path, 4242, 4242)
    with pytest.raises(ConfigError, match="belongs to another user"):
        file.read()
    # Root may look at the file of the user that runs the hub.
    assert KeyFile(file.path, any_owner=True).read() == keys


def test_keys_are_compared_by_value() -> None:
    assert Keys((b"a" * 32,)) == Keys((b"a" * 32,))
