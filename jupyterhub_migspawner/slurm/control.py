"""What a running Slurm says of its nodes, asked with ``scontrol``.

Promises an answer within :data:`PATIENCE` seconds, or a :class:`SlurmError` with a sentence: a
controller that hangs must stop nothing else. What it does not say is unknown, and never "no".
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass

from jupyterhub_migspawner.errors import MigspawnerError
from jupyterhub_migspawner.policy.wording import printable

PATIENCE = 10.0
"""Seconds that an answer may take."""

MOST_TEXT = 16 << 20
"""Bytes of an answer that are read; ten thousand nodes have some 10 MB."""


class SlurmError(MigspawnerError):
    """Slurm does not answer as it should: which command, why, and the way out."""


@dataclass(frozen=True)
class Node:
    """A node as the controller knows it. ``gres`` is as it is configured, ``state`` as printed."""

    name: str
    host: str
    gres: str
    state: str
    reason: str = ""


def nodes() -> dict[str, Node]:
    """Return the nodes of the running cluster by their names.

    Raises :class:`SlurmError`.
    """
    found = {}
    for line in ask("scontrol", "--oneliner", "show", "nodes").splitlines():
        words: dict[str, str] = dict(re.findall(r"(?:^| )(\w+)=((?:(?! \w+=).)*)", line))
        name = words.get("NodeName", "")
        if name:
            gres = words.get("Gres", "").strip()
            found[name] = Node(
                name,
                words.get("NodeHostName", name).strip(),
                "" if gres == "(null)" else gres,
                words.get("State", "").strip(),
                words.get("Reason", "").strip(),
            )
    return found


def node_of(name: str, known: dict[str, Node]) -> Node | None:
    """Return the node that has this name in the lease database: by name, host, or short name."""
    for wanted in (name, name.partition(".")[0]):
        for node in known.values():
            if wanted in (node.name, node.host):
                return node
    return None


def ask(*command: str) -> str:
    """Return what a command of Slurm prints. Raises :class:`SlurmError`."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )
    except FileNotFoundError:
        raise SlurmError(
            f"{command[0]} is not installed here: run this on a machine of the Slurm cluster."
        ) from None
    except subprocess.TimeoutExpired:
        raise SlurmError(
            f"{' '.join(command)} has not answered within {PATIENCE:.0f} seconds; is slurmctld "
            "running?"
        ) from None
    except OSError as error:
        raise SlurmError(f"{command[0]} cannot be run: {error.strerror or error}.") from None
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        why = printable(said[-1][:300]) if said else f"status {done.returncode}"
        raise SlurmError(f"{' '.join(command)} failed: {why}")
    return done.stdout[:MOST_TEXT].decode(errors="replace")
