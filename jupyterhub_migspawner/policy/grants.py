"""Which grant a start may use, and the sentence for when there is none.

Pure. A grant is for one server at a time. A session that has ended keeps its grant in use until its
slice is proven empty, so that no grant ever holds two cards.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from jupyterhub_migspawner.policy.proof import Ending, in_words
from jupyterhub_migspawner.policy.tiers import Tier
from jupyterhub_migspawner.policy.wording import moment, quoted


@dataclass(frozen=True)
class Holder:
    """Something that is live on a grant.

    ``ending`` describes it once its session has ended. ``is_offer`` says that no server has started
    on it: it is held for a ticket, at the hub ``elsewhere`` where that is
    another one, until ``until`` (UTC). ``is_unfit`` says that its tier gives something else by now.
    """

    server: str
    ending: Ending | None = None
    is_offer: bool = False
    elsewhere: str = ""
    until: datetime | None = None
    is_unfit: bool = False


@dataclass(frozen=True)
class Grant:
    """A valid grant, and what is live on it."""

    id: int
    holders: tuple[Holder, ...] = ()


@dataclass(frozen=True)
class Grants:
    """A person's requests for one tier that needs approval.

    ``valid`` are the grants that hold now, the longest first. ``pending`` is the number of the
    request that waits for a decision, and ``begins_at`` (UTC) when the next grant begins.
    """

    valid: tuple[Grant, ...] = ()
    pending: int | None = None
    begins_at: datetime | None = None

    @property
    def free(self) -> Grant | None:
        """The grant that a start uses: the first one on which nothing is live."""
        return next((grant for grant in self.valid if not grant.holders), None)

    def settled(self, now: datetime) -> Grants:
        """Return what is left once the sessions that ended a moment ago are proven empty."""
        return replace(
            self,
            valid=tuple(
                Grant(
                    grant.id,
                    tuple(
                        holder
                        for holder in grant.holders
                        if holder.ending is None or holder.ending.overdue(now)
                    ),
                )
                for grant in self.valid
            ),
        )


def why_not(tier: Tier, grants: Grants, now: datetime) -> str:
    """Return why a start has no grant to use; empty when it has one."""
    if grants.free is not None:
        return ""
    return _in_use(tier, grants, now) if grants.valid else _missing(tier, grants)


def _missing(tier: Tier, grants: Grants) -> str:
    if grants.pending is not None:
        return (
            f"Tier {quoted(tier.title)} needs approval; your request {grants.pending} waits for a "
            "decision."
        )
    if grants.begins_at is not None:
        return f"Your grant for tier {quoted(tier.title)} begins {moment(grants.begins_at)}."
    return f"Tier {quoted(tier.title)} needs approval: request it first."


def _in_use(tier: Tier, grants: Grants, now: datetime) -> str:
    title = quoted(tier.title)
    endings = [
        holder.ending
        for grant in grants.valid
        if all(each.ending is not None for each in grant.holders)
        for holder in grant.holders
        if holder.ending is not None
    ]
    if endings:
        return f"Your grant for tier {title} is still in use. {in_words(endings)}"
    if any(holder.is_unfit for grant in grants.valid for holder in grant.holders):
        return (
            f"Your grant for tier {title} is still in use: the card that was held for you is "
            "being given back, because the tier now gives out other cards. Try again in a "
            "minute."
        )
    grant = grants.valid[0]
    holder = grant.holders[0]
    if holder.is_offer:
        until = f" until {moment(holder.until)}" if holder.until else ""
        where = f" at hub {quoted(holder.elsewhere)}" if holder.elsewhere else ""
        return (
            f"Your grant {grant.id} for tier {title} is in use: a card is held for your "
            f"ticket{where}{until}. Start it there, or give up that ticket."
        )
    server = f"server {quoted(holder.server)}" if holder.server else "default server"
    return (
        f"Your grant {grant.id} for tier {title} is in use by your {server}; stop that one first."
    )
