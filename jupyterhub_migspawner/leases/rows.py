"""What the lease database holds, as plain values.

Frozen dataclasses, one a table, as :mod:`.store` hands them out. Every time is an aware datetime
in UTC; memory is in MiB; ``compute_slices`` counts compute slices of the card (7 on an A100).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from jupyterhub_migspawner.policy.card_filter import CardKind
from jupyterhub_migspawner.policy.proof import is_overdue

Want = tuple[str, int]
"""A profile name and the memory slot at which it starts."""

Layout = tuple[Want, ...]
"""What a card is cut into, sorted by start."""

PENDING = "pending"
ACTIVE = "active"
RELEASING = "releasing"
RELEASED = "released"
LOST = "lost"

HELD = (PENDING, ACTIVE)
"""States in which a server of the user is expected to run on the lease."""

MIG_OFF: Want = ("whole", 0)
"""Stands in a card's target, and for its slice, where the card is lent with MIG off."""

LIVE = (PENDING, ACTIVE, RELEASING)
"""States in which nobody else may get the seat."""


DEFAULT_HUB = "hub"
"""What a hub is called that shares its lease database with no other."""


@dataclass(frozen=True)
class HubRow:
    """A hub that lends from this database: its name, where it lives, when its service last spoke.

    ``home`` is a machine and a configuration file, which stay what they are when a hub restarts.
    """

    name: str
    home: str
    seen_at: datetime | None


@dataclass(frozen=True)
class NodeRow:
    """A machine with cards, when its agent last reported, and from which boot of its kernel."""

    name: str
    heartbeat_at: datetime
    driver_version: str
    boot_id: str | None = None


@dataclass(frozen=True)
class CardRow:
    """One physical GPU.

    ``layout`` is the base layout it returns to, ``target`` what it is to be cut into now (None when
    it needs nothing). ``state`` is ``ok``, ``draining`` or ``lost``. ``compute_slices`` is the
    number of the card's largest profile; ``whole`` the profile and start that take all of it, None
    while unknown (MIG off, or not allowed to ask). ``mig_wanted`` is False where the layout is a
    card with MIG off; ``layout_by`` says who set the layout and is empty while it is only what was
    found. ``reserved_for`` is the grant for which the card is being emptied, or None;
    ``reserved_until`` says how long it is kept, once it is empty.
    ``drained`` is why it is drained, or empty; that holds for a lost card, too.
    ``incomplete`` says that it has GPU instances that are no slices, left from a cut that crashed.
    """

    uuid: str
    node: str
    index: int
    model: str
    memory_mib: int
    mig_enabled: bool
    state: str
    layout: Layout
    target: Layout | None
    problem: str
    compute_slices: int = 0
    whole: Want | None = None
    mig_wanted: bool = True
    layout_by: str = ""
    reserved_for: int | None = None
    reserved_until: datetime | None = None
    problem_since: datetime | None = None
    incomplete: bool = False
    drained: str = ""

    @property
    def kind(self) -> CardKind:
        """What tiers know it by."""
        return CardKind(self.model, self.memory_mib, self.mig_enabled or self.mig_wanted)


@dataclass(frozen=True)
class SliceRow:
    """One GPU instance with its one full compute instance, as last seen.

    Known by (card, profile, start). ``present`` is False when the last inventory did not list it or
    it is being destroyed; ``wanted`` False when its card's layout does not have it;
    ``quarantined`` is the reason it is given to nobody, or an empty string.
    """

    id: int
    node: str
    card_uuid: str
    card_index: int
    profile: str
    start: int
    size: int
    compute_slices: int
    memory_mib: int
    whole: bool
    uuid: str | None
    gi_id: int | None
    ci_id: int | None
    present: bool
    quarantined: str
    wanted: bool = True


@dataclass(frozen=True)
class LeaseRow:
    """A slice held by one server of one user, from before launch until it is proven empty.

    ``deadline`` is set while pending, ``ends_at`` where tier or grant limit the time,
    ``releasing_at`` when the lease began to end and ``ended_at`` when the slice was empty. Of a
    lease that was lost with its card, ``releasing_at`` is when its server was found to be over.
    ``waiting_for`` says why it is still releasing. ``share`` is the part of the card's compute.
    ``hub`` is the one whose user and server these are. ``ticket_id`` is set where no server has
    begun to start on it: it is held for the ticket of that number, until ``deadline``. ``started``
    is when the hub began this start of the server, by its own clock; None when it is not known.
    """

    id: int
    attempt: str
    user: str
    server: str
    tier: str
    state: str
    slice_id: int
    slice_uuid: str | None
    node: str
    card_uuid: str
    profile: str
    memory_mib: int
    since: datetime
    deadline: datetime | None
    ends_at: datetime | None
    ended_at: datetime | None
    end_reason: str
    waiting_for: str
    request_id: int | None
    releasing_at: datetime | None = None
    start: int = 0
    seat: int = 0
    whole: bool = False
    share: float = 0.0
    hub: str = DEFAULT_HUB
    ticket_id: int | None = None
    started: datetime | None = None

    @property
    def live(self) -> bool:
        """Whether the slice is still taken by this lease."""
        return self.state in LIVE

    @property
    def ending(self) -> bool:
        """Whether its session has ended, and its slice is not proven empty."""
        return self.state == RELEASING

    @property
    def stranded(self) -> bool:
        """Whether its card was lost, and its server may still run, without a GPU."""
        return self.state == LOST and self.releasing_at is None and self.ticket_id is None

    def overdue(self, now: datetime) -> bool:
        """Whether its slice should have been proven empty by now; something keeps it."""
        return self.ending and is_overdue(self.releasing_at or self.since, now)

    def known_end(self, now: datetime) -> datetime | None:
        """When it ends at the latest; None when nobody can say."""
        return None if self.overdue(now) else self.ends_at


