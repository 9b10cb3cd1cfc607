"""A real hub as its users meet it: many clicks at once, crashes, and bad configuration."""

from __future__ import annotations

import os
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.hubs import END_LIMIT, Hub
from tests.broker.lab import card, inventory
from tests.processes import marked_processes


@pytest.fixture
def make_hub(tmp_path: Path) -> Any:
    hubs: list[Hub] = []

    def make(**arguments: Any) -> Hub:
        hubs.append(Hub(tmp_path, **arguments))
        return hubs[-1]

    yield make
    for hub in hubs:
        if hub.process is not None:
            try:
                hub.stop()
            finally:
                hub.end_everything()


def test_forty_spawns_on_fourteen_slices_give_fourteen_leases(make_hub: Any) -> None:
    hub = make_hub(layouts=[["1g.5gb"] * 7] * 2)
    hub.start()
    names = [f"user{number:02}" for number in range(40)]
    for name in names:
        assert hub.api("POST", f"users/{name}")[0] == 201
    with ThreadPoolExecutor(40) as pool:
        answers = list(
            pool.map(lambda n: hub.api("POST", f"users/{n}/server", {"tier": "small"}), names)
        )
    started = [n for n, (status, _) in zip(names, answers, strict=True) if status == 201]
    refused = [answer for status, answer in answers if status != 201]
    assert len(started) == 14, answers
    leases = hub.cli("leases")
    assert {lease["user"] for lease in leases} == set(started)
    assert {lease["state"] for lease in leases} == {"active"}
    assert len({lease["slice_uuid"] for lease in leases}) == 14
    # What each server was really told, from its own process.
    marked = marked_processes()
    told = {environ_of(marked[row.attempt][0].pid) for row in hub.rows()}
    assert told == {lease["slice_uuid"] for lease in leases}
    assert len(refused) == 26
    for answer in refused:
        assert answer["status"] == 503
        assert "small" in answer["message"]
        assert "cpu" in answer["message"]
    slices = hub.cli("slices")
    assert [entry["state"] for entry in slices] == ["leased"] * 14


def environ_of(pid: int) -> str:
    variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    (found,) = [v for v in variables if v.startswith(b"CUDA_VISIBLE_DEVICES=")]
    return found.partition(b"=")[2].decode()


SLOW_START = """
import asyncio
from jupyterhub_migspawner.spawner.launchers.local import MigSimpleSpawner

class Slow(MigSimpleSpawner):
    "The server's process runs, but start() is not through yet."
    async def start(self):
        url = await super().start()
        if self.user.name == "slow":
            await asyncio.sleep(60)
        return url

c.JupyterHub.spawner_class = Slow
c.JupyterHub.cleanup_servers = False
"""


def test_a_hub_killed_in_the_middle_of_a_start_loses_no_slice(make_hub: Any) -> None:
    hub = make_hub(layouts=[["1g.5gb"] * 2 + ["3g.20gb"]], extra=SLOW_START)
    hub.start()
    for name in ("steady", "slow", "next"):
        hub.api("POST", f"users/{name}")
    assert hub.api("POST", "users/steady/server", {})[0] == 201
    (steady,) = hub.rows()
    with ThreadPoolExecutor(1) as pool:
        hanging = pool.submit(hub.api, "POST", "users/slow/server", {})
        hub.until(lambda: any(lease.user == "slow" for lease in hub.rows()))
        (slow,) = [lease for lease in hub.rows() if lease.user == "slow"]
        hub.until(lambda: slow.attempt in marked_processes())
        hub.kill()
        # The proxy answers for the hub that is gone.
        assert hanging.result(END_LIMIT)[0] == 503

    # Nothing was lost: both slices are still held while nobody looks.
    states = {entry["uuid"]: entry["state"] for entry in hub.cli("slices")}
    assert states[steady.slice_uuid] == states[slow.slice_uuid] == "leased"

    hub.until(lambda: not hub.service_pids())
    hub.start()
    # The hub never knew the half-started server; its slice comes back only without its process.
    hub.until(lambda: all(lease.user == "steady" for lease in hub.rows()))
    assert slow.attempt not in marked_processes()
    # The running notebook noticed nothing.
    assert steady.attempt in marked_processes()
    assert hub.api("GET", "users/steady")[1]["servers"][""]["ready"]
    assert [lease.id for lease in hub.rows()] == [steady.id]
    assert hub.api("POST", "users/next/server", {})[0] == 201
    assert len({lease.slice_uuid for lease in hub.rows()}) == 2


def test_a_hub_restart_keeps_leases_and_servers(make_hub: Any) -> None:
    hub = make_hub(layouts=[["1g.5gb"] * 2], extra="c.JupyterHub.cleanup_servers = False")
    hub.start()
    hub.api("POST", "users/ada")
    assert hub.api("POST", "users/ada/server", {})[0] == 201
    before = hub.cli("leases")
    hub.stop()
    assert hub.cli("leases") == before
    # As if the machine had been restarted meanwhile: what its agent said before counts no more.
    (node,) = hub.broker().nodes.find()
    assert hub.broker().nodes.note_boot(node.name, "the boot before")
    hub.start()
    assert hub.kinds().count("node.booted") == 2
    hub.until(lambda: bool(hub.broker().nodes.live()))
    assert hub.api("GET", "users/ada")[1]["servers"][""]["ready"]
    assert hub.cli("leases") == before
    hub.api("DELETE", "users/ada/server")
    hub.until(lambda: not hub.rows())
    assert hub.cli("leases") == []


