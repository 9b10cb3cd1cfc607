"""Tiers: what a researcher picks, and who may pick it.

Relies on the admin's list of dicts and on :class:`~.people.Person`; promises that a wrong list is
refused with the tier, the field, what was found and what was expected, and that what a person may
use is decided from configuration and groups alone. A person learns of a tier that is not theirs
at most that it exists.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Annotated, Literal

from pydantic import (
    BeforeValidator,
    Field,
    PlainValidator,
    ValidationInfo,
    field_validator,
    model_validator,
)

from jupyterhub_migspawner.errors import ConfigError, Refusal
from jupyterhub_migspawner.model.cards import CardKind, Kinds
from jupyterhub_migspawner.policy.card_filter import EXPECTED, CardFilter, parse_card_filter
from jupyterhub_migspawner.policy.fields import (
    MOST_NUMBER,
    Above0,
    AtLeast0,
    Entry,
    Expected,
    Flag,
    Groups,
    Names,
    Users,
    misfit,
    read_entry,
)
from jupyterhub_migspawner.policy.people import KnownAs, Person, as_written
from jupyterhub_migspawner.policy.wording import listed, nearest, quoted, resources

log = logging.getLogger("migspawner.policy")

WHOLE = "whole"
"""Profile of a tier that gives a whole card."""

NONE = "none"
"""Profile of a tier without a GPU."""

EXTEND_HOURS = 8.0
"""How long a session that is not in use may be kept by extending it, unless its tier says so."""

# Names reach form values, URLs and metric labels.
_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"

# As drivers name GPU instance profiles: 1g.5gb, 1g.5gb+me, 1g.24gb+me.all, 1g.24gb-me, 2g.48gb+gfx.
# Those of Thor, which shares the CPU's memory, are called 1g.0gb and the like.
_PROFILE = rf"^({WHOLE}|{NONE}|[1-9][0-9]?g\.(0|[1-9][0-9]{{0,3}})gb([+-][a-z]+(\.[a-z]+)*)*)$"


def _card_filter(value: object) -> CardFilter | None:
    found = None if value is None else parse_card_filter(value)
    if found is None and value is not None:
        raise ValueError
    return found


_ABOVE_0 = f"a number of {{}} above 0, up to {MOST_NUMBER:,}, or None"

Hours = Annotated[Above0 | None, Expected(_ABOVE_0.format("hours"))]
Minutes = Annotated[Above0 | None, Expected(_ABOVE_0.format("minutes"))]

# The kernel divides a CPU in periods of 100 ms, and gives out no less than 1 ms of each
# (sched-bwc.rst of its documentation).
_LEAST = 0.01
_AT_LEAST = f"a number of {{}} from {_LEAST} to {MOST_NUMBER:,}, or None"
Resource = Annotated[float, Field(ge=_LEAST, le=MOST_NUMBER)] | None


class Tier(Entry):
    """One entry of ``MigBroker.tiers``.

    ``profile`` is a MIG profile name as the driver says it, ``"whole"`` or ``"none"``. A tier with
    neither ``groups`` nor ``users`` nor ``allow`` is open to everybody; with several of them to
    anyone whom one of them names. ``allow`` is the admin's function of a :class:`~.people.Person`.
    ``seen_by`` are groups that see the tier without being able to use it, or ``"everybody"``.
    ``approvals`` is how many people have to approve a request, 1 or 2, and ``grant_starts`` how
    often a server may run on a grant (None: as often as its time allows).
    ``max_hours`` and ``idle_minutes`` are None where there is no limit;
    ``idle_minutes_when_wanted`` is that limit while others wait for what a session has (None: the
    same), and ``extend_hours`` how long after its last use a session may be kept by extending it.
    ``mig`` says whether a whole card is one slice over all of it, or has MIG turned off, which
    resets an A100. ``seats`` is how many leases of this tier may be on one slice at a time; 1 gives
    each a slice of its own. ``cpus`` and ``memory_gib`` (in GiB) are how much of the machine's CPUs
    and main memory each server may use; None: as the hub's own configuration limits it. ``card``
    says which cards it means, for slices and whole cards alike; None: any.
    """

    name: Annotated[
        str,
        Field(pattern=_NAME, max_length=64),
        Expected(
            "letters, digits, dots, hyphens and underscores, at most 64, beginning with a letter "
            "or digit, such as 'small'"
        ),
    ]
    title: Annotated[
        str,
        Field(max_length=200, validate_default=True),
        Expected("text of at most 200 characters"),
    ] = ""
    description: Annotated[
        str, Field(max_length=2000), Expected("text of at most 2000 characters")
    ] = ""
    profile: Annotated[
        str,
        Field(pattern=_PROFILE),
        Expected("a MIG profile such as '1g.5gb', or 'whole' (a whole card), or 'none' (no GPU)"),
    ]
    card: Annotated[CardFilter | None, PlainValidator(_card_filter), Expected(EXPECTED)] = None
    groups: Groups = ()
    users: Users = ()
    allow: Annotated[
        Callable[[Person], object] | None,
        Expected("a function of a person that returns True or False"),
    ] = None
    seen_by: Annotated[
        Names | Literal["everybody"],
        Expected("a list of names such as ['vision'], or 'everybody'"),
    ] = ()
    approval: Flag = False
    approvals: Annotated[int, Field(ge=1, le=2), Expected("a whole number from 1 to 2")] = 1
    grant_starts: Annotated[
        Annotated[int, Field(ge=1, le=MOST_NUMBER)] | None,
        Expected(f"a whole number of starts from 1 to {MOST_NUMBER:,}, or None"),
    ] = None
    max_hours: Hours = None
    idle_minutes: Minutes = None
    idle_minutes_when_wanted: Minutes = None
    extend_hours: Annotated[
        AtLeast0,
        BeforeValidator(lambda value: EXTEND_HOURS if value is None else value),
        Expected(f"a number of hours from 0 to {MOST_NUMBER:,}, or None"),
    ] = EXTEND_HOURS
    default: Flag = False
    mig: Annotated[
        Literal["on", "off"], Expected("'on' (one slice over the whole card) or 'off' (no MIG)")
    ] = "on"
    seats: Annotated[int, Field(ge=1, le=16), Expected("a whole number from 1 to 16")] = 1
    cpus: Annotated[Resource, Expected(_AT_LEAST.format("CPUs"))] = None
    memory_gib: Annotated[Resource, Expected(_AT_LEAST.format("GiB"))] = None

    @field_validator("title")
    @classmethod
    def _title_or_name(cls, title: str, info: ValidationInfo) -> str:
        return title or info.data.get("name", "")

    @model_validator(mode="after")
    def _fits_together(self) -> Tier:
        if self.is_none and self.approval:
            raise misfit("approval", "False for a tier without a GPU, which needs no approval")
        if self.is_none and self.card is not None:
            raise misfit("card", "nothing for a tier without a GPU, which is on no card")
        if self.mig_off and not self.is_whole:
            raise misfit("mig", "'on', because only a tier with profile 'whole' can turn MIG off")
        if self.shares and (self.is_whole or self.is_none):
            only = f"1 for a tier with profile {self.profile!r}: only slices can be shared"
            raise misfit("seats", only)
        if self.approvals > 1 and not self.approval:
            raise misfit("approvals", "nothing, because this tier needs no approval")
        if self.grant_starts is not None and not self.approval:
            raise misfit("grant_starts", "nothing, because this tier needs no approval")
        idle, wanted = self.idle_minutes, self.idle_minutes_when_wanted
        if wanted is not None and (idle is None or wanted > idle):
            raise misfit(
                "idle_minutes_when_wanted",
                "at most the 'idle_minutes', because it ends sessions earlier while others wait",
            )
        return self

    @property
    def seeing_groups(self) -> tuple[str, ...]:
        """The groups in ``seen_by``; none where everybody sees it."""
        return () if self.seen_by == "everybody" else self.seen_by

    @property
    def mig_off(self) -> bool:
        """Whether it gives whole cards with MIG turned off."""
        return self.mig == "off"

    @property
    def shares(self) -> bool:
        """Whether several leases of this tier share a slice."""
        return self.seats > 1

    @property
    def resources(self) -> str:
        """What of the machine each server may use, in words; empty where this tier limits none."""
        return resources(self.cpus, self.memory_gib)

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
        """Tell whether no more servers may start on a grant on which so many have run."""
        return self.grant_starts is not None and uses >= self.grant_starts

    def means(self, kind: CardKind) -> bool:
        """Tell whether it gives cards of this kind, or slices of them."""
        if self.needs_mig and not kind.mig:
            return False
        return self.card is None or self.card.matches(kind)

    def kinds(self, known: Iterable[CardKind]) -> Kinds | None:
        """Return the known kinds of cards that it means; None for any card."""
        every = frozenset(known)
        meant = frozenset(kind for kind in every if self.means(kind))
        return None if self.card is None and meant == every else meant


def tiers_on(
    tiers: Iterable[Tier], kinds: Kinds | None, known: Collection[CardKind]
) -> tuple[Tier, ...]:
    """Return the tiers that mean any of some ``kinds`` of cards, or any known kind for None."""
    if kinds is None:
        return tuple(tiers)
    return tuple(
        tier
        for tier in tiers
        if (means := tier.kinds(known)) is None or not means.isdisjoint(kinds)
    )


def parse_tiers(raw: object, known_as: KnownAs = as_written) -> tuple[Tier, ...]:
    """Read the tiers of ``MigBroker.tiers``, in the admin's order.

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
    name = raw.get("name") if isinstance(raw, Mapping) else None
    where = f"tier {quoted(name)}" if isinstance(name, str) and name else f"tier number {position}"
    return read_entry(Tier, where, raw, known_as)


