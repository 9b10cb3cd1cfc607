"""The part of ``doctor`` about people and groups that the file names and the hub has never seen.

A misspelt name gives nothing to anybody and is no mistake that the file itself shows. Nor is every
unknown name a mistake: many have not logged in yet. So this is a hint.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from traitlets.config import Config

from jupyterhub_migspawner.cli.doctor.findings import OK, WARNING, Finding
from jupyterhub_migspawner.hub.users import DEFAULT_URL, HubDatabaseError, read_names
from jupyterhub_migspawner.policy.notices import GROUP
from jupyterhub_migspawner.policy.settings import Settings
from jupyterhub_migspawner.policy.wording import listed, nearest, quoted

CHECK = "names"

MOST_NAMED = 10
"""Unknown names of one kind that are listed."""


def check(config_file: Path, config: Config, settings: Settings) -> Iterator[Finding]:
    """Compare the names in the file with those in the hub's database."""
    users, groups = users_in(settings), groups_in(settings)
    if not users and not groups:
        return
    folders = dict.fromkeys((config_file.absolute().parent, Path.cwd()))
    try:
        known = read_names(str(config.JupyterHub.get("db_url", DEFAULT_URL)), folders)
    except HubDatabaseError as error:
        yield Finding(
            CHECK,
            WARNING,
            "It cannot be checked whether the hub knows the people and groups in the file: "
            f"{error}",
            "Run this as the hub's user, with the hub's environment.",
        )
        return
    if known is None:
        return  # no hub has started here yet, and none knows anybody
    unknown = False
    for kind, named, there in (("user", users, known.users), ("group", groups, known.groups)):
        missing = {name: where for name, where in named.items() if name not in there}
        if missing:
            unknown = True
            yield Finding(
                CHECK,
                WARNING,
                f"The hub has never seen the {_some(kind, missing, there)}.",
                "This is normal for people who have not logged in yet, and for groups that the "
                "authenticator has not sent yet. Correct misspelt names.",
            )
    if not unknown:
        yield Finding(CHECK, OK, "The hub knows every user and group that the file names.")


def users_in(settings: Settings) -> dict[str, str]:
    """Return the users that the broker's settings name, as the hub calls them, and where."""
    found: dict[str, str] = {}
    for tier in settings.tiers:
        found.update((name, f"tier {quoted(tier.name)}") for name in tier.users)
    found.update((name, "quotas") for name in settings.quotas.users)
    for rule in settings.approvers.rules:
        found.update((name, "approvers") for name in rule.users)
    found.update((name, "default_tier") for name in settings.default_tier.users)
    addresses = settings.notices.addresses
    if isinstance(addresses, Mapping):
        found.update((name, "notices") for name in addresses)
    return found


def groups_in(settings: Settings) -> dict[str, str]:
    """Return the groups that the broker's settings name, and where."""
    found: dict[str, str] = {}
    for tier in settings.tiers:
        found.update(
            (name, f"tier {quoted(tier.name)}") for name in (*tier.groups, *tier.seeing_groups)
        )
    found.update((name, "quotas") for name in settings.quotas.groups)
    for rule in settings.approvers.rules:
        found.update((name, "approvers") for name in (*rule.groups, *(rule.for_groups or ())))
    found.update((name, "default_tier") for name in settings.default_tier.groups)
    for channel in settings.notices.channels:
        if channel.audience.startswith(GROUP):
            found[channel.audience[len(GROUP) :]] = "notices"
    return found


def _some(kind: str, missing: Mapping[str, str], there: frozenset[str]) -> str:
    shown = [
        f"{quoted(name)} ({missing[name]}){nearest(name, there)}"
        for name in sorted(missing)[:MOST_NAMED]
    ]
    more = len(missing) - len(shown)
    return f"{kind}{'s' if len(missing) > 1 else ''} " + listed(
        [*shown, f"{more} more"] if more else shown
    )
