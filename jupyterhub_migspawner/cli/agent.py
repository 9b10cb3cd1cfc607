"""``migspawner agent``: the agent of a node without a hub."""

from __future__ import annotations

import click

from jupyterhub_migspawner.agent.daemon import run_once, run_until_signalled
from jupyterhub_migspawner.cli.command import Command, answers
from jupyterhub_migspawner.cli.invocation import DONE, REFUSED, Invocation
from jupyterhub_migspawner.config import MigBroker
from jupyterhub_migspawner.db import queries, urls
from jupyterhub_migspawner.descriptors import raise_file_limit
from jupyterhub_migspawner.errors import ConfigError
from jupyterhub_migspawner.logs import set_up_log


@click.command(cls=Command)
@click.option(
    "--once",
    is_flag=True,
    help="run one round and exit; exit status 1 if the cards cannot be read",
)
@click.option(
    "--replace",
    is_flag=True,
    help="this machine takes the place of another one of the same name, whose cards and sessions "
    "are gone",
)
@answers(needs_tiers=False, notes_source=False)
def agent(invocation: Invocation, once: bool, replace: bool) -> int:
    """Run the agent of this machine, a node without a hub.

    It reports the cards, proves that the slices of ended sessions are empty, measures use and cuts
    cards to their layouts. It runs in the foreground until SIGTERM and logs to standard error, for
    systemd to run it as root. It needs neither JupyterHub nor Jupyter Server.

    Of the configuration file it uses c.MigBroker.database_url (PostgreSQL) and, if set, node (this
    machine's name), directory (for its lock file), nvml, dcgm_url, before_cut, after_cut,
    hook_seconds, tick_seconds, heartbeat_seconds and examine_seconds; not the tiers. On the hub's
    own machine the hub's service runs the agent (c.MigBroker.agent).

    Refused while another agent reports for a node of this name; if that is silent, this one takes
    over after c.MigBroker.heartbeat_seconds.
    """
    options = node_options(invocation)
    set_up_log()
    raise_file_limit()
    queries.load()
    if once:
        return DONE if run_once(options, replaces=replace) else REFUSED
    run_until_signalled(options, replaces=replace)
    return DONE


def node_options(invocation: Invocation) -> MigBroker:
    """Return the settings for the agent.

    Raises :exc:`.ConfigError` where the lease database is a file that is not here.
    """
    options = invocation.mig()
    # The hub creates the lease database; a node with a wrong address must not.
    options.may_create = False
    # A node may have an older copy of them, by which nothing here is decided.
    options.tiers = []
    file = urls.file_of(urls.parse(options.resolved_database_url()))
    if file is not None and urls.is_missing(file):
        raise ConfigError(
            f"There is no lease database {file}. On a node without a hub, set "
            "c.MigBroker.database_url to the PostgreSQL database of the hub."
        )
    role_of = options.open_broker().store.node
    if role_of not in ("", options.node):
        raise ConfigError(
            f"The role in c.MigBroker.database_url is that of node {role_of}, and this is node "
            f"{options.node}. Correct c.MigBroker.node, or give this node a role: `migspawner db "
            f"role {options.node}` on the hub."
        )
    return options
