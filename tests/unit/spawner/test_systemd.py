"""What a server's unit is asked to be, and what is concluded from systemd's answers."""

from __future__ import annotations

import asyncio
import getpass
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from jupyterhub.objects import Hub
from traitlets import TraitError

from jupyterhub_migspawner.config import MigBroker
from jupyterhub_migspawner.errors import LaunchError, UnitError
from jupyterhub_migspawner.gpu.devices import slice_nodes
from jupyterhub_migspawner.hub.context import KEY, HubContext
from jupyterhub_migspawner.policy.isolation import NONE, SYSTEMD
from jupyterhub_migspawner.spawner.launchers import systemd, units
from jupyterhub_migspawner.spawner.launchers.systemd import MigSystemdSpawner
from jupyterhub_migspawner.spawner.launchers.units import (
    Unit,
    UnitState,
    environment_text,
    run_arguments,
)

FIRST, SECOND = slice_nodes(0, 9, 0), slice_nodes(1, 1, 0)

#: Answers as systemctl gives them.
RUNNING = "LoadState=loaded\nActiveState=active\nMainPID=7\nExecMainStatus=0\n"
STOPPING = RUNNING.replace("=active", "=deactivating")
FAILED = "LoadState=loaded\nActiveState=failed\nMainPID=0\nExecMainStatus=3\n"
KILLED = FAILED.replace("=3", "=0")
UNKNOWN = "LoadState=not-found\nActiveState=inactive\n"


def a_server(server: str = "", user: str = "ada", **traits: Any) -> MigSystemdSpawner:
    traits = {"username_template": getpass.getuser(), **traits}
    settings = {KEY: HubContext(MigBroker())}
    person = SimpleNamespace(name=user, id=1, url=f"/user/{user}/", settings=settings)
    orm = SimpleNamespace(name=server, state={}, oauth_client=None, server=None)
    found = MigSystemdSpawner(hub=Hub(), user=person, orm_spawner=orm, **traits)
    found._mig_isolation = SYSTEMD
    return found


def values(properties: Any, name: str) -> list[str]:
    prefix = f"--property={name}="
    arguments = run_arguments("u", [], properties)
    return [each.removeprefix(prefix) for each in arguments if each.startswith(prefix)]


