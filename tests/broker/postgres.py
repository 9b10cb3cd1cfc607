"""A private PostgreSQL cluster for one test session, on a free port of the loopback address.

Runs as user postgres when the tests run as root, because PostgreSQL refuses root. It dies with the
test process, whatever ends that. Its superuser, who may run programs, has a random password; this
process and its children find it in the file that PGPASSFILE names, so that no URL shows it.
"""

from __future__ import annotations

import atexit
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import psycopg

from jupyterhub_migspawner.db import migrations, roles
from jupyterhub_migspawner.db.migrations import HEAD, VERSION_TABLE
from jupyterhub_migspawner.db.tables import metadata
from tests.ports import free_ports

SKIP = "MIGSPAWNER_TESTS_WITHOUT_POSTGRES"

_RESTART = """
    SELECT setval(format('%I.%I', schemaname, sequencename)::regclass, start_value, false)
    FROM pg_sequences WHERE last_value IS NOT NULL
"""

#: Deleted rows that would be in the way of the next tests' queries.
MANY = 1000

# "Dies with its parent" means the thread that started it. This one lives as long as the process.
_starter = ThreadPoolExecutor(1, thread_name_prefix="postgres-starter")


def programs() -> Path | None:
    """The directory with initdb and postgres, or None."""
    for name in ("initdb", "postgres"):
        if (found := shutil.which(name)) is not None:
            return Path(found).resolve().parent
    versions = Path("/usr/lib/postgresql")
    found_dirs = sorted(versions.glob("*/bin"), key=lambda path: int(path.parent.name))
    return found_dirs[-1] if found_dirs else None


def _remember(port: int, password: str) -> None:
    """Let libpq find the password (libpq, "The Password File")."""
    file = os.environ.get("PGPASSFILE", "")
    if os.path.basename(file) != f"migspawner-pgpass-{os.getpid()}":
        folder = tempfile.mkdtemp(prefix="migspawner-pgpass-")
        file = os.environ["PGPASSFILE"] = f"{folder}/migspawner-pgpass-{os.getpid()}"
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "w") as opened:
        opened.write(f"127.0.0.1:{port}:*:postgres:{password}\n")


class Cluster:
    def __init__(self, bin_dir: Path, *, durable: bool = False) -> None:
        self._bin = bin_dir
        # Tests prove what concurrent clients see, not what a power cut leaves.
        self._fsync = "on" if durable else "off"
        self._numbers = count()
        self._home = Path(tempfile.mkdtemp(prefix="migspawner-postgres-"))
        self._as: list[str] = []
        if os.getuid() == 0:
            account = pwd.getpwnam("postgres")
            os.chown(self._home, account.pw_uid, account.pw_gid)
            self._as = ["--reuid", "postgres", "--regid", "postgres", "--init-groups"]
        self._server: subprocess.Popen[bytes] | None = None
        self._log = (self._home.parent / f"{self._home.name}.log").open("wb")
        password = secrets.token_hex(16)
        chosen = self._home / "password"
        chosen.touch(0o600)
        chosen.write_text(password)
        if self._as:
            os.chown(chosen, account.pw_uid, account.pw_gid)
        subprocess.run(
            [
                *("setpriv", *self._as, str(bin_dir / "initdb"), "-D", str(self._home / "data")),
                *("-A", "scram-sha-256", "--pwfile", str(chosen)),
                *("-U", "postgres", "-N", "-E", "UTF8", "--locale=C"),
            ],
            check=True,
            stdout=self._log,
            stderr=self._log,
            cwd="/",
        )
        chosen.unlink()
        (self.port,) = free_ports(1)
        _remember(self.port, password)
        self.start()

    def start(self) -> None:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": str(self._home),
            "max_connections": "200",
            "fsync": self._fsync,
        }
        options = [word for key, value in settings.items() for word in ("-c", f"{key}={value}")]
        self._server = _starter.submit(
            subprocess.Popen,
            [
                *("setpriv", *self._as, "--pdeathsig", "INT", str(self._bin / "postgres")),
                *("-D", str(self._home / "data"), *options),
            ],
            stdout=self._log,
            stderr=self._log,
            cwd="/",
        ).result()
        deadline = time.monotonic() + 60
        while True:
            try:
                psycopg.connect(self.url("postgres"), connect_timeout=5).close()
                return
            except psycopg.OperationalError:
                if self._server.poll() is not None or time.monotonic() > deadline:
                    log = Path(self._log.name).read_text(errors="replace")
                    raise RuntimeError(f"PostgreSQL did not start: {log[-2000:]}") from None
                time.sleep(0.05)

    def stop(self, *, at_once: bool = False) -> None:
        if self._server is not None:
            # SIGINT: fast shutdown, open sessions are cut off. SIGQUIT: without a checkpoint, as
            # after a crash; the next start recovers.
            self._server.send_signal(signal.SIGQUIT if at_once else signal.SIGINT)
            try:
                self._server.wait(timeout=30)
            except subprocess.TimeoutExpired:
                self._server.kill()
                self._server.wait()
            self._server = None

    def remove(self) -> None:
        self.stop()
        self._log.close()
        shutil.rmtree(self._home, ignore_errors=True)
        Path(self._log.name).unlink(missing_ok=True)

    def url(self, database: str) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def command(self, statement: str) -> None:
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(statement)  # type: ignore[arg-type]

    def new_database(self) -> str:
        """The URL of a new database."""
        name = f"test_{next(self._numbers)}"
        self.command(f"CREATE DATABASE {name}")
        return self.url(name)

    def empty(self, url: str) -> None:
        """Take all rows out of a lease database, and everybody else's sessions."""
        others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> "
        others += "pg_backend_pid() AND datname = current_database()"
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(others)  # type: ignore[arg-type]
            with connection.transaction():
                # As TRUNCATE does: a session that is just ending may still commit.
                names = ", ".join(metadata.tables)
                connection.execute(f"LOCK TABLE {names}")  # type: ignore[arg-type]
                # TRUNCATE makes new files for every table and index, which takes ten times as long.
                deleted = sum(
                    connection.execute(f"DELETE FROM {table.name}").rowcount
                    for table in reversed(metadata.sorted_tables)
                )
                connection.execute(_RESTART)
                connection.execute(  # type: ignore[arg-type]
                    f"UPDATE {VERSION_TABLE} SET version_num = '{HEAD}'"
                )
            if deleted > MANY:
                connection.execute("VACUUM")

    def drop(self, url: str) -> None:
        self.command(f"DROP DATABASE IF EXISTS {url.rsplit('/', 1)[1]} WITH (FORCE)")


@contextmanager
def database_with_roles(cluster: Cluster) -> Iterator[str]:
    """A lease database of its own; roles of nodes that were made in it are gone afterwards."""
    url = cluster.new_database()
    migrations.upgrade(url)
    try:
        yield url
    finally:
        for each in roles.find(url):
            roles.remove(url, each.node, each.role)
        cluster.drop(url)
