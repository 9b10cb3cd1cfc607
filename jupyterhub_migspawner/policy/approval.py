"""Who decides about a request, and what can become of it.

Relies on the hub for who is an admin and who is in which group; promises that nobody decides about
their own request and that a request moves only along :data:`TRANSITIONS`.
"""

from __future__ import annotations

from dataclasses import dataclass

from jupyterhub_migspawner.errors import ConfigError
from jupyterhub_migspawner.policy.fields import NAME_LIMIT
from jupyterhub_migspawner.policy.people import Person
from jupyterhub_migspawner.policy.wording import quoted

PENDING = "pending"
APPROVED = "approved"
DENIED = "denied"
CANCELLED = "cancelled"
EXPIRED = "expired"
USED = "used"

TRANSITIONS: dict[str, frozenset[str]] = {
    PENDING: frozenset({APPROVED, DENIED, CANCELLED, EXPIRED}),
    APPROVED: frozenset({USED, EXPIRED, CANCELLED}),
    DENIED: frozenset(),
    CANCELLED: frozenset(),
    EXPIRED: frozenset(),
    USED: frozenset(),
}
"""From each state of a request the states it may go to."""


@dataclass(frozen=True)
class Approvers:
    """Who may decide besides the hub's admins."""

    users: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()

    def include(self, person: Person) -> bool:
        """Whether this person is configured as an approver."""
        return person.name in self.users or not self.groups.isdisjoint(person.groups)


def parse_approvers(raw: object) -> Approvers:
    """``MigBroker.approvers``: a list of ``"user:NAME"`` and ``"group:NAME"``; None means nobody.

    Raises :class:`~jupyterhub_migspawner.errors.ConfigError`.
    """
    expected = "a list such as ['group:pi', 'user:ada']"
    if raw is None:
        return Approvers()
    if not isinstance(raw, (list, tuple, set, frozenset)):
        raise ConfigError(f"MigBroker.approvers is {quoted(raw)}; expected {expected}.")
    users: set[str] = set()
    groups: set[str] = set()
    for entry in raw:
        kind, _, name = entry.partition(":") if isinstance(entry, str) else ("", "", "")
        if kind not in ("user", "group") or not name.strip() or len(name) > NAME_LIMIT:
            raise ConfigError(
                f"MigBroker.approvers: entry {quoted(entry)}; expected 'user:NAME' or "
                f"'group:NAME', as in {expected}."
            )
        (users if kind == "user" else groups).add(name)
    return Approvers(frozenset(users), frozenset(groups))


def may_decide(request_user: str, by: Person, approvers: Approvers) -> str:
    """Why this person may not decide about that user's request; empty when they may."""
    if by.name == request_user:
        return "Nobody decides about their own request; ask another approver."
    if by.admin or approvers.include(by):
        return ""
    return "You may not decide about requests; the hub's admins and the approvers do."


def may_move(state: str, to: str) -> str:
    """Why a request in ``state`` cannot become ``to``; empty when it can."""
    if to in TRANSITIONS.get(state, frozenset()):
        return ""
    return f"It is {state} already and cannot become {to}."
