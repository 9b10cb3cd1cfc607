"""Who decides about a request, and what can become of it.

Relies on the hub for who is an admin and who is in which group; promises that nobody decides about
their own request and that a request moves only along :data:`TRANSITIONS`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any

from pydantic import Field

from jupyterhub_migspawner.errors import ConfigError
from jupyterhub_migspawner.model.requests import RequestRow
from jupyterhub_migspawner.policy.fields import (
    Entry,
    Expected,
    Listed,
    Name,
    read_entry,
    user_or_group,
)
from jupyterhub_migspawner.policy.people import KnownAs, Person, as_written
from jupyterhub_migspawner.policy.wording import nearest, quoted

DRAFT = "draft"
PENDING = "pending"
APPROVED = "approved"
DENIED = "denied"
CANCELLED = "cancelled"
EXPIRED = "expired"
USED = "used"

TRANSITIONS: dict[str, frozenset[str]] = {
    DRAFT: frozenset({PENDING, CANCELLED}),
    PENDING: frozenset({APPROVED, DENIED, CANCELLED, EXPIRED}),
    APPROVED: frozenset({USED, EXPIRED, CANCELLED}),
    DENIED: frozenset(),
    CANCELLED: frozenset(),
    EXPIRED: frozenset(),
    USED: frozenset(),
}
"""From each state of a request the states it may go to."""


@dataclass(frozen=True)
class Rule:
    """Some who may decide: about which tiers, and about requests of whom; None is all."""

    users: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()
    tiers: frozenset[str] | None = None
    for_groups: frozenset[str] | None = None

    def names(self, person: Person) -> bool:
        """Tell whether this person is one of them."""
        return person.name in self.users or not person.groups.isdisjoint(self.groups)

    def covers(self, tier: str, groups: Collection[str]) -> bool:
        """Tell whether it covers requests for that tier by members of these groups."""
        if self.tiers is not None and tier not in self.tiers:
            return False
        return self.for_groups is None or not self.for_groups.isdisjoint(groups)


@dataclass(frozen=True)
class Approvers:
    """Who may decide besides the hub's admins."""

    rules: tuple[Rule, ...] = ()

    def include(self, person: Person) -> bool:
        """Tell whether this person decides about anything at all."""
        return person.decides and any(rule.names(person) for rule in self.rules)

    def cover(self, person: Person, tier: str, groups: Collection[str]) -> bool:
        """Tell whether this person decides about that tier for members of these groups."""
        return person.decides and any(
            rule.names(person) and rule.covers(tier, groups) for rule in self.rules
        )


_EXPECTED = "a list such as ['group:pi', 'user:ada']"

SomeNames = Annotated[tuple[Name, ...], Field(min_length=1), Listed]
"""At least one name."""


class Narrowed(Entry):
    """An entry of the list that limits approvers to some tiers, or to members of some groups."""

    approvers: Annotated[tuple[Any, ...], Field(min_length=1), Listed, Expected(_EXPECTED)]
    tiers: Annotated[SomeNames | None, Expected("a list such as ['card']")] = None
    for_groups: Annotated[SomeNames | None, Expected("a list such as ['vision']")] = None


def parse_approvers(
    raw: object, tiers: Collection[str] | None = None, known_as: KnownAs = as_written
) -> Approvers:
    """Read ``MigBroker.approvers``; None means nobody.

    It is a list of ``"user:NAME"``, ``"group:NAME"`` and of dicts with ``approvers`` (a list of the
    former), and with ``tiers`` and ``for_groups``, which limit what these decide about.
    ``tiers`` are the names there are; ``known_as`` gives the hub's names of people. Raises
    :class:`~jupyterhub_migspawner.errors.ConfigError`.
    """
    if raw is None:
        return Approvers()
    if not isinstance(raw, (list, tuple, set, frozenset)):
        raise ConfigError(f"MigBroker.approvers is {quoted(raw)}; expected {_EXPECTED}.")
    everything = [entry for entry in raw if not isinstance(entry, Mapping)]
    rules = [_rule("MigBroker.approvers", everything, known_as)] if everything else []
    rules += [_narrow(entry, tiers, known_as) for entry in raw if isinstance(entry, Mapping)]
    return Approvers(tuple(rules))


def _rule(where: str, entries: Iterable[object], known_as: KnownAs, **narrowed: Any) -> Rule:
    named: dict[str, set[str]] = {"user": set(), "group": set()}
    for entry in entries:
        kind, name = user_or_group(entry)
        if not kind:
            raise ConfigError(
                f"{where}: entry {quoted(entry)}; expected 'user:NAME' or "
                f"'group:NAME', as in {_EXPECTED}."
            )
        named[kind].add(known_as(name) if kind == "user" else name)
    return Rule(frozenset(named["user"]), frozenset(named["group"]), **narrowed)


def _narrow(entry: Mapping[Any, Any], tiers: Collection[str] | None, known_as: KnownAs) -> Rule:
    where = f"MigBroker.approvers: entry {quoted(dict(entry))}"
    found = read_entry(Narrowed, where, entry)
    for name in sorted(found.tiers or ()):
        if tiers is not None and name not in tiers:
            raise ConfigError(
                f"{where}: there is no tier {quoted(name)}{nearest(name, tiers)} that needs "
                "approval."
            )
    return _rule(
        where,
        found.approvers,
        known_as,
        tiers=None if found.tiers is None else frozenset(found.tiers),
        for_groups=None if found.for_groups is None else frozenset(found.for_groups),
    )


def may_decide(
    request_user: str,
    by: Person,
    approvers: Approvers,
    tier: str = "",
    groups: Collection[str] = frozenset(),
) -> str:
    """Explain why this person may not decide about that user's request; empty when they may.

    ``groups`` are the user's, as the hub had them when they asked.
    """
    if by.name == request_user:
        return "You cannot decide on your own request; ask another approver."
    if by.decides and (by.admin or approvers.cover(by, tier, groups)):
        return ""
    if approvers.include(by):
        return "You are an approver for other tiers or groups, not for this request."
    return "Only the hub's admins and the approvers can decide on requests."


def may_move(state: str, to: str) -> str:
    """Explain why a request in ``state`` cannot become ``to``; empty when it can."""
    if to in TRANSITIONS.get(state, frozenset()):
        return ""
    return f"It is already {state} and cannot become {to}."


def one_more(needed: int, first_by: str) -> bool:
    """Tell whether an approval now still needs another person's."""
    return needed > 1 and not first_by


def period(starts_at: datetime | None, hours: float, now: datetime) -> tuple[datetime, datetime]:
    """Return from when until when a request that is approved now is a grant."""
    begin = now if starts_at is None else max(starts_at, now)
    return begin, begin + timedelta(hours=hours)


def state_at(request: RequestRow, now: datetime, *, undecided_before: datetime) -> str:
    """Return the state of a request by the clock, also when its end is not recorded yet.

    A request that was created before ``undecided_before`` and is still pending has expired.
    """
    if request.state == APPROVED and request.valid_until is not None:
        return EXPIRED if request.valid_until <= now else request.state
    if request.state == PENDING and request.created_at <= undecided_before:
        return EXPIRED
    return request.state


def is_brief(grant: RequestRow, warning: timedelta) -> bool:
    """Tell whether a grant lasts no longer than its user is warned of its end."""
    begin, end = grant.valid_from or grant.decided_at, grant.valid_until
    return begin is not None and end is not None and end - begin <= warning
