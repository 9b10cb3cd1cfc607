"""The service as a process: put together from the hub's environment and the admin's file, run, end.

Relies on what the hub gives a managed service in its environment (``jupyterhub.services.service``)
and on :mod:`..config`. Promises to listen on the loopback address that the hub named and nowhere
else, to keep everything that blocks off the event loop (a few threads for the lease database, one
of its own for the cards), to end cleanly on SIGTERM and SIGINT and when the hub is gone, and to die
with a sentence when it cannot start.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import ipaddress
import logging
import os
import secrets
import signal
import ssl
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from urllib.parse import urlsplit

from jupyterhub.services.auth import HubOAuth
from tornado.httpserver import HTTPServer
from tornado.log import LogFormatter
from tornado.web import Application, RequestHandler
from traitlets.config import Config

from jupyterhub_migspawner import channels
from jupyterhub_migspawner.agent import make_agent
from jupyterhub_migspawner.broker import utc_now
from jupyterhub_migspawner.config import MigBroker, load_config_file
from jupyterhub_migspawner.errors import ConfigError, MigspawnerError
from jupyterhub_migspawner.service import (
    api,
    certificates,
    compacting,
    emitting,
    notice_pages,
    noticing,
    pages,
    queue_pages,
    request_pages,
    serving,
)
from jupyterhub_migspawner.service.auth import hub_oauth
from jupyterhub_migspawner.service.body import MOST_READ
from jupyterhub_migspawner.service.compacting import Compactor
from jupyterhub_migspawner.service.emitting import Emitter, event_logger
from jupyterhub_migspawner.service.examining import Examiner
from jupyterhub_migspawner.service.hub import HubApi
from jupyterhub_migspawner.service.looks import Looks
from jupyterhub_migspawner.service.loops import Loop, Reconciler
from jupyterhub_migspawner.service.noticing import Outbox
from jupyterhub_migspawner.service.parts import Parts
from jupyterhub_migspawner.service.pauses import keep_short
from jupyterhub_migspawner.wiring import HUB_PID

log = logging.getLogger("migspawner.service")

#: Threads that wait for the lease database.
DATABASE_THREADS = 4

#: Seconds a round under way is given to end when the service does.
PATIENCE = 10.0

#: What the hub puts into the environment of a managed service that has a URL and OAuth.
FROM_HUB = (
    "JUPYTERHUB_SERVICE_URL",
    "JUPYTERHUB_SERVICE_PREFIX",
    "JUPYTERHUB_API_URL",
    "JUPYTERHUB_API_TOKEN",
    "JUPYTERHUB_CLIENT_ID",
)


@dataclass(frozen=True)
class Address:
    """Where to listen: a loopback address of this machine."""

    host: str
    port: int


class Service:
    """One running service."""

    def __init__(
        self,
        config: Config,
        address: Address,
        hub_auth: HubOAuth,
        *,
        ssl_client: ssl.SSLContext | None = None,
        ssl_servers: ssl.SSLContext | None = None,
    ) -> None:
        """Opens the lease database. Raises :exc:`.ConfigError` or :exc:`.DatabaseError`."""
        options = MigBroker(config=config)
        broker = options.open_broker()
        self._nvml = options.open_nvml()
        self._address = address
        self._database = ThreadPoolExecutor(DATABASE_THREADS, "database")
        self._cards = ThreadPoolExecutor(1, "cards")
        parts = Parts(
            broker=broker,
            settings=options.settings(),
            hub=HubApi(
                hub_auth.api_url,
                hub_auth.api_token,
                ssl_context=ssl_client,
                # Hub and service run on one machine, the lease database's clock perhaps not.
                ahead=lambda: utc_now() - broker.clock(),
            ),
            database=self._database,
            home=options.hub_home,
            prefix=hub_auth.base_url,
            hub_prefix=hub_auth.hub_prefix,
            hub_host=hub_auth.hub_host,
        )
        self.application = application(parts, hub_auth, Looks(parts, config))
        agent = make_agent(options)

        async def look_at_cards() -> None:
            await asyncio.get_running_loop().run_in_executor(self._cards, agent.tick)

        self._examiner = Examiner(parts, ssl_context=ssl_servers)
        loops = [
            Loop("look at the cards", options.tick_seconds, look_at_cards),
            Loop(
                "comparison of leases with servers",
                options.reconcile_seconds,
                Reconciler(parts).round,
            ),
            Loop("waiting list", serving.PAUSE, serving.Server(parts).round),
            Loop("look for idle sessions", options.examine_seconds, self._examiner.round),
            Loop(
                "compaction of old events",
                compacting.PAUSE,
                Compactor(parts, options.event_days, clock=parts.broker.clock).round,
            ),
        ]
        notices = parts.settings.notices
        channels.check(notices.channels)
        for channel in notices.channels:
            outbox = Outbox(
                parts, channel, notices, clock=parts.broker.clock, link=public_link(config, parts)
            )
            loops.append(Loop(f"sending to {channel.name}", noticing.PAUSE, outbox.round))
        logger = event_logger(config)
        if logger is not None:
            reader = f"hub {broker.hub}"
            emitter = Emitter(parts, logger, reader)
            loops.append(Loop("passing on of events", emitting.PAUSE, emitter.round))
        self._loops = tuple(loops)

    async def run(self, stop: asyncio.Event) -> bool:
        """Serve until ``stop`` is set. False when a round under way did not come to its end."""
        gc.collect()
        keep_short()
        server = HTTPServer(
            self.application,
            xheaders=True,
            max_body_size=MOST_READ,
        )
        try:
            server.listen(self._address.port, address=self._address.host)
        except OSError as error:
            raise ConfigError(
                f"The service cannot listen on {self._address.host} port {self._address.port}: "
                f"{error}. Give it another port in its 'url' in JupyterHub.services."
            ) from None
        log.info("The GPU service listens on %s port %d.", self._address.host, self._address.port)
        tasks = [asyncio.ensure_future(loop.run(stop)) for loop in self._loops]
        try:
            await stop.wait()
        finally:
            log.info("The GPU service ends.")
            server.stop()
            stop.set()
            _, late = await asyncio.wait(tasks, timeout=PATIENCE)
            await server.close_all_connections()
            self._database.shutdown(wait=False, cancel_futures=True)
            self._cards.shutdown(wait=False, cancel_futures=True)
            if not late:
                self._examiner.close()
                self._nvml.close()
        return not late


def public_link(config: Config, parts: Parts) -> str:
    """The service's address as people see it; empty unless the admin has told the hub its own."""
    public = config.get("JupyterHub", {}).get("public_url", "")
    if not isinstance(public, str) or not public.strip():
        return ""
    # The service's path begins at the root of the same host.
    parsed = urlsplit(public)
    return f"{parsed.scheme}://{parsed.netloc}{parts.prefix}" if parsed.netloc else ""