@pytest.mark.parametrize(
    ("mistake", "says"),
    [
        ("c.MigBroker.tiers[1]['profil'] = 'x'", ["small", "profil", "profile"]),
        ("c.MigBroker.tiers[2]['groups'] = 'vision'", ["large", "groups", "'vision'", "list"]),
        ("c.MigBroker.tiers[3]['max_hours'] = -1", ["card", "max_hours", "-1"]),
        ("c.MigBroker.quotas = {'defualt': {}}", ["defualt", "default"]),
        ("c.MigBroker.quotas = {'default': {'lives': 1}}", ["default", "lives", "live"]),
        ("c.MigBroker.tier = []", ["tier", "tiers"]),
        ("c.MigBroker.tiers = []", ["tiers", "empty"]),
        ("c.MigBroker.pending_seconds = 'soon'", ["pending_seconds"]),
        ("c.MigBroker.database_url = 'mysql://lab/leases'", ["mysql", "postgresql"]),
    ],
)
def test_a_mistake_in_the_admins_file_stops_the_hub_at_start(
    make_hub: Any, mistake: str, says: list[str]
) -> None:
    hub = make_hub(layouts=[["1g.5gb"]], extra=mistake)
    process = hub.launch()
    assert process.wait(END_LIMIT) == 1
    lines = hub.log().splitlines()
    assert any(all(word in line for word in says) for line in lines), hub.log()
    assert "Traceback" not in hub.log()
    assert hub.run_cli("tiers").returncode == 1


def test_sigterm_leaves_nothing_running(make_hub: Any) -> None:
    hub = make_hub(layouts=[["1g.5gb"]])
    hub.start()
    hub.api("POST", "users/ada")
    assert hub.api("POST", "users/ada/server", {})[0] == 201
    (lease,) = hub.rows()
    assert hub.process is not None
    hub.process.send_signal(signal.SIGTERM)
    hub.process.wait(END_LIMIT)
    assert lease.attempt not in marked_processes()
    session = subprocess.run(
        ["ps", "-o", "pid=,args=", "-s", str(hub.process.pid)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert session.stdout.strip() == ""
    # The hub's last look proves the slice empty unless some process could not be read just then.
    assert {row["state"] for row in hub.cli("leases")} <= {"releasing"}
    hub.start()
    hub.until(lambda: not hub.rows())
    assert hub.cli("leases") == []


WATCHED = """
import os
import pynvml
from jupyterhub.app import JupyterHub

def note(what):
    with open({path!r}, "a") as file:
        print(what, os.getpid(), file=file)

def opened(init=pynvml.nvmlInit):
    note("opened by")
    init()

# Other readers of this file are not the hub.
if JupyterHub.initialized():
    note("watched:")
    pynvml.nvmlInit = opened
"""


def test_the_hub_s_own_process_never_opens_nvml(make_hub: Any, tmp_path: Path) -> None:
    """A process that holds the driver open keeps cards from being switched in or out of MIG."""
    notes = tmp_path / "notes"
    hub = make_hub(layouts=[["1g.5gb"] * 2], extra=WATCHED.format(path=str(notes)))
    hub.start()
    assert hub.process is not None
    hub.api("POST", "users/ada")
    # A stop, a server that dies, a stop at the hub's own end.
    for last in ("stopped", "died", "hub stopped"):
        assert hub.api("POST", "users/ada/server", {"tier": "small"})[0] == 201
        (lease,) = [each for each in hub.rows() if each.state == "active"]
        if last == "died":
            for process in marked_processes()[lease.attempt]:
                process.signal(signal.SIGKILL, Path("/proc"))
        if last != "hub stopped":
            assert hub.api("DELETE", "users/ada/server")[0] in (202, 204)
            hub.until(lambda: hub.rows() == ())
    hub.stop()
    assert hub.rows() == ()
    assert notes.read_text().splitlines() == [f"watched: {hub.process.pid}"]


def test_servers_of_this_machine_get_its_own_slices_only(make_hub: Any) -> None:
    hub = make_hub(layouts=[["1g.5gb"]])
    hub.start()
    # Another node reports its cards to the same database.
    hub.broker().nodes.record_inventory("other", inventory(card(7)))
    for user in ("ada", "grace"):
        hub.api("POST", f"users/{user}")
    tiers = hub.service("GET", "tiers", token=hub.token_of("ada"))[1]
    (small,) = [each for each in tiers if each["name"] == "small"]
    assert (small["free"], small["total"]) == (1, 1)
    assert hub.api("POST", "users/ada/server", {})[0] == 201
    status, answer = hub.api("POST", "users/grace/server", {})
    assert status == 503
    assert "the only one is in use" in answer["message"]
    (lease,) = hub.rows()
    assert lease.node != "other"
    # As for every server, what isolates it and its first process are known.
    # Servers that run as root are behind bubblewrap, too, but that does not confine root.
    assert lease.isolation == ("none" if os.geteuid() == 0 else "bubblewrap")
    known = hub.broker().processes.of_node(lease.node)[lease.id].known
    assert environ_of(known[0][0]) == lease.slice_uuid
