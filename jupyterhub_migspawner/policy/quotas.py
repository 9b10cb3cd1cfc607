"""Quotas: how much one person may hold and use.

Relies on values the broker read in the transaction that will take the lease; promises a sentence
that says which quota, how much is used and when it frees. GPU-hours are weighted by the slice's
share of its card's compute: 1g is 1/7 of an A100 and 1/4 of an A30, a whole card counts 1.

Which entry counts, field by field: the entry ``user:NAME`` when it has the field; else the most
generous among the entries of the person's groups that have it; else ``default``. None, or a field
that none of them has, is no limit. An entry with ``cap`` (of a group, or ``default``) then bounds
what the others would give: the least of all caps that hold for the person counts. ``user:NAME`` is
the admin's word about that very person and is bounded by nothing. An exception that an admin has
granted lifts the field it names while it lasts, over everything; it never lowers it.

Counted are all leases whose slice is not proven empty: those of servers that start or run, and
those of sessions that have ended (:mod:`.proof`). Their GPU-hours run until the proof, too: until
then nobody else can have the slice. After an ordinary stop that takes a second or two.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cached_property
from typing import Annotated, Any

from pydantic import Field

from jupyterhub_migspawner.errors import ConfigError
from jupyterhub_migspawner.policy.fields import (
    MOST_NUMBER,
    AtLeast0,
    Entry,
    Expected,
    Flag,
    by_person,
    read_entry,
    user_or_group,
)
from jupyterhub_migspawner.policy.people import KnownAs, Person, as_written
from jupyterhub_migspawner.policy.proof import Ending, in_words
from jupyterhub_migspawner.policy.tiers import Tier
from jupyterhub_migspawner.policy.wording import moment, nearest, number, plural, quoted

WEEK = timedelta(days=7)
MONTH = timedelta(days=30)


_COUNT = f"a whole number of {{}} from 0 to {MOST_NUMBER:,}, or None"

Count = Annotated[int, Field(ge=0, le=MOST_NUMBER)] | None
GpuHours = Annotated[
    AtLeast0 | None, Expected(f"a number of GPU-hours from 0 to {MOST_NUMBER:,}, or None")
]


class Quota(Entry):
    """What one person may have; None is no limit.

    ``servers`` counts running servers, those without a GPU too; ``live`` and ``whole_cards`` count
    leases held at a time; GPU-hours count over the last 7 and the last 30 days. Sessions that have
    ended count in all of them until their slice is proven empty.
    """

    servers: Annotated[Count, Expected(_COUNT.format("servers"))] = None
    live: Annotated[Count, Expected(_COUNT.format("leases"))] = None
    gpu_hours_per_week: GpuHours = None
    gpu_hours_per_month: GpuHours = None
    whole_cards: Annotated[Count, Expected(_COUNT.format("cards"))] = None

    @property
    def counts_hours(self) -> bool:
        """Whether GPU-hours have to be known to check this quota."""
        return self.gpu_hours_per_week is not None or self.gpu_hours_per_month is not None

    @property
    def window(self) -> timedelta:
        """How far back use has to be known for that."""
        return WEEK if self.gpu_hours_per_month is None else MONTH


class CappedQuota(Quota):
    """An entry that may also bound what other entries give: of a group, or ``default``."""

    cap: Flag = False


FIELDS = tuple(Quota.model_fields)

COUNTS = ("servers", "live", "whole_cards")
"""The fields that count; the others are amounts of GPU-hours."""

Lifted = Mapping[str, float | None]
"""Fields that exceptions lift, by name, to how much; None is no limit."""

Limits = Mapping[str, float | None]
"""The fields that one entry has, by name; None is "no limit", said on purpose."""


@dataclass(frozen=True)
class Quotas:
    """All entries of ``MigBroker.quotas``."""

    default: Limits = field(default_factory=dict)
    groups: Mapping[str, Limits] = field(default_factory=dict)
    users: Mapping[str, Limits] = field(default_factory=dict)
    caps: frozenset[str] = frozenset()
    """Names of the groups whose entries are caps; the empty name is ``default``."""

    def for_person(self, person: Person, lifted: Lifted | None = None) -> Quota:
        """Return the quota of this person, by the rule in the module's description."""
        chosen: dict[str, Any] = {}
        for name in self._named.union(lifted or ()):
            limit = self._limit(name, person)
            if lifted and name in lifted:
                limit = most((limit, lifted[name]))
            chosen[name] = int(limit) if limit is not None and name in COUNTS else limit
        return Quota(**chosen)

    @cached_property
    def _named(self) -> frozenset[str]:
        """The fields that any entry has: most configurations set one or two of them."""
        return frozenset().union(self.default, *self.groups.values(), *self.users.values())

    @property
    def sets_any(self) -> bool:
        """Whether anybody has a limit at all."""
        return bool(self._named)

    def _limit(self, name: str, person: Person) -> float | None:
        own = self.users.get(person.name, {})
        if name in own:
            return own[name]
        caps = [self.default[name]] if "" in self.caps and name in self.default else []
        caps += [
            limits[name]
            for group, limits in self.groups.items()
            if group in self.caps and group in person.groups and name in limits
        ]
        return least((self._generous(name, person), *caps))

    def _generous(self, name: str, person: Person) -> float | None:
        of_groups = [
            limits[name]
            for group, limits in self.groups.items()
            if group in person.groups and name in limits
        ]
        if of_groups:
            return most(of_groups)
        return self.default.get(name)


