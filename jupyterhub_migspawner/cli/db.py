"""``migspawner db``: the lease database: sound, current, backed up; which hub is at home where."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from jupyterhub_migspawner import files
from jupyterhub_migspawner.cli import passwords
from jupyterhub_migspawner.cli.command import Group, answers, gathers
from jupyterhub_migspawner.cli.invocation import DONE, REFUSED, Invocation
from jupyterhub_migspawner.cli.output import print_json
from jupyterhub_migspawner.cli.progress import counting, waiting
from jupyterhub_migspawner.db import backups, migrations, roles, soundness, urls
from jupyterhub_migspawner.errors import ConfigError, DatabaseError, MigspawnerError
from jupyterhub_migspawner.policy.wording import listed, plural

#: What to do about a database that is not sound.
NOT_SOUND = (
    "Stop the hub and restore a backup: `migspawner db restore FILE`; the current database is "
    "kept beside it."
)


@click.group(cls=Group, invoke_without_command=True)
@gathers
def db() -> None:
    """Check, upgrade, back up, restore, copy and compact the lease database; roles of nodes."""


@db.command(short_help="check that it is sound and current")
@answers()
def check(invocation: Invocation) -> int:
    """Check that the lease database is sound and has the schema that this version needs.

    It looks at pages and keys (SQLite), indexes (PostgreSQL with the extension amcheck), tables,
    and that nothing is held twice. Changes nothing. Exit status 1 if there is a problem.
    """
    url = invocation.mig().resolved_database_url()
    with waiting("Checking the lease database"):
        try:
            status = migrations.check(url)
        except DatabaseError as error:
            return _damaged(invocation, url, str(error))
        problems = soundness.problems(url) if status.current else ()
    message = " ".join([status.message, *problems, *([NOT_SOUND] if problems else [])])
    answer = {**_view(status), "message": message, "problems": list(problems)}
    invocation.answer(answer, message)
    return DONE if status.current and not problems else REFUSED


def _damaged(invocation: Invocation, url: str, message: str) -> int:
    """Answer with what is known of a database that cannot even be opened."""
    parsed = urls.parse(url)
    file = urls.file_of(parsed)
    problems = [message]
    if file is not None and file.exists():
        problems += soundness.damage(file)
    answer = {
        "database": urls.shown(parsed),
        "state": "unreadable",
        "revision": None,
        "head": migrations.HEAD,
        "message": " ".join(problems),
        "problems": problems,
    }
    invocation.answer(answer, " ".join(problems))
    return REFUSED


@db.command(short_help="create or upgrade it")
@answers()
def upgrade(invocation: Invocation) -> int:
    """Create the lease database, or upgrade its schema to this version, in one transaction.

    Then erase deleted data from its files. Stop the hub first, and keep a copy: `migspawner db
    backup FILE`.
    """
    url = invocation.mig().resolved_database_url()
    with waiting("Upgrading the lease database"):
        was_current = migrations.check(url).current
        status = migrations.upgrade(url)
        if was_current:
            # An upgrade before this one may have ended before it had erased what it removed.
            migrations.erase(url)
    return invocation.answer(_view(status), status.message)


@db.command(short_help="copy it into a new file")
@click.argument("file", metavar="FILE", help="the new file")
@answers()
def backup(invocation: Invocation, file: str) -> int:
    """Write a copy of the lease database into a new file, while the hub runs.

    The copy is a checked SQLite file, also of a PostgreSQL database, that only its owner can read.
    It shows who worked when: keep it as safe as the database.
    """
    path = _expanded(file)
    url = invocation.mig().resolved_database_url()
    with waiting("Copying the lease database"):
        backups.back_up(url, path)
    answer = {"database": urls.shown(urls.parse(url)), "file": str(path)}
    return invocation.answer(
        answer, f"The lease database {answer['database']} is copied to {path}."
    )


@db.command(short_help="replace it with a backup")
@click.argument("file", metavar="FILE", help="the backup")
@answers()
def restore(invocation: Invocation, file: str) -> int:
    """Replace the lease database with a backup.

    Stop the hub first; servers keep running. The previous database is kept beside it, damaged or
    not. Servers that were started after the backup have no lease in it: start the hub, then run
    `migspawner leases adopt`.
    """
    path = _expanded(file)
    url = invocation.mig().resolved_database_url()
    with waiting("Restoring the lease database"):
        kept = backups.restore(url, path)
    answer = {"database": urls.shown(urls.parse(url)), "file": str(path), "kept": kept}
    before = f" What was there before is in {kept}." if kept else ""
    return invocation.answer(
        answer,
        f"The lease database {answer['database']} is restored from {path}.{before} Start the "
        "hub now. Slices of servers that this backup does not know are quarantined; "
        "`migspawner leases adopt` gives those servers leases again.",
    )


@db.command(short_help="copy it from SQLite to PostgreSQL or back")
@click.argument("url", metavar="URL", help="the new database, as in c.MigBroker.database_url")
@answers()
def copy(invocation: Invocation, url: str) -> int:
    """Copy the lease database into an empty one, from SQLite to PostgreSQL or back.

    Stop the hub first; then set c.MigBroker.database_url to the new one and start the hub. Servers
    keep running. Put the password into ~/.pgpass: others can read what you type here.
    """
    passwords.warn("URL", url)
    present = invocation.mig().resolved_database_url()
    with waiting("Copying the lease database"):
        backups.copy(present, url)
    shown = urls.shown(urls.parse(url))
    answer = {"database": urls.shown(urls.parse(present)), "to": shown}
    return invocation.answer(
        answer,
        f"The lease database {answer['database']} is copied to {shown}. Put that into "
        "c.MigBroker.database_url, start the hub, and move the old one away.",
    )


@db.command(short_help="replace old events with counts")
@click.option("--dry-run", is_flag=True, help="only show how many there are")
@answers()
def compact(invocation: Invocation, dry_run: bool) -> int:
    """Replace events older than MigBroker.event_days with counts, as the service does every day.

    The counts are by month, person, tier, profile and card.
    Leases and requests themselves are kept, and so are the events of live leases and open requests.
    """
    days = invocation.mig().event_days
    if not days:
        answer = {"days": 0, "compacted": 0, "kept": 0, "dry_run": dry_run}
        return invocation.answer(answer, "MigBroker.event_days is 0: events are kept forever.")
    broker = invocation.broker()
    compacted, kept = broker.events.old(days)
    if not dry_run:
        so_far = broker.events.begin_compaction(days)
        with counting("Compacting events", compacted) as done:
            while not so_far.done:
                so_far = broker.events.compact(so_far)
                done(so_far.number)
        compacted = so_far.number
    answer = {"days": days, "compacted": compacted, "kept": kept, "dry_run": dry_run}
    what = "would become" if dry_run else "has become" if compacted == 1 else "have become"
    return invocation.answer(
        answer,
        f"{plural(compacted, 'event')} older than {plural(days, 'day')} {what} counts; "
        f"{plural(kept, 'event')} of live leases and open requests "
        f"{'stays' if kept == 1 else 'stay'}.",
    )


@db.command(short_help="confirm that a hub has moved here")
@answers()
def adopt(invocation: Invocation) -> int:
    """Confirm that a hub has moved here from another machine or folder.

    The hub of this configuration file is then the hub with this name (c.MigBroker.hub) in the lease
    database: its leases and requests belong to this hub. Do not use this for a second hub: it needs
    a different name, or the two would end each other's servers.
    """
    hub = invocation.broker().hubs.claim(invocation.mig().hub_home, adopt=True)
    answer = {"hub": hub.name, "home": hub.home}
    return invocation.answer(answer, f"Hub {hub.name!r} is at {hub.home} now.")


@db.command(short_help="create or mend the role of a node (PostgreSQL)")
@click.argument("node", metavar="NODE", help="the node, as in its c.MigBroker.node")
@click.option("--name", metavar="ROLE", help="the name of the role (default: migspawner_NODE)")
@click.option(
    "--pgpass",
    metavar="FILE",
    help="give it a new random password, and write that into a new file for the node's ~/.pgpass",
)
@click.option("--print", "as_sql", is_flag=True, help="only print the SQL, for a superuser's psql")
@click.option("--remove", is_flag=True, help="remove the role and its rights instead")
@answers()
def role(
    invocation: Invocation,
    node: str,
    name: str | None,
    pgpass: str | None,
    as_sql: bool,
    remove: bool,
) -> int:
    """Create a login role with the rights of one node's agent, or mend its rights.

    It can report that node, prove its leases empty and cut its cards. It cannot create leases, read
    tokens or requests, or change other nodes. The hub's role needs CREATEROLE, once; or run
    --print, and what it prints as a superuser. Run it again after changes of the database; an
    upgrade does that itself.
    """
    if sum(map(bool, (pgpass, as_sql, remove))) > 1:
        raise click.UsageError(
            "--pgpass, --print and --remove exclude each other", click.get_current_context()
        )
    url = invocation.mig().resolved_database_url()
    if remove:
        removed = roles.remove(url, node, name or "")
        return invocation.answer(
            {"node": node, "roles": list(removed)},
            f"Node {node} has no role {listed(removed)} any more.",
        )
    chosen = name or roles.default_name(node)
    if as_sql:
        text = roles.as_sql(url, node, chosen)
        if invocation.as_json:
            print_json({"node": node, "role": chosen, "sql": text})
        else:
            print(text)
        return DONE
    password = roles.new_password() if pgpass else ""
    file = _expanded(pgpass) if pgpass else None
    if file is not None:
        line = f"*:*:{urls.parse(url).database}:{chosen}:{password}\n"
        if not files.create(file, line):
            raise ConfigError(f"There is a file {file} already; name a new one with --pgpass.")
    try:
        roles.make(url, node, chosen, password)
    except MigspawnerError:
        if file is not None:
            file.unlink()
        raise
    said = f"Role {chosen} has the rights of node {node}."
    if file is not None:
        said += f" Its password is in {file}: move that to ~/.pgpass of root on {node}."
    return invocation.answer(
        {"node": node, "role": chosen, "file": None if file is None else str(file)}, said
    )


def _expanded(file: str) -> Path:
    """Return the absolute path of a file that was typed."""
    return Path(os.path.expanduser(file)).absolute()


def _view(status: migrations.Status) -> dict[str, Any]:
    return {
        "database": status.database,
        "state": status.state,
        "revision": status.revision,
        "head": status.head,
        "message": status.message,
    }
