"""The doctor's look at the configuration: whose settings count, and whether the file is in order.

While a hub runs, its settings are looked at; the file is what it will read at its next start, so it
is looked at as well.
"""

from __future__ import annotations

from collections.abc import Iterator

from jupyterhub_migspawner.cli.doctor.findings import OK, WARNING, WRONG, Finding
from jupyterhub_migspawner.cli.source import Source, read_quietly
from jupyterhub_migspawner.config import MigBroker
from jupyterhub_migspawner.config.file import NotHere
from jupyterhub_migspawner.errors import MigspawnerError

SETTINGS = "settings"
CONFIGURATION = "configuration"


def check(source: Source) -> Iterator[Finding]:
    """Check where the settings come from; of a hub that runs, also how its file stands."""
    if not source.problem:
        yield Finding(SETTINGS, OK, source.described)
    elif source.hub is None:
        yield Finding(
            SETTINGS, WARNING, source.problem, "Check that the hub works; run this as its user."
        )
    else:
        mend = "Restart the hub when the file is as you want it."
        yield Finding(SETTINGS, WARNING, source.problem, mend)
    if source.hub is not None:
        yield from _file(source)


def _file(source: Source) -> Iterator[Finding]:
    """Check what a hub that is started again would find, as far as this process can tell."""
    try:
        MigBroker(config=read_quietly(source.file)).settings()
    except NotHere as error:
        yield Finding(
            CONFIGURATION,
            WARNING,
            str(error),
            "While the hub runs, its settings are used and nothing is missing. For commands while "
            "it is stopped, such as `migspawner db restore`, run them in the hub's environment.",
        )
    except MigspawnerError as error:
        yield Finding(
            CONFIGURATION,
            WRONG,
            str(error),
            "Correct it: the running hub does not need it, but it will not start again.",
        )
