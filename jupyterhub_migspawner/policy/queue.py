"""The waiting list: who is next, and how long it may take.

Pure and deterministic. Users with little use lately come first among those who came at about the
same time: each GPU-hour of the last seven days costs :data:`WAIT_FOR_AN_HOUR`, at most
:data:`MOST_PENALTY`. Nobody starves: a ticket that :data:`MOST_OVERTAKEN` later ones have overtaken
comes before all that came after it, whatever their people have used.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from statistics import median

from jupyterhub_migspawner.model.cards import CardKind, Kinds
from jupyterhub_migspawner.policy.tiers import Tier
from jupyterhub_migspawner.policy.wording import plural, span

WAIT_FOR_AN_HOUR = timedelta(minutes=6)
"""How much later one GPU-hour of the last seven days makes a ticket count."""

MOST_PENALTY = timedelta(hours=12)
"""No later ticket can overtake one that has waited so long."""

MOST_OVERTAKEN = 10
"""How many later tickets may be served before an earlier one that waits for the same."""

MOST_PAST = 200
"""Past sessions that an expectation is built on, the latest ones."""

LATE = timedelta(minutes=5)
"""A session that is still there this long after its end says nothing about when it will be gone."""

LOW, MEDIUM, HIGH = "low", "medium", "high"


@dataclass(frozen=True)
class Pool:
    """What tickets compete for: slices of one size, seats of one tier, or whole cards.

    ``use`` says how they are used, where several uses are made of the same (``shared by course``);
    ``kinds`` the kinds of cards that they are on, None for any.
    """

    hardware: str
    use: str = ""
    kinds: Kinds | None = None

    def among(self, known: Kinds) -> Kinds:
        """Return those of the known kinds of cards that the pool is on."""
        return known if self.kinds is None else self.kinds & known

    def overlaps(self, other: Pool) -> bool:
        """Tell whether something may be in both pools, also for another use."""
        return self.hardware == other.hardware and _share(self.kinds, other.kinds)

    def is_line_of(self, other: Pool) -> bool:
        """Tell whether who waits for one pool stands in a line with who waits for the other."""
        return self.use == other.use and self.overlaps(other)

    def is_within(self, other: Pool) -> bool:
        """Tell whether all that is in this pool is in the other, too, and for the same use."""
        if (self.hardware, self.use) != (other.hardware, other.use):
            return False
        if self.kinds is None or other.kinds is None:
            return other.kinds is None
        return self.kinds <= other.kinds


def _share(kinds: Kinds | None, others: Kinds | None) -> bool:
    if kinds is None:
        return others is None or bool(others)
    return bool(kinds) if others is None else not kinds.isdisjoint(others)


@dataclass(frozen=True)
class Waiting:
    """A ticket that may be served: ``pools`` are what it would take, best first.

    ``hours`` are the GPU-hours its person has used in the last seven days; ``overtaken`` counts the
    later tickets that were served before it.
    """

    id: int
    created_at: datetime
    pools: tuple[Pool, ...]
    hours: float = 0.0
    overtaken: int = 0

    @property
    def arrival(self) -> tuple[datetime, int]:
        """What makes a ticket an earlier one."""
        return self.created_at, self.id


@dataclass(frozen=True)
class Turn:
    """A ticket that can be served now, and from which pool."""

    id: int
    pool: Pool


def pool_of(tier: Tier, known: Iterable[CardKind] = ()) -> Pool:
    """Return what a lease of this tier takes from; ``known`` are the kinds of cards there are."""
    use = f"shared by {tier.name}" if tier.shares else "with MIG off" if tier.mig_off else ""
    return Pool(tier.profile, use, tier.kinds(known))


def order(tickets: Sequence[Waiting]) -> tuple[Waiting, ...]:
    """Return tickets in the order in which they come: who is first, second and so on."""

    def key(ticket: Waiting) -> tuple[bool, datetime, datetime, int]:
        penalty = min(MOST_PENALTY, ticket.hours * WAIT_FOR_AN_HOUR)
        exhausted = ticket.overtaken >= MOST_OVERTAKEN
        counted = ticket.created_at if exhausted else ticket.created_at + penalty
        return not exhausted, counted, ticket.created_at, ticket.id

    return tuple(sorted(tickets, key=key))


def passed_by(ticket: Waiting, pool: Pool, tickets: Sequence[Waiting]) -> tuple[int, ...]:
    """Return the earlier tickets that would have taken what this one is given from ``pool``."""
    return tuple(
        other.id
        for other in tickets
        if other.arrival < ticket.arrival and any(map(pool.overlaps, other.pools))
    )


def turns(tickets: Sequence[Waiting], room: Mapping[Pool, int]) -> tuple[Turn, ...]:
    """Return who is served with what is free, in this order; ``room`` counts what each pool has."""
    waiting = list(tickets)
    left = dict(room)
    found: list[Turn] = []
    while True:
        turn = _next(waiting, left)
        if turn is None:
            return tuple(found)
        found.append(turn)
        left = _left(left, turn.pool)
        served = next(ticket for ticket in waiting if ticket.id == turn.id)
        passed = set(passed_by(served, turn.pool, waiting))
        waiting = [
            replace(ticket, overtaken=ticket.overtaken + (ticket.id in passed))
            for ticket in waiting
            if ticket.id != turn.id
        ]


def _left(room: Mapping[Pool, int], taken: Pool) -> dict[Pool, int]:
    """Return the room after one was taken from a pool: less of it, and of all it is a part of.

    And no part of a pool has more than the pool.
    """
    fewer = {pool: count - taken.is_within(pool) for pool, count in room.items()}
    return {pool: min(fewer[other] for other in fewer if pool.is_within(other)) for pool in fewer}


def _next(tickets: Sequence[Waiting], room: Mapping[Pool, int]) -> Turn | None:
    for ticket in order(tickets):
        for pool in ticket.pools:
            if room.get(pool, 0) > 0:
                return Turn(ticket.id, pool)
    return None


def position(ticket_id: int, tickets: Sequence[Waiting]) -> int:
    """Return a ticket's position among those that wait for anything it waits for, from 1 on."""
    ranked = order(tickets)
    mine = next(ticket for ticket in ranked if ticket.id == ticket_id)
    place = 1
    for ticket in ranked:
        if ticket.id == ticket_id:
            break
        place += any(one.is_line_of(other) for one in ticket.pools for other in mine.pools)
    return place


