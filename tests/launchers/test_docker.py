"""Servers in containers of a real Docker daemon, from the start to the proof of an empty slice."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
import urllib.parse
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from docker.models.containers import Container

from jupyterhub_migspawner.agent.snapshot import family_processes
from jupyterhub_migspawner.gpu.devices import slice_nodes
from jupyterhub_migspawner.model.leases import LeaseRow
from jupyterhub_migspawner.spawner.launchers.containers import LABELS
from tests.acceptance.hubs import Hub
from tests.launchers.engines import (
    CAPABILITIES,
    CARDS,
    IMAGE,
    MEMORY,
    Engine,
    engine_with_cards,
    settings,
)

#: The container of the user "slow" runs, but start() is not through yet. That of "hooked" is given
#: another card, as a hook of a runtime may do.
EXTRA = """
import asyncio
launch = launcher.MigDockerSpawner._mig_launch
async def launch_slowly(self):
    url = await launch(self)
    if self.user.name == "slow":
        await asyncio.sleep(600)
    return url
launcher.MigDockerSpawner._mig_launch = launch_slowly
confine = launcher.MigDockerSpawner._mig_confined
def confine_badly(self, arguments):
    made = confine(self, arguments)
    if self.user.name == "root":
        made["user"] = "0"
    if self.user.name == "hooked":
        own = [each["PathOnHost"] for each in made["host_config"]["Devices"]]
        (other,) = {"/dev/nvidia0", "/dev/nvidia1"} - {*own}
        made["host_config"]["Devices"].append(
            {"PathOnHost": other, "PathInContainer": other, "CgroupPermissions": "rw"}
        )
    return made
launcher.MigDockerSpawner._mig_confined = confine_badly
c.JupyterHub.cleanup_servers = False
c.JupyterHub.allow_named_servers = True
c.MigBroker.tick_seconds = 0.2
c.Spawner.mem_limit = "1G"
c.MigBroker.tiers = [
    {"name": "cpu", "profile": "none"},
    {"name": "small", "profile": "1g.5gb", "default": True, "cpus": 0.5, "memory_gib": 0.25},
]
"""


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with engine_with_cards() as engine:
        yield engine


@pytest.fixture(scope="module")
def hub(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    # With everything that seccomp's profile forbids: the devices must not depend on it.
    extra = {"init": True, "security_opt": ["seccomp=unconfined"]}
    hub = Hub(
        tmp_path_factory.mktemp("hub"),
        layouts=[["1g.5gb"] * 7, ["3g.20gb", "1g.5gb", "1g.5gb"]],
        extra=settings(engine, extra_host_config=extra) + EXTRA,
    )
    hub.prefix = [*engine.inside]
    with hub.running():
        yield hub


@pytest.fixture(autouse=True)
def nothing_left(hub: Hub, engine: Engine) -> Iterator[None]:
    """Each test begins without servers, also when the one before has failed."""
    yield
    for user in hub.api("GET", "users")[1]:
        for name in user["servers"]:
            hub.api("DELETE", f"users/{quote(user['name'])}/servers/{name}")
    engine.remove_all()
    hub.until(lambda: not hub.rows())


def quote(name: str) -> str:
    return urllib.parse.quote(name, safe="")


def start(hub: Hub, user: str, server: str = "", tier: str = "small") -> tuple[int, Any]:
    hub.api("POST", f"users/{user}")
    path = f"users/{user}/servers/{server}" if server else f"users/{user}/server"
    return hub.api("POST", path, {"tier": tier})


def stop(hub: Hub, user: str) -> None:
    assert hub.api("DELETE", f"users/{user}/server")[0] in (202, 204)
    hub.until(lambda: not [lease for lease in hub.rows() if lease.user == user])


def lease_of(hub: Hub, user: str) -> LeaseRow:
    (lease,) = [each for each in hub.rows() if each.user == user]
    return lease


def container_of(engine: Engine, user: str) -> Container:
    (found,) = [each for each in engine.containers() if each.labels[LABELS["user"]] == user]
    return found


def nodes_of(hub: Hub, lease: LeaseRow) -> dict[str, str]:
    """The device nodes of a lease's slice, and how each is opened."""
    (row,) = [each.row for each in hub.broker().slices.find() if each.row.id == lease.slice_id]
    assert row.gi_id is not None
    assert row.ci_id is not None
    every = slice_nodes(row.card_index, row.gi_id, row.ci_id)
    return {node.path: node.access for node in every}


