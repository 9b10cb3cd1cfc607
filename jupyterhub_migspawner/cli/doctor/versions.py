"""What ``migspawner doctor`` says about the versions of Python and JupyterHub."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import metadata

from jupyterhub_migspawner.cli.doctor.findings import OK, WARNING, WRONG, Finding
from jupyterhub_migspawner.cli.invocation import has_hub

PYTHONS = ((3, 10), (3, 13))
HUBS = ((5, 4), (7, 0))


def check() -> Iterator[Finding]:
    """Check whether Python and JupyterHub are among the supported versions."""
    python = sys.version_info[:2]
    text = ".".join(map(str, python))
    if PYTHONS[0] <= python <= PYTHONS[1]:
        yield Finding("python", OK, f"Python {text} at {sys.executable}.")
    else:
        yield Finding(
            "python",
            WARNING if python > PYTHONS[1] else WRONG,
            f"Python {text} is not among the tested versions 3.10 to 3.13.",
            "Install into an environment of a tested Python.",
        )
    if not has_hub():
        yield Finding(
            "jupyterhub",
            OK,
            "JupyterHub is not installed here, so this is checked as a node. A hub needs this "
            "package with its extra 'hub'.",
        )
        return
    hub = metadata.version("jupyterhub")
    number = tuple(int(part) for part in hub.split(".")[:2] if part.isdigit())
    if HUBS[0] <= number < HUBS[1]:
        yield Finding("jupyterhub", OK, f"JupyterHub {hub}.")
    else:
        yield Finding(
            "jupyterhub",
            WRONG,
            f"JupyterHub {hub} is not supported.",
            f"{sys.executable} -m pip install 'jupyterhub>=5.4,<7'.",
        )
