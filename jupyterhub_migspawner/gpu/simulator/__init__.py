"""Simulated cards: a machine in a file, below the unmodified Python binding of NVML.

``MIGSPAWNER_NVML=sim:FILE`` selects it. The file is shared by all processes that name it, so a hub,
a service and a command line see the same cards. See ``library`` for the stand-in itself,
``state`` for the file, ``cutting`` for the rules and ``catalogue`` for the cards it knows.
"""

from __future__ import annotations

from jupyterhub_migspawner.gpu.simulator.catalogue import MODELS, find_model
from jupyterhub_migspawner.gpu.simulator.control import (
    add_monitor,
    add_process,
    card_uuids,
    create_state,
    fail_call,
    leak_instance,
    lose_card,
    orphan_instance,
    profiles_of,
    reboot,
    remove_monitor,
    remove_process,
    report_xid,
    set_recovery_action,
    set_switches,
    slice_uuids,
)

__all__ = [
    "MODELS",
    "add_monitor",
    "add_process",
    "card_uuids",
    "create_state",
    "fail_call",
    "find_model",
    "leak_instance",
    "lose_card",
    "orphan_instance",
    "profiles_of",
    "reboot",
    "remove_monitor",
    "remove_process",
    "report_xid",
    "set_recovery_action",
    "set_switches",
    "slice_uuids",
]
