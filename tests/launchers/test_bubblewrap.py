"""Local servers behind bubblewrap: each can open its own slice, and nothing else of any card."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from jupyterhub_migspawner.gpu.devices import slice_nodes
from jupyterhub_migspawner.model.leases import HELD, LeaseRow
from tests.acceptance.hubs import Hub
from tests.launchers import attack, machine
from tests.processes import marked_processes

USERS = {"ada": 61501, "grace": 61502}

EXTRA = """
c.JupyterHub.spawner_class = "mig-local"
c.Spawner.cmd = [sys.executable, "-S", "-E", "{folder}/attack.py"]
c.JupyterHub.cleanup_servers = False
c.JupyterHub.allow_named_servers = True
c.MigBroker.tiers.append({{"name": "large-for-all", "profile": "3g.20gb"}})
"""


class Machine:
    """A hub whose servers run as system users, on a machine with nodes for its cards."""

    def __init__(self, folder: Path, extra: str = "") -> None:
        self.folder = folder
        tree, elsewhere = folder / "tree", folder / "elsewhere"
        for each in (tree, elsewhere):
            each.mkdir()
        shutil.copy(attack.__file__, folder / "attack.py")
        self.hub = Hub(
            folder,
            layouts=[["1g.5gb", "1g.5gb", "3g.20gb"], ["2g.10gb"]],
            extra=EXTRA.format(folder=folder) + extra,
            tree=tree,
        )
        dev = tree / "dev"
        nodes = sorted(path for path in dev.rglob("*") if path.is_file())
        self.nodes = ["/dev/" + str(path.relative_to(dev)) for path in nodes]
        self.numbers = {
            name: machine.numbers(path) for name, path in zip(self.nodes, nodes, strict=True)
        }
        self.copies = {f"copy-{Path(name).name}": number for name, number in self.numbers.items()}
        spec = folder / "machine.json"
        spec.write_text(
            json.dumps(
                {
                    "tree": str(tree),
                    "elsewhere": str(elsewhere),
                    "copies": self.copies,
                    "folder": str(folder),
                    "users": {
                        name: {"uid": uid, "home": str(folder / "homes" / name)}
                        for name, uid in USERS.items()
                    },
                }
            )
        )
        self.hub.prefix = [sys.executable, "-m", "tests.launchers.machine", str(spec), "--"]
        self.hub.environ = {"PYTHONPATH": str(Path(__file__).parents[2])}

    def start(self, user: str, server: str = "", tier: str = "small") -> list[str]:
        """Start a server; return the nodes of its slice."""
        self.hub.api("POST", f"users/{user}")
        path = f"users/{user}/servers/{server}" if server else f"users/{user}/server"
        status, answer = self.hub.api("POST", path, {"tier": tier})
        assert status == 201, (answer, self.hub.log()[-4000:])
        return self.nodes_of(user, server)

    def nodes_of(self, user: str, server: str = "") -> list[str]:
        """The nodes of the slice that a server has, by what the driver says of it."""
        lease = self.lease_of(user, server)
        (status,) = [s for s in self.hub.broker().slices.find() if s.row.id == lease.slice_id]
        row = status.row
        assert row.gi_id is not None
        assert row.ci_id is not None
        found = slice_nodes(row.card_index, row.gi_id, row.ci_id, root=self.folder / "tree")
        return sorted(node.path for node in found)

    def lease_of(self, user: str, server: str = "") -> LeaseRow:
        """The lease of a server that runs."""
        held = [row for row in self.hub.rows() if row.state in HELD]
        (lease,) = [row for row in held if (row.user, row.server) == (user, server)]
        return lease

    def ask(self, user: str, query: str, server: str = "") -> Any:
        """What a server answers."""
        where = f"user/{user}/{server}/" if server else f"user/{user}/"
        status, answer = self.hub.call("GET", f"{self.hub.url}{where}?{query}")
        assert status == 200, answer
        return answer

    def attack(self, user: str, own: list[str], pids: list[int], server: str = "") -> Any:
        """What a server can open that is not its own."""
        targets = [node for node in self.nodes if node not in own]
        home = str(self.folder / "homes" / user)
        runtime = f"/run/user/{USERS[user]}"
        given = {
            "targets": targets,
            "copies": [str(self.folder / "elsewhere" / name) for name in self.copies],
            "numbers": [self.numbers[node] for node in targets],
            "folders": [home, "/tmp", "/dev", "/dev/shm", "/var/tmp"],
            "sockets": [
                *(f"{runtime}/bus", f"{runtime}/systemd/private"),
                "/run/dbus/system_bus_socket",
            ],
            "pids": pids,
        }
        return self.ask(user, f"attack={quote(json.dumps(given))}", server)

    def resident(self, user: str) -> int:
        """The process of a user that no launcher has started."""
        return int((self.folder / f"resident-{user}").read_text())

    def pids_of(self, user: str, server: str = "") -> list[int]:
        """The processes of a server."""
        lease = self.lease_of(user, server)
        return [each.pid for each in marked_processes().get(lease.attempt, [])]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every user can enter, unlike pytest's."""
    with tempfile.TemporaryDirectory(prefix="migspawner-machine-") as name:
        os.chmod(name, 0o755)
        yield Path(name)


