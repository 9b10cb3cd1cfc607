"""What a starting hub is given by :mod:`.setup`: the service, its roles, and a database to use.

Relies on the hub that has just read the file. Promises that a hub whose settings or database cannot
be used stops with a sentence before its proxy runs.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import subprocess
import sys
import time
from collections import deque
from importlib.metadata import version
from pathlib import Path
from typing import Any

from traitlets.config import Config

from jupyterhub_migspawner import channels
from jupyterhub_migspawner.agent import families
from jupyterhub_migspawner.agent.orphans import shut_orphans
from jupyterhub_migspawner.broker import Broker, utc_now
from jupyterhub_migspawner.broker.marks import strangeness
from jupyterhub_migspawner.config import MigBroker
from jupyterhub_migspawner.config.file import home_of
from jupyterhub_migspawner.config.handover import SETTINGS, Handover
from jupyterhub_migspawner.config.resolved import resolve, settled
from jupyterhub_migspawner.config.settings import resolved_values
from jupyterhub_migspawner.db import queries
from jupyterhub_migspawner.errors import ConfigError, MigspawnerError
from jupyterhub_migspawner.gpu.boot import boot_id
from jupyterhub_migspawner.hub.context import KEY, HubContext
from jupyterhub_migspawner.hub.ports import CALLERS, SOCKETS, ServicePorts, socket_folder
from jupyterhub_migspawner.hub.scopes import (
    ACCESS_SCOPE,
    ADMIN_SCOPE,
    APPROVE_SCOPE,
    SELF_SCOPE,
    SERVICE_NAME,
)
from jupyterhub_migspawner.model.leases import RELEASING
from jupyterhub_migspawner.model.orphans import OrphanRow
from jupyterhub_migspawner.policy.wording import plural

TEMPLATES = Path(__file__).parent / "templates"
"""Holds a ``page.html`` that gives the service a title in the hub's menu."""

#: What every user is given: the way to the service, and the right to use there what they may.
USER_SCOPES = (ACCESS_SCOPE, SELF_SCOPE)

#: What the service may ask of the hub: who is in which group, which servers run, to end one that is
#: past its end, and to start one for a user who waited for it. (JupyterHub 5 has no narrower scope
#: than ``servers`` for a start.)
SERVICE_ROLE: dict[str, Any] = {
    "name": "migspawner-service",
    "description": "The slice broker compares its leases with the hub's servers, ends sessions, "
    "and starts those that people waited for.",
    "scopes": [
        "list:users",
        "read:users:name",
        "read:users:groups",
        "read:servers",
        "delete:servers",
        "servers",
    ],
    "services": [SERVICE_NAME],
}

#: Tells the service which process its hub is.
HUB_PID = families.HUB_PID

LAST_LOOK_SECONDS = 20.0
"""Seconds that a hub waits at its end for the last look at its servers' slices."""

HUB_SECRETS = {"CONFIGPROXY_AUTH_TOKEN", "JPY_COOKIE_SECRET"}


def complete_hub(app: Any, config: Config, config_file: Path) -> None:
    """Check the settings, then add what the hub needs to whatever lists the admin wrote."""
    try:
        refuse_wrapped(app.spawner_class)
        queries.load()
        broker = MigBroker(config=config)
        if not broker.only_node and getattr(app.spawner_class, "mig_starts_here", False):
            # Its servers could not use the slices of other nodes.
            broker.only_node = config.MigBroker.only_node = broker.node
        # Opened here, before the proxy runs and people wait: a database that this version cannot
        # use is reported now, and no later call has to import and open it on the event loop.
        # After a restart of this machine nothing on it is offered before its agent has looked.
        channels.check(broker.settings().notices.channels)
        # The service may not find the authenticator's class, such as one of the file itself.
        if broker.known_as.changed:
            known = {**broker.usernames, **broker.known_as.changed}
            broker.usernames = config.MigBroker.usernames = known
        if broker.service:
            broker.key_file_of_hub().make()
        opened = broker.open_broker()
        opened.hubs.claim(broker.hub_home)
        orphans: tuple[OrphanRow, ...] = ()
        if broker.agent:
            opened.nodes.note_boot(broker.node, boot_id())
            # Nor anything that a server uses of which the database does not know.
            orphans = shut_orphans(broker, opened)
        offered = hand_over(app, broker, config, config_file)
        app.tornado_settings = {**app.tornado_settings, KEY: HubContext(broker)}
    except MigspawnerError as error:
        app.log.critical("%s: %s", config_file, error)
        app.exit(1)
    if orphans:
        app.log.error(
            "The lease database %s has no lease for %s of this machine. %s Their slices are "
            "given to nobody; `migspawner leases adopt` creates leases for them.",
            opened.store.name,
            plural(len(orphans), "running server"),
            strangeness(orphans, opened.store.position),
        )
    if broker.agent:
        atexit.register(look_at_end, opened, broker.node, config_file, offered.file, app.log)
    # Only here, in a hub: what it imports is the hub's.
    from jupyterhub_migspawner.hub.accounts import Accounts

    Accounts(broker).watch()
    if not broker.service:
        return
    app.template_paths = with_templates(app.template_paths, app.data_files_path)
    if all(entry.get("name") != SERVICE_NAME for entry in app.services):
        own_proxy = starts_own_proxy(config)
        folder = None
        if own_proxy and "proxy_class" not in config.JupyterHub:
            folder = socket_folder(socket_places(config_file), broker.hub_home)
        ports = ServicePorts(folder)
        ports.hand_over(Restarts(app).gone)
        app.services = [
            *app.services,
            service_entry(
                config_file, ports, callers="hub" if own_proxy else "any", settings=offered.name
            ),
        ]
        if ports.socket_url:
            from jupyterhub_migspawner.hub.proxy import proxy_class

            app.proxy_class = proxy_class(SERVICE_NAME, ports.url, ports.socket_url)
    app.load_roles = with_roles(app.load_roles, hub_major=hub_major())
    if hasattr(app, "extra_user_scopes"):
        app.extra_user_scopes = {*app.extra_user_scopes, *USER_SCOPES}


