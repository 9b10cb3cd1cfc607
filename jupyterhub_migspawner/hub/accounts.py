"""The hub's accounts: what a user whom it renames or deletes takes along or leaves.

Relies on the events of the hub's own tables (``jupyterhub.orm.User``, 5.4 to 6), since no hook
reports a rename, and on nothing being so before it is committed. Promises that the hub never waits
for the lease database: one thread passes on what happened, in order, and tries again while the
database is away. What a hub that is killed had not passed on is lost; its service then keeps a
renamed user's running server, and gives the lease back when that has stopped.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from typing import Any

from jupyterhub import orm
from sqlalchemy import event
from sqlalchemy.orm import Session, object_session

from jupyterhub_migspawner.broker import Broker
from jupyterhub_migspawner.config import MigBroker
from jupyterhub_migspawner.errors import DatabaseError, MigspawnerError

log = logging.getLogger("migspawner.accounts")

Change = Callable[[Broker], object]

PAUSE = 5.0
"""Seconds between two tries while the lease database is away."""

_KEY = "migspawner_changes"


class Accounts:
    """Reports every user that this hub renames or deletes to the broker."""

    def __init__(self, mig: MigBroker, *, pause: float = PAUSE) -> None:
        self._mig = mig
        self._pause = pause
        self._changes: queue.SimpleQueue[Change | None] = queue.SimpleQueue()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work, name="migspawner-accounts", daemon=True)

    def watch(self) -> None:
        """Listen from now on, until :meth:`stop`."""
        self._thread.start()
        for target, name, listener in self._listeners():
            event.listen(target, name, listener)

    def stop(self) -> None:
        """Stop listening; what was heard is passed on once more, then the thread ends."""
        for target, name, listener in self._listeners():
            event.remove(target, name, listener)
        self._stopped.set()
        self._changes.put(None)
        self._thread.join()

    def _listeners(self) -> tuple[tuple[Any, str, Any], ...]:
        return (
            (orm.User.name, "set", self._renamed),
            (orm.User, "after_delete", self._deleted),
            (Session, "after_commit", self._committed),
            (Session, "after_rollback", self._undone),
        )

    # -- on the hub's event loop, in the hub's transactions ---------------------------------------

    def _renamed(self, user: orm.User, new: str, old: Any, _: Any) -> None:
        # A new user had no name before, and SQLAlchemy says so with a symbol.
        if isinstance(old, str) and old != new:
            self._note(user, lambda b, at: b.users.rename(old, new, at))

    def _deleted(self, mapper: Any, connection: Any, user: orm.User) -> None:
        name = user.name
        self._note(user, lambda b, at: b.users.forget(name, at))

    def _note(self, user: orm.User, change: Callable[[Broker, Any], object]) -> None:
        session = object_session(user)
        if session is None:
            return
        at = self._mig.moment()
        session.info.setdefault(_KEY, []).append(lambda broker: change(broker, at))

    def _committed(self, session: Session) -> None:
        for change in session.info.pop(_KEY, ()):
            self._changes.put(change)

    def _undone(self, session: Session) -> None:
        session.info.pop(_KEY, None)

    # -- in the thread ---------------------------------------------------------------------------

    def _work(self) -> None:
        while (change := self._changes.get()) is not None:
            while not self._passed_on(change) and not self._stopped.wait(self._pause):
                pass

    def _passed_on(self, change: Change) -> bool:
        """Pass a change on; return whether nothing more is to be done about it."""
        try:
            change(self._mig.open_broker())
        except DatabaseError as error:
            log.warning("A renamed or deleted user is not recorded yet: %s", error)
            return False
        except MigspawnerError as error:
            log.warning("A renamed or deleted user was not recorded: %s", error)
        except Exception:
            log.exception("A renamed or deleted user could not be recorded.")
        return True
