"""What the mixin needs of the spawner that it is mixed into and of the hub's objects, as types.

JupyterHub has no types, and the mixin goes over any of its spawners. What is used of them is
declared here, once, as ``jupyterhub.spawner.Spawner`` has it in 5.4 to 6.1. Promises to change
nothing at run time: there :class:`HubSpawner` is empty, so that every attribute is found where it
really is, in the spawner behind the mixin.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from logging import Logger
from typing import TYPE_CHECKING, Any, Protocol


class HubGroup(Protocol):
    """A group of the hub's users."""

    name: str


class ServerAddress(Protocol):
    """Where the hub finds a server."""

    base_url: str


class SavedServer(Protocol):
    """The hub's database row of a server."""

    started: datetime | None  # in UTC, without saying so
    user_options: dict[str, Any] | None


class HubUser(Protocol):
    """The user whose server it is."""

    name: str
    admin: bool | None
    settings: dict[str, Any]  # the hub's own

    @property
    def groups(self) -> list[HubGroup]:
        """The groups that the user is in."""

    @property
    def spawners(self) -> Mapping[str, HubSpawner]:
        """All of the user's servers that the hub has met since its start, by name."""


if TYPE_CHECKING:

    class HubSpawner:
        """Any spawner of JupyterHub, as far as the mixin uses it."""

        user: HubUser
        name: str
        orm_spawner: SavedServer
        server: ServerAddress
        handler: Any  # of the request that this start is for, or None
        log: Logger
        api_token: str
        internal_ssl: bool
        start_timeout: int  # seconds
        http_timeout: int  # seconds
        user_options: dict[str, Any]
        apply_user_options: Any  # a callable, a dict, or None

        _log_name: str
        _spawn_pending: bool

        @property
        def active(self) -> bool: ...

        @property
        def pending(self) -> str | bool | None: ...

        # Any: a value or an awaitable of it, as each spawner likes.
        def start(self) -> Any: ...
        async def poll(self) -> int | None: ...
        def get_env(self) -> dict[str, str]: ...
        def get_state(self) -> dict[str, Any]: ...
        def load_state(self, state: dict[str, Any]) -> None: ...
        def clear_state(self) -> None: ...
        def progress(self) -> AsyncIterator[dict[str, Any]]: ...
        def run_post_stop_hook(self) -> Any: ...

        async def get_options_form(self) -> str | None: ...
        def run_options_from_form(self, form_data: dict[str, list[Any]]) -> Any: ...
        def options_from_query(self, query_data: dict[str, list[Any]]) -> Any: ...
        async def _run_apply_user_options(self, user_options: dict[str, Any]) -> None: ...

else:

    class HubSpawner:
        """Any spawner of JupyterHub, as far as the mixin uses it; empty at run time."""