def application(parts: Parts, hub_auth: HubOAuth, looks: Looks) -> Application:
    """tornado's application: pages and API below the service's prefix."""
    return Application(
        [
            *pages.handlers(parts.prefix),
            *queue_pages.handlers(parts.prefix),
            *request_pages.handlers(parts.prefix),
            *notice_pages.handlers(parts.prefix),
            *api.handlers(parts.prefix),
        ],
        default_handler_class=pages.not_found(),
        log_function=log_request,
        # A new one at each start: whoever is signed in at the hub is signed in again unasked.
        cookie_secret=secrets.token_bytes(32),
        xsrf_cookies=True,
        xsrf_cookie_kwargs={"samesite": "Lax"},
        parts=parts,
        hub_auth=hub_auth,
        looks=looks,
    )


def log_request(handler: RequestHandler) -> None:
    """What changes something or fails is worth a line; never the query, which may hold a secret."""
    status = handler.get_status()
    request = handler.request
    level = logging.DEBUG
    if status >= 500:
        level = logging.ERROR
    elif status >= 400 or request.method not in ("GET", "HEAD"):
        level = logging.INFO
    visitor = getattr(handler, "visitor", None)
    log.log(
        level,
        "%d %s %s %s %.0f ms",
        status,
        request.method,
        request.path,
        visitor.person.name if visitor else "-",
        1000 * request.request_time(),
    )


