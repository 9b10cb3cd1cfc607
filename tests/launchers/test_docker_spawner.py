"""Names of containers, an engine that does not answer, and containers that are not the server's."""

from __future__ import annotations

import asyncio
import math
import os
import re
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import docker
import pytest
import requests
from dockerspawner import DockerSpawner
from hypothesis import given
from hypothesis import strategies as st
from traitlets import TraitError
from traitlets.config import Config

from jupyterhub_migspawner.agent.processes import Process
from jupyterhub_migspawner.errors import LaunchError
from jupyterhub_migspawner.gpu.devices import slice_nodes
from jupyterhub_migspawner.spawner.launchers import containers
from jupyterhub_migspawner.spawner.launchers.container_view import foreign_nodes
from jupyterhub_migspawner.spawner.launchers.containers import LABELS
from jupyterhub_migspawner.spawner.launchers.docker import MigDockerSpawner
from tests.unit.service.pages.test_status import LEASE

MIG = {"hub_home": "node1:/etc/jupyterhub", "hub": "hub"}


class Spawner(MigDockerSpawner):
    """A spawner whose engine is ``engine``, a function of the method's name and its arguments."""

    engine: Any = None

    @property
    def mig_config(self) -> Any:
        return self.user.mig

    def _docker(self, method: str, *args: Any, **kwargs: Any) -> Any:
        return self.engine(method, *args, **kwargs)


def spawner(
    user: str = "ada", server: str = "", mig: dict[str, str] | None = None, **traits: Any
) -> Spawner:
    owner = SimpleNamespace(name=user, settings={}, mig=SimpleNamespace(**(mig or MIG)))
    return Spawner(
        user=owner,
        orm_spawner=SimpleNamespace(name=server, server=None),
        config=Config({"MigDockerSpawner": traits}),
    )


def refusal(status: int) -> docker.errors.APIError:
    response = requests.Response()
    response.status_code = status
    kind = docker.errors.NotFound if status == 404 else docker.errors.APIError
    return kind("the engine refuses", response=response)


def answers(running: bool, **labels: str) -> Any:
    """An engine that has a container, with these labels."""

    def engine(method: str, *args: Any, **kwargs: Any) -> Any:
        assert method == "inspect_container"
        return {
            "Id": "1234567890",
            "State": {"Running": running, "ExitCode": 1, "Error": "", "FinishedAt": ""},
            "Config": {"Labels": labels},
        }

    return engine


def ours(each: Spawner) -> dict[str, str]:
    return each._mig_labels()


def fails(error: Exception) -> Any:
    def engine(method: str, *args: Any, **kwargs: Any) -> Any:
        raise error

    return engine


# -- names ---------------------------------------------------------------------------------------

names = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=40)


@given(
    first=st.tuples(names, names | st.just("")),
    second=st.tuples(names, names | st.just("")),
)
def test_no_two_servers_have_one_name(first: tuple[str, str], second: tuple[str, str]) -> None:
    one, other = spawner(*first).object_name, spawner(*second).object_name
    assert (one == other) == (first == second)
    for name in (one, other):
        assert re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+", name)  # what the engine takes
        assert len(name) <= 63


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (("ada", "A"), ("ada", "a")),  # the base spawner writes both as "a"
        (("ada", "x--y"), ("ada--x", "y")),
        (("ada-2d", ""), ("ada-", "")),
        (("x" * 200 + "1", ""), ("x" * 200 + "2", "")),
        (("ada", ""), ("ada", "ada")),
    ],
)
def test_names_that_look_alike_are_different(
    first: tuple[str, str], second: tuple[str, str]
) -> None:
    assert spawner(*first).object_name != spawner(*second).object_name


def test_servers_differ_in_an_admins_own_template() -> None:
    template = "{prefix}-{username}--{servername}"
    one, other = (spawner("ada", name, name_template=template) for name in ("A", "a"))
    assert one.object_name != other.object_name


def test_two_hubs_on_one_engine_have_different_names() -> None:
    here = spawner().object_name
    assert here == spawner().object_name
    for other in ({**MIG, "hub": "other"}, {**MIG, "hub_home": "node1:/srv/hub"}):
        assert spawner(mig=other).object_name != here


def test_a_hub_that_has_forgotten_a_server_finds_it_under_the_same_name() -> None:
    before, after = spawner(), spawner()
    before.object_id = "1234567890"
    kept = before.get_state()
    after.load_state({})
    assert after.object_name == kept["object_name"]


