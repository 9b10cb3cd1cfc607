"""Whether a node, user, card, lease or request that a command names exists.

A listing with a filter that matches nothing must not look like an empty system. Commands ask here
before they show nothing, and before they act for a user. A user exists where the hub's database,
the lease database or the configuration has the name. All functions raise
:class:`~jupyterhub_migspawner.errors.Refusal` (``not-found``) with a sentence that says what there
is instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from jupyterhub_migspawner.broker import Broker
from jupyterhub_migspawner.cli.invocation import Invocation
from jupyterhub_migspawner.cli.output import complain
from jupyterhub_migspawner.cli.people import names_in
from jupyterhub_migspawner.errors import Refusal
from jupyterhub_migspawner.hub.users import DEFAULT_URL, HubDatabaseError, read_names
from jupyterhub_migspawner.policy.wording import listed, nearest, quoted

MOST_NAMED = 8
"""Names of a list that a sentence repeats."""


@dataclass(frozen=True)
class _Unknown:
    """A user whom nothing knows.

    ``hub_unread`` says why the hub could not be asked; ``may_exist`` that it has a database.
    """

    sentence: str
    hub_unread: str = ""
    may_exist: bool = False


def require_node(invocation: Invocation, broker: Broker, name: str) -> None:
    """Refuse a node that has never reported and that this configuration does not name."""
    names = [node.name for node in broker.nodes.find()]
    if name in names or name == invocation.mig().node:
        return
    known = f"There is {_some(names)}." if names else "No node has reported yet."
    raise Refusal(
        f"There is no node {quoted(name)}{nearest(name, names)}. {known}", reason="not-found"
    )


def require_card(broker: Broker, uuid: str) -> None:
    """Refuse a card that no node has ever reported."""
    uuids = [card.uuid for card in broker.cards.find()]
    if uuid not in uuids:
        raise Refusal(
            f"There is no card {quoted(uuid)}{nearest(uuid, uuids)}. `migspawner cards` shows all "
            "cards.",
            reason="not-found",
        )


def require_user(invocation: Invocation, broker: Broker, name: str) -> None:
    """Refuse a user whom neither the hub, the lease database nor the configuration knows."""
    unknown = _look_up(invocation, broker, name)
    if unknown is not None:
        raise Refusal(f"{unknown.sentence} {unknown.hub_unread}".rstrip(), reason="not-found")


def require_user_to_act_for(invocation: Invocation, broker: Broker, name: str) -> None:
    """Refuse as :func:`require_user` does, before something is done for the user.

    Warns only where the hub's database is there and cannot be read: it may well know the user.
    """
    unknown = _look_up(invocation, broker, name)
    if unknown is None:
        return
    if unknown.may_exist:
        complain(f"{unknown.sentence} {unknown.hub_unread} Check that the name is right.")
        return
    mend = (
        "Have them log in to the hub once, or add them to c.Authenticator.allowed_users; then "
        "try again."
    )
    sentences = (unknown.sentence, unknown.hub_unread, mend)
    raise Refusal(" ".join(filter(None, sentences)), reason="not-found")


def unknown_user(invocation: Invocation, broker: Broker, name: str) -> str:
    """Return the warning for a user whom nothing knows yet; empty where something does.

    For what an admin may settle before the user logs in for the first time.
    """
    unknown = _look_up(invocation, broker, name)
    if unknown is None:
        return ""
    return f"{unknown.sentence} It applies as soon as a user with that name logs in."


def _look_up(invocation: Invocation, broker: Broker, name: str) -> _Unknown | None:
    config = invocation.hub_config()
    configured = names_in(config, broker.settings)
    if name in configured or broker.users.is_known(name):
        return None
    url = str(config.JupyterHub.get("db_url", DEFAULT_URL))
    folders = list(dict.fromkeys((invocation.config_path().absolute().parent, Path.cwd())))
    unread = ""
    hub: frozenset[str] | None = None
    try:
        names = read_names(url, folders)
    except HubDatabaseError as error:
        unread, may_exist = str(error), True
    else:
        may_exist, hub = False, None if names is None else names.users
        if names is None:
            where = listed((str(folder) for folder in folders), "or")
            unread = (
                f"The hub's database was not found in {where}; if the hub starts elsewhere, run "
                "this there."
            )
    if hub is not None and name in hub:
        return None
    hint = nearest(name, sorted(configured | (hub or frozenset())))
    if hub is not None:
        return _Unknown(
            f"There is no user {quoted(name)}{hint}: the hub, the lease database and the "
            "configuration do not contain the name."
        )
    return _Unknown(
        f"There is no user {quoted(name)}{hint} in the lease database or the configuration.",
        unread,
        may_exist,
    )


def _some(names: list[str]) -> str:
    shown = [quoted(name) for name in names[:MOST_NAMED]]
    more = len(names) - len(shown)
    return listed([*shown, f"{more} more"] if more else shown)
