"""Tiers: what a researcher picks, and who may pick it.

Relies on the admin's list of dicts and on :class:`~.people.Person`; promises that a wrong list is
refused with the tier, the field, what was found and what was expected, and that what a person may
use is decided from configuration and groups alone. A person learns of a tier that is not theirs
at most that it exists.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from jupyterhub_migspawner.errors import ConfigError, Refusal
from jupyterhub_migspawner.model.cards import CardKind, Kinds
from jupyterhub_migspawner.policy.card_filter import EXPECTED, CardFilter, parse_card_filter
from jupyterhub_migspawner.policy.fields import Entry
from jupyterhub_migspawner.policy.people import KnownAs, Person, as_written
from jupyterhub_migspawner.policy.wording import listed, nearest, quoted

log = logging.getLogger("migspawner.policy")

WHOLE = "whole"
"""Profile of a tier that gives a whole card."""

NONE = "none"
"""Profile of a tier without a GPU."""

NAME_LIMIT = 64
TITLE_LIMIT = 200
DESCRIPTION_LIMIT = 2_000
SEATS_LIMIT = 16

FIELDS = (
    "name",
    "title",
    "description",
    "profile",
    "card",
    "groups",
    "users",
    "allow",
    "seen_by",
    "approval",
    "approvals",
    "grant_starts",
    "max_hours",
    "idle_minutes",
    "idle_minutes_when_wanted",
    "extend_hours",
    "default",
    "mig",
    "seats",
)

EXTEND_HOURS = 8.0
"""How long a session that is not in use may be kept by extending it, unless its tier says so."""

# Names reach form values, URLs and metric labels.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

# As drivers name GPU instance profiles: 1g.5gb, 1g.5gb+me, 1g.24gb+me.all, 1g.24gb-me, 2g.48gb+gfx.
# Those of Thor, which shares the CPU's memory, are called 1g.0gb and the like.
_PROFILE = re.compile(r"[1-9][0-9]?g\.(0|[1-9][0-9]{0,3})gb([+-][a-z]+(\.[a-z]+)*)*")


@dataclass(frozen=True)
class Tier:
    """One entry of ``MigBroker.tiers``.

    ``profile`` is a MIG profile name as the driver says it, ``"whole"`` or ``"none"``. A tier with
    neither ``groups`` nor ``users`` nor ``allow`` is open to everybody; with several of them to
    anyone whom one of them names. ``allow`` is the admin's function of a :class:`~.people.Person`.
    ``approvals`` is how many people have to approve a request, 1 or 2, and ``grant_starts`` how
    often a server may run on a grant (None: as often as its time allows).
    ``seen_by`` are groups that see the tier without being able to use it. ``max_hours`` and
    ``idle_minutes`` are None where there is no limit; ``idle_minutes_when_wanted`` is that limit
    while others wait for what a session has (None: the same), and ``extend_hours`` how long after
    its last use a session may be kept by extending it. ``mig_off`` gives a whole card with MIG
    turned off, which resets an A100; otherwise a whole card is one slice over all of it. ``seats``
    is how many leases of this tier may be on one slice at a time; 1 gives each a slice of its own.
    ``card`` says which cards it means, for slices and whole cards alike; None: any.
    """

    name: str
    title: str
    description: str
    profile: str
    groups: tuple[str, ...] = ()
    users: tuple[str, ...] = ()
    allow: Callable[[Person], object] | None = None
    seen_by: tuple[str, ...] = ()
    seen_by_all: bool = False
    approval: bool = False
    approvals: int = 1
    grant_starts: int | None = None
    max_hours: float | None = None
    idle_minutes: float | None = None
    idle_minutes_when_wanted: float | None = None
    extend_hours: float = EXTEND_HOURS
    default: bool = False
    mig_off: bool = False
    seats: int = 1
    card: CardFilter | None = None

    @property
    def shares(self) -> bool:
        """Whether several leases of this tier share a slice."""
        return self.seats > 1

    @property
    def is_whole(self) -> bool:
        """Whether this tier gives a whole card."""
        return self.profile == WHOLE

    @property
    def is_none(self) -> bool:
        """Whether this tier gives no GPU."""
        return self.profile == NONE

    @property
    def needs_mig(self) -> bool:
        """Whether it gives a slice over all of a card, which one without MIG never has."""
        return self.is_whole and not self.mig_off

    def is_used_up(self, uses: int) -> bool:
        """Whether no more servers may start on a grant on which so many have run."""
        return self.grant_starts is not None and uses >= self.grant_starts

    def means(self, kind: CardKind) -> bool:
        """Whether it gives cards of this kind, or slices of them."""
        if self.needs_mig and not kind.mig:
            return False
        return self.card is None or self.card.matches(kind)

    def kinds(self, known: Iterable[CardKind]) -> Kinds | None:
        """The known kinds of cards that it means; None for any card."""
        every = frozenset(known)
        meant = frozenset(kind for kind in every if self.means(kind))
        return None if self.card is None and meant == every else meant


def tiers_on(
    tiers: Iterable[Tier], kinds: Kinds | None, known: Collection[CardKind]
) -> tuple[Tier, ...]:
    """The tiers that mean any of some ``kinds`` of cards; None for these: of all that are known."""
    if kinds is None:
        return tuple(tiers)
    return tuple(
        tier
        for tier in tiers
        if (means := tier.kinds(known)) is None or not means.isdisjoint(kinds)
    )


def parse_tiers(raw: object, known_as: KnownAs = as_written) -> tuple[Tier, ...]:
    """The tiers of ``MigBroker.tiers``, in the admin's order.

    ``known_as`` gives the hub's names of the people they name.
    Raises :class:`~jupyterhub_migspawner.errors.ConfigError` for anything that is not exactly as
    documented.
    """
    if not isinstance(raw, (list, tuple)):
        raise ConfigError(
            f"MigBroker.tiers is {quoted(raw)}; expected a list of dicts such as "
            "[{'name': 'small', 'profile': '1g.5gb'}]."
        )
    if not raw:
        raise ConfigError("MigBroker.tiers is empty; expected at least one tier.")
    tiers = tuple(
        _parse_tier(position, entry, known_as) for position, entry in enumerate(raw, start=1)
    )
    seen: dict[str, int] = {}
    for position, tier in enumerate(tiers, start=1):
        if tier.name in seen:
            raise ConfigError(
                f"tier {tier.name!r}: field 'name' is {tier.name!r} in tier number "
                f"{seen[tier.name]} and again in tier number {position}; expected each name once."
            )
        seen[tier.name] = position
    defaults = [tier.name for tier in tiers if tier.default]
    if len(defaults) > 1:
        raise ConfigError(
            f"tier {defaults[1]!r}: field 'default' is True, as it is for tier "
            f"{defaults[0]!r}; expected at most one default tier."
        )
    return tiers


def _parse_tier(position: int, raw: object, known_as: KnownAs) -> Tier:
    where = f"tier number {position}"
    if isinstance(raw, Mapping) and isinstance(raw.get("name"), str) and raw["name"]:
        where = f"tier {quoted(raw['name'])}"
    entry = Entry(where, raw, FIELDS)
    if "name" not in entry.raw:
        raise entry.missing("name", "a short name such as 'small'")
    name = entry.raw["name"]
    if not isinstance(name, str) or not _NAME.fullmatch(name) or len(name) > NAME_LIMIT:
        raise entry.wrong(
            "name",
            f"letters, digits, dots, hyphens and underscores, at most {NAME_LIMIT}, "
            "beginning with a letter or digit",
        )
    expected = "a MIG profile such as '1g.5gb', or 'whole' (a whole card), or 'none' (no GPU)"
    if "profile" not in entry.raw:
        raise entry.missing("profile", expected)
    profile = entry.raw["profile"]
    if not isinstance(profile, str) or not (
        profile in (WHOLE, NONE) or _PROFILE.fullmatch(profile)
    ):
        raise entry.wrong("profile", expected)
    if profile == NONE and entry.flag("approval"):
        raise entry.wrong("approval", "False for a tier without a GPU, which needs no approval")
    card = None
    if entry.raw.get("card") is not None:
        card = parse_card_filter(entry.raw["card"])
        if card is None:
            raise entry.wrong("card", EXPECTED)
        if profile == NONE:
            raise entry.wrong("card", "nothing for a tier without a GPU, which is on no card")
    mig = entry.raw.get("mig", "on")
    if mig not in ("on", "off"):
        raise entry.wrong("mig", "'on' (one slice over the whole card) or 'off' (no MIG)")
    if mig == "off" and profile != WHOLE:
        raise entry.wrong("mig", "'on', because only a tier with profile 'whole' can turn MIG off")
    seats = entry.number("seats", 1, SEATS_LIMIT)
    if seats > 1 and profile in (WHOLE, NONE):
        raise entry.wrong(
            "seats", f"1 for a tier with profile {profile!r}: only slices can be shared"
        )
    approvals = entry.number("approvals", 1, 2)
    starts = entry.count("grant_starts", "starts", zero=False)
    for field, value in (("approvals", approvals > 1), ("grant_starts", starts is not None)):
        if value and not entry.flag("approval"):
            raise entry.wrong(field, "nothing, because this tier needs no approval")
    idle = entry.amount("idle_minutes", "minutes", zero=False)
    wanted = entry.amount("idle_minutes_when_wanted", "minutes", zero=False)
    longer = entry.amount("extend_hours", "hours", zero=True)
    if wanted is not None and (idle is None or wanted > idle):
        raise entry.wrong(
            "idle_minutes_when_wanted",
            "at most the 'idle_minutes', because it ends sessions earlier while others wait",
        )
    allow = entry.raw.get("allow")
    if allow is not None and not callable(allow):
        raise entry.wrong("allow", "a function of a person that returns True or False")
    everybody = entry.raw.get("seen_by") == "everybody"
    return Tier(
        name=name,
        title=entry.text("title", name, TITLE_LIMIT) or name,
        description=entry.text("description", "", DESCRIPTION_LIMIT),
        profile=profile,
        groups=entry.names("groups", "vision"),
        users=entry.names("users", "ada", known_as),
        allow=allow,
        seen_by=() if everybody else entry.names("seen_by", "vision"),
        seen_by_all=everybody,
        approval=entry.flag("approval"),
        approvals=approvals,
        grant_starts=starts,
        max_hours=entry.amount("max_hours", "hours", zero=False),
        idle_minutes=idle,
        idle_minutes_when_wanted=wanted,
        extend_hours=EXTEND_HOURS if longer is None else longer,
        default=entry.flag("default"),
        mig_off=mig == "off",
        seats=seats,
        card=card,
    )


def may_use(tier: Tier, person: Person) -> str:
    """Why this person may not use this tier, or an empty string when they may.

    Hub admins get no exception: what they may use is written down like anybody's.
    """
    if not tier.groups and not tier.users and tier.allow is None:
        return ""
    if person.name in tier.users or not person.groups.isdisjoint(tier.groups):
        return ""
    if tier.allow is not None and _allowed(tier, person):
        return ""
    return f"Tier {quoted(tier.title)} is not open to you."


def _allowed(tier: Tier, person: Person) -> bool:
    """What the admin's function says; a function that fails opens nothing."""
    assert tier.allow is not None
    try:
        answer = tier.allow(person)
    except Exception:
        log.exception("The function 'allow' of tier %r failed for %r.", tier.name, person.name)
        return False
    if not isinstance(answer, bool):
        # A coroutine, for one, would count as true.
        log.error(
            "The function 'allow' of tier %r gave %s for %r; expected True or False.",
            tier.name,
            quoted(answer),
            person.name,
        )
        return False
    return answer


