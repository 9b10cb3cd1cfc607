"""What a person's page says about their servers: values in, words and facts out.

Relies on the hub for which servers run and on the broker for what they hold; when one of the two
is silent it says so rather than guessing. Promises nothing about looks: the template does that.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from jupyterhub_migspawner.broker.statuses import Standing
from jupyterhub_migspawner.broker.unadopted import NO_LEASE
from jupyterhub_migspawner.model.leases import ACTIVE, LOST, PENDING, RELEASING, LeaseRow
from jupyterhub_migspawner.policy import proof
from jupyterhub_migspawner.policy.isolation import in_words as isolation_in_words
from jupyterhub_migspawner.policy.reclaim import IDLE, in_words, short_reason
from jupyterhub_migspawner.policy.settings import Settings
from jupyterhub_migspawner.policy.tiers import Tier
from jupyterhub_migspawner.policy.wording import memory as in_gib
from jupyterhub_migspawner.policy.wording import moment as in_words_utc
from jupyterhub_migspawner.service.clients.hub import HubServer

# The cause is for those who can mend it, and stands in the list of cards.
_UNADOPTED = (
    "The database that records sessions was replaced and does not contain this one. Your server "
    "keeps running and counts against your limits; the hub's admins can see it."
)
_PROBLEM = (
    "The card of this session does not respond properly, so work on the GPU may fail. Save your "
    "work; if the problem continues, ask your admin."
)


@dataclass(frozen=True)
class Moment:
    """A time as the page shows it where no script runs, which shows it in the reader's zone."""

    text: str
    """In UTC, as sentences say it."""
    utc: str
    machine: str
    """ISO 8601, for the ``datetime`` attribute."""


@dataclass(frozen=True)
class Session:
    """One server of a person, or a slice that is still being given back after it."""

    server: str
    """Empty for the default server."""
    state: str
    """A word: ``starting``, ``running``, ``stopping``, ``unknown`` or ``lost``."""
    explanation: str
    tier: str
    """The tier's title, empty when nobody knows it."""
    lease: LeaseRow | None
    card_index: int | None
    since: Moment | None
    ends_at: Moment | None
    url: str
    """Where the server is, empty unless it can be opened."""
    seats: int = 1
    """How many people may be on the slice at a time."""

    @property
    def isolation(self) -> str:
        """What keeps the server off other slices, in words; empty before its launch."""
        known = self.lease.isolation if self.lease else ""
        return isolation_in_words(known) if known else ""

    @property
    def memory(self) -> str:
        """The slice's memory, with its unit."""
        return in_gib(self.lease.memory_mib) if self.lease else ""


def sessions_of(
    servers: Sequence[HubServer] | None,
    leases: Iterable[LeaseRow],
    settings: Settings,
    card_indexes: Mapping[str, int],
    unnamed: Tier | None = None,
    failing: Collection[str] = (),
) -> tuple[Session, ...]:
    """Return the sessions of one person, the default server first.

    ``servers`` is None when the hub did not say which servers run; ``card_indexes`` gives a card's
    index on its node by the card's UUID; ``unnamed`` is the tier of a server without a lease whose
    options name none; ``failing`` are UUIDs of cards that do not answer as they should.
    """
    held: dict[str, LeaseRow] = {}
    returning: list[LeaseRow] = []
    lost: dict[str, LeaseRow] = {}
    for lease in sorted(leases, key=lambda lease: lease.id):
        if lease.ticket_id is not None:
            continue  # held for its ticket, or was: no session
        if lease.state in (PENDING, ACTIVE):
            held[lease.server] = lease
        elif lease.state == RELEASING:
            returning.append(lease)
        elif lease.state == LOST:
            lost[lease.server] = lease
    by_name = {server.name: server for server in servers or ()}
    found: list[tuple[str, HubServer | None, LeaseRow | None]] = []
    for name in sorted(held.keys() | by_name.keys()):
        mine = held.get(name)
        server = by_name.get(name)
        if mine is None and server is not None and server.pending == "stop":
            # While a server stops, its lease is already being given back: one session, not two.
            mine = next((lease for lease in returning if lease.server == name), None)
            returning = [lease for lease in returning if lease is not mine]
        found.append((name, server, mine))
    found += [(lease.server, None, lease) for lease in returning]
    return tuple(
        Session(
            server=name,
            state="lost" if loss and not explanation else state,
            explanation=explanation
            or loss
            or (_UNADOPTED if lease is not None and lease.id == NO_LEASE else "")
            or (_PROBLEM if lease is not None and lease.card_uuid in failing else ""),
            tier=_title(lease, server, settings, unnamed),
            lease=lease,
            card_index=card_indexes.get(lease.card_uuid) if lease else None,
            since=_since(lease, server),
            ends_at=moment(lease.ends_at) if lease and lease.ends_at else None,
            url=server.url if server and server.ready else "",
            seats=_seats(lease, settings),
        )
        for name, server, lease in found
        for state, explanation in [_state(server, lease, servers is None)]
        for loss in [_loss(server, lease, lost.get(name))]
    )


