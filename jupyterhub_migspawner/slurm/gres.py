"""Slices as generic resources of Slurm: their types, their lines in ``gres.conf``, their counts.

Pure. Each slice is one ``gpu`` with several device files. Its type is the one that Slurm's own
detection gives it (``_handle_mig`` and the naming around it in Slurm's ``gpu_nvml.c``), also where
nothing is detected, so that what people ask for has one name whichever way a node is set up.

A card with MIG on and without slices is left out: Slurm would take it for a whole GPU.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jupyterhub_migspawner.gpu.devices import slice_nodes
from jupyterhub_migspawner.model.cards import MIG_OFF, CardRow
from jupyterhub_migspawner.model.slices import SliceRow

#: Where no file of a driver is: another node's numbers are not compared with those of this one.
_NOWHERE = Path("/nonexistent")

_GPU = re.compile(r"gpu(?::(?P<type>[^:(),]+))?(?::(?P<count>[0-9]+))?(?:\([^)]*\))?")


@dataclass(frozen=True)
class Gres:
    """One GPU of a node as Slurm knows it: its type, and the device files of a slice or card."""

    type: str
    files: tuple[str, ...]


def card_type(model: str) -> str:
    """Return the type of a card with MIG off: its name, as Slurm's detection writes it."""
    return re.sub(r"\s+", "_", model.strip()).lower()


def slice_type(model: str, profile: str) -> str:
    """Return the type of a slice: the card's name up to its first hyphen, and the profile."""
    return f"{card_type(model).partition('-')[0]}_{profile.lower()}"


def gres_of(cards: Iterable[CardRow], slices: Sequence[SliceRow]) -> tuple[Gres, ...]:
    """Return the GPUs of a node, in the order of their cards and starts.

    Cards that are lost or whose device minor is not known, and slices that are not there or whose
    ids are not known, are left out.
    """
    found = []
    for card in sorted(cards, key=lambda each: each.index):
        if card.state == "lost" or card.device_minor is None:
            continue
        if not card.mig_enabled:
            found.append(Gres(card_type(card.model), (f"/dev/nvidia{card.device_minor}",)))
            continue
        mine = [row for row in slices if row.card_uuid == card.uuid and _is_cut(row)]
        for row in sorted(mine, key=lambda each: each.start):
            assert row.gi_id is not None
            assert row.ci_id is not None
            nodes = slice_nodes(card.device_minor, row.gi_id, row.ci_id, root=_NOWHERE)
            capabilities = [node.path for node in nodes if node.capability is not None]
            files = (f"/dev/nvidia{card.device_minor}", *capabilities)
            found.append(Gres(slice_type(card.model, row.profile), files))
    return tuple(found)


def _is_cut(row: SliceRow) -> bool:
    return (
        row.present
        and row.profile != MIG_OFF[0]
        and row.gi_id is not None
        and row.ci_id is not None
    )


def conf_lines(node: str, gres: Sequence[Gres], *, detected: bool = False) -> list[str]:
    """Return the lines of ``gres.conf`` for a node.

    ``detected`` leaves the files to Slurm's own detection. Without it they stand there, one line a
    GPU.
    """
    if detected:
        return [f"NodeName={node} AutoDetect=nvml"] if gres else []
    return [
        f"NodeName={node} Name=gpu Type={each.type} "
        f"{'MultipleFiles' if len(each.files) > 1 else 'File'}={','.join(each.files)}"
        for each in gres
    ]


def node_line(node: str, gres: Sequence[Gres]) -> str:
    """Return what ``slurm.conf`` has to say of a node's GPUs."""
    counts = counted(gres)
    words = ",".join(f"gpu:{kind}:{count}" for kind, count in counts.items())
    return f"NodeName={node} Gres={words}" if words else f"NodeName={node}"


def counted(gres: Iterable[Gres]) -> dict[str, int]:
    """Return how many GPUs of each type there are, in the order of their first ones."""
    return dict(Counter(each.type for each in gres))


def read_gres(text: str) -> dict[str, int]:
    """Return the GPUs in a node's ``Gres=`` as Slurm prints it, by type; ``""`` for no type.

    Such as ``gpu:nvidia_a100_1g.5gb:7(S:0-1),shard:4``. What is no GPU is left out.
    """
    found: dict[str, int] = {}
    # Commas also stand between sockets, in parentheses.
    for word in re.split(r",(?![^(]*\))", text):
        match = _GPU.fullmatch(word.strip())
        if match is None:
            continue
        kind, count = match["type"] or "", match["count"]
        if count is None and kind.isdigit():
            kind, count = "", kind
        found[kind] = found.get(kind, 0) + int(count or 1)
    return found


def differences(node: str, wanted: Mapping[str, int], running: Mapping[str, int]) -> list[str]:
    """Return a sentence for each type of GPU of which Slurm has another number on a node."""
    return [
        f"Node {node}: its cards have {_number(wanted.get(kind, 0), kind)}, and Slurm has "
        f"{running.get(kind, 0) or 'none'}."
        for kind in dict.fromkeys([*wanted, *running])
        if wanted.get(kind, 0) != running.get(kind, 0)
    ]


def _number(count: int, kind: str) -> str:
    return f"{count or 'no'} gpu:{kind}" if kind else f"{count or 'no'} gpu without a type"