@pytest.fixture
def answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Have systemctl do something else; its calls are in the file ``calls``."""
    # systemdspawner asks for systemd's version once in a process, with its first spawner.
    a_server()
    monkeypatch.setattr(units, "ENVIRONMENTS", tmp_path / "environments")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    def answer(program: str, name: str = "systemctl") -> None:
        (tmp_path / name).write_text(f"#!/bin/sh\necho {name} $@ >> {tmp_path}/calls\n{program}\n")
        (tmp_path / name).chmod(0o755)

    return answer


def prints(text: str) -> str:
    return f"cat <<'END'\n{text}END"


# -- what is asked for -----------------------------------------------------------------------------


def test_a_unit_may_open_the_nodes_of_its_slice() -> None:
    server = a_server()
    server._mig_nodes = FIRST
    found = server._properties()
    assert values(found, "DevicePolicy") == ["closed"]
    assert values(found, "DeviceAllow") == [
        "/dev/nvidiactl rw",
        "/dev/nvidia-uvm rw",
        "/dev/nvidia-uvm-tools rw",
        "/dev/nvidia0 rw",
        "/dev/nvidia-caps/nvidia-cap84 r",
        "/dev/nvidia-caps/nvidia-cap85 r",
    ]


def test_a_unit_without_a_slice_may_open_none() -> None:
    found = a_server()._properties()
    assert (values(found, "DevicePolicy"), values(found, "DeviceAllow")) == (["closed"], [])


def test_a_start_has_nothing_of_an_earlier_one() -> None:
    extra = {"Nice": "{USERID}", "DeviceAllow": ["/dev/fuse rw"]}
    server = a_server(unit_extra_properties=extra, mem_limit="1G", cpu_limit=2)
    server._mig_nodes = FIRST
    first = server._properties()
    server._mig_nodes, server.mem_limit, server.cpu_limit = SECOND, None, None
    second = server._properties()
    server._mig_nodes, server.mem_limit, server.cpu_limit = FIRST, 1 << 30, 2
    assert server._properties() == first
    assert not {*values(second, "DeviceAllow")} & {node.path + " r" for node in FIRST}
    assert "MemoryMax" not in second
    assert "CPUQuota" not in second
    assert server.unit_extra_properties == {
        "Nice": "{USERID}",
        "DeviceAllow": ["/dev/fuse rw"],
    }
    assert values(second, "Nice") == ["1"]
    assert values(second, "DeviceAllow")[-1] == "/dev/fuse rw"


@pytest.mark.parametrize(
    ("limit", "quota"), [(0.5, "50%"), (0.29, "29%"), (4, "400%"), (0.001, "1%")]
)
def test_limits_become_those_of_the_unit(limit: float, quota: str) -> None:
    found = a_server(cpu_limit=limit, mem_limit="2G")._properties()
    assert values(found, "CPUQuota") == [quota]
    assert values(found, "MemoryMax") == [str(2 << 30)]


def test_a_private_dev_is_only_for_servers_without_a_gpu() -> None:
    server = a_server(isolate_devices=True)
    assert values(server._properties(), "PrivateDevices") == ["yes"]
    server._mig_nodes = FIRST
    assert values(server._properties(), "PrivateDevices") == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, "yes") for name in systemd.OWN),
        ("DeviceAllow", "/dev/nvidia0 rw"),
        ("DeviceAllow", ["/dev/fuse rw", "/dev/nvidia-caps/nvidia-cap1 r"]),
        ("DeviceAllow", "/dev/../dev/nvidia0 rw"),
        ("DeviceAllow", "/dev/char/195:0 rw"),
        ("DeviceAllow", "char-nvidia-caps r"),
        ("DeviceAllow", "char-* rw"),
        ("DeviceAllow", ""),
    ],
)
def test_a_configuration_cannot_widen_what_a_server_may_open(name: str, value: Any) -> None:
    with pytest.raises(TraitError, match="unit_extra_properties cannot"):
        a_server(unit_extra_properties={name: value})


def test_two_servers_of_a_user_have_units_of_their_own() -> None:
    names = [a_server(server).unit_name for server in ("", "a", "b")]
    assert names == ["migspawner-hub-ada", "migspawner-hub-ada-a", "migspawner-hub-ada-b"]


def test_a_unit_keeps_its_name_when_its_user_is_renamed() -> None:
    before = a_server()
    after = a_server(user="lovelace")
    after.load_state(before.get_state())
    assert after.unit_name == "migspawner-hub-ada"
    after.clear_state()
    assert after.unit_name == "migspawner-hub-lovelace"
    after.load_state({})
    assert after.unit_name == "migspawner-hub-lovelace"


@pytest.mark.parametrize(
    "environment",
    [{"A B": "c"}, {"": "c"}, {"A": "\x1b[1m"}, {"A": "\0"}, {"A": "\udc80"}, {"1A": "b"}],
)
def test_a_variable_that_systemd_would_drop_is_an_error(environment: dict[str, str]) -> None:
    with pytest.raises(UnitError):
        environment_text(environment)


# -- what systemd answers --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "polled"),
    [
        (prints(RUNNING), None),
        (prints(STOPPING), None),
        (prints(FAILED), 3),
        (prints(KILLED), 1),
        (prints(UNKNOWN), 0),
        ("echo 'Failed to connect to bus' >&2; exit 1", None),
        (prints(FAILED) + "\nexit 1", None),
        ("exit 0", None),
        ("exec sleep 7777", None),
        ("kill -9 $$", None),
    ],
)
async def test_only_an_answer_says_that_a_server_has_ended(
    answers: Any, monkeypatch: pytest.MonkeyPatch, answer: str, polled: int | None
) -> None:
    answers(answer)
    if "sleep" in answer:
        monkeypatch.setattr(units, "_PATIENCE", 0.1)
    assert await a_server().poll() == polled


async def test_a_systemctl_that_is_not_there_says_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    server = a_server()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert await server.poll() is None


async def test_nothing_is_started_while_systemd_does_not_answer(
    answers: Any, tmp_path: Path
) -> None:
    answers("exit 1")
    answers("exit 0", "systemd-run")
    with pytest.raises(Exception, match="could not be started"):
        await a_server(cmd=["/bin/true"])._mig_launch()
    assert "systemd-run" not in (tmp_path / "calls").read_text()


async def test_a_start_that_is_cancelled_leaves_no_unit(answers: Any, tmp_path: Path) -> None:
    answers(prints(UNKNOWN))
    answers("exec sleep 7777", "systemd-run")
    server = a_server(cmd=["/bin/true"])
    server.get_env = lambda: {"A": "b"}
    server.get_args = list
    start = asyncio.create_task(server._mig_launch())

    def calls() -> str:
        return (tmp_path / "calls").read_text() if (tmp_path / "calls").exists() else ""

    while "systemd-run" not in calls():
        await asyncio.sleep(0.01)
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    await systemd._stops["migspawner-hub-ada"]
    asked = calls().partition("systemd-run")[2]
    assert "systemctl stop -- migspawner-hub-ada.service" in asked
    assert not server._mig_unit().environment_file.exists()


async def test_a_start_waits_for_the_stop_of_the_one_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A stop that is late would end the new unit."""
    happened: list[str] = []
    may_end = asyncio.Event()

    async def stop(unit: Unit) -> None:
        await may_end.wait()
        happened.append("stopped")

    async def start(unit: Unit, *_: Any) -> None:
        happened.append("started")

    async def state(unit: Unit) -> UnitState:
        return UnitState("active" if "started" in happened else "inactive")

    for method in (stop, start, state):
        monkeypatch.setattr(Unit, method.__name__, method)
    a_server()._stop_later(Unit("migspawner-hub-ada"))
    server = a_server(cmd=["/bin/true"])
    server.get_env = lambda: {"A": "b"}
    server.get_args = list
    launch = asyncio.create_task(server._mig_launch())
    for _ in range(100):  # as many turns of the loop as a launch could need
        await asyncio.sleep(0)
    assert happened == []
    may_end.set()
    await launch
    assert happened == ["stopped", "started"]
    assert not systemd._stops


