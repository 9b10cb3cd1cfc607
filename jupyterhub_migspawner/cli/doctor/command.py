"""``migspawner doctor``: what is wrong with this install, and the mend.

Every check answers for itself: one that cannot be made because an earlier one failed is left out,
never guessed. Nothing is changed, and nothing but this machine, its lease database and its cards
is asked.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

import click

from jupyterhub_migspawner.cli.command import Command, answers
from jupyterhub_migspawner.cli.doctor import (
    agents,
    cards,
    clock,
    containers,
    culler,
    database,
    dcgm,
    files,
    hubs,
    isolation,
    keys,
    leases,
    names,
    notices,
    orphans,
    ports,
    proxy,
    roles,
    sessions,
    settings,
    versions,
)
from jupyterhub_migspawner.cli.doctor.findings import OK, WARNING, WRONG, Finding
from jupyterhub_migspawner.cli.invocation import DONE, REFUSED, Invocation, has_hub
from jupyterhub_migspawner.cli.output import print_json, print_line, print_wrapped
from jupyterhub_migspawner.config import MigBroker
from jupyterhub_migspawner.errors import MigspawnerError
from jupyterhub_migspawner.policy.wording import plural

_STYLES = {OK: "green", WARNING: "yellow", WRONG: "bold red"}


@click.command(cls=Command)
@answers(table=True, notes_source=False)
def doctor(invocation: Invocation) -> int:
    """Check this installation and say how to fix each problem.

    Exit status 1 if there is a problem; warnings alone do not count.
    """
    found = list(findings(invocation))
    wrong = any(finding.state == WRONG for finding in found)
    if invocation.as_json:
        print_json([asdict(finding) for finding in found])
    else:
        for finding in found:
            _show(finding)
        print()
        print("There are problems." if wrong else "No problems found.", flush=True)
    return REFUSED if wrong else DONE


def _show(finding: Finding) -> None:
    blank = " " * 9
    text = f"{finding.check}: {finding.message}"
    print_wrapped(text, first=f"{finding.state:<8} ", indent=blank, style=_STYLES[finding.state])
    if finding.mend.startswith(("chmod ", "chown ")):
        # A command alone stays on one line, to be copied.
        print_line(f"{blank}Mend: {finding.mend}")
    elif finding.mend:
        print_wrapped(f"Mend: {finding.mend}", first=blank, indent=blank)


def findings(invocation: Invocation) -> Iterator[Finding]:
    """Return what every check found."""
    yield from versions.check()
    try:
        mig = invocation.mig()
        tiers = len(mig.settings().tiers)
    except MigspawnerError as error:
        yield Finding("configuration", WRONG, str(error), "Correct it, then run this again.")
        yield from proxy.check({})
        return
    what = invocation.config_path() if invocation.source().hub is None else "What the hub read"
    yield Finding("configuration", OK, f"{what} is valid; {plural(tiers, 'tier')}.")
    yield from settings.check(invocation.source())
    yield from _checks(invocation, mig)


def _checks(invocation: Invocation, mig: MigBroker) -> Iterator[Finding]:
    """Run the checks of an install whose configuration can be used."""
    known = database.is_usable(mig)
    if not has_hub() or (known and mig.open_broker().store.node):
        yield from _node_checks(mig, known=known)
        return
    hub, path, rules = invocation.hub_config(), invocation.config_path(), mig.settings()
    yield from proxy.check(hub)
    if mig.service:
        yield from ports.check(hub, path)
    yield from database.check(mig)
    yield from files.check(path, hub, mig)
    yield from keys.check(mig, known=known)
    yield from cards.findings(mig, known=known)
    yield from dcgm.check(rules.dcgm_url, mig.open_nvml())
    if known:
        yield from agents.check(mig.open_broker(), mig)
        yield from roles.check(mig)
        yield from clock.check(mig.open_broker())
    yield from isolation.check(hub)
    yield from isolation.limits(hub, rules.tiers)
    yield from containers.check(hub, mig)
    if known:
        yield from isolation.in_force(mig.open_broker())
    yield from orphans.findings(mig, known=known)
    if known:
        yield from hubs.check(mig.open_broker(), mig.hub, mig.hub_home)
    yield from names.check(path, hub, rules)
    if known:
        broker = mig.open_broker()
        yield from leases.findings(broker.slices.find(), broker.now())
    yield from hubs.survival(hub.JupyterHub)
    yield from notices.check(rules.notices.channels)
    yield from culler.check(rules.tiers, hub, rules.examine_seconds)
    yield from culler.impatient(rules.tiers, rules.examine_seconds)
    if known:
        yield from sessions.check(mig.open_broker())
        yield from culler.forgotten(rules.tiers, mig.open_broker().leases.find())


def _node_checks(mig: MigBroker, *, known: bool) -> Iterator[Finding]:
    """Run the checks of a node: a machine with an agent, without a hub or with a role of a node."""
    yield from database.check(mig)
    yield from cards.findings(mig, known=known)
    yield from dcgm.check(mig.settings().dcgm_url, mig.open_nvml())
    if known:
        yield from agents.check(mig.open_broker(), mig)
        yield from roles.check(mig)
        yield from clock.check(mig.open_broker())
