"""The directory of a demo: its record, and the hub's configuration that it leaves behind.

Relies on the directory being ours alone, which :func:`claim` makes sure of. Promises that what a
person changed in the configuration file outlives the next start: only the lines between the two
rulers are written anew.
"""

from __future__ import annotations

import fcntl
import json
import os
import string
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jupyterhub_migspawner.cli.demo.processes import MARK
from jupyterhub_migspawner.errors import MigspawnerError, Refusal

CONFIG = "jupyterhub_config.py"
CARDS = "cards.json"
LOG = "jupyterhub.log"
_RECORD = "demo.json"
_LOCK = "demo.lock"

USERS = ("admin", "ada", "grace", "linus")
PASSWORD = "demo"  # noqa: S105  # the point of a demo; it listens on 127.0.0.1 alone

_BEGIN = "# --- written anew by every `migspawner demo` -----------------------------------------\n"
_END = "# --- yours to change from here on ---------------------------------------------------\n"


@dataclass(frozen=True)
class Ports:
    """The ports of one start, all on 127.0.0.1."""

    public: int
    hub: int
    proxy_api: int


@dataclass(frozen=True)
class Record:
    """What the cards of a demo were made from; a later start keeps them."""

    cards: int
    model: str
    layout: str


@contextmanager
def claim(directory: Path) -> Iterator[None]:
    """Hold the directory for one running demo. Raises :exc:`Refusal` when another one does."""
    config = directory / CONFIG
    if config.exists() and _BEGIN not in config.read_text(encoding="utf-8", errors="replace"):
        raise Refusal(
            f"{config} was not written by the demo, which would have to replace it; "
            "choose another folder with --dir.",
            reason="conflict",
        )
    with _reported(directory):
        directory.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
            raise Refusal(
                f"A demo already runs in {directory}, as process {holder}; stop it with "
                f"`kill {holder}`, or choose another folder with --dir.",
                reason="conflict",
            ) from None
        with _reported(directory):
            os.truncate(descriptor, 0)
            os.write(descriptor, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(descriptor)


def read_record(directory: Path) -> Record | None:
    """What an earlier start noted of the cards; None in a new directory."""
    file = directory / _RECORD
    try:
        return Record(**json.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise MigspawnerError(
            f"{file} is damaged ({error}); remove {directory} to start over, or choose another "
            "folder with --dir."
        ) from error


def write_record(directory: Path, record: Record) -> None:
    """Note what the cards were made from."""
    with _reported(directory):
        (directory / _RECORD).write_text(json.dumps(asdict(record)) + "\n", encoding="utf-8")


def write_config(
    directory: Path, ports: Ports, path: Sequence[str], tiers: Sequence[dict[str, Any]]
) -> Path:
    """Write the configuration file, or in one that exists the lines of this start."""
    file = directory / CONFIG
    lines = _start_lines(directory, ports, path)
    with _reported(directory):
        if not file.exists():
            text = _TEXT.substitute(
                begin=lines,
                tiers=_literal(tiers),
                names="{" + ", ".join(map(_quoted, USERS)) + "}",
                admin=_quoted(USERS[0]),
                password=_quoted(PASSWORD),
                cards=CARDS,
                mark=MARK,
            )
        else:
            old = file.read_text(encoding="utf-8")
            head, found, rest = old.partition(_BEGIN)
            _, end, tail = rest.partition(_END)
            if not (found and end):
                raise MigspawnerError(
                    f"{file} has lost the ruler lines that the demo writes between; remove the "
                    "file to have a new one made."
                )
            text = head + lines + tail
        beside = file.with_suffix(".new")
        beside.write_text(text, encoding="utf-8")
        beside.replace(file)
    return file


@contextmanager
def _reported(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise MigspawnerError(
            f"The demo cannot use the folder {directory}: {error.strerror or error}. Choose "
            "another with --dir."
        ) from error


def _start_lines(directory: Path, ports: Ports, path: Sequence[str]) -> str:
    return (
        _BEGIN
        + f"DIRECTORY = {_quoted(str(directory))}\n"
        + f"PUBLIC_PORT = {ports.public}\n"
        + f"HUB_PORT = {ports.hub}\n"
        + f"PROXY_API_PORT = {ports.proxy_api}\n"
        + "# Where the proxy, node and jupyterhub-singleuser are.\n"
        + f"TOOLS = [{', '.join(map(_quoted, path))}]\n"
        + _END
    )


def _literal(tiers: Sequence[dict[str, Any]]) -> str:
    """The tiers as a person would write them in Python."""
    lines = ["["]
    for tier in tiers:
        lines.append("    {")
        lines += [f"        {_quoted(key)}: {_quoted(value)}," for key, value in tier.items()]
        lines.append("    },")
    return "\n".join([*lines, "]"])


def _quoted(value: object) -> str:
    # JSON writes a string as Python does, in the quotes that the rest of the file has.
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


_TEXT = string.Template('''\
"""A JupyterHub with simulated cards, made by `migspawner demo`.

Start it again with `migspawner demo --dir FOLDER`, or without the demo around it with
`jupyterhub -f` and this file. Real cards need no more than another `c.MigBroker.nvml` (none at
all) and an authenticator that checks passwords.
"""

import os

import jupyterhub_migspawner

c = get_config()  # noqa

$begin
# Spawner, service, roles and scopes of the slice broker. What follows may override every piece.
jupyterhub_migspawner.setup(c)

# The cards: simulated below NVIDIA's own Python binding, their state in a file.
c.MigBroker.nvml = "sim:" + os.path.join(DIRECTORY, "$cards")
c.MigBroker.directory = DIRECTORY
c.MigBroker.database_url = "sqlite:///migspawner.sqlite"

# What people can pick.
c.MigBroker.tiers = $tiers

# How much they may have. For example: one slice each, two for the group "vision".
# c.MigBroker.quotas = {"default": {"live": 1}, "group:vision": {"live": 2}}

# The hub's admins approve requests; so may, for example, a group.
# c.MigBroker.approvers = ["group:pi"]
# c.JupyterHub.load_groups = {"pi": {"users": ["grace"]}}

# Anybody who knows the password is let in: for a demo on 127.0.0.1, never for a real hub.
c.JupyterHub.authenticator_class = "dummy"
c.DummyAuthenticator.password = $password
c.Authenticator.allowed_users = $names
c.Authenticator.admin_users = {$admin}

# Notebook servers are plain processes of whoever runs the hub, each with a home of its own here.
c.JupyterHub.spawner_class = "mig-simple"
c.SimpleLocalProcessSpawner.home_dir_template = os.path.join(DIRECTORY, "homes", "{username}")
c.Spawner.start_timeout = 120
c.Spawner.http_timeout = 120
c.Spawner.environment = {"$mark": DIRECTORY}
# JupyterLab would ask the world outside for a newer version of itself.
c.Spawner.args = ["--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
if os.geteuid() == 0:
    c.Spawner.args.append("--allow-root")
c.JupyterHub.allow_named_servers = True

# Everything on 127.0.0.1, everything kept in this folder, and everything stopped with the hub.
c.JupyterHub.bind_url = f"http://127.0.0.1:{PUBLIC_PORT}"
c.JupyterHub.hub_bind_url = f"http://127.0.0.1:{HUB_PORT}"
c.ConfigurableHTTPProxy.api_url = f"http://127.0.0.1:{PROXY_API_PORT}"
c.ConfigurableHTTPProxy.pid_file = os.path.join(DIRECTORY, "proxy.pid")
c.JupyterHub.db_url = "sqlite:///" + os.path.join(DIRECTORY, "jupyterhub.sqlite")
c.JupyterHub.cookie_secret_file = os.path.join(DIRECTORY, "jupyterhub_cookie_secret")
c.JupyterHub.pid_file = os.path.join(DIRECTORY, "jupyterhub.pid")
c.JupyterHub.cleanup_servers = True
os.environ["PATH"] = os.pathsep.join([*TOOLS, os.environ.get("PATH", os.defpath)])
''')