def open_tiers(tiers: Sequence[Tier], person: Person) -> tuple[Tier, ...]:
    """The tiers this person may use, in the admin's order."""
    return tuple(tier for tier in tiers if not may_use(tier, person))


def seen_tiers(tiers: Sequence[Tier], person: Person) -> tuple[Tier, ...]:
    """The tiers this person sees, in the admin's order; some of them perhaps without using them."""
    return tuple(
        tier
        for tier in tiers
        if not may_use(tier, person)
        or tier.seen_by_all
        or not person.groups.isdisjoint(tier.seen_by)
    )


def default_tier(tiers: Sequence[Tier], person: Person, default: str | None = None) -> Tier:
    """The tier of a user who picks nothing.

    In this order: the tier named ``default``, the one marked as default, the first that needs no
    approval, the first; always among the tiers the person may use.
    """
    mine = open_tiers(tiers, person)
    if not mine:
        raise Refusal(
            "No tier is available to you; ask the admins of this hub.", reason="not-allowed"
        )
    ranked = sorted(mine, key=lambda tier: (tier.name != default, not tier.default, tier.approval))
    return ranked[0]


def choose_tier(
    tiers: Sequence[Tier], person: Person, options: object, *, default: str | None = None
) -> Tier:
    """The tier that user options name: ``{"tier": NAME}``; ``{}`` or None mean the default tier.

    Raises :class:`~jupyterhub_migspawner.errors.Refusal` with reason ``options`` when the options
    make no sense and ``not-allowed`` when the tier is not open to the person.
    """
    if options is None:
        options = {}
    if not isinstance(options, Mapping):
        raise Refusal(
            f"The options are {quoted(options)}; expected an object such as "
            '{"tier": "NAME"}, or nothing for the default tier.',
            reason="options",
        )
    for key in options:
        if key != "tier":
            raise Refusal(
                f"Unknown option {quoted(key)}{nearest(key, ['tier'])}; the only option is 'tier'.",
                reason="options",
            )
    if "tier" not in options or options["tier"] is None:
        return default_tier(tiers, person, default)
    name = options["tier"]
    mine = [tier.name for tier in open_tiers(tiers, person)]
    known = [_named(tier) for tier in open_tiers(tiers, person)]
    offer = f"You may choose {listed(known, 'or')}." if mine else "No tier is available to you."
    if not isinstance(name, str):
        raise Refusal(
            f"Option 'tier' is {quoted(name)}; expected the name of a tier. {offer}",
            reason="options",
        )
    for tier in tiers:
        if tier.name == name:
            why = may_use(tier, person)
            if why:
                raise Refusal(f"{why} {offer}", reason="not-allowed")
            return tier
    raise Refusal(
        f"There is no tier {quoted(name)}{nearest(name, mine)}. {offer}", reason="options"
    )


def _named(tier: Tier) -> str:
    """What is written to choose it, and what it is called."""
    return tier.name if tier.title == tier.name else f"{tier.name} ({tier.title})"


def choice_holds(tiers: Sequence[Tier], person: Person, options: object) -> bool:
    """Whether a stored choice is still possible for a person; no choice always holds.

    A tier that was renamed, or whose group the person has left, does not.
    """
    if isinstance(options, Mapping) and options.get("tier") is None and options.keys() <= {"tier"}:
        return True
    try:
        choose_tier(tiers, person, options)
    except Refusal:
        return False
    return True