# -- whether it runs -----------------------------------------------------------------------------


async def test_a_container_that_runs_is_a_server_that_runs() -> None:
    each = spawner()
    each.engine = answers(True, **ours(each))
    assert await each.poll() is None
    each.engine = answers(False, **ours(each))
    assert await each.poll() is not None


async def test_a_container_that_is_not_there_is_gone() -> None:
    each = spawner()
    each.engine = fails(refusal(404))
    assert await each.poll() == 0


@pytest.mark.parametrize(
    "error",
    [
        refusal(500),
        refusal(503),
        requests.exceptions.ConnectionError("no daemon"),
        requests.exceptions.ReadTimeout("60 seconds"),
        docker.errors.DockerException("not the right version"),
        OSError("socket"),
        KeyError("State"),
    ],
)
async def test_an_engine_that_does_not_say_makes_no_server_count_as_ended(
    error: Exception,
) -> None:
    each = spawner()
    each.engine = fails(error)
    assert await each.poll() is None


async def test_an_engine_that_never_answers_delays_nobody_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(containers, "POLL_SECONDS", 0.01)
    each, never = spawner(), asyncio.Event()

    async def hang() -> None:
        await never.wait()

    monkeypatch.setattr(Spawner, "docker", lambda *args, **kwargs: hang())
    assert await each.poll() is None


async def test_a_container_of_another_hub_is_not_this_server() -> None:
    each = spawner()
    each.engine = answers(True, **{**ours(each), LABELS["hub"]: "another"})
    assert await each.poll() == 0
    with pytest.raises(LaunchError, match="not this hub's"):
        await each.get_object()


async def test_a_renamed_users_container_is_theirs_by_its_id() -> None:
    each = spawner("lovelace")
    each.load_state({"object_id": "1234567890", "object_name": "jupyter-ada-1"})
    each.engine = answers(True, **ours(spawner("ada")))
    assert await each.poll() is None


async def test_stop_of_what_is_not_there_is_done() -> None:
    each = spawner()
    each.engine = fails(refusal(404))
    await each.stop()
    each.engine = answers(True, **{LABELS["hub"]: "another"})
    await each.stop()


class Engine:
    """An engine with one thread, whose start of a container takes until ``go``."""

    def __init__(self) -> None:
        self.starts, self.go = threading.Event(), threading.Event()
        self.containers: dict[str, dict[str, Any]] = {}
        self.removed: list[str] = []

    def __call__(self, method: str, *args: Any, **kwargs: Any) -> Any:
        if method == "create_container":
            made = {"Id": "new", "Config": {"Labels": kwargs["labels"]}, "State": {}}
            self.containers[kwargs["name"]] = made
        elif method == "start":
            self.starts.set()
            assert self.go.wait(60)
        elif method == "inspect_container":
            if args[0] not in self.containers:
                raise refusal(404)
            return self.containers[args[0]]
        elif method == "remove_container":
            self.removed.append(args[0])
        return {}


@pytest.fixture
def starting(monkeypatch: pytest.MonkeyPatch) -> Spawner:
    """A spawner whose start consists of the engine's part alone."""

    async def start(self: Any) -> None:
        await self.docker("create_container")
        await self.docker("start", "new")

    monkeypatch.setattr(DockerSpawner, "start", start)
    monkeypatch.setattr(Spawner, "executor", ThreadPoolExecutor(1))
    monkeypatch.setattr(MigDockerSpawner, "_mig_known", (math.inf, {}))
    each = spawner()
    each.engine = Engine()
    each._mig_attempt = "this start"
    return each


async def cancel(each: Spawner) -> None:
    """Cancel a start while the engine starts the container; then the engine goes on."""
    task = asyncio.create_task(each._mig_launch())
    assert await asyncio.to_thread(each.engine.starts.wait, 60)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_cancelled_start_leaves_no_container_behind(starting: Spawner) -> None:
    await cancel(starting)
    assert starting.engine.removed == []
    starting.engine.go.set()
    while not starting.engine.removed:
        await starting.docker("info")
    assert starting.engine.removed == ["new"]


async def test_a_cancelled_start_leaves_the_next_ones_container_alone(starting: Spawner) -> None:
    await cancel(starting)
    (container,) = starting.engine.containers.values()
    container["Config"]["Labels"][LABELS["attempt"]] = "the next start"
    starting.engine.go.set()
    for _ in range(3):  # in the engine's one thread, behind all that the cancelled start does
        await starting.docker("info")
    assert starting.engine.removed == []


