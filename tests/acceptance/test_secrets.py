"""Secrets of a running hub are where they belong and nowhere else: files, processes, answers.

A real hub with a real Jupyter server, on both databases, looked at as a person would who can read
the machine's files and processes.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import psycopg
import pytest

from jupyterhub_migspawner.policy.reclaim import KERNELS
from tests.acceptance.hubs import Hub
from tests.acceptance.test_idle import LONG, ends
from tests.acceptance.test_notebooks_stay import Notebook
from tests.broker.postgres import Cluster, programs
from tests.processes import marked_processes

PASSWORD = "the-database-s-password"
NOTICE = "the-channel-s-password"

#: Looks until no file goes away during one; it only ends a test that has failed.
LOOKS = 100

EXTRA = """
c.MigBroker.tiers = [{"name": "small", "profile": "1g.5gb", "idle_minutes": 60}]
c.MigBroker.examine_seconds = 1
c.MigBroker.tick_seconds = 0.2
c.MigBroker.reconcile_seconds = 1
c.MigBroker.notices = {"users": ["json://bot:the-channel-s-password@127.0.0.1:9/{user}"]}
c.Spawner.cmd = [sys.executable, "-m", "jupyterhub.singleuser"]
c.Spawner.args = ["--allow-root"]
c.Spawner.default_url = "/api"
"""


@pytest.fixture(params=["sqlite", "postgresql"])
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster | None]:
    if request.param == "sqlite":
        yield None
        return
    found = programs()
    assert found is not None, "PostgreSQL is not installed"
    made = Cluster(found)
    yield made
    made.remove()


@pytest.fixture
def hub(tmp_path: Path, cluster: Cluster | None) -> Iterator[Hub]:
    extra = EXTRA
    if cluster is not None:
        url = cluster.new_database()
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(f"CREATE ROLE hub LOGIN SUPERUSER PASSWORD '{PASSWORD}'")
        url = url.replace("postgres@", f"hub:{PASSWORD}@")
        extra += f"c.MigBroker.database_url = {url!r}\n"
    # Under the widest umask: what is private must be made so.
    before = os.umask(0)
    try:
        made = Hub(tmp_path, layouts=[["1g.5gb"] * 7], extra=extra)
        with made.running():
            yield made
    finally:
        os.umask(before)


def environ(pid: int) -> dict[str, str]:
    words = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
    return dict(word.split("=", 1) for word in words if "=" in word)


def processes() -> dict[int, bytes]:
    """The command line and environment of every process that can be read."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                content = [(entry / name).read_bytes() for name in ("cmdline", "environ")]
            except OSError:
                continue  # it has ended, or is another's
            found[int(entry.name)] = b"\0".join(content)
    return found


def holding(secret: str, folder: Path) -> set[str]:
    """The files below a folder that hold a secret, people's own homes aside."""
    files: set[str] = set()
    for _ in range(LOOKS):
        # In another process: one that closes a file of SQLite's loses all its locks on it.
        found = subprocess.run(
            ["grep", "-rlaF", "--exclude-dir=home", "-f", "-", "."],
            input=secret,
            cwd=folder,
            env={**os.environ, "LC_ALL": "C"},
            capture_output=True,
            text=True,
            check=False,
        )
        files.update(line.removeprefix("./") for line in found.stdout.splitlines())
        if found.returncode in (0, 1):
            return files
        # Databases in use make and remove files: only a look at which none went away says all.
        for line in found.stderr.splitlines():
            assert line.endswith(": No such file or directory"), found.stderr
    raise AssertionError(f"files of {folder} went away at each of {LOOKS} looks")


def service_of(hub: Hub) -> int:
    (pid,) = [
        pid
        for pid, words in processes().items()
        if b"\0jupyterhub_migspawner.service\0" in words and str(hub.config).encode() in words
    ]
    return pid


def said_at(hub: Hub, user: str) -> datetime | None:
    """When its server last said whether a session is in use; None while it has not."""
    (found,) = hub.broker().sessions.standings(user)
    return next((row.seen_at for row in found.readings if row.source == KERNELS), None)


async def test_secrets_are_where_they_belong(hub: Hub, cluster: Cluster | None) -> None:
    notebook = Notebook(hub, "ada")
    mine = {each.pid for each in marked_processes()[notebook.lease().attempt]}
    token = environ(min(mine))["JUPYTERHUB_API_TOKEN"]
    socket = await notebook.execute(LONG)
    hub.until(lambda: said_at(hub, "ada") is not None)

    def nowhere_else() -> None:
        assert holding(token, hub.directory) == set()
        if cluster is not None:
            cluster.command("CHECKPOINT")
            # Its log and the old versions of rows as well.
            assert holding(token, cluster._home) == set()
        everybody = processes()
        assert {pid for pid, words in everybody.items() if token.encode() in words} <= mine
        service = service_of(hub)
        own = environ(service)["JUPYTERHUB_API_TOKEN"]
        others = {pid: words for pid, words in everybody.items() if pid != service}
        assert [words for words in others.values() if own.encode() in words] == []
        assert holding(own, hub.directory) == set()

    nowhere_else()
    said = [
        json.dumps(hub.service("GET", f"{noun}", token=hub.token_of("admin")))
        for noun in ("sessions", "leases", "slices", "tiers", "quota", "notices")
    ]
    said += [
        hub.run_cli(*words, *flag).stdout
        for words in (
            *(["sessions"], ["leases"], ["events"], ["doctor"], ["notices"], ["db", "check"]),
        )
        for flag in ([], ["--json"])
    ]
    said.append(hub.log())
    for secret in (token, PASSWORD, NOTICE, environ(service_of(hub))["JUPYTERHUB_API_TOKEN"]):
        assert not [text for text in said if secret in text]
    for secret in (PASSWORD, NOTICE):
        assert holding(secret, hub.directory) <= {"jupyterhub_config.py"}
        assert not [pid for pid, words in processes().items() if secret.encode() in words]

    names = ["migspawner_key"]
    if cluster is None:
        names += [f"migspawner.sqlite{end}" for end in ("", "-wal", "-shm")]
    for name in names:
        assert (hub.directory / name).stat().st_mode & 0o777 == 0o600, name

    # A new hub and a new service read what the old ones left.
    hub.kill()
    hub.until(lambda: not hub.service_pids())
    hub.start()
    now = hub.broker().now()
    hub.until(lambda: (said_at(hub, "ada") or now) > now)
    nowhere_else()
    assert ends(hub, "ada") == []
    socket.close()