@dataclass(frozen=True)
class Use:
    """Whether a session is in use, in words, and whether its person can keep it for longer."""

    words: str
    ends_at: Moment | None
    protected_until: Moment | None
    extendable: bool


def use_of(standing: Standing, now: datetime, examine_seconds: float) -> Use:
    """Return the page's words on the use of a session.

    ``examine_seconds`` is how old a look may be.
    """
    found, stay = standing.verdict, standing.stay
    used = found.idle_since or standing.lease.since
    quiet = now - used >= timedelta(seconds=2 * examine_seconds)
    protected = stay.protected_until
    return Use(
        words=in_words(found, now, standing.extendable) if quiet or found.unknown else "",
        ends_at=moment(found.ends_at) if found.rule == IDLE and found.ends_at else None,
        protected_until=moment(protected) if protected is not None and protected > now else None,
        extendable=standing.extendable and quiet,
    )


def _state(
    server: HubServer | None, lease: LeaseRow | None, hub_is_silent: bool
) -> tuple[str, str]:
    if lease is not None and lease.state == RELEASING:
        since = lease.releasing_at or lease.since
        why = f" ({short_reason(lease.end_reason).rstrip('.')})" if lease.end_reason else ""
        return "stopping", (
            f"The slice is being released: the session ended at {in_words_utc(since)}{why}, but "
            f"{proof.cause(lease.waiting_for)}. It counts as yours until the slice is proven "
            "empty. If that takes longer than a few minutes, ask an admin of this hub."
        )
    if server is None:
        if hub_is_silent:
            return "unknown", "The hub cannot say right now whether this server is running."
        if lease is not None and lease.state == PENDING:
            return "starting", "The slice is allocated; the server is starting."
        return "unknown", "The hub is not running this server; its slice will be released."
    if server.pending == "spawn" or (lease is not None and lease.state == PENDING):
        return "starting", "The server is starting."
    if server.pending == "stop":
        return "stopping", "The server is being stopped."
    if server.pending == "check":
        return "running", "The hub was restarted and is checking this server."
    return "running", ""


def _loss(server: HubServer | None, lease: LeaseRow | None, lost: LeaseRow | None) -> str:
    """Return why a running server has no GPU any more, in the words of who ended its lease."""
    if server is None or lease is not None or lost is None or server.started is None:
        return ""
    # The hub notes a start before the lease is taken: a later start is another session.
    return lost.end_reason if server.started <= lost.since else ""


def _title(
    lease: LeaseRow | None, server: HubServer | None, settings: Settings, unnamed: Tier | None
) -> str:
    name = lease.tier if lease else server.tier if server else ""
    if not name and unnamed is not None:
        return unnamed.title
    return settings.title_of(name)


def _seats(lease: LeaseRow | None, settings: Settings) -> int:
    tier = settings.tier(lease.tier) if lease else None
    return tier.seats if tier else 1


def _since(lease: LeaseRow | None, server: HubServer | None) -> Moment | None:
    since = lease.since if lease else server.started if server else None
    return moment(since) if since else None


def moment(at: datetime) -> Moment:
    """Return a time of the lease database or the hub for people."""
    utc = at.astimezone(timezone.utc)
    return Moment(
        text=in_words_utc(at),
        utc=f"{utc:%Y-%m-%d %H:%M:%S} UTC",
        machine=f"{utc:%Y-%m-%dT%H:%M:%SZ}",
    )