def test_a_server_gets_its_slice_and_its_limits(hub: Hub, engine: Engine) -> None:
    assert start(hub, "ada")[0] == 201
    lease, container = lease_of(hub, "ada"), container_of(engine, "ada")
    (listed,) = hub.cli("leases")
    assert listed["isolation"] == "container"
    assert container.labels[LABELS["attempt"]] == lease.attempt

    host = container.attrs["HostConfig"]
    given = {each["PathInContainer"]: each["CgroupPermissions"] for each in host["Devices"]}
    assert given == nodes_of(hub, lease)
    status, listing = engine.run_in(container, "sh", "-c", "ls -d /dev/nvidia* /dev/nvidia-caps/*")
    assert status == 0
    assert {*listing.split()} == {*given, "/dev/nvidia-caps"}

    environment = dict(each.partition("=")[::2] for each in container.attrs["Config"]["Env"])
    assert environment["CUDA_VISIBLE_DEVICES"] == lease.slice_uuid
    assert environment["NVIDIA_VISIBLE_DEVICES"] == "void"

    assert host["Memory"] == 256 << 20
    assert host["CpuQuota"] == 0.5 * host["CpuPeriod"]
    assert not host["Privileged"]
    assert host["CapDrop"] == ["MKNOD"]

    stop(hub, "ada")
    assert not engine.containers()


def test_a_server_without_a_gpu_gets_no_card(hub: Hub, engine: Engine) -> None:
    assert start(hub, "cpu", tier="cpu")[0] == 201
    container = container_of(engine, "cpu")
    assert not container.attrs["HostConfig"]["Devices"]
    assert container.attrs["HostConfig"]["Memory"] == 1 << 30
    assert engine.run_in(container, "sh", "-c", "ls /dev | grep nvidia")[1] == ""
    assert hub.api("DELETE", "users/cpu/server")[0] == 204


@pytest.mark.parametrize("root", [False, True], ids=["in the server", "as root with capabilities"])
def test_no_way_leads_to_another_slice(hub: Hub, engine: Engine, root: bool) -> None:
    assert start(hub, "eve")[0] == 201
    assert start(hub, "victim")[0] == 201
    container = container_of(engine, "eve")
    own = nodes_of(hub, lease_of(hub, "eve"))
    theirs = nodes_of(hub, lease_of(hub, "victim")).keys() - own
    assert theirs
    forbidden = {*theirs, "/dev/nvidia0", "/dev/nvidia1", "/dev/nvidia-caps/nvidia-cap1"} - {*own}
    forbidden |= {"/dev/nvidia-caps/nvidia-cap2"}
    command = [sys.executable, "-S", "-E", str(Path(__file__).with_name("docker_attack.py"))]
    command += [f"{path}={major}={minor}" for path, (major, minor) in numbers(*own, *forbidden)]
    if root:
        # What an image that runs as root has, in a network of its own.
        host = {
            **container.attrs["HostConfig"],
            "NetworkMode": "none",
            "SecurityOpt": ["seccomp=unconfined"],
        }
        host |= {"AutoRemove": False, "PortBindings": {}}
        made = engine.client.api.create_container(IMAGE, command, host_config=host, user="0")
        engine.client.api.start(made)
        assert engine.client.api.wait(made)["StatusCode"] == 0, engine.client.api.logs(made)
        output = engine.client.api.logs(made, stderr=False).decode()
        engine.client.api.remove_container(made)
    else:
        status, output = engine.run_in(container, *command, user="65534")
        assert status == 0, output
    found = json.loads(output)
    for path in own:
        assert found["by path"][path] == "ENXIO", path
    views = [found, *(found[name] for name in ("unshare", "unshare as root", "nsenter"))]
    looked_into = [view for view in views if isinstance(view, dict)]
    assert looked_into[0]["pids"] is not None
    assert len(found["pids"]) < 12
    for view in looked_into:
        for path in forbidden:
            assert view["by path"][path] == "ENOENT", path
            assert view["by mknod"][path] == "EPERM", path
            assert view["by mknod in /dev"][path] in ("EPERM", "EACCES"), path
            assert not {*view["through /proc"][path]} - {"ENOENT", "EACCES", "EPERM"}, path
    assert found["sys_admin"] == -1
    for user in ("eve", "victim"):
        stop(hub, user)