def test_a_server_can_open_its_own_slice_and_nothing_else(folder: Path) -> None:
    made = Machine(folder)
    with made.hub.running() as hub:
        mine, theirs = made.start("ada"), made.start("grace")
        second = made.start("ada", "second", "large-for-all")
        assert len({*mine} & {*theirs}) == len({*mine} & {*second}) == 4
        resident = made.resident("ada")
        others = [
            1,
            resident,
            made.resident("grace"),
            *made.pids_of("grace"),
            *made.pids_of("ada", "second"),
            hub.process.pid,
        ]
        for server, own in (("", mine), ("second", second)):
            said = made.attack("ada", own, others, server)
            assert said.pop("visible") == own
            assert said == {way: [] for way in said}, said
        rows = hub.cli("slices")
        assert {row["lease"]["isolation"] for row in rows if row["lease"]} == {"bubblewrap"}


def test_the_attacks_succeed_without_a_wall(folder: Path) -> None:
    """A test of the test: what is refused above is possible for the same server without it."""
    made = Machine(folder, "c.MigLocalSpawner.isolation = 'none'")
    with made.hub.running() as hub:
        mine = made.start("ada")
        said = made.attack("ada", mine, [made.resident("ada")])
        assert said["visible"] == made.nodes
        assert said["path"]
        assert said["proc"]
        assert said["namespace"]
        assert said["debugger"]
        assert said["socket"]
        (lease,) = hub.rows()
        assert lease.isolation == "none"
        assert "The server of ada is not isolated" in hub.log()


def test_what_an_earlier_server_left_leads_nowhere(folder: Path) -> None:
    made = Machine(folder)
    with made.hub.running() as hub:
        before = made.start("ada")
        left = made.ask("ada", "leave=1")
        assert hub.api("DELETE", "users/ada/server")[0] == 204
        os.kill(left, 0)
        # Its slice is not free as long as the process lives, so the next one is another.
        now = made.start("ada")
        assert now != before
        said = made.attack("ada", now, [left])
        assert said.pop("visible") == now
        assert said == {way: [] for way in said}, said
        os.kill(left, signal.SIGKILL)


def test_the_server_itself_is_stopped_and_found_again(folder: Path) -> None:
    made = Machine(folder)
    with made.hub.running() as hub:
        made.start("ada")
        # bubblewrap's own process, and the server.
        monitor, server = sorted(made.pids_of("ada"))
        lease = made.lease_of("ada")
        known = hub.broker().processes.of_node(lease.node)[lease.id]
        assert server in [pid for pid, _ in known.known]
        assert known.uid == USERS["ada"]
        hub.restart()
        assert hub.api("GET", "users/ada")[1]["servers"][""]["ready"]
        os.kill(monitor, signal.SIGKILL)
        made.start("grace")
        (monitor_of_grace, _) = sorted(made.pids_of("grace"))
        os.kill(monitor_of_grace, signal.SIGKILL)
        hub.until(lambda: len(made.pids_of("grace")) == 1)
        for user in ("ada", "grace"):
            assert made.ask(user, "") == {}
            assert hub.api("GET", f"users/{user}")[1]["servers"][""]["ready"]
            assert hub.api("DELETE", f"users/{user}/server")[0] == 204
        # Of a server whose bubblewrap was killed, the machine's first process sees the end.
        hub.until(lambda: not Path(f"/proc/{server}").exists())
        hub.until(lambda: not hub.rows())