# -- what a container gets -----------------------------------------------------------------------


def test_containers_are_always_removed() -> None:
    assert spawner().remove
    with pytest.raises(TraitError, match="remove cannot be False"):
        spawner(remove=False)


def test_the_environment_of_a_container_has_no_word_for_nvidias_hook() -> None:
    each = spawner()
    each._mig_lease = LEASE
    each._mig_nodes = slice_nodes(0, 9, 0)
    made = each._mig_confined(
        {
            "environment": ["NVIDIA_VISIBLE_DEVICES=all", "CUDA_VISIBLE_DEVICES=MIG-2", "A=b=c"],
            "labels": {"site": "x"},
            "name": "another",
        }
    )
    assert made["environment"]["NVIDIA_VISIBLE_DEVICES"] == "void"
    assert made["environment"]["CUDA_VISIBLE_DEVICES"] == LEASE.slice_uuid
    assert made["environment"]["A"] == "b=c"
    assert made["name"] == each.object_name
    assert made["labels"] == {"site": "x", **ours(each)}


def test_a_container_gets_each_node_with_its_access_and_cannot_make_others() -> None:
    each = spawner()
    each._mig_nodes = slice_nodes(0, 9, 0)
    host = each._mig_confined({"host_config": {"CapDrop": ["NET_RAW"]}})["host_config"]
    assert host["CapDrop"] == ["NET_RAW", "MKNOD"]
    given = {each["PathOnHost"]: each["CgroupPermissions"] for each in host["Devices"]}
    assert given == {node.path: node.access for node in each._mig_nodes}
    assert given["/dev/nvidia-caps/nvidia-cap84"] == "r"
    assert "DeviceRequests" not in host


def test_what_an_admin_adds_is_refused_wherever_it_was_set() -> None:
    for arguments in ({"host_config": {"Privileged": True}}, {"runtime": "nvidia"}):
        with pytest.raises(LaunchError):
            spawner().docker("create_container", **arguments)


async def test_a_default_runtime_of_nvidia_is_not_used() -> None:
    each = spawner(devices="nodes")
    info = {"DefaultRuntime": "nvidia", "Runtimes": {"nvidia": {}, "runc": {}}}
    each.engine = lambda method: info
    MigDockerSpawner._mig_known = None
    await each._mig_choose_devices()
    MigDockerSpawner._mig_known = None
    assert each._mig_confined({})["host_config"]["Runtime"] == "runc"


@pytest.mark.parametrize(
    ("given", "address"),
    [
        ({}, containers.DEFAULT_ENGINE),
        ({"base_url": "unix:///run/podman/podman.sock"}, "unix:///run/podman/podman.sock"),
        ({"base_url": "http+unix:///run/x.sock"}, "unix:///run/x.sock"),
    ],
)
def test_where_the_engine_is(
    given: dict[str, str], address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    assert containers.engine_address(given) == address


def test_a_container_that_was_given_more_than_its_slice_is_noticed(tmp_path: Path) -> None:
    """What a hook of a runtime added, as it is seen from outside."""
    inside, host = tmp_path / "77" / "root" / "dev", tmp_path / "dev"

    def node(folder: Path, name: str, major: int, minor: int) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        os.mknod(folder / name, stat.S_IFCHR | 0o600, os.makedev(major, minor))

    for folder in (inside, host):
        node(folder, "nvidia0", 195, 0)
        node(folder, "nvidia-caps/nvidia-cap84", 511, 84)
    (inside / "nvidia5").write_text("no device")
    (inside / "nvidia7").symlink_to("/dev/null")
    node(inside, "tty", 5, 0)

    def foreign() -> list[str]:
        return foreign_nodes(Process(77, 1), slice_nodes(0, 9, 0), proc=tmp_path, root=tmp_path)

    assert foreign() == []
    node(inside, "nvidia-caps/nvidia-cap2", 511, 2)
    node(inside, "nvidia1", 195, 1)
    (inside / "nvidia0").unlink()
    node(inside, "nvidia0", 195, 1)  # the card of others, under the name of its own
    assert foreign() == ["/dev/nvidia-caps/nvidia-cap2", "/dev/nvidia0", "/dev/nvidia1"]
