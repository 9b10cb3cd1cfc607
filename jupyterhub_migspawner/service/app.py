"""The service as a process: put together from the hub's environment and the admin's file, run, end.

Relies on what the hub gives a managed service in its environment (``jupyterhub.services.service``)
and on :mod:`..config`. Promises to listen on the sockets that the hub holds for it, or else on the
loopback address that the hub named, and nowhere else; to keep everything that blocks off the event
loop (threads for the lease database, a process for the cards); to end cleanly on SIGTERM and SIGINT
and when the hub is gone; and to die with a sentence when it cannot start.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import secrets
import signal
import socket
import ssl
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from jupyterhub.services.auth import HubOAuth
from tornado.netutil import bind_sockets
from tornado.web import Application
from traitlets.config import Config

from jupyterhub_migspawner import channels
from jupyterhub_migspawner.agent.orphans import shut_orphans
from jupyterhub_migspawner.broker import utc_now
from jupyterhub_migspawner.config import MigBroker
from jupyterhub_migspawner.db import backup_files, queries
from jupyterhub_migspawner.descriptors import raise_file_limit
from jupyterhub_migspawner.errors import ConfigError, MigspawnerError
from jupyterhub_migspawner.hub.ports import CALLERS, SOCKETS, ask_for_sockets
from jupyterhub_migspawner.hub.wiring import HUB_PID
from jupyterhub_migspawner.logs import set_up_log
from jupyterhub_migspawner.loop import Loop
from jupyterhub_migspawner.policy.wording import listed
from jupyterhub_migspawner.service.address import Address, listening_address
from jupyterhub_migspawner.service.api import routes as api
from jupyterhub_migspawner.service.clients import certificates
from jupyterhub_migspawner.service.clients.alarms import Alarms
from jupyterhub_migspawner.service.clients.hub import HubApi
from jupyterhub_migspawner.service.garbage import keep_short
from jupyterhub_migspawner.service.http.auth import CheckedHubOAuth, hub_oauth
from jupyterhub_migspawner.service.http.connections import (
    Connections,
    connection_limit,
)
from jupyterhub_migspawner.service.http.limits import Turns
from jupyterhub_migspawner.service.http.logs import log_request
from jupyterhub_migspawner.service.node import AgentProcess
from jupyterhub_migspawner.service.pages import routes as pages
from jupyterhub_migspawner.service.pages.theme import Theme
from jupyterhub_migspawner.service.parts import Parts
from jupyterhub_migspawner.service.settings import HubGone, settings
from jupyterhub_migspawner.service.workers import events, notices, queue, retention
from jupyterhub_migspawner.service.workers.events import Emitter, event_logger
from jupyterhub_migspawner.service.workers.loop import in_time
from jupyterhub_migspawner.service.workers.notices import Outbox
from jupyterhub_migspawner.service.workers.reconciliation import Reconciler
from jupyterhub_migspawner.service.workers.retention import Compactor
from jupyterhub_migspawner.service.workers.sessions import Examiner

log = logging.getLogger("migspawner.service")

#: Threads that wait for the lease database: for requests, and for the service's own rounds, which
#: no number of requests may hold up.
DATABASE_THREADS = 4
ROUND_THREADS = 4

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


class Service:
    """One running service."""

    def __init__(
        self,
        config: Config,
        address: Address,
        hub_auth: CheckedHubOAuth,
        *,
        agent: AgentProcess | None,
        environ: Mapping[str, str],
        ssl_client: ssl.SSLContext | None = None,
        ssl_servers: ssl.SSLContext | None = None,
    ) -> None:
        """Open the lease database. Raises :exc:`.ConfigError` or :exc:`.DatabaseError`."""
        options = MigBroker(config=config)
        options.may_create = not backup_files.was_lost(options.resolved_database_url())
        broker = options.open_broker()
        if options.agent:
            shut_orphans(options, broker)
        self._address = address
        self._environ = environ
        self._database = ThreadPoolExecutor(DATABASE_THREADS, "database")
        self._rounds = ThreadPoolExecutor(ROUND_THREADS, "rounds")
        requests = Parts(
            broker=broker,
            settings=options.settings(),
            hub=HubApi(
                hub_auth.api_url,
                hub_auth.api_token,
                ssl_context=ssl_client,
                # Hub and service run on one machine, the lease database's clock perhaps not.
                ahead=lambda: utc_now() - broker.now(),
            ),
            database=self._database,
            key_file=options.key_file_of_hub(),
            home=options.hub_home,
            prefix=hub_auth.base_url,
            hub_prefix=hub_auth.hub_prefix,
            hub_host=hub_auth.hub_host,
        )
        self.application = application(requests, hub_auth, Theme(requests, config))
        self._agent = agent
        parts = replace(requests, database=self._rounds)
        alarms = Alarms(parts, options.node)
        requests.hub.stranger = alarms.at_hub
        hub_auth.stranger = alarms.at_hub
        self._examiner = Examiner(parts, ssl_context=ssl_servers, wrong_peer=alarms.at_server)
        loops = [
            Loop(
                "comparison of leases with servers",
                options.reconcile_seconds,
                Reconciler(parts).round,
            ),
            Loop("waiting list", queue.PAUSE, queue.Dispatcher(parts).round),
            Loop("look for idle sessions", options.examine_seconds, self._examiner.round),
            Loop(
                "compaction of old events",
                retention.PAUSE,
                Compactor(parts, options.event_days, clock=parts.broker.now).round,
            ),
        ]
        chosen = parts.settings.notices
        channels.check(chosen.channels)
        for channel in chosen.channels:
            outbox = Outbox(
                parts, channel, chosen, clock=parts.broker.now, link=public_link(config, parts)
            )
            loops.append(Loop(f"sending to {channel.name}", notices.PAUSE, outbox.round))
        logger = event_logger(config)
        if logger is not None:
            reader = f"hub {broker.hub}"
            emitter = Emitter(parts, logger, reader)
            loops.append(Loop("passing on of events", events.PAUSE, emitter.round))
        broker.clock.watch()
        self._loops = tuple(in_time(loop, parts) for loop in loops)

    async def run(self, stop: asyncio.Event) -> bool:
        """Serve until ``stop`` is set. Return False when a round under way did not end."""
        queries.load()
        keep_short()
        callers = None if self._environ.get(CALLERS) == "any" else ()
        server = Connections(
            self.application, callers=callers, most=connection_limit(raise_file_limit())
        )
        with ExitStack() as held:
            sockets = self._sockets(held)
            if sockets is None:
                log.warning("The hub that started this service is gone.")
                return True
            server.serve(sockets)
            return await self._serve(server, stop)

    def _sockets(self, held: ExitStack) -> list[socket.socket] | None:
        """Return the sockets to listen on; None when the hub that holds them is gone.

        Raises :exc:`.ConfigError` when the service cannot listen where it should.
        """
        name = self._environ.get(SOCKETS)
        if not name:
            return self._own_sockets()
        try:
            given = ask_for_sockets(name, int(self._environ.get(HUB_PID) or os.getppid()))
        except ConnectionRefusedError:
            return None
        except OSError as error:
            raise ConfigError(
                f"The service does not get its sockets from its hub: {error}. The hub has to "
                "start it directly, without another program in between, and needs free file "
                "descriptors."
            ) from None
        held.callback(given.line.close)
        return list(given.listening)

    def _own_sockets(self) -> list[socket.socket]:
        """Open the sockets of a service whose entry in the hub's configuration the admin wrote."""
        try:
            return bind_sockets(self._address.port, self._address.host)
        except OSError as error:
            raise ConfigError(
                f"The service cannot listen on {self._address.host} port {self._address.port}: "
                f"{error}. Give it another port in its 'url' in JupyterHub.services."
            ) from None

    async def _serve(self, server: Connections, stop: asyncio.Event) -> bool:
        log.info("The GPU service listens on %s port %d.", self._address.host, self._address.port)
        tasks: list[asyncio.Future[Any]] = [
            asyncio.ensure_future(loop.run(stop)) for loop in self._loops
        ]
        if self._agent is not None:
            tasks.append(asyncio.ensure_future(self._agent.run(stop)))
        try:
            await stop.wait()
        finally:
            log.info("The GPU service ends.")
            server.stop()
            stop.set()
            _, late = await asyncio.wait(tasks, timeout=PATIENCE)
            await server.close_all_connections()
            for pool in (self._database, self._rounds):
                pool.shutdown(wait=False, cancel_futures=True)
            if not late:
                self._examiner.close()
        return not late


