"""The doctor's look at the hub's key: whether it can be used, and opens what the hub sealed."""

from __future__ import annotations

import os
from collections.abc import Iterator

from jupyterhub_migspawner.cli.doctor.findings import OK, WARNING, WRONG, Finding
from jupyterhub_migspawner.config import MigBroker
from jupyterhub_migspawner.errors import ConfigError
from jupyterhub_migspawner.keys import Binding, KeyFile, Keys, SealError
from jupyterhub_migspawner.policy.wording import plural

CHECK = "key"

_MEND = (
    "Make the key a file of the user who runs the hub, with mode 0600, or restore a copy of it. "
    "Without one the hub creates a new key, and running servers have to be restarted."
)


def check(mig: MigBroker, *, known: bool) -> Iterator[Finding]:
    """Look at the key file; ``known`` says whether the lease database can be asked."""
    if not mig.service:
        return
    # Root may look at what belongs to the user who runs the hub.
    file = KeyFile(mig.key_file_of_hub().path, any_owner=os.geteuid() == 0)
    sealed = (
        [each for each in mig.open_broker().sessions.standings() if each.stay.sealed]
        if known
        else []
    )
    if not os.path.lexists(file.path) and os.access(file.path.parent, os.X_OK) and not sealed:
        yield Finding(CHECK, OK, f"The hub creates its key {file.path} when it starts.")
        return
    keys: Keys | None = None
    try:
        keys = file.read()
    except ConfigError as error:
        yield Finding(CHECK, WRONG, str(error), _MEND)
    closed = 0
    for each in sealed:
        try:
            binding = Binding(each.lease.id, each.lease.attempt, each.stay.url)
            closed += keys is None or not keys.open(each.stay.sealed, binding)
        except SealError:
            closed += 1
    if closed:
        yield Finding(
            CHECK,
            WARNING,
            f"It is unknown whether {plural(closed, 'session')} of {len(sealed)} are in use, and "
            "none of them ends for being idle: the tokens of their servers cannot be decrypted "
            f"with the hub's key {file.path}.",
            "Put the previous key below the one in that file, or have these servers restarted.",
        )
    elif keys is not None:
        yield Finding(CHECK, OK, f"The hub's key {file.path} can be used.")
