"""The admin's traits, checked: what the broker decides with.

Promises that a mistake is found before anything starts, in a sentence that names the tier or
quota, the field, what was found and what was expected.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Mapping
from datetime import tzinfo
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from traitlets.config import Config

from jupyterhub_migspawner.config.usernames import Usernames
from jupyterhub_migspawner.errors import ConfigError
from jupyterhub_migspawner.policy.approval import parse_approvers
from jupyterhub_migspawner.policy.defaults import parse_default_tier
from jupyterhub_migspawner.policy.notices import parse_notices
from jupyterhub_migspawner.policy.quotas import parse_quotas
from jupyterhub_migspawner.policy.server_names import ServerNames
from jupyterhub_migspawner.policy.settings import Settings
from jupyterhub_migspawner.policy.tiers import parse_tiers
from jupyterhub_migspawner.policy.times import read_zone
from jupyterhub_migspawner.policy.wording import quoted

if TYPE_CHECKING:
    from jupyterhub_migspawner.config.traits import MigBroker


def read_settings(options: MigBroker) -> Settings:
    """Check the traits and return what the broker decides with. Raises :exc:`.ConfigError`."""
    options.hook_commands()
    known_as = options.known_as
    tiers = parse_tiers(options.tiers, known_as) if options.tiers or options.tiers_needed else ()
    if not tiers and options.tiers_needed:
        raise ConfigError(
            "MigBroker.tiers is empty: write at least one tier, for example "
            '{"name": "small", "profile": "1g.5gb"}.'
        )
    for tier in tiers:
        if tier.mig_off and not options.allow_gpu_reset:
            raise ConfigError(
                f"tier {tier.name!r}: field 'mig' is 'off', which may reset cards; expected "
                "MigBroker.allow_gpu_reset = True with it, or 'on'."
            )
    return Settings(
        tiers=tiers,
        quotas=parse_quotas(options.quotas, known_as),
        approvers=parse_approvers(
            options.approvers, [t.name for t in tiers if t.approval] if tiers else None, known_as
        ),
        default_tier=parse_default_tier(options.default_tier if tiers else "", tiers, known_as),
        pending_seconds=options.pending_seconds,
        heartbeat_seconds=options.heartbeat_seconds,
        offer_minutes=options.offer_minutes,
        remind_hours=options.remind_hours,
        grant_warning_minutes=options.grant_warning_minutes,
        warn_minutes=options.warn_minutes,
        examine_seconds=options.examine_seconds,
        unknown_minutes=options.unknown_minutes,
        unproven_hours=options.unproven_hours,
        dcgm_url=options.dcgm_url.strip(),
        actions_per_minute=options.actions_per_minute,
        notices=parse_notices(options.notices, known_as),
        zone=_zone(options),
        server_names=_server_names(options),
        only_node=options.only_node.strip(),
        hub=options.hub,
        known_as=known_as,
    )


def _zone(options: MigBroker) -> tzinfo | None:
    name = options.time_zone.strip()
    zone = read_zone(name)
    if name and zone is None:
        options.log.warning(
            "MigBroker.time_zone is %r, but this machine has no time zone database: notices "
            "give times in the machine's own zone. Install tzdata, as a system package or with "
            "pip, and restart the hub.",
            name,
        )
    return zone


def _server_names(options: MigBroker) -> ServerNames:
    """Return the hub's rule for names of servers, by its settings and its version."""
    hub = options.config.get("JupyterHub", {})
    named = bool(hub.get("allow_named_servers", False))
    most = hub.get("named_server_limit_per_user", 0)
    return ServerNames(
        named=named,
        # Reading a version takes a parser of mails, and without names there is no rule for them.
        slugs=named and _hub_major() >= 6,
        # A function looks at a request of the hub's: the hub alone can ask it, at the start.
        most=most if isinstance(most, int) else 0,
    )


def _hub_major() -> int:
    """Return the major version of the hub; 0 on a machine without one, such as a node."""
    try:
        return int(version("jupyterhub").split(".")[0])
    except PackageNotFoundError:
        return 0


def read_usernames(options: MigBroker) -> Usernames:
    """Return the hub's names of the people that its file names. Raises :exc:`.ConfigError`."""
    given = options.usernames
    if not isinstance(given, Mapping) or not all(
        isinstance(each, str) and each.strip() for pair in given.items() for each in pair
    ):
        raise ConfigError(
            f"MigBroker.usernames is {quoted(given)}; expected a dict of the hub's names "
            "by those in this file, such as {'Ada': 'ada'}."
        )
    return Usernames(options.config, given)


def resolved_values(options: MigBroker) -> dict[str, Any]:
    """Return the settings by name, as another process has to be given them to use the same.

    Those that are set, and those whose defaults depend on this process: its folder, its home,
    its environment.
    """
    from jupyterhub_migspawner.gpu.library import ENVIRONMENT_VARIABLE

    values = {name: getattr(options, name) for name in options.config.get("MigBroker", {})}
    nvml = options.resolved_nvml() or os.environ.get(ENVIRONMENT_VARIABLE, "").strip()
    if nvml.startswith("sim:"):
        nvml = f"sim:{os.path.abspath(nvml[len('sim:') :])}"
    return {
        **values,
        "directory": str(options.resolved_directory().absolute()),
        "database_url": options.resolved_database_url(),
        "key_file": str(options.key_file_of_hub().path.absolute()),
        "nvml": nvml,
        "hub_home": options.hub_home,
        "node": options.node,
    }


def refuse_unknown(config: Config, names: Iterable[str]) -> None:
    """Refuse settings that are no traits. Raises :exc:`.ConfigError`.

    A misspelt trait name would silently be no setting at all.
    """
    known = sorted(names)
    for name in config.get("MigBroker", {}):
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"the settings are {', '.join(known)}."
            raise ConfigError(f"MigBroker.{name}: there is no such setting; {hint}")
