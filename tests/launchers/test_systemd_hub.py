"""The life of servers in units: two of one user, restarts of hub and systemd, stops."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from jupyterhub_migspawner.policy.units import unit_name
from tests.launchers.systemd_hub import MachineHub
from tests.launchers.systemd_machine import Machine

LAYOUTS = [["1g.5gb"] * 7, ["3g.20gb", "1g.5gb"]]

#: A user's name that every part of a unit's name would mistake for something else.
USER = "ada-b@lab.org"


@pytest.fixture(scope="module")
def hub(machine: Machine, shared: Path) -> Iterator[MachineHub]:
    found = MachineHub(machine, shared, LAYOUTS)
    try:
        found.start()
        for user in (USER, "ada"):
            assert found.api("POST", f"users/{user}")[0] == 201
        yield found
    finally:
        found.stop()


def unit(user: str, server: str = "") -> str:
    return f"{unit_name('hub', user, server)}.service"


def nodes_of(hub: MachineHub, user: str, server: str = "") -> set[str]:
    """The nodes that the device rules of a server's unit name."""
    allowed = hub.machine.show(unit(user, server), "DeviceAllow")["DeviceAllow"]
    return {each.split()[0] for each in allowed if each}


def allowed_by(report: dict[str, dict[str, str]]) -> set[str]:
    """The nodes that a server can open."""
    return {path for path, how in report["opened"].items() if how != "EPERM"}


def processes(hub: MachineHub, user: str, server: str = "") -> list[str]:
    """The processes in the unit of a server, as the machine numbers them."""
    (group,) = hub.machine.show(unit(user, server), "ControlGroup")["ControlGroup"]
    if not group:
        return []
    path = f"/sys/fs/cgroup/systemd{group}/cgroup.procs"
    return hub.machine.run("sh", "-c", f"cat '{path}' || cat '/sys/fs/cgroup{group}/cgroup.procs'"
                           ).split()  # fmt: skip


def test_two_servers_of_a_user_have_a_unit_and_a_slice_each(hub: MachineHub) -> None:
    with (
        hub.serving(USER) as first,
        hub.serving(USER, "b") as second,
        hub.serving("ada", "b-lab") as third,
    ):
        reports = {(USER, ""): first, (USER, "b"): second, ("ada", "b-lab"): third}
        assert set(hub.machine.units()) == {unit(*server) for server in reports}
        assert len({row.slice_uuid for row in hub.rows()}) == 3
        assert {row.isolation for row in hub.rows()} == {"systemd"}
        for server, report in reports.items():
            assert nodes_of(hub, *server) == allowed_by(report)
            assert len(allowed_by(report)) == 6
            assert set(report["made"].values()) == {"EPERM"}
        # None of the nodes that two slices have in common is a slice's own.
        assert not any("nvidia-cap" in node for node in allowed_by(first) & allowed_by(second))
    assert hub.machine.units() == []


def test_a_unit_has_the_limits_of_its_tier_and_no_privileges(hub: MachineHub) -> None:
    with hub.serving(USER) as report:
        shown = hub.machine.show(
            unit(USER),
            *("DevicePolicy", "KillMode", "MemoryMax", "CPUQuotaPerSecUSec", "Environment"),
        )
    assert shown == {
        "DevicePolicy": ["closed"],
        "KillMode": ["control-group"],
        "MemoryMax": [str(1 << 28)],
        "CPUQuotaPerSecUSec": ["500ms"],
        "Environment": [""],
    }
    assert report["environment"]["CPU_LIMIT"] == "0.5"
    assert report["environment"]["MEM_LIMIT"] == str(1 << 28)
    assert report["uid"] != 0
    assert report["no_new_privileges"] == "1"
    # The way to the user's own systemd, which would start programs outside the unit.
    assert report["runtime"] is False


def test_a_server_without_a_gpu_opens_no_card(hub: MachineHub) -> None:
    with hub.serving(USER, tier="cpu") as report:
        assert allowed_by(report) == nodes_of(hub, USER) == set()
        shown = hub.machine.show(unit(USER), "DevicePolicy", "MemoryMax", "CPUQuotaPerSecUSec")
    # The configuration's own limits hold for a tier without limits.
    assert shown == {
        "DevicePolicy": ["closed"],
        "MemoryMax": [str(1 << 30)],
        "CPUQuotaPerSecUSec": ["infinity"],
    }


def test_a_second_start_has_nothing_of_the_first(hub: MachineHub) -> None:
    with hub.serving(USER, tier="large") as report:
        large = allowed_by(report)
    with hub.serving(USER, tier="small") as report:
        assert nodes_of(hub, USER) == allowed_by(report) != large
        assert len(allowed_by(report)) == 6


def test_a_stop_ends_all_processes_of_the_unit(hub: MachineHub) -> None:
    with hub.serving(USER):
        # The server, and what it has started beside itself, without environment and parent.
        hub.until(lambda: len(processes(hub, USER)) >= 3)
        pids = processes(hub, USER)
    assert processes(hub, USER) == []
    assert hub.machine.run("ps", "-o", "pid=", "-p", ",".join(pids), check=False).split() == []


@pytest.mark.parametrize("state", ["kept", "lost"])
def test_a_hub_finds_its_servers_again(hub: MachineHub, state: str) -> None:
    with hub.serving(USER, "b") as before:
        hub.kill()
        hub.until(lambda: not hub.service_pids())
        if state == "lost":
            hub.forget_states()
        hub.start()
        status, user = hub.api("GET", f"users/{USER}")
        assert status == 200
        assert user["servers"]["b"]["ready"]
        assert hub.ask(USER, "b")["pid"] == before["pid"]
        assert [row.state for row in hub.rows()] == ["active"]
    assert hub.machine.units() == []


@pytest.mark.parametrize("command", ["daemon-reload", "daemon-reexec"])
def test_the_rules_outlive_reloads_of_systemd(hub: MachineHub, command: str) -> None:
    with hub.serving(USER) as before:
        hub.machine.run("systemctl", command)
        after = hub.ask(USER)
        assert after["pid"] == before["pid"]
        assert after["opened"] == before["opened"]
        assert nodes_of(hub, USER) == allowed_by(before)


def test_a_server_that_ends_by_itself_is_noticed(hub: MachineHub) -> None:
    with hub.serving(USER):
        hub.machine.run("systemctl", "kill", "--signal=SIGKILL", unit(USER))
        hub.until(lambda: not hub.api("GET", f"users/{USER}")[1]["servers"])
        hub.until(lambda: not hub.rows())
    # It has failed, and its name is free for the next start.
    with hub.serving(USER) as report:
        assert nodes_of(hub, USER) == allowed_by(report)


def test_a_unit_that_the_hub_does_not_know_makes_way(hub: MachineHub) -> None:
    hub.machine.run("systemd-run", f"--unit={unit(USER)}", "sleep", "7777")
    with hub.serving(USER) as report:
        assert nodes_of(hub, USER) == allowed_by(report)


def test_the_doctor_finds_that_the_rules_work(hub: MachineHub) -> None:
    said = hub.machine.run(
        *(sys.executable, "-m", "jupyterhub_migspawner.cli", "doctor", "--json"),
        *("-f", str(hub.config)),
        check=False,
        cwd=hub.directory,
    )
    found = [each for each in json.loads(said) if each["check"] == "isolation"]
    assert [each["state"] for each in found] == ["ok"]
    assert found[0]["message"] == "Servers can open their own slice only (systemd)."