def test_a_container_that_was_given_another_card_is_ended(hub: Hub, engine: Engine) -> None:
    assert start(hub, "hooked")[0] == 503
    hub.until(lambda: not hub.rows())
    assert not engine.containers()
    assert "which its slice does not have, by something beside this hub" in hub.log()


def test_a_container_of_root_is_not_left_in_the_machines_network(hub: Hub, engine: Engine) -> None:
    assert start(hub, "root")[0] == 503
    hub.until(lambda: not hub.rows())
    assert not engine.containers()
    assert "it can ask the hub for its settings" in hub.log()


def numbers(*paths: str) -> Iterator[tuple[str, tuple[int, int]]]:
    for path in paths:
        number = path.rpartition("cap")[2] if "caps" in path else path.removeprefix("/dev/nvidia")
        if "caps" in path:
            yield path, (CAPABILITIES, int(number))
        elif number.isdigit():
            yield path, (CARDS, int(number))
        else:
            yield (
                path,
                {"ctl": (CARDS, 255), "-uvm": (MEMORY, 0), "-uvm-tools": (MEMORY, 1)}[number],
            )


def test_a_hub_without_a_memory_finds_its_containers_again(hub: Hub, engine: Engine) -> None:
    assert start(hub, "ada")[0] == 201
    before, lease = container_of(engine, "ada"), lease_of(hub, "ada")
    hub.kill()
    hub.until(lambda: not hub.service_pids())
    with sqlite3.connect(hub.directory / "hub.sqlite") as database:
        database.execute("UPDATE spawners SET state = NULL")
    hub.start()
    assert hub.api("GET", "users/ada")[1]["servers"][""]["ready"]
    assert container_of(engine, "ada").id == before.id
    assert lease_of(hub, "ada").id == lease.id
    stop(hub, "ada")
    assert not engine.containers()


def test_an_engine_that_does_not_answer_loses_no_server(hub: Hub, engine: Engine) -> None:
    assert start(hub, "ada")[0] == 201
    before, lease = container_of(engine, "ada"), lease_of(hub, "ada")
    hub.kill()
    hub.until(lambda: not hub.service_pids())
    assert engine.process is not None
    engine.process.send_signal(signal.SIGSTOP)
    try:
        hub.start()
        assert hub.api("GET", "users/ada")[1]["servers"][""]["ready"]
        assert "does not say whether the server of ada runs" in hub.log()
    finally:
        engine.process.send_signal(signal.SIGCONT)
    assert container_of(engine, "ada").id == before.id
    assert lease_of(hub, "ada").id == lease.id
    stop(hub, "ada")


def test_a_start_that_a_killed_hub_did_not_see_through_is_found(hub: Hub, engine: Engine) -> None:
    with ThreadPoolExecutor(1) as pool:
        hanging = pool.submit(start, hub, "slow")
        hub.until(lambda: bool(engine.containers()))
        lease, container = lease_of(hub, "slow"), container_of(engine, "slow")
        hub.until(lambda: lease.attempt in family_processes())
        hub.kill()
        assert hanging.result()[0] == 503
    hub.until(lambda: not hub.service_pids())
    assert lease_of(hub, "slow").state == "pending"
    hub.start()
    hub.until(lambda: hub.api("GET", "users/slow")[1]["servers"].get("", {}).get("ready", False))
    hub.until(lambda: lease_of(hub, "slow").state == "active")
    assert lease_of(hub, "slow").id == lease.id
    assert container_of(engine, "slow").id == container.id
    stop(hub, "slow")