def upward(
    tier: Tier, open_tiers: Sequence[Tier], known: Iterable[CardKind] = ()
) -> tuple[Tier, ...]:
    """Return the tier, and those at least as large in compute and memory that need no approval.

    From the smallest on, so that a large slice is not taken where a small one would do. A tier that
    shares its slices takes nobody who asked for a slice of their own, and one that gives other
    cards nobody who asked for certain ones; ``known`` are the kinds of cards there are. One that
    gives nothing but what the tier itself gives is none of them.
    """
    if tier.is_none or tier.is_whole or tier.approval:
        return (tier,)
    compute, memory = _size(tier.profile)
    larger = [
        other
        for other in open_tiers
        if other.name != tier.name
        and not (other.is_none or other.is_whole or other.approval)
        and (tier.shares or not other.shares)
        and is_on_same_cards(tier, other, known)
        and _takes(other) != _takes(tier)
        and _size(other.profile)[0] >= compute
        and _size(other.profile)[1] >= memory
    ]
    return (tier, *sorted(larger, key=lambda other: (*_size(other.profile), other.name)))


def is_on_same_cards(tier: Tier, other: Tier, known: Iterable[CardKind]) -> bool:
    """Tell whether all that ``other`` gives is on cards that ``tier`` means, as far as is known."""
    if tier.card is None or tier.card == other.card:
        return True
    return all(tier.means(kind) for kind in known if other.means(kind))


def _takes(tier: Tier) -> tuple[str, str]:
    """Return what a tier gives of whichever card, and for which use."""
    pool = pool_of(tier)
    return pool.hardware, pool.use


def _size(profile: str) -> tuple[int, int]:
    """Return compute slices and memory in GB, as the name of a MIG profile says them."""
    compute, _, rest = profile.partition("g.")
    return int(compute), int(rest.partition("gb")[0])


