"""What keeps a server off slices that are not its own.

``CUDA_VISIBLE_DEVICES`` is a hint to the CUDA library, which a program need not follow: only what
stops the program from opening another slice's device nodes counts here. A launcher knows which of
these is in force; it is stored with the lease before the server is launched.
"""

from __future__ import annotations

NONE = "none"
BUBBLEWRAP = "bubblewrap"
SYSTEMD = "systemd"
CONTAINER = "container"
SLURM = "slurm"

WALLS = {
    BUBBLEWRAP: "bubblewrap",
    SYSTEMD: "systemd unit",
    CONTAINER: "container",
    SLURM: "Slurm job",
}
"""Name to the means in words, for those that are a wall."""

KINDS = (NONE, *WALLS)
"""All of them: what is in force for a server, once it was launched."""


def in_words(isolation: str) -> str:
    """Return what is in force for a server, in words for its user.

    ``isolation`` may be empty: not known, as before the launch or for a server that was adopted.
    """
    if isolation == NONE:
        return "none: this session can open the slices of others, and they can open this one"
    wall = WALLS.get(isolation)
    return f"this session can open its own slice only ({wall})" if wall else "not known"