def may_use(tier: Tier, person: Person) -> str:
    """Explain why this person may not use this tier; return an empty string when they may.

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
    """Ask the admin's function; one that fails opens nothing."""
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
    """Return the tiers this person may use, in the admin's order."""
    return tuple(tier for tier in tiers if not may_use(tier, person))


def seen_tiers(tiers: Sequence[Tier], person: Person) -> tuple[Tier, ...]:
    """Return the tiers this person sees, also without using them, in the admin's order."""
    return tuple(
        tier
        for tier in tiers
        if not may_use(tier, person)
        or tier.seen_by == "everybody"
        or not person.groups.isdisjoint(tier.seeing_groups)
    )


def default_tier(tiers: Sequence[Tier], person: Person, default: str | None = None) -> Tier:
    """Return the tier of a user who picks nothing.

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
    """Return the tier that user options name; the default one for ``{}`` or None.

    The options are ``{"tier": NAME}``.

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
    wanted = next((tier for tier in tiers if tier.name == name), None)
    why = "" if wanted is None else may_use(wanted, person)
    if wanted is not None and not why:
        return wanted
    # Only a refusal names the others: to look through them means asking each tier's own function.
    mine = open_tiers(tiers, person)
    known = [_named(tier) for tier in mine]
    offer = f"You may choose {listed(known, 'or')}." if mine else "No tier is available to you."
    if not isinstance(name, str):
        raise Refusal(
            f"Option 'tier' is {quoted(name)}; expected the name of a tier. {offer}",
            reason="options",
        )
    if why:
        raise Refusal(f"{why} {offer}", reason="not-allowed")
    names = [tier.name for tier in mine]
    raise Refusal(
        f"There is no tier {quoted(name)}{nearest(name, names)}. {offer}", reason="options"
    )


def _named(tier: Tier) -> str:
    """Return what is written to choose it, and its title."""
    return tier.name if tier.title == tier.name else f"{tier.name} ({tier.title})"


def choice_holds(tiers: Sequence[Tier], person: Person, options: object) -> bool:
    """Tell whether a stored choice is still possible for a person; no choice always holds.

    A tier that was renamed, or whose group the person has left, does not.
    """
    if isinstance(options, Mapping) and options.get("tier") is None and options.keys() <= {"tier"}:
        return True
    try:
        choose_tier(tiers, person, options)
    except Refusal:
        return False
    return True
