"""Units as systemd has them: what they may open, what they get, and how they end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from jupyterhub_migspawner.gpu.devices import DeviceNode, slice_nodes
from jupyterhub_migspawner.policy.units import escape, unit_name
from tests.fast.policy.test_units import ODD
from tests.launchers.systemd_machine import PYTHON, Machine

OPENER = "/usr/local/lib/opener.py"


#: Starts a unit from values on the command line, in JSON, and says why it could not.
START = """
import asyncio, json, sys
from jupyterhub_migspawner.errors import UnitError
from jupyterhub_migspawner.gpu.devices import DeviceNode
from jupyterhub_migspawner.spawner.launchers.units import Unit, device_rules
asked = json.loads(sys.argv[1])
unit = Unit(asked["name"])
rules = device_rules([DeviceNode(path, access) for path, access in asked["nodes"]])
async def main():
    properties = {**rules, **asked["properties"]}
    try:
        await unit.start(asked["command"], asked["environment"], properties, *asked["options"])
    except UnitError as error:
        return str(error)
    return ""
print(json.dumps(asyncio.run(main())))
"""

CALL = """
import asyncio, json, sys
from jupyterhub_migspawner.spawner.launchers import units
async def main():
    unit = units.Unit(sys.argv[1])
    if sys.argv[2] == "stop":
        await unit.stop()
    state = await unit.state()
    return [state.active, state.running, state.status, unit.environment_file.exists()]
