"""What ``migspawner doctor`` says about the lease database."""

from __future__ import annotations

from collections.abc import Iterator

from jupyterhub_migspawner.cli.doctor.findings import OK, WARNING, WRONG, Finding
from jupyterhub_migspawner.config import MigBroker
from jupyterhub_migspawner.db import migrations, soundness
from jupyterhub_migspawner.errors import MigspawnerError

#: The way out for each state of the lease database in which it cannot be used.
_DATABASE_MENDS = {
    migrations.BEHIND: "Stop the hub, run `migspawner db backup FILE`, then `db upgrade`.",
    migrations.AHEAD: "Install the version that wrote it, or run `migspawner db restore FILE`.",
    migrations.FOREIGN: "Set c.MigBroker.database_url to a separate database.",
}


def check(mig: MigBroker) -> Iterator[Finding]:
    """Check whether the lease database is there, of this version and sound."""
    try:
        status = migrations.check(mig.resolved_database_url())
        # Whether this user's role has the rights that every part of the broker needs.
        node = mig.open_broker().store.node if status.current else ""
    except MigspawnerError as error:
        yield Finding("database", WRONG, str(error), "See c.MigBroker.database_url.")
        return
    # A node sees its own rows, which do not show whether the whole is sound.
    whole = status.current and not node
    problems = soundness.problems(mig.resolved_database_url()) if whole else ()
    if problems:
        mend = "Stop the hub, then `migspawner db restore FILE` with the newest backup."
        yield Finding("database", WRONG, " ".join(problems[:5]), mend)
    elif status.current:
        yield Finding("database", OK, status.message)
    elif status.state == migrations.MISSING:
        yield Finding(
            "database",
            WARNING,
            f"The lease database {status.database} does not exist yet.",
            "The hub creates it when it starts; `migspawner db upgrade` creates it now.",
        )
    else:
        yield Finding("database", WRONG, status.message, _DATABASE_MENDS[status.state])


def is_usable(mig: MigBroker) -> bool:
    """Return whether there is a lease database of this version to ask."""
    try:
        if migrations.check(mig.resolved_database_url()).current:
            mig.open_broker()
            return True
    except MigspawnerError:
        pass
    return False