def refuse_wrapped(spawner_class: type) -> None:
    """Refuse a spawner that starts its servers by another one, such as wrapspawner's.

    Its form offers profiles in place of tiers, so that the inner spawner never hears of a choice,
    and it forgets the inner one after a failed start, with the slice that it was given.

    Raises :exc:`.ConfigError`.
    """
    above = spawner_class.__mro__
    if any(each.__module__.partition(".")[0] == "wrapspawner" for each in above):
        raise ConfigError(
            f"JupyterHub.spawner_class is {spawner_class.__name__}, which starts servers with "
            "another spawner and offers no choice of a tier. Name the spawner itself, such as "
            "'mig-local', and replace the profiles by tiers in MigBroker.tiers: each can have a "
            "title, a description and groups. To start servers without a GPU with the same "
            "spawner, add a tier with profile 'none'."
        )


def hub_major() -> int:
    """Return the major version of the installed JupyterHub."""
    return int(version("jupyterhub").split(".")[0])


def hand_over(app: Any, broker: MigBroker, config: Config, config_file: Path) -> Handover:
    """Offer what this hub read to its service and to the command line.

    Raises :exc:`.ConfigError` when this system does not let it.
    """
    classes = [type(app), *app.classes]
    classes += [app.spawner_class, app.authenticator_class, app.proxy_class]
    try:
        settings = resolve(
            settled(config, [each for each in classes if isinstance(each, type)]),
            resolved_values(broker),
            file=config_file,
            text=config_file.read_bytes(),
            overrides=app.cli_config,
            read_at=utc_now(),
        )
        offered = Handover(home_of(config_file), settings.to_bytes())
    except OSError as error:
        raise ConfigError(
            f"The hub cannot pass its settings to its service: {error.strerror or error}."
        ) from error
    offered.serve()
    return offered


def look_at_end(broker: Broker, node: str, config_file: Path, settings: int, log: Any) -> None:
    """Try to prove empty the slices of servers that this hub stopped as it ended. Never raises.

    JupyterHub ends its services, and so the node's agent, before its servers
    (``JupyterHub.cleanup``, 5.4 to 6.1). Without this look their leases would count until the next
    agent runs, however long the hub is off. A process of its own looks: the hub's never opens NVML.
    What it does not prove, the next agent does.

    ``settings`` is the descriptor of what the hub read.
    """
    try:
        if not broker.leases.find(hub=broker.hub, node=node, states=(RELEASING,)):
            return
        subprocess.run(
            [
                *(sys.executable, "-m", "jupyterhub_migspawner.agent", "--once"),
                *("--config", str(config_file), "--settings", str(settings)),
            ],
            stdin=subprocess.DEVNULL,
            env=_service_environment(),
            pass_fds=(settings,),
            timeout=LAST_LOOK_SECONDS,
            check=False,
        )
    except (MigspawnerError, OSError, subprocess.SubprocessError) as error:
        log.warning("Slices that were in use stay allocated until the hub runs again: %s", error)


