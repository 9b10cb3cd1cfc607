"""Inside a person's server: what is done there, and that it ends, where it is seen.

Two extensions: one of Jupyter Server, which watches the kernels (:mod:`.kernels`) and what people
do without one (:mod:`.activity`), takes the broker's word and keeps it (:mod:`.handlers`), and one
of JupyterLab, which asks for that word and shows it (``labextension/``).
Installing the package into the environment that servers run in is all it takes. Relies on Jupyter
Server only; nothing else of this package is imported here, since hub and notebooks may live on
different machines.
"""

from __future__ import annotations

import os
from typing import Any

PATH = "migspawner/notice"
"""Where the notice is, below the server's own base URL."""

KERNELS_PATH = "migspawner/kernels"
"""Path that reports what kernels are at work on."""

ACTIVITY_PATH = "migspawner/activity"
"""Path that reports how much else its person has done."""


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": "jupyterhub_migspawner.notebook"}]


def _load_jupyter_server_extension(server: Any) -> None:
    """Watch what is done in a server that holds a slice.

    Called by Jupyter Server when it starts. A server that holds no slice has nothing to report.
    """
    if not os.environ.get("MIGSPAWNER_ATTEMPT"):
        return
    # Imported here so that the path above can be had where there is no Jupyter Server.
    from jupyterhub_migspawner.notebook.activity import Activity
    from jupyterhub_migspawner.notebook.handlers import add_handlers
    from jupyterhub_migspawner.notebook.kernels import Kernels

    activity = Activity()
    activity.watch(server.web_app)
    add_handlers(server.web_app, Kernels(server.kernel_manager), activity)
