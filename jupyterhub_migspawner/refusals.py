"""How a start that cannot be is told: a refusal as the hub shows it, on hub 5 and 6 alike."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from tornado import web

from jupyterhub_migspawner.errors import ConfigError, DatabaseError, MigspawnerError, Refusal

try:
    from jupyterhub.spawner import SpawnException
except ImportError:  # JupyterHub 5 has no such class; its handlers read these attributes instead

    class SpawnException(web.HTTPError):  # type: ignore[no-redef]
        """A refused spawn, for hubs before 6.0."""

        def __init__(self, message: str, *, reason: str, status_code: int = 400) -> None:
            # The message goes in as an argument: tornado would read a "%" in it as a format.
            super().__init__(status_code, "%s", message)
            self.jupyterhub_message = message
            self.refusal_reason = reason


DATABASE_AWAY = (
    "The list of GPU slices cannot be read at the moment, so nothing was started. Please try again "
    "in a minute; if it stays so, tell your admin that the lease database does not answer."
)


def spawn_exception(log: Any, error: MigspawnerError) -> Exception:
    """What the hub shows: a refusal as it stands, trouble without its inner details."""
    make: Callable[..., Exception] = partial(
        SpawnException, reason=getattr(error, "reason", "error")
    )
    if isinstance(error, Refusal):
        return make(str(error), status_code=error.status)
    log.error("%s", error)
    if isinstance(error, DatabaseError):
        return make(DATABASE_AWAY, status_code=503)
    if isinstance(error, ConfigError):
        return make(f"The hub's GPU settings are wrong: {error}", status_code=500)
    return make(f"No GPU could be prepared: {error}", status_code=503)


def instead_of_a_start(url: str, message: str) -> Exception:
    """What a handler of the hub's form is to answer where there is no start: the way to a page.

    The hub's handlers take status and headers of an HTTPError over (5.4 to 6.1,
    jupyterhub.handlers.pages). Without a page to go to the form says the message.
    """
    found = web.HTTPError(303 if url else 200, "%s", message)
    found.jupyterhub_message = message  # type: ignore[attr-defined]
    found.headers = {"Location": url} if url else {}  # type: ignore[attr-defined]
    return found
