"""What keeps a demo's hub safe on a machine that others use, however the hub is started.

Called at the end of the configuration that a demo leaves in its folder, so that it holds for
``jupyterhub -f`` too. Relies on :mod:`.accounts` where root runs the hub. Promises private files,
servers that listen on 127.0.0.1 alone whatever Jupyter configuration the machine has, and that no
server is root's.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jupyterhub_migspawner.cli.demo import unprivileged
from jupyterhub_migspawner.cli.demo.accounts import (
    USERS,
    Accounts,
    missing_capabilities,
    program_folders,
)
from jupyterhub_migspawner.cli.demo.credentials import Links, make_password
from jupyterhub_migspawner.cli.demo.processes import TAG
from jupyterhub_migspawner.errors import MigspawnerError, Refusal

#: What must not reach a demo's hub from a hub, a notebook or a simulator around it.
FOREIGN = ("CONFIGPROXY_", "IPYTHON", "JPY_", "JUPYTER", "MIGSPAWNER_")

#: Stronger than what /etc/jupyter or the environment's own configuration says.
LOOPBACK = (
    "--ServerApp.ip=127.0.0.1",
    "--KernelManager.ip=127.0.0.1",
    "--ServerKernelManager.ip=127.0.0.1",
)


def confine(c: Any, directory: str, tools: Sequence[str]) -> None:
    """Complete the configuration ``c`` of the demo in ``directory``.

    Ends a starting hub with a sentence when the folder belongs to another user.
    """
    c.Spawner.args = [*c.Spawner.get("args", []), *LOOPBACK]
    c.DemoSpawner.directory = c.DemoAuthenticator.directory = directory
    c.DemoSpawner.tools = list(tools)
    if not _hub_starts():
        return  # the command line and the service read the file, too
    folder = Path(directory)
    os.umask(0o077)
    for name in [name for name in os.environ if name.startswith(FOREIGN)]:
        del os.environ[name]
    # The proxy and the service inherit it, so that the next start finds what is left of this one.
    os.environ[TAG] = directory
    try:
        check_owner(folder)
        make_password(folder)
        Links(folder).clear()
    except MigspawnerError as error:
        raise SystemExit(str(error)) from None


def _hub_starts() -> bool:
    """Return whether it is a hub that reads the configuration, in this process."""
    module = sys.modules.get("jupyterhub.app")
    return module is not None and module.JupyterHub.initialized()


def check_owner(folder: Path) -> None:
    """Close the demo's folder to others. Raises :exc:`Refusal` when it belongs to another user."""
    found = folder.stat()
    if found.st_uid != os.geteuid():
        raise Refusal(
            f"The folder {folder} belongs to user {found.st_uid}, and this is user "
            f"{os.geteuid()}; start the demo as that user, or choose another folder with --dir.",
            reason="conflict",
        )
    folder.chmod(0o700)


def check_root(directory: Path, tools: Sequence[str]) -> None:
    """Raise :exc:`Refusal` when root starts the demo and its servers could not be anybody else's.

    What is tried is what a server needs: to become another user, and to find its programs then.
    """
    if os.geteuid() != 0:
        return
    missing = missing_capabilities()
    if missing:
        raise Refusal(
            "The servers of a demo that root starts run as unprivileged users, which this root "
            "is not permitted to do: it lacks {', '.join(missing)}. Start the demo as another "
            "user, or give the container these capabilities.",
            reason="not-allowed",
        )
    account = Accounts(directory).account(USERS[0])
    needs = [word for folder in program_folders(tools) for word in ("--need", str(folder))]
    start = [sys.executable, "-I", "-S", str(Path(unprivileged.__file__)), *needs]
    modules = "jupyter_server", "jupyterlab", "ipykernel", "jupyterhub", "jupyterhub_migspawner"
    program = "import sys; from importlib.util import find_spec\n"
    program += f"for name in {modules!r}: open(find_spec(name).origin).close()\n"
    program += "import sqlite3, ssl"
    command = [*start, str(account.uid), str(account.home), "--", sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["it ended without a message"]
        folders = ", ".join(str(folder) for folder in program_folders(tools))
        raise Refusal(
            "Servers of a demo that root starts run as unprivileged users, and such a user cannot "
            f"run {sys.executable} here: {lines[-1]}. Start the demo as a user other than root, or "
            f"make these folders readable for others: {folders}.",
            reason="not-allowed",
        )
