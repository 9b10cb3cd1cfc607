"""Quotas: how much one person may hold and use.

Relies on values the broker read in the transaction that will take the lease; promises a sentence
that says which quota, how much is used and when it frees. GPU-hours are weighted by the slice's
share of its card's compute: 1g is 1/7 of an A100 and 1/4 of an A30, a whole card counts 1.

Which entry counts, field by field: the entry ``user:NAME`` when it has the field; else the most
generous among the entries of the person's groups that have it; else ``default``. None, or a field
that none of them has, is no limit.

Held now means pending and active leases. One that is being given back no longer counts as held,
so that a server can be started again at once, but its GPU-hours run until the slice is empty.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta

from jupyterhub_migspawner.errors import ConfigError
from jupyterhub_migspawner.policy.fields import NAME_LIMIT, Entry
from jupyterhub_migspawner.policy.people import Person
from jupyterhub_migspawner.policy.tiers import Tier
from jupyterhub_migspawner.policy.wording import moment, nearest, number, plural, quoted

WEEK = timedelta(days=7)
MONTH = timedelta(days=30)


@dataclass(frozen=True)
class Quota:
    """What one person may have; None is no limit.

    ``live`` and ``whole_cards`` count leases held at a time; GPU-hours count over the last 7 and
    the last 30 days.
    """

    live: int | None = None
    gpu_hours_per_week: float | None = None
    gpu_hours_per_month: float | None = None
    whole_cards: int | None = None

    @property
    def counts_hours(self) -> bool:
        """Whether GPU-hours have to be known to check this quota."""
        return self.gpu_hours_per_week is not None or self.gpu_hours_per_month is not None

    @property
    def window(self) -> timedelta:
        """How far back use has to be known for that."""
        return WEEK if self.gpu_hours_per_month is None else MONTH


FIELDS = tuple(f.name for f in fields(Quota))

Limits = Mapping[str, float | None]
"""The fields that one entry has, by name; None is "no limit", said on purpose."""


@dataclass(frozen=True)
class Quotas:
    """All entries of ``MigBroker.quotas``."""

    default: Limits = field(default_factory=dict)
    groups: Mapping[str, Limits] = field(default_factory=dict)
    users: Mapping[str, Limits] = field(default_factory=dict)

    def for_person(self, person: Person) -> Quota:
        """The quota of this person, by the rule in the module's description."""
        chosen = {name: self._limit(name, person) for name in FIELDS}
        live, whole = chosen["live"], chosen["whole_cards"]
        return Quota(
            live=None if live is None else int(live),
            gpu_hours_per_week=chosen["gpu_hours_per_week"],
            gpu_hours_per_month=chosen["gpu_hours_per_month"],
            whole_cards=None if whole is None else int(whole),
        )

    def _limit(self, name: str, person: Person) -> float | None:
        own = self.users.get(person.name, {})
        if name in own:
            return own[name]
        of_groups = [
            limits[name]
            for group, limits in self.groups.items()
            if group in person.groups and name in limits
        ]
        if of_groups:
            known = [limit for limit in of_groups if limit is not None]
            return max(known) if len(known) == len(of_groups) else None
        return self.default.get(name)


@dataclass(frozen=True)
class Span:
    """A time in which a person held a share of a card; ``end`` is None while it lasts."""

    start: datetime
    end: datetime | None
    share: float


@dataclass(frozen=True)
class Usage:
    """What a person holds and has used, as of ``now`` (aware, UTC)."""

    now: datetime
    live: int = 0
    whole_cards: int = 0
    spans: Sequence[Span] = ()

    def gpu_hours(self, window: timedelta, at: datetime | None = None) -> float:
        """Weighted hours used in the window that ends at ``at``, if all that runs ended now."""
        end_of_window = at or self.now
        begin = end_of_window - window
        total = 0.0
        for span in self.spans:
            end = self.now if span.end is None else min(span.end, self.now)
            seconds = (end - max(span.start, begin)).total_seconds()
            total += max(0.0, seconds) * span.share
        return total / 3600

    def frees_at(self, window: timedelta, limit: float) -> datetime | None:
        """When the window's use falls below ``limit`` (to the minute); None when it never does."""
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


def parse_quotas(raw: object) -> Quotas:
    """``MigBroker.quotas``: ``"default"``, ``"group:NAME"`` and ``"user:NAME"`` to their fields.

    None or an empty dict sets no quota. Raises
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
    users: dict[str, Limits] = {}
    for key, value in raw.items():
        kind, _, name = key.partition(":") if isinstance(key, str) else ("", "", "")
        if key == "default":
            default = _parse_limits(key, value)
        elif kind in ("group", "user") and name.strip() and len(name) <= NAME_LIMIT:
            (groups if kind == "group" else users)[name] = _parse_limits(key, value)
        else:
            raise ConfigError(
                f"MigBroker.quotas: unknown entry {quoted(key)}{nearest(key, ['default'])}; "
                "expected 'default', 'group:NAME' or 'user:NAME'."
            )
    return Quotas(default, groups, users)


def _parse_limits(key: str, raw: object) -> Limits:
    entry = Entry(f"quota {quoted(key)}", raw, FIELDS)
    limits: dict[str, float | None] = {}
    for name in FIELDS:
        if name not in entry.raw:
            continue
        if name in ("live", "whole_cards"):
            limits[name] = entry.count(name, "leases" if name == "live" else "cards", zero=True)
        else:
            limits[name] = entry.amount(name, "GPU-hours", zero=True)
    return limits


def check(quota: Quota, used: Usage, tier: Tier) -> str:
    """Why one more lease of this tier would exceed the quota; empty when it would not."""
    if tier.is_none:
        return ""
    if quota.live is not None and used.live >= quota.live:
        return (
            f"Your quota allows {plural(quota.live, 'GPU server')} at a time (live) and you have "
            f"{used.live}. " + _stop_one(quota.live)
        )
    if tier.is_whole and quota.whole_cards is not None and used.whole_cards >= quota.whole_cards:
        return (
            f"Your quota allows {plural(quota.whole_cards, 'whole card')} at a time (whole_cards) "
            f"and you have {used.whole_cards}. " + _stop_one(quota.whole_cards)
        )
    for name, limit, window in (
        ("gpu_hours_per_week", quota.gpu_hours_per_week, WEEK),
        ("gpu_hours_per_month", quota.gpu_hours_per_month, MONTH),
    ):
        if limit is None:
            continue
        hours = used.gpu_hours(window)
        if hours < limit:
            continue
        frees = used.frees_at(window, limit)
        when = (
            "A tier without a GPU is not limited."
            if frees is None
            else f"It frees from {moment(frees)} on, if you hold nothing until then."
        )
        return (
            f"Your quota allows {number(limit)} GPU-hours in {window.days} days ({name}) and you "
            f"have used {number(hours)}. {when}"
        )
    return ""


def _stop_one(limit: int) -> str:
    if limit == 0:
        return "Choose a tier that your quota allows, or ask the administrators of this hub."
    return "It frees as soon as you stop one of them."
