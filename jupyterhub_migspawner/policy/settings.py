"""What the broker decides with: the admin's choices as checked values.

Built by :mod:`jupyterhub_migspawner.config` from traits; the broker, the simulation and the tests
take it as it is.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import tzinfo
from urllib.parse import urlsplit

from jupyterhub_migspawner.errors import ConfigError
from jupyterhub_migspawner.policy.approval import Approvers
from jupyterhub_migspawner.policy.defaults import DefaultTiers
from jupyterhub_migspawner.policy.notices import Notices
from jupyterhub_migspawner.policy.people import KnownAs, Person, as_written
from jupyterhub_migspawner.policy.quotas import Quotas
from jupyterhub_migspawner.policy.server_names import ServerNames
from jupyterhub_migspawner.policy.tiers import Tier
from jupyterhub_migspawner.policy.wording import quoted


@dataclass(frozen=True)
class Settings:
    """Everything the broker's decisions depend on besides the lease database and the clock.

    ``pending_seconds``: how long a lease may wait for its server to come up.
    ``heartbeat_seconds``: a node silent for longer gets nothing new, and loses nothing.
    ``hub``: what the hub is called on its lease database, which others may share.
    ``offer_minutes``: how long something is held for the user who waited for it.
    ``remind_hours``: approvers are reminded of a request that waits for so long.
    ``grant_warning_minutes``: how long before a grant's end its user is warned.
    ``warn_minutes``: how long before the end of their session people are warned.
    ``examine_seconds``: how often it is looked whether sessions are in use.
    ``unknown_minutes``: how long that may be unknown until admins are notified.
    ``unproven_hours``: how long a session may claim use without any until admins are notified.
    ``dcgm_url``: where each node's dcgm-exporter tells how much slices are used; empty for nowhere.
    ``actions_per_minute``: how many changes one person may ask for in a minute; 0 for any.
    ``server_names``: which names servers may have at this hub.
    ``notices``: where they, approvers and admins are notified.
    ``zone``: in which messages give times; None for the machine's own.
    ``only_node``: where this hub's servers run, if on one node only: it gives out no other slices.
    ``request_days``: a request nobody decided about expires after this many days.
    """

    tiers: tuple[Tier, ...]
    quotas: Quotas = field(default_factory=Quotas)
    approvers: Approvers = field(default_factory=Approvers)
    default_tier: DefaultTiers = field(default_factory=DefaultTiers)
    pending_seconds: int = 300
    heartbeat_seconds: int = 60
    request_days: int = 30
    offer_minutes: int = 10
    remind_hours: int = 24
    grant_warning_minutes: int = 60
    warn_minutes: int = 15
    examine_seconds: float = 60.0
    unknown_minutes: int = 30
    unproven_hours: int = 6
    dcgm_url: str = field(default="", repr=False)
    actions_per_minute: int = 0
    notices: Notices = field(default_factory=Notices)
    zone: tzinfo | None = None
    server_names: ServerNames = field(default_factory=ServerNames)
    only_node: str = ""
    hub: str = "hub"
    known_as: KnownAs = field(default=as_written, compare=False)
    """Gives the hub's name of a person for a name that a person typed."""

    def __post_init__(self) -> None:
        for name in (
            *("pending_seconds", "heartbeat_seconds", "request_days", "offer_minutes"),
            *("remind_hours", "grant_warning_minutes", "warn_minutes"),
            *("unknown_minutes", "unproven_hours"),
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(
                    f"MigBroker.{name} is {quoted(value)}; expected a whole number above 0."
                )
        rate = self.actions_per_minute
        if isinstance(rate, bool) or not isinstance(rate, int) or rate < 0:
            raise ConfigError(
                f"MigBroker.actions_per_minute is {quoted(rate)}; expected a whole number, or 0 "
                "for no limit."
            )
        if self.dcgm_url and not _is_web_address(self.dcgm_url):
            raise ConfigError(
                f"MigBroker.dcgm_url is {_masked(self.dcgm_url)}; expected a URL of each node's "
                "own dcgm-exporter without a password, such as http://localhost:9400/metrics, or "
                "nothing."
            )
        if not self.hub.strip() or len(self.hub) > 255 or not self.hub.isprintable():
            raise ConfigError(
                f"MigBroker.hub is {quoted(self.hub)}; expected a name of up to 255 characters."
            )

    def default_of(self, person: Person) -> str | None:
        """Return the tier that the settings name for this person when they pick none."""
        return self.default_tier.of(person, self.tiers)

    def tier(self, name: str) -> Tier | None:
        """Return the tier of that name, or None."""
        for tier in self.tiers:
            if tier.name == name:
                return tier
        return None

    def title_of(self, name: str) -> str:
        """Return what people call the tier of that name; the name where the tier was removed."""
        tier = self.tier(name)
        return tier.title if tier is not None else name


def _masked(url: str) -> str:
    """Return a URL that is none, without what may be a password in it."""
    _, at, rest = url.rpartition("@")
    return quoted(f"***@{rest}" if at else rest)


def _is_web_address(url: str) -> bool:
    """Tell whether a text is a URL of HTTP without a password, which sentences would show."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    web = parts.scheme in ("http", "https") and bool(parts.hostname)
    return web and port != 0 and "@" not in parts.netloc and url.isprintable() and " " not in url