def forget(hub: Hub, engine: Engine, user: str) -> tuple[LeaseRow, Container]:
    """Have a hub that knows nothing of a user's server, while its container runs."""
    assert start(hub, user)[0] == 201
    lease, container = lease_of(hub, user), container_of(engine, user)
    hub.kill()
    hub.until(lambda: not hub.service_pids())
    with sqlite3.connect(hub.directory / "hub.sqlite") as database:
        database.execute("UPDATE spawners SET state = NULL, server_id = NULL")
    hub.start()
    return lease, container


def test_a_forgotten_container_keeps_its_slice_until_it_is_gone(hub: Hub, engine: Engine) -> None:
    lease, container = forget(hub, engine, "ada")
    hub.until(lambda: bool(lease_of(hub, "ada").waiting_for))
    assert lease_of(hub, "ada").state == "releasing"
    (state,) = [s["state"] for s in hub.cli("slices") if s["uuid"] == lease.slice_uuid]
    assert state == "leased"
    assert container_of(engine, "ada").status == "running"
    container.kill()
    hub.until(lambda: not hub.rows())


def test_a_start_removes_what_an_earlier_one_has_left(hub: Hub, engine: Engine) -> None:
    lease, container = forget(hub, engine, "ada")
    assert start(hub, "ada")[0] == 201
    after = container_of(engine, "ada")
    assert after.name == container.name
    assert after.id != container.id
    hub.until(lambda: [each.state for each in hub.rows()] == ["active"])
    assert lease_of(hub, "ada").id != lease.id
    stop(hub, "ada")


def test_processes_in_other_namespaces_are_the_sessions(hub: Hub, engine: Engine) -> None:
    assert start(hub, "ada")[0] == 201
    lease, container = lease_of(hub, "ada"), container_of(engine, "ada")
    hidden = "setsid env -i unshare --user --map-root-user --pid --fork sleep 987654 & true"
    engine.client.api.exec_start(
        engine.client.api.exec_create(container.id, ["sh", "-c", hidden], user="65534"), detach=True
    )

    def sleeper() -> set[int]:
        return {
            process.pid
            for process in family_processes().get(lease.attempt, [])
            if b"987654" in Path(f"/proc/{process.pid}/cmdline").read_bytes()
        }

    hub.until(lambda: bool(sleeper()))
    (pid, *_) = sleeper()
    # By its number on the machine, which is what NVML lists.
    assert "NSpid" in Path(f"/proc/{pid}/status").read_text()
    stop(hub, "ada")
    assert not Path(f"/proc/{pid}").exists()


def test_odd_names_are_servers_of_their_own(hub: Hub, engine: Engine) -> None:
    people = ["o'brien+x@lab.example", "grüße", "a--b", "a-b", "a_b"]
    for user in people:
        hub.api("POST", f"users/{quote(user)}")
        assert hub.api("POST", f"users/{quote(user)}/server", {"tier": "small"})[0] == 201
    assert start(hub, "o", "brien")[0] == 201
    assert len(hub.rows()) == 6
    containers = engine.containers()
    assert len({each.name for each in containers}) == 6
    whose = {(c.labels[LABELS["user"]], c.labels[LABELS["server"]]) for c in containers}
    assert whose == {*((user, "") for user in people), ("o", "brien")}


def test_doctor_knows_the_engine_and_the_image(hub: Hub, engine: Engine) -> None:
    done = subprocess.run(
        [
            *engine.inside,
            *(sys.executable, "-m", "jupyterhub_migspawner.cli", "doctor", "--json"),
            *("-f", str(hub.config)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    found = {finding["message"]: finding for finding in json.loads(done.stdout)}
    about = {text: each["state"] for text, each in found.items() if each["check"] == "containers"}
    version = engine.client.version()["Version"]
    assert about.pop(f"The image {IMAGE} is on this machine.") == "ok"
    (answers,) = [text for text in about if f"Docker {version} answers at {engine.url}" in text]
    assert about.pop(answers) == "ok"
    ((network, state),) = about.items()
    assert "network_name = 'host'" in network
    assert state == "warning"
