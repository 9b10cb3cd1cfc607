"""What signs people in to a demo: its password, its links, and the limit on wrong guesses."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from jupyterhub_migspawner.cli.demo import credentials
from jupyterhub_migspawner.cli.demo.credentials import GUESS_SECONDS, GUESSES, Guesses, Links
from jupyterhub_migspawner.errors import MigspawnerError


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_each_folder_gets_a_password_of_its_own_and_keeps_it(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in "abc"]
    for folder in folders:
        folder.mkdir()
    made = [credentials.make_password(folder) for folder in folders]
    assert len(set(made)) == 3
    assert all(re.fullmatch(r"[a-z2-9]{4}(-[a-z2-9]{4}){3}", password) for password in made)
    assert [credentials.make_password(folder) for folder in folders] == made
    assert (folders[0] / "password").stat().st_mode & 0o777 == 0o600


def test_a_password_that_is_gone_or_empty_lets_nobody_in(tmp_path: Path) -> None:
    assert credentials.read_password(tmp_path) is None
    (tmp_path / "password").write_text(" \n")
    assert credentials.read_password(tmp_path) is None
    with pytest.raises(MigspawnerError, match="is empty"):
        credentials.make_password(tmp_path)


@pytest.fixture
def links(tmp_path: Path) -> Links:
    made = Links(tmp_path, Clock())
    made.clear()
    return made


def test_a_link_is_used_once(links: Links) -> None:
    key, other = links.create("ada"), links.create("grace")
    assert links.use(key) == "ada"
    assert links.use(key) is None
    assert links.use(other) == "grace"


def test_of_many_that_use_a_link_at_once_one_gets_in(links: Links) -> None:
    for _ in range(50):
        key = links.create("ada")
        with ThreadPoolExecutor(8) as pool:
            got = list(pool.map(links.use, [key] * 8))
        assert sorted(got, key=str) == [None] * 7 + ["ada"]


def test_an_old_link_does_not_work(tmp_path: Path) -> None:
    clock = Clock()
    links = Links(tmp_path, clock)
    links.clear()
    early, late = links.create("ada"), links.create("ada")
    clock.now += credentials.LINK_SECONDS - 1
    assert links.use(early) == "ada"
    clock.now += 1
    assert links.use(late) is None


def test_a_new_start_makes_all_links_unusable(links: Links, tmp_path: Path) -> None:
    key = links.create("ada")
    Links(tmp_path).clear()
    assert links.use(key) is None


def test_what_is_kept_of_a_link_opens_nothing(links: Links, tmp_path: Path) -> None:
    key = links.create("ada")
    (file,) = (tmp_path / "login-links").iterdir()
    assert key not in file.name + file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600
    for text in (file.name, "", "..", "../password", "\udcff", "\0", "a" * 10_000):
        assert links.use(text) is None
    assert links.use(key) == "ada"


def test_wrong_guesses_are_limited_and_come_back_with_time() -> None:
    clock = Clock()
    guesses = Guesses(clock)
    for _ in range(GUESSES):
        assert guesses.wait() == 0
        guesses.failed()
    assert guesses.wait() == GUESS_SECONDS
    clock.now += GUESS_SECONDS / 2
    assert guesses.wait() == pytest.approx(GUESS_SECONDS / 2)
    clock.now += GUESS_SECONDS / 2
    assert guesses.wait() == 0
    guesses.failed()
    assert guesses.wait() == GUESS_SECONDS
    clock.now += 3600
    for _ in range(GUESSES):
        assert guesses.wait() == 0
        guesses.failed()
    assert guesses.wait() == GUESS_SECONDS
