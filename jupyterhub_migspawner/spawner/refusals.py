"""How a refused start is shown: a refusal as the hub shows it, on hub 5 and 6 alike."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from tornado import web

from jupyterhub_migspawner.errors import (
    ConfigError,
    DatabaseError,
    EngineError,
    LaunchError,
    MigspawnerError,
    Refusal,
    UnitError,
)

try:
    from jupyterhub.spawner import SpawnException
except ImportError:  # JupyterHub 5 has no such class; its handlers read these attributes instead

    class SpawnException(web.HTTPError):  # type: ignore[no-redef]
        """A refused spawn, for hubs before 6.0."""

        def __init__(self, message: str, *, reason: str, status_code: int = 400) -> None:
            # The message goes in as an argument: tornado would read a "%" in it as a format.
            super().__init__(status_code, "%s", message)
            self.refusal_reason = reason


class RefusedSpawn(SpawnException):  # type: ignore[misc] # the hub has no types
    """A refused spawn of which every page, event and answer of the hub shows the sentence alone.

    The form and the progress of JupyterHub 6 show an exception's own text, which names the class
    and the reason, unless it has a ``jupyterhub_message`` (``jupyterhub.utils.format_exception``,
    5.4 to 6.1).
    """

    def __init__(self, message: str, *, reason: str, status_code: int = 400) -> None:
        super().__init__(message, reason=reason, status_code=status_code)
        self.jupyterhub_message = message

    def __str__(self) -> str:
        return self.jupyterhub_message


DATABASE_AWAY = (
    "The list of GPU slices cannot be read at the moment, so nothing was started. Please try again "
    "in a minute; if it happens again, tell your admin that the lease database does not respond."
)
SETTINGS_WRONG = (
    "There is a mistake in the hub's GPU settings, so nothing was started. Please tell your admin: "
    "'migspawner doctor' and the hub's log show it."
)
NOT_ISOLATED = (
    "Your session cannot be isolated from other sessions at the moment, so nothing was started. "
    "Please tell your admin: 'migspawner doctor' and the hub's log show the cause."
)
NOT_STARTED = (
    "Your server could not be started. Please try again in a minute; if it happens again, tell "
    "your admin: the hub's log shows the cause."
)
NO_GPU = (
    "No GPU could be prepared, so nothing was started. Please try again in a minute; if it "
    "happens again, tell your admin: 'migspawner doctor' and the hub's log show the cause."
)


def spawn_exception(log: Any, error: MigspawnerError) -> Exception:
    """Return what the hub shows: a refusal as it stands, an error without its inner details."""
    make: Callable[..., Exception] = partial(RefusedSpawn, reason=getattr(error, "reason", "error"))
    if isinstance(error, Refusal):
        return make(str(error), status_code=error.status)
    log.error("%s", error)
    if isinstance(error, DatabaseError):
        return make(DATABASE_AWAY, status_code=503)
    if isinstance(error, ConfigError):
        return make(SETTINGS_WRONG, status_code=500)
    if isinstance(error, LaunchError):
        return make(NOT_ISOLATED, status_code=503)
    if isinstance(error, (EngineError, UnitError)):
        return make(NOT_STARTED, status_code=503)
    return make(NO_GPU, status_code=503)


def instead_of_a_start(url: str, message: str) -> Exception:
    """Return what a handler of the hub's form answers where there is no start.

    It is the way to a page: the hub's handlers take status and headers of an HTTPError over
    (5.4 to 6.1, jupyterhub.handlers.pages). Without a page to go to the form says the message.
    """
    found = web.HTTPError(303 if url else 200, "%s", message)
    found.jupyterhub_message = message  # type: ignore[attr-defined]
    found.headers = {"Location": url} if url else {}  # type: ignore[attr-defined]
    return found
