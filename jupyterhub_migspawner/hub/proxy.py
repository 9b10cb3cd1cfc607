"""The hub's own proxy, with a way to the broker's service that no other user can take.

Relies on configurable-http-proxy 5 or later, which connects to unix sockets (``http+unix://``), and
on the API that JupyterHub gives its proxies (``jupyterhub.proxy``). The hub itself knows only the
service's TCP port: JupyterHub 5.4 to 6.1 accept no other URL of a service. Promises that the hub
sees the routes it asked for, whatever the proxy has, so that it has nothing to mend in them.
"""

from __future__ import annotations

import asyncio
from typing import Any

from jupyterhub.proxy import ConfigurableHTTPProxy

#: The first one that connects to ``http+unix://``.
NEEDED = 5


def proxy_class(service: str, service_url: str, service_socket: str) -> type[SocketProxy]:
    """Return a :class:`SocketProxy` for the service of that name at these two URLs."""
    values = {"service": service, "service_url": service_url, "service_socket": service_socket}
    return type("SocketProxy", (SocketProxy,), {"__module__": __name__, **values})


class SocketProxy(ConfigurableHTTPProxy):  # type: ignore[misc]
    """configurable-http-proxy, which reaches the broker's service at a unix socket."""

    #: The service's name.
    service = ""
    #: The URL of the unix socket where the broker's service listens.
    service_socket = ""
    #: The URL that the hub knows the service by.
    service_url = ""

    _speaks_unix = False

    async def start(self) -> None:
        """Start the proxy, once it is known whether it connects to unix sockets."""
        self._speaks_unix = await self._version() >= NEEDED
        if not self._speaks_unix:
            self.log.warning(
                "The proxy reaches the GPU service by TCP: configurable-http-proxy %d or later "
                "connects to its unix socket, which no other user can take while the hub is down.",
                NEEDED,
            )
        await super().start()

    async def add_route(self, routespec: str, target: str, data: dict[str, Any]) -> None:
        """Add a route; the service's goes to its unix socket."""
        mine = data.get("service") == self.service and target == self.service_url
        if mine and self.should_start and self._speaks_unix:
            target = self.service_socket
        await super().add_route(routespec, target, data)

    async def get_all_routes(self, *args: Any, **kwargs: Any) -> dict[str, dict[str, Any]]:
        """Return the routes as the hub asked for them."""
        routes: dict[str, dict[str, Any]] = await super().get_all_routes(*args, **kwargs)
        for route in routes.values():
            if route["target"] == self.service_socket:
                route["target"] = self.service_url
        return routes

    async def _version(self) -> int:
        """Return the proxy's major version; 0 when it does not say."""
        try:
            asked = await asyncio.create_subprocess_exec(
                *self.command,
                "--version",
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
            )
            out, _ = await asyncio.wait_for(asked.communicate(), 20)
            return int(out.decode().strip().partition(".")[0])
        except (OSError, ValueError, asyncio.TimeoutError):
            return 0