def test_no_server_starts_without_a_wall_that_it_needs(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Machine(folder, "c.MigLocalSpawner.isolation = 'bubblewrap'")
    wrong = folder / "bin" / "bwrap"
    wrong.parent.mkdir()
    wrong.write_text("#!/bin/sh\necho 'bwrap: no user namespaces' >&2\nexit 1\n")
    wrong.chmod(0o755)
    monkeypatch.setenv("PATH", f"{wrong.parent}:{os.environ['PATH']}")
    with made.hub.running() as hub:
        hub.api("POST", "users/ada")
        status, answer = hub.api("POST", "users/ada/server", {"tier": "small"})
        assert status == 503
        assert "cannot be isolated from other sessions" in answer["message"]
        assert "bubblewrap does not work: bwrap: no user namespaces" in hub.log()
        hub.until(lambda: not hub.rows())


def test_a_wall_that_breaks_between_two_starts_stops_the_second(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Machine(folder, "c.MigLocalSpawner.isolation = 'bubblewrap'")
    real = shutil.which("bwrap")
    tool = folder / "bin" / "bwrap"
    tool.parent.mkdir()
    tool.write_text(f'#!/bin/sh\nexec {real} "$@"\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")
    with made.hub.running() as hub:
        made.start("ada")
        tool.write_text("#!/bin/sh\necho 'bwrap: broken' >&2\nexit 1\n")
        hub.api("POST", "users/grace")
        # The first finds it at its launch, the second before.
        for _ in range(2):
            status, answer = hub.api("POST", "users/grace/server", {"tier": "small"})
            assert status == 503, answer
            assert "cannot be isolated from other sessions" in answer["message"]
        assert "bubblewrap could not start the server" in hub.log()
        assert "bubblewrap does not work: bwrap: broken" in hub.log()
        hub.until(lambda: [lease.user for lease in hub.rows()] == ["ada"])


def refusing(folder: Path, uid: int) -> Path:
    """A bubblewrap that one user cannot use, as after they have used up their namespaces."""
    tool = folder / "bin" / "bwrap"
    tool.parent.mkdir()
    tool.write_text(
        f'#!/bin/sh\nif [ "$(id -u)" = {uid} ]; then echo "bwrap: No space left" >&2; exit 1; fi\n'
        f'exec {shutil.which("bwrap")} "$@"\n'
    )
    tool.chmod(0o755)
    return tool.parent


def test_nobody_gets_rid_of_their_own_wall(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user can use up their namespaces: then nothing starts, instead of a server without wall."""
    made = Machine(folder)
    monkeypatch.setenv("PATH", f"{refusing(folder, USERS['ada'])}:{os.environ['PATH']}")
    with made.hub.running() as hub:
        hub.api("POST", "users/ada")
        for _ in range(2):
            status, answer = hub.api("POST", "users/ada/server", {"tier": "small"})
            assert status == 503
            assert "cannot be isolated from other sessions" in answer["message"]
        made.start("grace")
        hub.until(lambda: [lease.user for lease in hub.rows()] == ["grace"])
        assert made.lease_of("grace").isolation == "bubblewrap"
        # While the wall is known to work, the launch itself finds it.
        status, _ = hub.api("POST", "users/ada/server", {"tier": "small"})
        assert status == 503
        assert "not for the server of ada" in hub.log()


def test_a_server_has_ended_though_its_bubblewrap_has_not(folder: Path) -> None:
    made = Machine(folder, "c.Spawner.poll_interval = 1")
    with made.hub.running() as hub:
        made.start("ada")
        monitor, server = sorted(made.pids_of("ada"))
        os.kill(monitor, signal.SIGSTOP)
        os.kill(server, signal.SIGKILL)
        hub.until(lambda: not hub.api("GET", "users/ada")[1]["servers"])
        hub.until(lambda: not Path(f"/proc/{monitor}").exists())
        hub.until(lambda: not hub.rows())