async def test_a_failed_start_leaves_no_environment(answers: Any, tmp_path: Path) -> None:
    answers(prints(UNKNOWN))
    answers("echo no >&2; exit 1", "systemd-run")
    unit = Unit("migspawner-hub-ada")
    with pytest.raises(UnitError, match=r"could not start migspawner-hub-ada\.service: no"):
        await unit.start(["/bin/true"], {"TOKEN": "secret"}, {})
    assert not unit.environment_file.exists()
    assert "secret" not in (tmp_path / "calls").read_text()


async def test_an_environment_is_for_its_owner_alone(answers: Any, tmp_path: Path) -> None:
    answers("exit 0", "systemd-run")
    unit = Unit("u" * 247)
    await unit.start(["/bin/true"], {"TOKEN": "secret"}, {})
    assert unit.environment_file.read_text() == 'TOKEN="secret"\n'
    assert unit.environment_file.stat().st_mode & 0o777 == 0o600
    assert unit.environment_file.parent.stat().st_mode & 0o777 == 0o700
    assert "secret" not in (tmp_path / "calls").read_text()


async def test_a_unit_that_does_not_stop_is_reported(
    answers: Any, caplog: pytest.LogCaptureFixture
) -> None:
    answers(f"[ $1 = stop ] && exit 1\n{prints(RUNNING)}")
    server = a_server()
    server.log.propagate = True
    await server.stop()
    assert "could not stop migspawner-hub-ada.service" in caplog.text


# -- what is in force ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("isolation", "why", "found"),
    [
        ("auto", "", SYSTEMD),
        ("systemd", "", SYSTEMD),
        ("none", "", NONE),
        ("auto", "The rules have no effect.", NONE),
        ("none", "The rules have no effect.", NONE),
        ("systemd", "The rules have no effect.", LaunchError),
    ],
)
def test_a_server_is_said_to_be_isolated_where_the_rules_work(
    monkeypatch: pytest.MonkeyPatch, isolation: str, why: str, found: Any
) -> None:
    monkeypatch.setattr(systemd, "problem", lambda: "")
    monkeypatch.setattr(systemd, "rules_problem", lambda: why)
    server = a_server(isolation=isolation)
    if found is LaunchError:
        with pytest.raises(LaunchError, match="no effect"):
            server._mig_choose_isolation()
        return
    server._mig_isolation = server._mig_choose_isolation()
    assert server._mig_isolation == found
    assert values(server._properties(), "DevicePolicy") == (["closed"] if found == SYSTEMD else [])


@pytest.mark.parametrize("isolation", ["auto", "systemd"])
def test_no_server_starts_without_systemd(monkeypatch: pytest.MonkeyPatch, isolation: str) -> None:
    monkeypatch.setattr(units, "BOOTED", Path("/nonexistent"))
    with pytest.raises(UnitError, match="not the first process"):
        a_server(isolation=isolation)._mig_choose_isolation()


def test_its_user_is_known_before_the_launch() -> None:
    assert a_server(username_template="root")._mig_server_uid() == 0
    assert a_server(username_template="no such user")._mig_server_uid() is None
    assert a_server(dynamic_users=True)._mig_server_uid() is None