def most(limits: Iterable[float | None]) -> float | None:
    """Return the most generous of some limits; None is no limit."""
    some = list(limits)
    return None if None in some else max(limit for limit in some if limit is not None)


def least(limits: Iterable[float | None]) -> float | None:
    """Return the least of some limits; None, which is no limit, only when all are."""
    return min((limit for limit in limits if limit is not None), default=None)


@dataclass(frozen=True)
class Span:
    """A time in which a person held a share of a card; ``end`` is None while it lasts."""

    start: datetime
    end: datetime | None
    share: float


@dataclass(frozen=True)
class Usage:
    """What a person holds and has used, as of ``now`` (aware, UTC).

    ``live`` and ``whole_cards`` count leases of servers that run or start. ``servers`` are the
    person's other servers that run or start, as the hub knows them. ``ending`` are the sessions
    that have ended but are not proven empty; they count as well.
    """

    now: datetime
    live: int = 0
    whole_cards: int = 0
    spans: Sequence[Span] = ()
    servers: int = 0
    ending: tuple[Ending, ...] = ()

    def settled(self) -> Usage:
        """Return the use without sessions that ended a moment ago and are soon proven empty."""
        stuck = tuple(each for each in self.ending if each.overdue(self.now))
        return replace(self, ending=stuck)

    def counted(self, field: str) -> int:
        """Return how much of a quota that counts (:data:`COUNTS`) is used."""
        return int(getattr(self, field)) + len(self.ending_in(field))

    def ending_in(self, field: str) -> tuple[Ending, ...]:
        """Return the sessions that have ended and still count in a quota of :data:`COUNTS`."""
        return tuple(
            each
            for each in self.ending
            if field == "live"
            or (field == "servers" and each.counts_as_server)
            or (field == "whole_cards" and each.whole)
        )

    def gpu_hours(self, window: timedelta, at: datetime | None = None) -> float:
        """Return the weighted hours used in the window that ends at ``at``, if all ended now."""
        end_of_window = at or self.now
        begin = end_of_window - window
        total = 0.0
        for span in self.spans:
            end = self.now if span.end is None else min(span.end, self.now)
            seconds = (end - max(span.start, begin)).total_seconds()
            total += max(0.0, seconds) * span.share
        return total / 3600

    def frees_at(self, window: timedelta, limit: float) -> datetime | None:
        """Return when the window's use falls below ``limit`` (to the minute); None for never."""
        if limit <= 0:
            return None
        low, high = 0, int(window.total_seconds() // 60) + 1
        while low < high:
            middle = (low + high) // 2
            if self.gpu_hours(window, self.now + timedelta(minutes=middle)) < limit:
                high = middle
            else:
                low = middle + 1
        return self.now + timedelta(minutes=low)


def parse_quotas(raw: object, known_as: KnownAs = as_written) -> Quotas:
    """Read ``MigBroker.quotas``: ``"default"``, ``"group:NAME"`` and ``"user:NAME"`` to fields.

    None or an empty dict sets no quota; ``known_as`` gives the hub's names of people. Raises
    :class:`~jupyterhub_migspawner.errors.ConfigError` naming entry, field, found and expected.
    """
    if raw is None:
        return Quotas()
    if not isinstance(raw, Mapping):
        raise ConfigError(
            f"MigBroker.quotas is {quoted(raw)}; expected a dict such as "
            "{'default': {'live': 1}, 'group:vision': {'live': 2}}."
        )
    default: Limits = {}
    groups: dict[str, Limits] = {}
    users: list[tuple[str, Limits]] = []
    caps: set[str] = set()
    for key, value in raw.items():
        kind, name = ("default", "") if key == "default" else user_or_group(key)
        if not kind:
            raise ConfigError(
                f"MigBroker.quotas: unknown entry {quoted(key)}{nearest(key, ['default'])}; "
                "expected 'default', 'group:NAME' or 'user:NAME'."
            )
        model = Quota if kind == "user" else CappedQuota
        entry = read_entry(model, f"quota {quoted(key)}", value)
        limits = entry.model_dump(include=set(FIELDS), exclude_unset=True)
        if kind == "user":
            users.append((name, limits))
        elif kind == "group":
            groups[name] = limits
        else:
            default = limits
        if isinstance(entry, CappedQuota) and entry.cap:
            caps.add(name)
    return Quotas(default, groups, by_person("MigBroker.quotas", users, known_as), frozenset(caps))


def check(quota: Quota, used: Usage, tier: Tier) -> str:
    """Explain why one more lease of this tier would exceed the quota; empty when it would not."""
    for name, most_of, what, counts in (
        ("servers", quota.servers, "server", True),
        ("live", quota.live, "GPU server", not tier.is_none),
        ("whole_cards", quota.whole_cards, "whole card", tier.is_whole),
    ):
        have = used.counted(name)
        if counts and most_of is not None and have >= most_of:
            return (
                f"Your quota allows {plural(most_of, what)} at a time and you have "
                f"{have}. {_way_out(most_of, have, used.ending_in(name))}"
            )
    if tier.is_none:
        return ""
    for limit, window in ((quota.gpu_hours_per_week, WEEK), (quota.gpu_hours_per_month, MONTH)):
        if limit is None:
            continue
        hours = used.gpu_hours(window)
        if hours < limit:
            continue
        frees = used.frees_at(window, limit)
        when = (
            "A tier without a GPU is not limited."
            if frees is None
            else f"You can use more from {moment(frees)}, if you use nothing until then."
        )
        return (
            f"Your quota allows {number(limit)} GPU-hours in {window.days} days and you "
            f"have used {number(hours)}. {when}"
        )
    return ""


def standing(
    quota: Quota, used: Usage
) -> tuple[tuple[str, float | None, float, datetime | None], ...]:
    """Return each field with its limit, what is used, and when it frees if it is used up.

    A count frees when something is stopped, which is no time that is known.
    """
    found: list[tuple[str, float | None, float, datetime | None]] = [
        ("servers", quota.servers, used.counted("servers"), None),
        ("live", quota.live, used.counted("live"), None),
        ("whole_cards", quota.whole_cards, used.counted("whole_cards"), None),
    ]
    for name, limit, window in (
        ("gpu_hours_per_week", quota.gpu_hours_per_week, WEEK),
        ("gpu_hours_per_month", quota.gpu_hours_per_month, MONTH),
    ):
        if limit is not None:
            hours = used.gpu_hours(window)
            frees = used.frees_at(window, limit) if hours >= limit else None
            found.append((name, limit, hours, frees))
    return tuple(each for each in found if each[1] is not None)


def _way_out(limit: int, have: int, ending: Sequence[Ending]) -> str:
    if limit == 0:
        return "Choose a tier that your quota allows, or ask the admins of this hub."
    over = have - len(ending) - limit + 1
    if over > 0:
        these = "it" if have == 1 else "one of them" if over == 1 else f"{over} of them"
        return f"Stop {these} to start another."
    words = in_words(ending)
    return words if have == len(ending) else f"{words} You can also stop a running one."