print(json.dumps(asyncio.run(main())))
"""


def start(machine: Machine, name: str, *command: str, **asked: Any) -> str:
    """Start a command in a unit; return why that failed, or nothing."""
    values: dict[str, Any] = {"nodes": [], "environment": {}, "properties": {}, "options": []}
    values |= {"name": name, "command": command, **asked}
    values["nodes"] = [(node.path, node.access) for node in values["nodes"]]
    return str(machine.python(START, json.dumps(values)))


def state(machine: Machine, name: str, do: str = "") -> tuple[str, bool, int, bool]:
    active, running, status, environment = machine.python(CALL, name, do)
    return active, running, status, environment


def report(
    machine: Machine, shared: Path, nodes: tuple[DeviceNode, ...], user: str
) -> dict[str, Any]:
    """What a process in a unit with the rules for these nodes finds."""
    out = shared / f"{user}-{len(nodes)}"
    properties = {"Type": "oneshot", "StandardOutput": f"file:{out}"}
    start(
        machine,
        f"migspawner-opener-{user}",
        *(PYTHON, OPENER, "once"),
        nodes=nodes,
        properties=properties,
        options=[f"--uid={user}"],
    )
    found = json.loads(out.read_text())
    assert isinstance(found, dict)
    return found


NODES = slice_nodes(0, 9, 0)


@pytest.mark.parametrize("user", ["root", "ada"])
@pytest.mark.parametrize("nodes", [NODES, ()], ids=["slice", "none"])
def test_a_server_opens_the_nodes_of_its_slice_and_no_others(
    machine: Machine, shared: Path, nodes: tuple[DeviceNode, ...], user: str
) -> None:
    found = report(machine, shared, nodes, user)
    assert len(found["opened"]) == 5 + 2 * 30
    own = {node.path for node in nodes}
    # Without a driver behind it, a device that may be opened is not there (ENXIO).
    assert {path for path, how in found["opened"].items() if how != "EPERM"} == own
    assert {how for path, how in found["opened"].items() if path in own} <= {"ENXIO"}
    # Nor does a node of its own making help: the kernel refuses even to make one.
    assert set(found["made"].values()) == {"EPERM"}
    assert found["null"] == "open"


def test_without_the_rules_the_same_process_opens_them(machine: Machine, shared: Path) -> None:
    out = shared / "free"
    machine.run("systemd-run", "--wait", f"--property=StandardOutput=file:{out}", "--uid=ada",
                PYTHON, OPENER, "once")  # fmt: skip
    found = json.loads(out.read_text())
    assert set(found["opened"].values()) == {"ENXIO"}
    assert found["runtime"] is True


def test_device_rules_are_found_to_work(machine: Machine) -> None:
    program = (
        "import json; from jupyterhub_migspawner.spawner.launchers.units import *;"
        "print(json.dumps([problem(), rules_problem()]))"
    )
    assert machine.python(program) == ["", ""]
    machine.run("mount", "-o", "remount,bind,ro", "/sys/fs/cgroup/devices")
    machine.run("systemctl", "daemon-reexec")
    try:
        assert "device rules have no effect" in machine.python(program)[1]
    finally:
        machine.run("mount", "-o", "remount,bind,rw", "/sys/fs/cgroup/devices")
        machine.run("systemctl", "daemon-reexec")


ENVIRONMENT = {
    "PLAIN": "a b",
    "QUOTES": 'it\'s "so" `now`',
    "DOLLARS": "$HOME ${HOME} $$ \\$x",
    "SLASHES": "C:\\new\\\\ \\n \\",
    "LINES": "one\ntwo\n\n\tthree # no comment\n; nor this",
    "PERCENT": "%h %%",
    "EMPTY": "",
    "SPACES": "  around  ",
    "WORDS": "\u00fcmlaut \u4e2d",
    "JUPYTERHUB_API_TOKEN": "0123456789abcdef-secret",
}


def test_a_server_gets_its_environment_and_arguments_as_they_are(
    machine: Machine, shared: Path
) -> None:
    out = shared / "environment"
    words = ["$HOME", "${HOME}", "%h", "a b", "\\n", "'", '"', ""]
    start(
        machine,
        "migspawner-environment",
        *(PYTHON, OPENER, *words),
        environment=ENVIRONMENT,
        properties={"Type": "oneshot", "StandardOutput": f"file:{out}"},
        options=["--uid=ada"],
    )
    found = json.loads(out.read_text())
    assert found["environment"].items() >= ENVIRONMENT.items()
    assert found["argv"][1:] == words


def test_no_other_user_can_read_a_servers_environment(machine: Machine) -> None:
    name = unit_name("hub", "ada", "secret")
    start(machine, name, "/bin/sleep", "7777", environment=ENVIRONMENT, properties={"Type": "exec"})
    secret = ENVIRONMENT["JUPYTERHUB_API_TOKEN"]
    unit = f"{name}.service"
    try:
        for command in (
            f"systemctl show '{unit}'",
            f"systemctl cat '{unit}'",
            "ps axww -o args",
            "cat /run/jupyterhub-migspawner/*",
            "ls /run/jupyterhub-migspawner",
            f"cat '/run/systemd/transient/{unit}'",
        ):
            said = machine.run("setpriv", "--reuid=eve", "--clear-groups", "sh", "-c", command,
                               check=False)  # fmt: skip
            assert secret not in said
        assert "Permission denied" in machine.run(
            "setpriv", "--reuid=eve", "--clear-groups", "ls", "/run/jupyterhub-migspawner",
            check=False,
        )  # fmt: skip
        # It is read once, as root, and is there until the end.
        assert secret in machine.run("sh", "-c", "cat /run/jupyterhub-migspawner/*")
    finally:
        assert state(machine, name, "stop") == ("inactive", False, 0, False)


def test_a_program_that_cannot_run_is_a_failed_start(machine: Machine) -> None:
    name = unit_name("hub", "ada", "broken")
    properties = {"Type": "exec", "WorkingDirectory": "/nonexistent"}
    why = start(machine, name, "/bin/sleep", "7777", environment={"A": "b"}, properties=properties)
    assert f"systemd could not start {name}.service: Job for" in why
    active, running, _, environment = state(machine, name)
    assert (active, running, environment) == ("failed", False, False)
    assert state(machine, name, "stop") == ("inactive", False, 0, False)


def test_a_server_cannot_use_more_memory_than_its_tier_allows(machine: Machine) -> None:
    name = unit_name("hub", "ada", "hungry")
    program = "print(len(bytearray(256 << 20)))"
    limit = {"Type": "oneshot", "MemoryMax": str(64 << 20), "MemorySwapMax": "0"}
    assert start(machine, name, PYTHON, "-c", program, environment={"A": "b"}, properties=limit)
    assert state(machine, name)[0] == "failed"
    state(machine, name, "stop")
    limit["MemoryMax"] = str(512 << 20)
    assert not start(machine, name, PYTHON, "-c", program, environment={"A": "b"}, properties=limit)


def test_a_unit_that_never_was_has_ended(machine: Machine) -> None:
    assert state(machine, unit_name("hub", "nobody", "x")) == ("inactive", False, 0, False)


#: Starts units of these names, asks for each, stops it, and asks again.
NAMES = """
import asyncio, json, sys
from jupyterhub_migspawner.spawner.launchers.units import Unit
async def main():
    units = [Unit(name) for name in json.loads(sys.argv[1])]
    for unit in units:
        await unit.start(["/bin/sleep", "7777"], {"A": "b"}, {"Type": "exec"})
    pids = [(await unit.state()).pid for unit in units]
    found = [open(f"/proc/{pid}/cgroup").read().strip().rpartition("/")[2] for pid in pids]
    for unit in units:
        await unit.stop()
    return found, [(await unit.state()).active for unit in units]
print(json.dumps(asyncio.run(main())))
"""


def test_names_of_any_length_and_kind_make_units(machine: Machine) -> None:
    users = [("\u00fc-/." * 300)[:length] for length in (1, 40, 300)]
    names = [unit_name("hub", user, server) for user in users for server in ("", "a", "A", "-")]
    found, after = machine.python(NAMES, json.dumps(names))
    assert found == [f"{name}.service" for name in names]
    assert set(after) == {"inactive"}


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(ODD.filter(lambda name: "\0" not in name and "/" not in name and name.isprintable()))
def test_names_are_escaped_as_systemd_does(machine: Machine, name: str) -> None:
    assert machine.run("systemd-escape", "--", name).rstrip("\n") == escape(name)
