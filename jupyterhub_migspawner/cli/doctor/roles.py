"""What ``migspawner doctor`` says about the roles of nodes on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator

from jupyterhub_migspawner.cli.doctor.findings import OK, WARNING, WRONG, Finding
from jupyterhub_migspawner.config import MigBroker
from jupyterhub_migspawner.db import roles
from jupyterhub_migspawner.errors import MigspawnerError

MOST_SAID = 3


def check(mig: MigBroker) -> Iterator[Finding]:
    """Check whether each node's role has its rights and no others."""
    role_of = mig.open_broker().store.node
    if role_of:
        yield Finding("roles", OK, f"This is checked with the role of node {role_of}.")
        if role_of != mig.node:
            yield Finding(
                "roles",
                WRONG,
                f"This machine is node {mig.node}.",
                f"Correct c.MigBroker.node, or run `migspawner db role {mig.node}` on the hub.",
            )
        return
    try:
        found = roles.find(mig.resolved_database_url())
    except MigspawnerError as error:
        yield Finding("roles", WARNING, str(error), "Check this as the owner of the tables.")
        return
    for each in found:
        if not each.problems:
            yield Finding("roles", OK, f"Role {each.role} has the rights of node {each.node}.")
            continue
        more = len(each.problems) - MOST_SAID
        said = [*each.problems[:MOST_SAID], *([f"{more} more"] if more > 0 else [])]
        mend = f"`migspawner db role {each.node} --name {each.role}`"
        if any("row level security" in problem for problem in each.problems):
            mend = f"Stop the hub and run `migspawner db upgrade`, then {mend}"
        yield Finding(
            "roles", WRONG, f"Role {each.role} of node {each.node}: {'; '.join(said)}.", f"{mend}."
        )