def service_entry(
    config_file: Path, ports: ServicePorts, *, callers: str = "hub", settings: str = ""
) -> dict[str, Any]:
    """Return the entry of ``JupyterHub.services`` that runs the broker's service under the hub.

    ``callers`` is whose connections it accepts: ``hub`` for the hub's user alone, or ``any``;
    ``settings`` is where it asks for its settings, or empty: then it looks for its hub.
    """
    return {
        "name": SERVICE_NAME,
        "url": ports.url,
        "command": [
            sys.executable,
            "-m",
            "jupyterhub_migspawner.service",
            "--config",
            str(config_file),
        ],
        "environment": {
            **_service_environment(),
            SOCKETS: ports.asked_at,
            CALLERS: callers,
            **({SETTINGS: settings} if settings else {}),
        },
        "oauth_no_confirm": True,
        "oauth_client_allowed_scopes": [
            ACCESS_SCOPE,
            APPROVE_SCOPE,
            ADMIN_SCOPE,
            SELF_SCOPE,
            # With it a page may have the visitor's own servers started and kept. JupyterHub 5 has
            # no narrower scope.
            "start:servers!user" if hub_major() >= 6 else "servers!user",
        ],
        "display": True,
    }


def with_templates(paths: list[str], data_files_path: str) -> list[str]:
    """Return the admin's template paths, then the broker's, then the hub's own.

    An admin's ``page.html`` wins, and may extend ``migspawner/page.html``.
    """
    own = os.path.normpath(os.path.join(data_files_path, "templates"))
    named = [os.path.normpath(path) for path in paths]
    where = named.index(own) if own in named else len(paths)
    return [*paths[:where], str(TEMPLATES), *paths[where:]]


def _service_environment() -> dict[str, str]:
    """Return the hub's environment for the service.

    Without the hub's own secrets: the service has a token of its own. With the hub's pid: a
    hub that is killed is not the service's parent any more, perhaps before that has looked.
    """
    own = {
        name: value
        for name, value in os.environ.items()
        if name not in HUB_SECRETS and not name.startswith(("JUPYTERHUB_", "JPY_"))
    }
    return {**own, HUB_PID: str(os.getpid())}


def starts_own_proxy(config: Config) -> bool:
    """Return whether the hub starts its proxy itself, as a process of its own user."""
    return not any(
        name.endswith("Proxy") and section.get("should_start") is False
        for name, section in config.items()
        if isinstance(section, Config)
    )


def socket_places(config_file: Path) -> list[str | Path]:
    """Return where the service's unix socket may be, the best first."""
    runtime = [os.environ.get(name, "") for name in ("RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR")]
    # systemd may list several folders, with colons between them (systemd.exec(5)).
    return [*(each.partition(":")[0] for each in runtime if each), Path.cwd(), config_file.parent]


#: Restarts at once within :data:`RESTART_SECONDS`; after that the hub's own look at its services,
#: every 30 seconds, sets the pace.
MOST_RESTARTS = 3
RESTART_SECONDS = 60.0


class Restarts:
    """Has the hub see at once that its service has ended, so that it starts it again."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._lately: deque[float] = deque(maxlen=MOST_RESTARTS)

    def gone(self, pid: int) -> None:
        """Have the hub see that its service (a pid) has ended. Called in any thread."""
        loop = getattr(self._app, "io_loop", None)
        if loop is not None:
            loop.add_callback(self._look, pid)

    async def _look(self, pid: int) -> None:
        now = time.monotonic()
        if len(self._lately) == MOST_RESTARTS and now - self._lately[0] < RESTART_SECONDS:
            self._app.log.error(
                "The GPU service ended %d times within a minute; it is started again within half "
                "a minute. Its log shows the cause.",
                MOST_RESTARTS + 1,
            )
            return
        self._lately.append(now)
        service = self._app._service_map.get(SERVICE_NAME)
        for _ in range(50):
            spawner = None if service is None else service.spawner
            # None of the hub's own polling: it is ending the service, or has seen its end.
            if spawner is None or spawner.pid != pid or spawner._poll_callback is None:
                return
            if await spawner.poll_and_notify() is not None:
                return
            await asyncio.sleep(0.1)


def with_roles(roles: list[dict[str, Any]], *, hub_major: int) -> list[dict[str, Any]]:
    """Return the admin's roles and the broker's.

    The broker's are the service's rights, and everybody's way to its pages.
    JupyterHub 6 lets every user in through ``extra_user_scopes``; on JupyterHub 5, and wherever
    the admin redefines the role ``user``, the scopes are added to that role.
    """
    result = [dict(role) for role in roles]
    names = {role["name"]: role for role in result}
    if SERVICE_ROLE["name"] not in names:
        result.append(SERVICE_ROLE)
    user = names.get("user")
    if user is not None and "scopes" in user:
        missing = [scope for scope in USER_SCOPES if scope not in user["scopes"]]
        user["scopes"] = [*user["scopes"], *missing]
    elif hub_major < 6:
        scopes = ["self", *USER_SCOPES]
        if user is not None:
            user["scopes"] = scopes
        else:
            result.append({"name": "user", "scopes": scopes})
    return result
