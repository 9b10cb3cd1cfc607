"""What the broker answers besides the rows themselves."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from jupyterhub_migspawner.model.leases import LeaseRow
from jupyterhub_migspawner.model.orphans import OrphanRow
from jupyterhub_migspawner.model.quotas import QuotaExceptionRow
from jupyterhub_migspawner.model.requests import RequestRow
from jupyterhub_migspawner.model.sessions import ReadingRow, StayRow
from jupyterhub_migspawner.model.slices import SliceRow
from jupyterhub_migspawner.model.tickets import TicketRow
from jupyterhub_migspawner.policy.doubts import Doubt
from jupyterhub_migspawner.policy.queue import Expectation
from jupyterhub_migspawner.policy.reclaim import IDLE, Verdict
from jupyterhub_migspawner.policy.tiers import Tier

FREE = "free"
LEASED = "leased"
DRAINING = "draining"
QUARANTINED = "quarantined"
MISSING = "missing"


@dataclass(frozen=True)
class QuotaStatus:
    """One field of a person's quota: its limit (None: none), what is used, when it frees.

    ``used`` is None where the caller could not say (running servers without a GPU are known to
    the hub alone). ``exceptions`` are those that lift it now.
    """

    field: str
    limit: float | None
    used: float | None
    frees_at: datetime | None
    exceptions: tuple[QuotaExceptionRow, ...] = ()


@dataclass(frozen=True)
class TierStatus:
    """A tier as it stands for one person now.

    ``free`` of ``total`` can be given out; both are 0 for a tier without a GPU, which is always
    usable. ``total`` goes by the desired layouts of the cards in service, lent or not;
    ``outage`` is the sentence about those that are not in service. ``shares_with`` are the other
    tiers that count the same slices or cards, ``shares_all`` says whether they give the very same
    and not just some of it, and ``larger`` are those that would do instead of it. ``why``
    is the sentence that explains ``usable`` being False. ``grant`` is the person's valid grant for
    a tier that needs approval. ``waiting`` is how many others wait for the same; ``ticket`` is the
    person's own place, and ``held`` what is held for them now. ``asked`` is their request that
    waits for a decision; ``full`` says that the waiting list helps, and ``open`` is False where
    they only see it. ``soon`` says that what keeps them from it by quota or grant is only an
    earlier session of theirs which is just ending: a start waits for that.
    """

    tier: Tier
    free: int
    total: int
    usable: bool
    why: str
    grant: RequestRow | None
    waiting: int = 0
    ticket: TicketRow | None = None
    held: LeaseRow | None = None
    asked: RequestRow | None = None
    full: bool = False
    open: bool = True
    larger: tuple[Tier, ...] = ()
    shares_with: tuple[Tier, ...] = ()
    shares_all: bool = True
    outage: str = ""
    soon: bool = False

    @property
    def may_wait(self) -> bool:
        """Whether a ticket makes sense now: also for a card to be emptied."""
        return self.full and not self.soon and self.ticket is None and self.held is None

    @property
    def may_ask(self) -> bool:
        """Whether a request makes sense now."""
        return self.open and self.tier.approval and self.grant is None and self.asked is None


@dataclass(frozen=True)
class TicketStatus:
    """A ticket as it stands now.

    ``place`` is 1 for the next one, and 0 where it does not wait for its turn: something is
    offered, or something blocks it. ``lease`` is what is held for it.
    """

    row: TicketRow
    place: int
    expectation: Expectation | None
    lease: LeaseRow | None


@dataclass(frozen=True)
class Offered:
    """What became of a ticket's turn: the lease that is held for it now, or why there is none."""

    ticket: TicketRow
    lease: LeaseRow | None
    why: str = ""


@dataclass(frozen=True)
class SliceStatus:
    """A slice, its state and its live leases: several where a tier shares it.

    ``state`` is ``free`` (can be given out), ``leased``, ``draining`` (nothing new is given out on
    it: its card is drained or about to be re-cut, or its layout does not have it any more; it may
    still have a lease), ``quarantined`` or ``missing`` (not seen by the
    last inventory, or its node is silent). ``why`` explains the last three, and says of a leased
    one that its session has ended. ``lease`` is the first of ``leases``, or None.
    """

    row: SliceRow
    state: str
    leases: tuple[LeaseRow, ...]
    why: str = ""

    @property
    def lease(self) -> LeaseRow | None:
        """The oldest live lease on it."""
        return self.leases[0] if self.leases else None


@dataclass(frozen=True)
class Stranded:
    """A lease that was lost with its card while its server runs on, and how that is asked."""

    lease: LeaseRow
    stay: StayRow


@dataclass(frozen=True)
class Standing:
    """An active lease of this hub with the verdict about its session.

    ``used`` is the last use that is known, also while a source is silent; ``ceiling`` until when
    it may be extended at the most, None where there is nothing to extend. ``doubt`` is what admins
    should look at.
    """

    lease: LeaseRow
    stay: StayRow
    verdict: Verdict
    readings: tuple[ReadingRow, ...]
    used: datetime
    ceiling: datetime | None
    doubt: Doubt | None = None

    @property
    def extendable(self) -> bool:
        """Whether extending would put off its end for being idle."""
        end, ceiling = self.verdict.ends_at, self.ceiling
        if self.verdict.rule != IDLE or end is None or ceiling is None:
            return False
        return ceiling > end


@dataclass(frozen=True)
class Adoption:
    """What became of an orphan: its lease, or why it has none."""

    orphan: OrphanRow
    lease: LeaseRow | None
    why: str = ""
