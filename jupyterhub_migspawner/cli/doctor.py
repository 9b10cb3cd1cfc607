"""``migspawner doctor``: what is wrong with this install, and the mend.

Every check answers for itself: one that cannot be made because an earlier one failed is left out,
never guessed. Nothing is changed, and nothing but this machine, its lease database and its cards
is asked.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata

from jupyterhub_migspawner import channels
from jupyterhub_migspawner.cli import (
    doctor_cards,
    doctor_clock,
    doctor_culler,
    doctor_dcgm,
    doctor_files,
    doctor_keys,
    doctor_leases,
    doctor_names,
    doctor_orphans,
    doctor_ports,
    doctor_sessions,
    doctor_settings,
)
from jupyterhub_migspawner.cli.command import DONE, REFUSED, Command
from jupyterhub_migspawner.cli.demo.tools import proxy_folder
from jupyterhub_migspawner.cli.findings import OK, WARNING, WRONG, Finding
from jupyterhub_migspawner.cli.output import print_json, print_line, print_wrapped
from jupyterhub_migspawner.config import MigBroker
from jupyterhub_migspawner.db import migrations, soundness
from jupyterhub_migspawner.errors import MigspawnerError
from jupyterhub_migspawner.policy.wording import plural

#: The way out for each state of the lease database in which it cannot be used.
_DATABASE_MENDS = {
    migrations.BEHIND: "Stop the hub, run `migspawner db backup FILE`, then `db upgrade`.",
    migrations.AHEAD: "Install the version that wrote it, or run `migspawner db restore FILE`.",
    migrations.FOREIGN: "Set c.MigBroker.database_url to a database of its own.",
}

PYTHONS = ((3, 10), (3, 13))
HUBS = ((5, 4), (7, 0))


@dataclass(frozen=True)
class _Context:
    """What the checks look at; ``mig`` is None when the configuration cannot be used."""

    command: Doctor
    mig: MigBroker | None


class Doctor(Command):
    """Check this installation."""

    lists = True
    name = "migspawner doctor"
    description = (
        "Check this installation and say how to fix each problem.\n"
        "Exit status 1 if there is a problem; warnings alone do not count."
    )
    notes_source = False

    def run(self) -> int:
        """Make every check and show what was found."""
        findings = list(self.findings())
        wrong = any(finding.state == WRONG for finding in findings)
        if self.as_json:
            print_json([asdict(finding) for finding in findings])
        else:
            blank = " " * 9
            for finding in findings:
                text = f"{finding.check}: {finding.message}"
                print_wrapped(text, first=f"{finding.state:<8} ", indent=blank)
                if finding.mend.startswith(("chmod ", "chown ")):
                    # A command alone stays on one line, to be copied.
                    print_line(f"{blank}Mend: {finding.mend}")
                elif finding.mend:
                    print_wrapped(f"Mend: {finding.mend}", first=blank, indent=blank)
            print()
            print("Something is wrong." if wrong else "Nothing is wrong.", flush=True)
        return REFUSED if wrong else DONE

    def findings(self) -> Iterator[Finding]:
        """What every check found."""
        yield from _versions()
        mig = None
        try:
            mig = self.mig()
            tiers = len(mig.settings().tiers)
        except MigspawnerError as error:
            mig = None
            yield Finding("configuration", WRONG, str(error), "Correct it, then ask again.")
        else:
            what = self.config_path() if self.source().hub is None else "What the hub read"
            yield Finding("configuration", OK, f"{what} is valid; {plural(tiers, 'tier')}.")
            yield from doctor_settings.check(self.source())
        for check in _CHECKS:
            yield from check(_Context(self, mig))


def _versions() -> Iterator[Finding]:
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


def _proxy(context: _Context) -> Iterator[Finding]:
    hub = context.command.hub_config() if context.mig else {}
    if "proxy_class" in hub.get("JupyterHub", {}):
        yield Finding("proxy", OK, "The configuration names a proxy of its own; not looked at.")
        return
    if "command" in hub.get("ConfigurableHTTPProxy", {}):
        yield Finding("proxy", OK, "The configuration names the proxy's command; not looked at.")
        return
    try:
        folder = proxy_folder()
    except MigspawnerError as error:
        yield Finding(
            "proxy",
            WRONG,
            str(error),
            "Install it, or set c.ConfigurableHTTPProxy.command to where it is.",
        )
    else:
        yield Finding("proxy", OK, f"configurable-http-proxy is in {folder}.")


def _ports(context: _Context) -> Iterator[Finding]:
    if context.mig is not None and context.mig.service:
        yield from doctor_ports.check(context.command.hub_config(), context.command.config_path())


def _database(context: _Context) -> Iterator[Finding]:
    if context.mig is None:
        return
    try:
        status = migrations.check(context.mig.resolved_database_url())
    except MigspawnerError as error:
        yield Finding("database", WRONG, str(error), "See c.MigBroker.database_url.")
        return
    problems = soundness.problems(context.mig.resolved_database_url()) if status.current else ()
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
            "The hub makes it when it starts; `migspawner db upgrade` makes it now.",
        )
    else:
        yield Finding("database", WRONG, status.message, _DATABASE_MENDS[status.state])


def _agent(context: _Context) -> Iterator[Finding]:
    if context.mig is None or not _has_database(context.mig):
        return
    broker = context.mig.open_broker()
    nodes = broker.nodes()
    if not nodes:
        yield Finding(
            "agent",
            WRONG,
            "No agent has reported its cards yet.",
            "Start the hub: its service 'migspawner' runs the agent. If the hub runs, look for "
            "the service in its log.",
        )
    now = broker.clock()
    limit = context.mig.heartbeat_seconds
    for node in nodes:
        silent = (now - node.heartbeat_at).total_seconds()
        if silent <= limit:
            yield Finding("agent", OK, f"The agent of {node.name} reported {silent:.0f} s ago.")
        else:
            yield Finding(
                "agent",
                WRONG,
                f"The agent of {node.name} has been silent for {silent:.0f} seconds (limit "
                f"{limit}); nothing new is given out there.",
                "See that the hub and its service 'migspawner' run on that machine.",
            )


def _clock(context: _Context) -> Iterator[Finding]:
    if context.mig is not None and _has_database(context.mig):
        yield from doctor_clock.check(context.mig.open_broker())


def _orphans(context: _Context) -> Iterator[Finding]:
    if context.mig is not None:
        yield from doctor_orphans.findings(context.mig, known=_has_database(context.mig))


def _hubs(context: _Context) -> Iterator[Finding]:
    if context.mig is None or not _has_database(context.mig):
        return
    name, home = context.mig.hub, context.mig.hub_home
    hubs = context.mig.open_broker().hubs()
    mine = next((hub for hub in hubs if hub.name == name), None)
    if mine is not None and mine.home != home:
        yield Finding(
            "hub",
            WRONG,
            f"The lease database knows hub {name!r} at {mine.home}; this one is at {home}, and "
            "does not start as long as the other is there or has leases.",
            "Give this hub a name of its own, c.MigBroker.hub; or, if it is the same one and has "
            "moved, run `migspawner db adopt` once.",
        )
    elif len(hubs) > 1:
        others = ", ".join(hub.name for hub in hubs if hub.name != name)
        yield Finding("hub", OK, f"Hub {name!r} shares its lease database with {others}.")


def _restart(context: _Context) -> Iterator[Finding]:
    if context.mig is None:
        return
    hub = context.command.hub_config().JupyterHub
    if "cleanup_servers" not in hub:
        yield Finding(
            "restart",
            WARNING,
            "Stopping the hub ends every notebook: c.JupyterHub.cleanup_servers is not set, and "
            "its default is True.",
            "Set c.JupyterHub.cleanup_servers = False, and KillMode=process in the hub's systemd "
            "unit; or set it to True if that is what you want.",
        )
    elif hub.cleanup_servers:
        yield Finding("restart", OK, "Stopping the hub ends every notebook, as configured.")
    else:
        yield Finding(
            "restart",
            OK,
            "Notebooks outlive the hub, as long as its systemd unit has KillMode=process.",
        )


def _has_database(mig: MigBroker) -> bool:
    try:
        return migrations.check(mig.resolved_database_url()).current
    except MigspawnerError:
        return False


def _cards(context: _Context) -> Iterator[Finding]:
    if context.mig is not None:
        yield from doctor_cards.findings(context.mig, known=_has_database(context.mig))
        url = context.mig.settings().dcgm_url
        yield from doctor_dcgm.check(url, context.mig.open_nvml())


def _notices(context: _Context) -> Iterator[Finding]:
    """Whether Apprise knows the channels; nothing is sent."""
    if context.mig is None:
        return
    found = context.mig.settings().notices.channels
    wrong = [trouble for channel in found if (trouble := channels.trouble_with(channel))]
    for trouble in wrong:
        yield Finding("notices", WRONG, trouble, "Correct MigBroker.notices.")
    if not found:
        yield Finding("notices", OK, "Nobody is notified: MigBroker.notices is empty.")
    elif not wrong:
        yield Finding(
            "notices",
            OK,
            f"{plural(len(found), 'channel')}; `migspawner notices test` sends to them.",
        )


def _leases(context: _Context) -> Iterator[Finding]:
    if context.mig is not None and _has_database(context.mig):
        broker = context.mig.open_broker()
        yield from doctor_leases.findings(broker.slices(), broker.clock())


def _culler(context: _Context) -> Iterator[Finding]:
    if context.mig is not None:
        tiers = context.mig.settings().tiers
        seconds = context.mig.settings().examine_seconds
        yield from doctor_culler.check(tiers, context.command.hub_config(), seconds)
        yield from doctor_culler.impatient(tiers, seconds)
        if _has_database(context.mig):
            yield from doctor_sessions.check(context.mig.open_broker())
            yield from doctor_culler.forgotten(tiers, context.mig.open_broker().leases())


def _names(context: _Context) -> Iterator[Finding]:
    if context.mig is not None:
        command = context.command
        yield from doctor_names.check(
            command.config_path(), command.hub_config(), context.mig.settings()
        )


def _files(context: _Context) -> Iterator[Finding]:
    if context.mig is not None:
        command = context.command
        yield from doctor_files.check(command.config_path(), command.hub_config(), context.mig)
        yield from doctor_keys.check(context.mig, known=_has_database(context.mig))


_CHECKS: tuple[Callable[[_Context], Iterator[Finding]], ...] = (
    _proxy,
    _ports,
    _database,
    _files,
    _cards,
    _agent,
    _clock,
    _orphans,
    _hubs,
    _names,
    _leases,
    _restart,
    _notices,
    _culler,
)