def public_link(config: Config, parts: Parts) -> str:
    """Return the service's public address; empty unless the admin has told the hub its own."""
    public = config.get("JupyterHub", {}).get("public_url", "")
    if not isinstance(public, str) or not public.strip():
        return ""
    # The service's path begins at the root of the same host.
    parsed = urlsplit(public)
    return f"{parsed.scheme}://{parsed.netloc}{parts.prefix}" if parsed.netloc else ""


def application(parts: Parts, hub_auth: HubOAuth, theme: Theme) -> Application:
    """Return tornado's application: pages and API below the service's prefix."""
    return Application(
        [
            *pages.handlers(parts.prefix),
            *api.handlers(parts.prefix),
        ],
        default_handler_class=pages.not_found(),
        log_function=log_request,
        # A new one at each start: users signed in at the hub are signed in again unasked.
        cookie_secret=secrets.token_bytes(32),
        xsrf_cookies=True,
        xsrf_cookie_kwargs={"samesite": "Lax"},
        parts=parts,
        hub_auth=hub_auth,
        theme=theme,
        turns=Turns(),
    )


def from_environment(config_file: str, environ: Mapping[str, str]) -> Service:
    """Return the service as the hub's environment describes it.

    Raises a :exc:`.MigspawnerError` that says what is wrong, and :exc:`.HubGone`.
    """
    missing = [name for name in FROM_HUB if not environ.get(name)]
    if missing:
        raise ConfigError(
            f"{listed(missing)} {'is' if len(missing) == 1 else 'are'} not set: the hub has to "
            "start this service. "
            "'jupyterhub_migspawner.setup(c)' in the hub's configuration file configures that."
        )
    address = listening_address(environ["JUPYTERHUB_SERVICE_URL"])
    hub = int(environ.get(HUB_PID) or os.getppid())
    given = settings(config_file, environ, hub)
    config = given.config
    # With internal_ssl the hub's API asks for a certificate. The way from the proxy to here stays
    # http on the loopback address: the hub cannot reach a managed service by https (JupyterHub
    # 6.1, app.py: it uses a server's TLS context to connect).
    return Service(
        config,
        address,
        hub_oauth(environ),
        agent=AgentProcess(config_file, given.document) if MigBroker(config=config).agent else None,
        environ=environ,
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

    Two services would both work on the same cards, and the old one's token is worth nothing. The
    kernel says at once that the hub has ended (pidfd_open(2)); its pid is looked at as well, for a
    hub that had ended before, and for kernels before 5.3.
    """
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    descriptor = -1
    try:
        descriptor = os.pidfd_open(hub)
        loop.add_reader(descriptor, ended.set)
    except (OSError, AttributeError):
        pass
    ends = {asyncio.ensure_future(each.wait()) for each in (stop, ended)}
    try:
        while not stop.is_set():
            if os.getppid() != hub:
                log.warning("The hub that started this service is gone.")
                stop.set()
                return
            await asyncio.wait(ends, timeout=1.0, return_when=asyncio.FIRST_COMPLETED)
            if ended.is_set():
                await asyncio.sleep(0.01)  # the kernel is about to give this process another parent
    finally:
        for each in ends:
            each.cancel()
        if descriptor >= 0:
            loop.remove_reader(descriptor)
            os.close(descriptor)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the service; return 0 when it was asked to end, 1 when it could not start."""
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
    except OSError as error:
        # A path of the configuration, or what this user may have open.
        named = isinstance(error.filename, (str, bytes))
        where = f"{os.fsdecode(error.filename)!r}: " if named else ""
        log.critical("The GPU service ends: %s%s.", where, error.strerror or error)
        log.debug("It was raised here.", exc_info=True)
        return 1
    if not ended:
        log.warning("A round did not finish; the service ends without it.")
        logging.shutdown()
        # Its thread would keep the process: the next start goes on where it was.
        os._exit(0)
    return 0


async def _main(config_file: str, hub: int) -> bool:
    try:
        service = from_environment(config_file, os.environ)
    except HubGone:
        log.warning("The hub that started this service is gone.")
        return True
    return await serve(service, hub)