@dataclass(frozen=True)
class Occupied:
    """Something that is taken: since when, and until when at the latest (None: not known).

    ``idle_end`` is when it ends because nobody uses it, should that stay so. ``stuck`` says that
    its session has ended, and that its slice should have been proven empty by now.
    """

    since: datetime
    ends_at: datetime | None
    idle_end: datetime | None = None
    stuck: bool = False

    def foreseeable(self, now: datetime) -> bool:
        """Tell whether it is known when this is given back."""
        return not self.stuck and (self.ends_at is None or now - self.ends_at < LATE)


@dataclass(frozen=True)
class Expectation:
    """How long a wait may take; None where nothing is known.

    ``likely`` comes from how long past sessions took and from when idle ones end, ``latest`` from
    the ends of those that run, and holds if all who wait before take as long as they may.
    ``confidence`` is ``low`` below 5 past sessions, ``medium`` below 30, else ``high``;
    ``sessions`` says how many they are. ``stuck`` counts what is left out of all this, since its
    end has passed and it is still not given back.
    """

    likely: timedelta | None
    latest: timedelta | None
    confidence: str
    sessions: int
    stuck: int = 0


def wait_in_words(found: Expectation) -> str:
    """Return an expectation as sentences that say how far to trust it."""
    said = _wait_in_words(found)
    if found.stuck:
        many = found.stuck != 1
        said += (
            f" {plural(found.stuck, 'session')} that should have ended "
            f"{'are' if many else 'is'} left out: it is unknown when "
            f"{'their GPUs are' if many else 'its GPU is'} free."
        )
    return said


def _wait_in_words(found: Expectation) -> str:
    latest = "" if found.latest is None else f", {span(found.latest)} at the latest"
    if found.likely is None:
        if found.latest is None:
            return "The waiting time is unknown: no session that it waits for has a known end."
        return f"It takes {span(found.latest)} at the latest."
    past = plural(found.sessions, "past session")
    ground = f"from {past}" if found.sessions else "based on when current sessions end"
    return f"It takes about {span(found.likely)}{latest} ({found.confidence} confidence, {ground})."


def expected(
    place: int,
    occupied: Sequence[Occupied],
    past: Sequence[timedelta],
    now: datetime,
    *,
    longest: timedelta | None = None,
) -> Expectation:
    """Estimate how long the ticket at ``place`` (from 1 on) waits for one of what is ``occupied``.

    What should have been given back by now is not counted on. ``past`` are the lengths of past
    sessions, ``longest`` is how long one may take at most.
    """
    known = tuple(length for length in past if length >= timedelta(0))
    usual = _usual(known) if known else None
    foreseen = [each for each in occupied if each.foreseeable(now)]
    ends = [_remaining(each, known, now) for each in foreseen]
    limits = [_until(each.ends_at, now) for each in foreseen]
    confidence = LOW if len(known) < 5 else MEDIUM if len(known) < 30 else HIGH
    latest = _turn_of(place, limits, longest)
    likely = _turn_of(place, ends, usual)
    if likely is not None and latest is not None:
        likely = min(likely, latest)
    return Expectation(likely, latest, confidence, len(known), len(occupied) - len(foreseen))


def _remaining(each: Occupied, lengths: Sequence[timedelta], now: datetime) -> timedelta | None:
    """Return what sessions that took longer than this one already has still took from there."""
    age = max(timedelta(0), now - each.since)
    longer = [length - age for length in lengths if length > age]
    usual = _usual(longer) if longer else None
    ends = (usual, _until(each.ends_at, now), _until(each.idle_end, now))
    return min((end for end in ends if end is not None), default=None)


def _usual(lengths: Sequence[timedelta]) -> timedelta:
    return timedelta(seconds=median(length.total_seconds() for length in lengths))


def _until(end: datetime | None, now: datetime) -> timedelta | None:
    return None if end is None else max(timedelta(0), end - now)


def _turn_of(
    place: int, ends: Sequence[timedelta | None], length: timedelta | None
) -> timedelta | None:
    """Return when the ``place``-th gets something, if each before keeps it for ``length``."""
    free = [end for end in ends if end is not None]
    heapq.heapify(free)
    for _ in range(place - 1):
        if not free:
            return None
        begin = heapq.heappop(free)
        if length is not None:
            heapq.heappush(free, begin + length)
    return free[0] if free else None
