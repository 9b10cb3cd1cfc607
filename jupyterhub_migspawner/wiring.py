"""The one line of the admin's file that wires everything: spawner, service, scopes and roles.

Relies on the hub that is just reading the file, where there is one. Promises that what the file
says afterwards wins, and that a hub whose settings or database cannot be used stops with a sentence
before its proxy runs.
"""

from __future__ import annotations

import os
import socket
import sys
from copy import deepcopy
from importlib.metadata import version
from pathlib import Path
from typing import Any

from traitlets.config import Config

from jupyterhub_migspawner import channels
from jupyterhub_migspawner.config import MigBroker, home_of
from jupyterhub_migspawner.errors import MigspawnerError
from jupyterhub_migspawner.gpu.boot import boot_id

SERVICE_NAME = "migspawner"
APPROVE_SCOPE = "custom:migspawner:approve"
ADMIN_SCOPE = "custom:migspawner:admin"
ACCESS_SCOPE = f"access:services!service={SERVICE_NAME}"

#: What the service may ask of the hub: who is in which group, which servers run, to end one that is
#: past its end, and to start one for whoever waited for it. (JupyterHub 5 has no narrower scope
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
HUB_PID = "MIGSPAWNER_HUB_PID"

HUB_SECRETS = {"CONFIGPROXY_AUTH_TOKEN", "JPY_COOKIE_SECRET"}


def setup(c: Any) -> None:
    """Wire spawner, service, scopes and roles into a ``jupyterhub_config.py``.

    Call it near the top with ``c = get_config()``; what the file says afterwards wins. In a
    starting hub the whole file is checked as soon as it is read, and the hub stops with a sentence
    when a tier or quota is wrong. On the command line, which needs neither service nor roles, only
    the settings count.
    """
    c.JupyterHub.spawner_class = "mig-local"
    c.JupyterHub.custom_scopes = {
        APPROVE_SCOPE: {"description": "Decide on requests for GPU tiers that need approval."},
        ADMIN_SCOPE: {"description": "See and end every lease of a GPU slice."},
    }
    app = _starting_hub()
    if app is None:
        return
    config_file = Path(app.config_file).absolute()
    c.MigBroker.directory = str(config_file.parent)
    c.MigBroker.hub_home = home_of(config_file)

    # setup(c) stands at the file's top. The hub takes over its own traits, these two among them,
    # when it has read the whole file; its trait ``config`` tells nobody that it has changed.
    signs = ["custom_scopes", "spawner_class"]

    def complete(_: Any) -> None:
        app.unobserve(complete, names=signs)
        config = deepcopy(c)
        config.merge(app.cli_config)
        _complete_hub(app, config, config_file)

    app.observe(complete, names=signs)


def _starting_hub() -> Any:
    """The hub that is reading its configuration in this process, or None (command line)."""
    module = sys.modules.get("jupyterhub.app")
    if module is None or not module.JupyterHub.initialized():
        return None
    return module.JupyterHub.instance()


def _complete_hub(app: Any, config: Config, config_file: Path) -> None:
    """Check the settings, then add what the hub needs to whatever lists the admin wrote."""
    try:
        broker = MigBroker(config=config)
        # Opened here, before the proxy runs and people wait: a database that this version cannot
        # use is said now, and no later call has to import and open it on the event loop.
        # After a restart of this machine nothing on it is offered before its agent has looked.
        channels.check(broker.settings().notices.channels)
        opened = broker.open_broker()
        opened.claim_hub(broker.hub_home)
        opened.note_boot(broker.node, boot_id())
    except MigspawnerError as error:
        app.log.critical("%s: %s", config_file, error)
        app.exit(1)
    # Only here, in a hub: what it imports is the hub's.
    from jupyterhub_migspawner.accounts import Accounts

    Accounts(broker).watch()
    if not broker.service:
        return
    if all(entry.get("name") != SERVICE_NAME for entry in app.services):
        app.services = [*app.services, service_entry(config_file)]
    app.load_roles = with_roles(app.load_roles, hub_major=int(version("jupyterhub").split(".")[0]))
    if hasattr(app, "extra_user_scopes"):
        app.extra_user_scopes = {*app.extra_user_scopes, ACCESS_SCOPE}


def service_entry(config_file: Path) -> dict[str, Any]:
    """The entry of ``JupyterHub.services`` that runs the broker's service under the hub."""
    return {
        "name": SERVICE_NAME,
        "url": f"http://127.0.0.1:{_free_port()}",
        "command": [
            sys.executable,
            "-m",
            "jupyterhub_migspawner.service",
            "--config",
            str(config_file),
        ],
        "environment": _service_environment(),
        "oauth_no_confirm": True,
        "oauth_client_allowed_scopes": [
            ACCESS_SCOPE,
            APPROVE_SCOPE,
            ADMIN_SCOPE,
        ],
        "display": True,
    }


def _service_environment() -> dict[str, str]:
    """The hub's environment for the service, which reads the same configuration file.

    Without the hub's own secrets: the service has a token of its own. With the hub's pid: a
    hub that is killed is not the service's parent any more, perhaps before that has looked.
    """
    own = {
        name: value
        for name, value in os.environ.items()
        if name not in HUB_SECRETS and not name.startswith("JUPYTERHUB_")
    }
    return {**own, HUB_PID: str(os.getpid())}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def with_roles(roles: list[dict[str, Any]], *, hub_major: int) -> list[dict[str, Any]]:
    """The admin's roles and the broker's: the service's rights, and everybody's way to its pages.

    JupyterHub 6 lets every user in through ``extra_user_scopes``; on JupyterHub 5, and wherever
    the admin redefines the role ``user``, the right is added to that role.
    """
    result = [dict(role) for role in roles]
    names = {role["name"]: role for role in result}
    if SERVICE_ROLE["name"] not in names:
        result.append(SERVICE_ROLE)
    user = names.get("user")
    if user is not None and "scopes" in user:
        if ACCESS_SCOPE not in user["scopes"]:
            user["scopes"] = [*user["scopes"], ACCESS_SCOPE]
    elif hub_major < 6:
        scopes = ["self", ACCESS_SCOPE]
        if user is not None:
            user["scopes"] = scopes
        else:
            result.append({"name": "user", "scopes": scopes})
    return result
