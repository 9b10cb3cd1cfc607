"""The lease database of a day of chaos is lost, or replaced by an older copy of itself.

Backups are taken while people work. Each loss takes one of them, or nothing, in one of the ways in
which it happens to admins: under a running hub, or by the book with the hub stopped. The admin of
the day then does what the documentation says.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg

from jupyterhub_migspawner.db import backups
from jupyterhub_migspawner.errors import DatabaseError
from tests.chaos.hub import ChaosHub
from tests.chaos.reports import Report

#: Tries until nobody uses the database, or holds a lock on a table of it. It only ends a day that
#: has failed.
TRIES = 60

_SIDES = ("-wal", "-shm", "-journal")


class Losses:
    """Backups of the day, what replaces the database, and the admin who adopts what runs."""

    def __init__(self, hub: ChaosHub, say: Callable[[str], None]) -> None:
        self._hub = hub
        self._say = say
        self._backups: list[Path] = []
        self._layouts: dict[str, tuple[tuple[str, int], ...]] = {}
        #: How often the database was replaced, slices were seen quarantined, servers adopted.
        self.times = self.quarantined = self.adopted = 0

    @property
    def _file(self) -> Path | None:
        found = self._hub.database.removeprefix("sqlite:///")
        return Path(found) if found != self._hub.database else None

    def back_up(self) -> None:
        """Keep a copy, as a timer would; a database that is away just then is not copied."""
        file = self._hub.directory / f"backup-{len(self._backups)}.sqlite"
        try:
            backups.back_up(self._hub.database, file)
        except DatabaseError as error:
            self._say(f"no backup: {error}")
            return
        self._backups.append(file)
        if not self._layouts:
            cards = self._hub.broker().cards.find()
            self._layouts = {card.uuid: card.layout for card in cards}

    def lose(self) -> None:
        """Under the running hub: no file any more, or a database without tables."""
        self.times += 1
        with self._hub.closed():
            if self._file is None:
                self._drop_tables()
                return
            for side in ("", *_SIDES):
                Path(f"{self._file}{side}").unlink(missing_ok=True)

    def swap(self, later: float) -> None:
        """Under the running hub: an older copy is put in its place, by hand."""
        self.times += 1
        copy = self._backup(later)
        with self._hub.closed():
            self._put(copy)

    def _put(self, copy: Path) -> None:
        if self._file is None:
            self._drop_tables()
            _try(lambda: backups.copy(f"sqlite:///{copy}", self._hub.database))
            return
        made = self._file.with_suffix(".copy")
        with closing(sqlite3.connect(copy)) as old, closing(sqlite3.connect(made)) as new:
            old.backup(new)
        for side in _SIDES:
            Path(f"{self._file}{side}").unlink(missing_ok=True)
        made.replace(self._file)

    def restore(self, later: float) -> None:
        """With hub and service killed: ``migspawner db restore``."""
        self.times += 1
        copy = self._backup(later)

        def restore() -> None:
            self._hub.forget()
            done = self._hub.run_cli("db", "restore", str(copy))
            if done.returncode:
                raise DatabaseError(done.stderr)

        with self._hub.closed():
            _try(restore)

    def _backup(self, later: float) -> Path:
        # The newest one is of right now, and would hide little.
        return self._backups[int(later * (len(self._backups) - 1))]

    def _drop_tables(self) -> None:
        def drop() -> None:
            try:
                with psycopg.connect(self._hub.database) as connection:
                    connection.execute("SET lock_timeout = '2s'")
                    connection.execute("DROP SCHEMA public CASCADE")
                    connection.execute("CREATE SCHEMA public")
            except psycopg.OperationalError as error:
                raise DatabaseError(str(error)) from error

        _try(drop)

    # -- afterwards ------------------------------------------------------------------------------

    def offered(self, living: Callable[[], list[Report]]) -> list[str]:
        """Slices of servers that the database does not know and that it offers; as sentences."""
        broker = self._hub.broker()
        # In this order: a server that starts meanwhile is known by the time that is asked, and one
        # that the database does not know then was there before the slices were looked at.
        states = {each.row.uuid: each for each in broker.slices.find()}
        alive = living()
        known = {lease.attempt for lease in broker.leases.find(include_past=True)}
        wrong = []
        for report in alive:
            status = states.get(report.slice)
            if report.attempt in known or status is None:
                continue
            self.quarantined += status.state == "quarantined"
            if status.state == "free":
                wrong.append(f"the slice of an unknown server is offered: {report}, {status}")
        return wrong

    def adopt(self, living: Callable[[], list[Report]], runs: Callable[[Report], bool]) -> None:
        """What an admin does: adopt, and end what no hub runs and nobody can adopt."""
        done = self._hub.run_cli("leases", "adopt", "--json")
        if not done.stdout.strip():
            self._say(f"nothing is adopted: {done.stderr.strip()}")
            return
        rows: list[dict[str, Any]] = json.loads(done.stdout)
        for row in rows:
            self.adopted += row["adopted"]
            self._say(f"adoption: {row['user']} {row['attempt'][:8]}: {row['why'] or row['lease']}")
        refused = {row["attempt"] for row in rows if not row["adopted"]}
        for report in living():
            if report.attempt in refused and not runs(report):
                self._say(f"the admin ends {report.process}, which no hub runs")
                _kill(report.process.pid)
        self._cut_as_before()

    def end_hidden(self) -> None:
        """What an admin does about a slice that is in use without a lease: what its reason says.

        A process that hid just before the database was lost was known to nobody yet, so that no
        lease, and no session without one, has it. Any other process there is a fault of the day.
        """
        for status in self._hub.broker().slices.find():
            command = re.search(r"`sudo kill -9 ([0-9 ]+)`", status.row.quarantined)
            if command is None or status.leases:
                continue
            for pid in map(int, command[1].split()):
                if _is_hidden(pid):
                    self._say(f"the admin ends process {pid}, which hid before the loss")
                    _kill(pid)

    def _cut_as_before(self) -> None:
        """An empty database takes each card as it is cut just then."""
        broker = self._hub.broker()
        for card in broker.cards.find():
            if (before := self._layouts.get(card.uuid)) and card.layout != before:
                broker.layouts.set(card.uuid, before, True, "root")


def _is_hidden(pid: int) -> bool:
    """Whether it is what a server of the day leaves hidden (``reporting_server.hide``)."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return words[1:4] == [b"-S", b"-E", b"-c"]


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _try(do: Callable[[], None]) -> None:
    """Do it as soon as it can be done."""
    for left in reversed(range(TRIES)):
        try:
            do()
        except DatabaseError:
            if not left:
                raise
            time.sleep(0.5)
        else:
            return
