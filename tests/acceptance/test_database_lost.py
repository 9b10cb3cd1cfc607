"""The lease database is deleted, emptied or replaced under a real hub with running notebooks."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from jupyterhub_migspawner.db.tables import metadata
from tests.acceptance.hubs import Hub
from tests.broker.conftest import postgres  # noqa: F401
from tests.broker.postgres import Cluster
from tests.chaos.reports import Process

EXTRA = """
c.JupyterHub.cleanup_servers = False
c.MigBroker.tick_seconds = 0.2
c.MigBroker.reconcile_seconds = 0.5
"""

SLICES = 3


class Lost:
    """One kind of loss, on one kind of database."""

    def __init__(self, hub: Hub, url: str, cluster: Cluster | None) -> None:
        self.hub = hub
        self.url = url
        self.cluster = cluster
        self.file = hub.directory / "migspawner.sqlite"
        self.copy = hub.directory / "copy.sqlite"

    def keep_a_copy(self) -> None:
        done = self.hub.run_cli("db", "backup", str(self.copy))
        assert done.returncode == 0, done.stderr

    def delete(self) -> None:
        if self.cluster is not None:
            self.cluster.drop(self.url)
            self.cluster.command(f"CREATE DATABASE {self.url.rsplit('/', 1)[1]}")
            return
        for side in ("", "-wal", "-shm"):
            Path(f"{self.file}{side}").unlink(missing_ok=True)

    def empty(self) -> None:
        if self.cluster is None:
            os.truncate(self.file, 0)
            return
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(f"TRUNCATE {', '.join(metadata.tables)} RESTART IDENTITY")

    def put_an_older_copy_there(self) -> None:
        if self.cluster is None:
            for side in ("-wal", "-shm", "-journal"):
                Path(f"{self.file}{side}").unlink(missing_ok=True)
            shutil.copyfile(self.copy, self.file)
            return
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute("SET session_replication_role = replica")
            with closing(sqlite3.connect(self.copy)) as copy:
                newest = copy.execute("SELECT coalesce(max(id), 0) FROM leases").fetchone()[0]
                event = copy.execute("SELECT max(id) FROM events").fetchone()[0]
            connection.execute("DELETE FROM leases WHERE id > %s", [newest])
            connection.execute("DELETE FROM events WHERE id > %s", [event])
            # Held as often as there are leases left, as a real restore would have it.
            connection.execute(
                "UPDATE slices SET held = (SELECT count(*) FROM leases WHERE slice_id = slices.id "
                "AND state IN ('pending', 'active', 'releasing'))"
            )

    def lessees(self) -> list[str]:
        """Who has a lease by the bare SQLite file."""
        with closing(sqlite3.connect(f"file:{self.file}?mode=ro&immutable=1", uri=True)) as file:
            return [user for (user,) in file.execute('SELECT "user" FROM leases')]

    @property
    def users(self) -> list[str]:
        """The processes that have the SQLite file open, under whatever name it has now."""
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                links = list((entry / "fd").iterdir())
            except OSError:
                continue  # it has ended
            for link in links:
                try:
                    if os.readlink(link).startswith(str(self.file)):
                        found.append((entry / "cmdline").read_text().replace("\0", " "))
                except OSError:
                    continue
        return found


def running(hub: Hub, user: str) -> bool:
    status, model = hub.api("GET", f"users/{user}")
    return status == 200 and bool(model["servers"].get("", {}).get("ready"))


def process_of(hub: Hub, user: str) -> Process:
    state = hub.api("GET", f"users/{user}")[1]["servers"][""]["state"]
    return Process(int(state["pid"]), int(state["pid_started"]))


@pytest.fixture(params=["sqlite", "postgresql"])
def lost(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Lost]:
    url, cluster, extra = "", None, EXTRA
    if request.param == "postgresql":
        cluster = request.getfixturevalue("postgres")
        url = cluster.new_database()
        extra += f"c.MigBroker.database_url = {url!r}\n"
    hub = Hub(tmp_path, layouts=[["1g.5gb"] * SLICES], extra=extra)
    lives: list[Process] = []
    with hub.running():
        yield Lost(hub, url, cluster)
        for user in ("ada", "grace", "linus", "joan"):
            status, model = hub.api("GET", f"users/{user}")
            state = model["servers"].get("", {}).get("state") if status == 200 else None
            if state:
                lives.append(Process(int(state["pid"]), int(state["pid_started"])))
    for process in lives:
        if process.lives:
            os.kill(process.pid, 9)


def start(hub: Hub, user: str) -> int:
    hub.api("POST", f"users/{user}")
    status, _ = hub.api("POST", f"users/{user}/server", {"tier": "small"})
    return status


WAYS: list[Callable[[Lost], None]] = [
    Lost.delete,
    Lost.empty,
    Lost.put_an_older_copy_there,
]


def slices_of(hub: Hub) -> dict[str, str]:
    return {each["uuid"]: each["state"] for each in hub.cli("slices") if each["uuid"]}


@pytest.mark.parametrize("way", WAYS)
def test_no_slice_is_lent_twice_and_no_notebook_ends(
    lost: Lost, way: Callable[[Lost], None]
) -> None:
    hub = lost.hub
    assert start(hub, "joan") in (201, 202)
    hub.until(lambda: running(hub, "joan"))
    lost.keep_a_copy()
    assert start(hub, "ada") in (201, 202)
    hub.until(lambda: running(hub, "ada"))
    ada = process_of(hub, "ada")
    environ = dict(
        pair.split("=", 1)
        for pair in Path(f"/proc/{ada.pid}/environ").read_text().split("\0")
        if "=" in pair
    )
    mine = environ["MIGSPAWNER_SLICE_UUID"]
    saved = hub.api("GET", "users/ada")[1]["servers"][""]["state"]["migspawner"]
    assert saved["url"].startswith("http://127.0.0.1:")
    assert saved["sealed"].startswith("v1:")
    assert environ["JUPYTERHUB_API_TOKEN"] not in str(saved)

    way(lost)
    # While the hub runs it lends nothing, and says why in its log.
    assert start(hub, "grace") == 503
    assert not running(hub, "grace")
    assert ada.lives
    assert running(hub, "ada")
    assert "is not the one that this process has used" in hub.log()

    # A new start of hub and service goes on with what is there.
    hub.kill()
    hub.until(lambda: not hub.service_pids() and not lost.users)
    if way is Lost.empty and lost.cluster is None:
        done = hub.run_cli("db", "check")
        assert done.returncode == 1
        assert "migspawner db restore" in done.stdout + done.stderr
        # What a process still had in memory may be in the file by now: it is damaged then.
        done = hub.run_cli("db", "restore", str(lost.copy))
        assert done.returncode == 0, done.stderr
        assert "leases adopt" in done.stdout
    if way is Lost.put_an_older_copy_there and lost.cluster is None:
        # What a process still had in memory may have been written over the copy before it ended.
        # Another file than before: nothing that any process still has open is this one.
        lost.file.unlink()
        way(lost)
        assert "ada" not in lost.lessees()
    hub.start()
    hub.until(lambda: len(slices_of(hub)) == SLICES)
    assert slices_of(hub)[mine] == "quarantined", (hub.cli("leases"), hub.log()[-6000:])
    assert ada.lives
    hub.until(lambda: running(hub, "ada"))
    hub.until(lambda: "leases adopt" in hub.log())
    assert "'ada'" in hub.log()
    (finding,) = [
        each for each in findings(hub) if each["check"] == "servers" and "'ada'" in each["message"]
    ]
    assert finding["state"] == "wrong"
    assert "leases adopt" in finding["mend"]
    # What is free is lent, what is not is not.
    free = [uuid for uuid, state in slices_of(hub).items() if state == "free"]
    assert len(free) == 1
    assert start(hub, "grace") in (201, 202)
    hub.until(lambda: running(hub, "grace"))
    assert [each["slice_uuid"] for each in hub.cli("leases") if each["user"] == "grace"] == free
    assert start(hub, "linus") == 503

    adopted = hub.cli("leases", "adopt")
    assert {each["user"] for each in adopted if each["adopted"]} >= {"ada"}
    leases = {each["user"]: each for each in hub.cli("leases")}
    assert leases.keys() == {"ada", "grace", "joan"}
    assert leases["ada"]["slice_uuid"] == mine
    assert set(slices_of(hub).values()) == {"leased"}
    assert ada.lives
    assert hub.run_cli("db", "check").returncode == 0
    assert all("'ada'" not in each["message"] for each in findings(hub))

    # From then on it is a session as any other.
    assert hub.api("DELETE", "users/ada/server")[0] in (202, 204)
    hub.until(lambda: slices_of(hub)[mine] == "free")
    assert start(hub, "linus") in (201, 202)
    hub.until(lambda: running(hub, "linus"))


def findings(hub: Hub) -> list[dict[str, str]]:
    import json

    return list(json.loads(hub.run_cli("doctor", "--json").stdout))