@dataclass(frozen=True)
class OrphanRow:
    """A server that runs on a slice although this database has no lease for its attempt.

    ``start`` is None where only the slice's UUID is known. ``identity`` and ``generation`` are of
    the database that lent the slice. ``vouched`` says that the hub names the server as running;
    what else is here is its word then, and that of the processes' marks otherwise. ``pids`` are
    processes that carry the mark, as the node's agent last saw them. ``found_at`` is when it was
    found; of one that its hub does not run any more, when the hub said so. ``started`` is when the
    hub began the start, by its own clock. ``url`` and ``sealed`` are how the server is asked, with
    its token sealed for this attempt (:mod:`..keys`); empty where the hub has not saved them.
    """

    attempt: str
    node: str = ""
    card_uuid: str = ""
    profile: str = ""
    start: int | None = None
    slice_uuid: str = ""
    identity: str = ""
    generation: int = 0
    hub: str = ""
    user: str = ""
    server: str = ""
    tier: str = ""
    since: datetime | None = None
    ends_at: datetime | None = None
    request_id: int | None = None
    vouched: bool = False
    pids: tuple[int, ...] = ()
    found_at: datetime | None = None
    started: datetime | None = None
    url: str = ""
    sealed: str = ""

    @property
    def was_vouched(self) -> bool:
        """Whether its hub once named it: no process's mark says since when it runs."""
        return self.since is not None


@dataclass(frozen=True)
class RequestRow:
    """An application for a tier that needs approval; an approved one is a grant.

    ``starts_at`` is the requested start (None: at once), ``valid_from`` and ``valid_until`` when
    it is a grant. ``groups`` are its user's when they asked. ``first_by`` is the first of two
    approvers; ``uses`` counts the servers that have run on it.
    """

    id: int
    user: str
    tier: str
    hours: float
    reason: str
    state: str
    created_at: datetime
    decided_by: str
    decided_at: datetime | None
    decision_reason: str
    valid_until: datetime | None
    hub: str = DEFAULT_HUB
    groups: tuple[str, ...] = ()
    starts_at: datetime | None = None
    valid_from: datetime | None = None
    first_by: str = ""
    uses: int = 0

    def holds_at(self, now: datetime) -> bool:
        """Whether it is a grant then."""
        if self.state != "approved" or self.valid_until is None or self.valid_until <= now:
            return False
        return self.valid_from is None or self.valid_from <= now


@dataclass(frozen=True)
class DraftRow:
    """A draft: as it was typed, checked only when it is filed."""

    id: int
    hub: str
    user: str
    tier: str
    hours: str
    starts_at: str
    reason: str
    changed_at: datetime


@dataclass(frozen=True)
class TicketRow:
    """A ticket of the queue, for one server of one user of one hub.

    ``tiers`` are those that will do, best first, ``tier`` among them; ``start`` has the server
    started when there is an offer, which is held until ``offer_until``. ``blocked`` says what keeps
    it from its turn, or is empty; ``overtaken`` counts the later tickets that were served before.
    """

    id: int
    hub: str
    user: str
    server: str
    tier: str
    tiers: tuple[str, ...]
    start: bool
    state: str
    created_at: datetime
    blocked: str
    overtaken: int
    offer_until: datetime | None
    ended_at: datetime | None
    end_reason: str


@dataclass(frozen=True)
class QuotaExceptionRow:
    """More of one field of a quota for one person, until its end.

    ``amount`` None is no limit. ``ended_by`` and ``ended_at`` are set when an admin ended it
    before ``until``.
    """

    id: int
    user: str
    field: str
    amount: float | None
    reason: str
    granted_by: str
    granted_at: datetime
    until: datetime
    ended_by: str
    ended_at: datetime | None
    hub: str = DEFAULT_HUB


@dataclass(frozen=True)
class ReadingRow:
    """What a source last said of the session of a lease; see the table's columns."""

    lease_id: int
    source: str
    seen_at: datetime | None
    active_at: datetime | None
    mark: str
    said: str
    trouble: str
    active_since: datetime | None = None


@dataclass(frozen=True)
class StayRow:
    """What holds the end of a lease's session off, and the notices about it.

    ``url`` is its server's own address, ``sealed`` that server's token, which opens with the key of
    the hub that started it and for that address only (:mod:`jupyterhub_migspawner.keys`).
    """

    lease_id: int
    url: str = ""
    sealed: str = field(default="", repr=False)
    extended_until: datetime | None = None
    protected_until: datetime | None = None
    protected_by: str = ""
    protected_why: str = ""
    warned_at: datetime | None = None
    alerted_at: datetime | None = None
    told_until: datetime | None = None
    silent_since: datetime | None = None
    silent_at: datetime | None = None
    alerted_for: str | None = None


@dataclass(frozen=True)
class ProcessesRow:
    """The processes of a lease's session: pids with start times, in clock ticks since boot.

    ``uid`` is the system user that its server runs as, None while unknown. ``boot_id`` is the boot
    of the node's kernel that the start times count from. ``reported`` are uids of other users
    whose processes on the slice were reported.
    """

    lease_id: int
    uid: int | None = None
    boot_id: str = ""
    known: tuple[tuple[int, int], ...] = ()
    reported: tuple[int, ...] = ()


@dataclass(frozen=True)
class EventRow:
    """One change, never altered: who did what, when, to what and why."""

    id: int
    at: datetime
    actor: str
    kind: str
    user: str
    lease_id: int | None
    card_uuid: str | None
    request_id: int | None
    detail: dict[str, Any]