def listening_address(url: str) -> Address:
    """The loopback address and port of the service's URL. Raises :exc:`.ConfigError`."""
    try:
        parsed = urlsplit(url)
        host, port, scheme = parsed.hostname, parsed.port, parsed.scheme
    except ValueError:
        host, port, scheme = None, None, ""
    if not host or not port or scheme != "http":
        raise ConfigError(
            f"The service's 'url' in JupyterHub.services is {url!r}, expected an http "
            "address with a port, such as 'http://127.0.0.1:10101'."
        )
    if not _is_loopback(host):
        raise ConfigError(
            f"The service's 'url' in JupyterHub.services is {url!r}: it is reached through the "
            "hub's proxy only and listens on the loopback address, such as 'http://127.0.0.1:10101'."
        )
    return Address(host, port)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def from_environment(config_file: str, environ: Mapping[str, str]) -> Service:
    """The service as the hub wants it. Raises a :exc:`.MigspawnerError` that says what is wrong."""
    missing = [name for name in FROM_HUB if not environ.get(name)]
    if missing:
        raise ConfigError(
            f"{', '.join(missing)} is not set: this service is started by the hub. "
            "'jupyterhub_migspawner.setup(c)' in the hub's configuration file makes it so."
        )
    address = listening_address(environ["JUPYTERHUB_SERVICE_URL"])
    config = load_config_file(config_file)
    # With internal_ssl the hub's API asks for a certificate. The way from the proxy to here stays
    # http on the loopback address: the hub cannot reach a managed service by https (JupyterHub
    # 6.1, app.py: it uses a server's TLS context to connect).
    return Service(
        config,
        address,
        hub_oauth(environ),
        ssl_client=certificates.for_the_hub(environ),
        ssl_servers=certificates.for_servers(config, environ),
    )


async def serve(service: Service, hub: int) -> bool:
    """Run until a signal, or until the hub (its pid) that started this process is gone."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    watch = asyncio.ensure_future(_outlived(stop, hub))
    try:
        return await service.run(stop)
    finally:
        watch.cancel()


async def _outlived(stop: asyncio.Event, hub: int) -> None:
    """End with the hub: a killed hub leaves its services behind, and its successor starts others.

    Two services would both work on the same cards, and the old one's token is worth nothing.
    """
    while not stop.is_set():
        try:
            await asyncio.wait_for(stop.wait(), 1.0)
        except asyncio.TimeoutError:
            if os.getppid() != hub:
                log.warning("The hub that started this service is gone.")
                stop.set()


def set_up_log() -> None:
    """Log lines like the hub's, among which they stand."""
    handler = logging.StreamHandler()
    handler.setFormatter(
        LogFormatter(
            fmt="%(color)s[%(levelname)1.1s %(asctime)s.%(msecs).03d %(name)s]%(end_color)s "
            "%(message)s",
            datefmt="%Y-%m-%d %H:%M:%S",
            color=sys.stderr.isatty(),
        )
    )
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    # The hub's library tells of every cookie it sets.
    logging.getLogger("tornado.application").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the service; 0 when it was asked to end, 1 when it could not start."""
    parser = argparse.ArgumentParser(
        prog="python -m jupyterhub_migspawner.service",
        description="The slice broker's service. The hub starts it.",
    )
    parser.add_argument("--config", required=True, help="the hub's configuration file")
    arguments = parser.parse_args(argv)
    set_up_log()
    # Now, not once everything is open: a hub that dies meanwhile must not be missed.
    hub = int(os.environ.get(HUB_PID) or os.getppid())
    try:
        ended = asyncio.run(_main(arguments.config, hub))
    except MigspawnerError as error:
        log.critical("The GPU service cannot start: %s", error)
        return 1
    if not ended:
        log.warning("A look at the cards did not come to its end; the service ends without it.")
        logging.shutdown()
        # Its thread would keep the process: the next start goes on where it was.
        os._exit(0)
    return 0


async def _main(config_file: str, hub: int) -> bool:
    return await serve(from_environment(config_file, os.environ), hub)
