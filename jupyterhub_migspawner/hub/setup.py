"""The one line of the admin's file that wires everything: spawner, service, scopes and roles.

Relies on the hub that is just reading the file, where there is one. Promises that what the file
says afterwards wins, and that a program that reads the file without a hub, such as the command
line, loads nothing that only a hub needs.
"""

from __future__ import annotations

import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

from jupyterhub_migspawner.config.file import home_of
from jupyterhub_migspawner.hub.scopes import ADMIN_SCOPE, APPROVE_SCOPE, SELF_SCOPE


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
        SELF_SCOPE: {
            "description": "Use the GPU service with all rights that you have there: as an "
            "approver or an admin, if you are one."
        },
    }
    app = _starting_hub()
    if app is None:
        return
    from jupyterhub_migspawner.hub.wiring import complete_hub

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
        complete_hub(app, config, config_file)

    app.observe(complete, names=signs)


def _starting_hub() -> Any:
    """Return the hub that is reading its configuration in this process, or None (command line)."""
    module = sys.modules.get("jupyterhub.app")
    if module is None or not module.JupyterHub.initialized():
        return None
    return module.JupyterHub.instance()
