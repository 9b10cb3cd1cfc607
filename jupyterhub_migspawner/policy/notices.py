"""Who is notified of what, and where: the admin's channels, and the sentences that events become.

Pure: which channel hears of an event follows from the event and the configuration alone. URLs of
channels hold passwords, so that none ever stands in a sentence; a channel is called by its place in
the configuration and its kind.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import quote

from jupyterhub_migspawner.errors import ConfigError
from jupyterhub_migspawner.policy.fields import NAME_LIMIT, by_person
from jupyterhub_migspawner.policy.markup import for_channel
from jupyterhub_migspawner.policy.people import KnownAs, as_written
from jupyterhub_migspawner.policy.wording import nearest, quoted

ADMINS = "admins"
APPROVERS = "approvers"
USERS = "users"
GROUP = "group:"

TOPICS = {
    "requests": "About decisions on my requests, and the end of my grants",
    "offers": "When it is my turn on the waiting list",
    "sessions": "Before one of my sessions ends, and when its GPU fails",
}
"""Topics of a user's notices, each of which they can turn off."""

MOST_CHANNELS = 50

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,30}(?=://)")
_BLANK = re.compile(r"\{([^{}]*)\}")

#: Names and addresses that can stand in a URL for what they are. A comma, for example, would make
#: two receivers of one.
_PLAIN = re.compile(r"[\w.@+=~-]+", re.ASCII)

Addresses = Mapping[str, str] | Callable[[str], object]
"""What stands for ``{address}``: by name of the user, or a function of it."""


@dataclass(frozen=True)
class Channel:
    """One place to send to: ``audience`` is ``admins``, ``approvers``, ``users`` or
    ``group:NAME``; ``number`` counts the audience's channels from 0.

    ``url`` is Apprise's. That of a user's channel has blanks, ``{user}`` and ``{address}``.
    """

    audience: str
    number: int
    url: str = field(repr=False)

    @property
    def name(self) -> str:
        """What it is called in sentences; nothing secret is in it."""
        found = _SCHEME.match(self.url)
        return f"{self.audience}[{self.number}] ({found[0] if found else '?'})"

    def shown(self, text: str) -> str:
        """Return text as it may be sent there: nothing in it acts as markup or calls people."""
        found = _SCHEME.match(self.url)
        return for_channel(text, found[0] if found else "")

    @property
    def wants_address(self) -> bool:
        """Whether it takes an address that has to be looked up."""
        return "address" in _BLANK.findall(self.url)

    def url_for(self, user: str = "", address: str = "") -> str | None:
        """Return where to send for this user; None if their name or address cannot be in a URL."""
        if self.audience != USERS:
            return self.url
        values = {"user": user, "address": address}
        for name in _BLANK.findall(self.url):
            if not _PLAIN.fullmatch(values[name]):
                return None
        return _BLANK.sub(lambda found: quote(values[found[1]], safe=""), self.url)


@dataclass(frozen=True)
class Notices:
    """The channels that there are, and how a user's address is found."""

    channels: tuple[Channel, ...] = ()
    addresses: Addresses = field(default_factory=dict, repr=False)

    def address(self, user: str) -> str:
        """Return a user's address, or ``""`` for none. A function of the admin's may raise."""
        look_up = self.addresses if callable(self.addresses) else self.addresses.get
        found = look_up(user)
        return found if isinstance(found, str) else ""

    def tell(self, audience: str) -> bool:
        """Tell whether there is a channel for them."""
        return any(channel.audience == audience for channel in self.channels)


_EXPECTED = (
    "a dict such as {'admins': ['mailtos://USER:PASSWORD@HOST?to=gpu@example.org'], "
    "'users': ['mailtos://USER:PASSWORD@HOST?to={user}@example.org']}"
)
_KEYS = (ADMINS, APPROVERS, USERS, "addresses")


def parse_notices(raw: object, known_as: KnownAs = as_written) -> Notices:
    """Read ``MigBroker.notices``; nobody is notified where it is empty or None.

    ``known_as`` gives the hub's names of the people that have addresses.
    Whether Apprise knows a URL is not looked at here. Raises
    :class:`~jupyterhub_migspawner.errors.ConfigError`.
    """
    if raw is None:
        return Notices()
    if not isinstance(raw, Mapping):
        # Not what it is: it may be a URL with its password.
        raise ConfigError(f"MigBroker.notices is a {type(raw).__name__}; expected {_EXPECTED}.")
    channels: list[Channel] = []
    for key, value in raw.items():
        group = key[len(GROUP) :] if isinstance(key, str) and key.startswith(GROUP) else ""
        if key not in _KEYS and not (group.strip() and len(group) <= NAME_LIMIT):
            raise ConfigError(
                f"MigBroker.notices: {_unknown(key)}; expected 'admins', 'approvers', 'users', "
                "'addresses' or 'group:NAME'."
            )
        if key == "addresses":
            continue
        channels += _channels(key, value)
    if len(channels) > MOST_CHANNELS:
        raise ConfigError(
            f"MigBroker.notices has {len(channels)} channels; expected at most {MOST_CHANNELS}."
        )
    notices = Notices(tuple(channels), _addresses(raw.get("addresses"), known_as))
    wanting = [channel for channel in notices.channels if channel.wants_address]
    if wanting and not notices.addresses:
        raise ConfigError(
            f"MigBroker.notices: {wanting[0].name} uses {{address}}, but there is no "
            "'addresses'; expected a dict of addresses by user, or a function of a user's name."
        )
    return notices


def _unknown(key: object) -> str:
    if isinstance(key, int) or (isinstance(key, str) and set("/@").isdisjoint(key)):
        return f"there is no key {quoted(key)}{nearest(key, _KEYS)}"
    return "a key looks like a URL, which may hold a password and is not shown"


def _channels(audience: str, value: object) -> list[Channel]:
    where = f"MigBroker.notices[{audience!r}]"
    if not isinstance(value, (list, tuple)):
        raise ConfigError(f"{where} is a {type(value).__name__}; expected a list of Apprise URLs.")
    found = []
    for number, url in enumerate(value):
        if not isinstance(url, str) or not _SCHEME.match(url) or not url.isprintable():
            raise ConfigError(
                f"{where}: entry {number} is not a URL; expected an Apprise URL, such as "
                "'mailtos://USER:PASSWORD@HOST?to=gpu@example.org' or 'slack://A/B/C/#gpu'."
            )
        blanks = _BLANK.findall(url)
        if audience != USERS and blanks:
            raise ConfigError(
                f"{where}: entry {number} contains braces; only those of 'users' are replaced. "
                "Write literal braces as %7B and %7D."
            )
        wrong = [blank for blank in blanks if blank not in ("user", "address")]
        if audience == USERS and (wrong or not blanks):
            error = "contains other braces" if wrong else "does not name the user"
            raise ConfigError(
                f"{where}: entry {number} {error}; expected {{user}} or {{address}} where the "
                "user's name or address belongs, so that each gets only their own notices."
            )
        found.append(Channel(audience, number, url))
    return found


def _addresses(value: object, known_as: KnownAs) -> Addresses:
    if value is None:
        return {}
    if callable(value):
        return value
    if isinstance(value, Mapping) and all(
        isinstance(name, str) and isinstance(address, str) for name, address in value.items()
    ):
        return by_person("MigBroker.notices['addresses']", value.items(), known_as)
    raise ConfigError(
        f"MigBroker.notices['addresses'] is a {type(value).__name__}; expected a dict of addresses "
        "by user, such as {'ada': 'ada@example.org'}, or a function of a user's name."
    )
