"""A server's pid after a restart of the hub: it is the server's, another's, or cannot be read."""

from __future__ import annotations

import os
import pwd
from types import SimpleNamespace
from typing import Any

import pytest

from jupyterhub_migspawner.agent.processes import Process
from jupyterhub_migspawner.spawner.launchers import local, process
from jupyterhub_migspawner.spawner.launchers.process import SameProcess


class Base:
    """As much of a spawner of local processes as there is to a pid."""

    pid = 0
    proc: Any = None

    def load_state(self, state: dict[str, Any]) -> None:
        self.pid = state.get("pid", 0)

    async def poll(self) -> int | None:
        return None if self.pid else 0


class Spawner(SameProcess, Base):  # type: ignore[misc]
    """The mixin over it."""


@pytest.fixture
def spawner(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Spawner:
    (tmp_path / "4242").mkdir()
    fields = ["S", *["0"] * 18, "77", "0"]
    (tmp_path / "4242" / "stat").write_text(f"4242 (py) {' '.join(fields)}")
    monkeypatch.setattr(process, "PROC", tmp_path)
    return Spawner()


async def test_a_server_that_runs_is_found_again(spawner: Spawner) -> None:
    spawner.load_state({"pid": 4242, "pid_started": 77})
    assert await spawner.poll() is None
    assert spawner._process() == Process(4242, 77)


async def test_a_pid_of_another_process_is_no_server(spawner: Spawner) -> None:
    spawner.load_state({"pid": 4242, "pid_started": 76})
    assert await spawner.poll() == 0


async def test_a_pid_that_becomes_another_process_is_no_server_any_more(spawner: Spawner) -> None:
    spawner.load_state({"pid": 4242, "pid_started": 77})
    stat = process.PROC / "4242" / "stat"
    stat.write_text(stat.read_text().replace("77", "78"))
    assert await spawner.poll() == 0


async def test_a_process_that_cannot_be_read_is_not_taken_for_gone(spawner: Spawner) -> None:
    stat = process.PROC / "4242" / "stat"
    stat.unlink()
    stat.symlink_to(stat)
    spawner.load_state({"pid": 4242, "pid_started": 77})
    assert spawner.pid == 4242
    assert await spawner.poll() is None


def users(kind: type[Any], name: str, **changes: Any) -> int | None:
    """As whom a spawner of that kind says it starts a server, before it does."""
    changed = type("Changed", (kind,), changes)
    spawner = changed.__new__(changed)
    spawner.user = SimpleNamespace(name=name)
    uid: int | None = spawner._mig_server_uid()
    return uid


def test_whom_a_server_will_run_as_is_known_before_it_is_launched() -> None:
    me = pwd.getpwuid(os.geteuid())
    assert users(local.MigLocalSpawner, me.pw_name) == me.pw_uid
    assert users(local.MigLocalSpawner, "no such user") is None
    assert users(local.MigSimpleSpawner, "no such user") == os.geteuid()


@pytest.mark.parametrize("kind", [local.MigLocalSpawner, local.MigSimpleSpawner])
def test_whoever_starts_servers_in_another_way_says_nothing(kind: type[Any]) -> None:
    name = pwd.getpwuid(os.geteuid()).pw_name
    assert users(kind, name, make_preexec_fn=lambda self, name: None) is None
