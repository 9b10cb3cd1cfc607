"""The directory of a demo: its record, and the hub's configuration that it leaves behind.

Relies on the directory being ours alone, which :func:`claim` makes sure of. Promises that what a
person changed in the configuration file outlives the next start: only the lines between the two
rulers are written again.
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

from jupyterhub_migspawner import files
from jupyterhub_migspawner.cli.demo.accounts import USERS
from jupyterhub_migspawner.cli.demo.confinement import check_owner
from jupyterhub_migspawner.cli.demo.processes import TAG
from jupyterhub_migspawner.errors import MigspawnerError, Refusal

CONFIG = "jupyterhub_config.py"
CARDS = "cards.json"
LOG = "jupyterhub.log"
RECORD = "demo.json"
_LOCK = "demo.lock"


#: What an earlier version wrote: a password that everybody knows.
_KNOWN = 'DummyAuthenticator.password = "demo"'

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
    """Hold the directory for one running demo, and close it to other users.

    Raises :exc:`Refusal` when another demo holds it, or when it is not a demo's.
    """
    with _reported(directory):
        _refuse_other_folders(directory)
        files.make_folder(directory)
        check_owner(directory)
        # Of an earlier version, whose files were as private as the user's umask made them.
        for file in directory.iterdir():
            if not file.is_symlink() and file.is_file():
                file.chmod(files.FILE_MODE)
        descriptor = files.open_file(directory / _LOCK)
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


def _refuse_other_folders(directory: Path) -> None:
    """Raise :exc:`Refusal` for a folder in which a demo would be among other files."""
    if not directory.is_dir():
        return
    if directory.stat().st_uid != os.geteuid():
        check_owner(directory)
    config = directory / CONFIG
    text = config.read_text(encoding="utf-8", errors="replace") if config.exists() else ""
    if text and _BEGIN not in text:
        raise Refusal(
            f"{config} was not written by the demo, which would have to replace it; "
            "choose another folder with --dir.",
            reason="conflict",
        )
    if _KNOWN in text:
        raise Refusal(
            f"{config} is from an earlier version and lets everybody in with a publicly known "
            "password. Remove the file, and the demo writes a new one; you have to repeat your "
            "changes.",
            reason="conflict",
        )
    if not text and not (directory / _LOCK).exists() and any(directory.iterdir()):
        raise Refusal(
            f"{directory} contains other files, and a demo makes its folder private; name a new "
            "folder with --dir.",
            reason="conflict",
        )


def read_record(directory: Path) -> Record | None:
    """Return what an earlier start noted of the cards; None in a new directory."""
    file = directory / RECORD
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
        files.replace(directory / RECORD, json.dumps(asdict(record)) + "\n")


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
                cards=CARDS,
                tag=TAG,
            )
        else:
            old = file.read_text(encoding="utf-8")
            head, found, rest = old.partition(_BEGIN)
            _, end, tail = rest.partition(_END)
            if not (found and end):
                raise MigspawnerError(
                    f"{file} lacks the marker lines of the demo; remove the file, and the demo "
                    "writes a new one."
                )
            text = head + lines + tail
        files.replace(file, text)
    return file


@contextmanager
def _reported(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise MigspawnerError(
            f"The demo cannot use the folder {directory}: {error.strerror or error}. "
            "Choose another with --dir."
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
    """Return the tiers as a person would write them in Python."""
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
all), and what your people sign in with and work as in place of what the demo has for that.
"""

import os

import jupyterhub_migspawner
from jupyterhub_migspawner.cli.demo.accounts import USERS
from jupyterhub_migspawner.cli.demo.confinement import confine

DEMO = "jupyterhub_migspawner.cli.demo"

c = get_config()  # noqa

$begin
# Spawner, service, roles and scopes of the slice broker. What follows may override every piece.
jupyterhub_migspawner.setup(c)

# The cards: simulated below NVIDIA's own Python binding, their state in a file.
c.MigBroker.nvml = "sim:" + os.path.join(DIRECTORY, "$cards")
c.MigBroker.directory = DIRECTORY
c.MigBroker.database_url = "sqlite:///migspawner.sqlite"

# What people can pick. Sessions of a tier with "idle_minutes" end when nobody has used them for so
# long, sooner while another user waits; a tier with "seats" puts several people on one slice.
c.MigBroker.tiers = $tiers

# Sessions are looked at more often than on a hub of many people, so that their end can be watched.
c.MigBroker.examine_seconds = 15
c.MigBroker.warn_minutes = 5

# Who belongs together: grace leads the group, linus is a student.
c.JupyterHub.load_groups = {
    "pi": {"users": ["grace"]},
    "students": {"users": ["linus"]},
}

# How much they may have: two servers with a GPU at once; students one, and five GPU-hours a week.
c.MigBroker.quotas = {
    "default": {"live": 2},
    "group:students": {"live": 1, "gpu_hours_per_week": 5},
}

# The hub's admins approve requests, and so may the members of this group.
c.MigBroker.approvers = ["group:pi"]

# People sign in with the password that is in the file "password", or by a link that the demo prints
# and that works once.
c.JupyterHub.authenticator_class = f"{DEMO}.authenticator.DemoAuthenticator"
c.Authenticator.allowed_users = $names
c.Authenticator.admin_users = {$admin}

# Notebook servers are plain processes: of the user who runs the hub, or, when that is root, of an
# unprivileged user for each person.
c.JupyterHub.spawner_class = f"{DEMO}.spawner.DemoSpawner"
c.SimpleLocalProcessSpawner.home_dir_template = os.path.join(DIRECTORY, "homes", "{username}")
c.Spawner.ip = "127.0.0.1"
c.Spawner.start_timeout = 120
c.Spawner.http_timeout = 120
c.Spawner.environment = {"$tag": DIRECTORY}
# JupyterLab would ask the world outside for a newer version of itself.
c.Spawner.args = ["--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
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

# Private files, nothing that listens beyond 127.0.0.1, nothing of root's for people who sign in.
confine(c, DIRECTORY, TOOLS)
''')
