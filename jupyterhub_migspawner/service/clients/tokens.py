"""Servers' own tokens, opened for asking their servers and for nothing else.

Relies on the hub's key file (:mod:`...keys`) and on what the hub's spawners have sealed. Promises
that a token is paired with the one address it was sealed for; that a key which cannot be used costs
knowledge and never a session; and that this is logged once, not in every round.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass, field

from jupyterhub_migspawner.broker.statuses import Standing, Stranded
from jupyterhub_migspawner.errors import ConfigError
from jupyterhub_migspawner.keys import ANY_LEASE, Binding, Keys, SealError
from jupyterhub_migspawner.policy.wording import plural
from jupyterhub_migspawner.service.parts import Parts
from jupyterhub_migspawner.service.turns import in_turns

log = logging.getLogger("migspawner.service")


@dataclass(frozen=True)
class Reach:
    """How a server is asked: its address and its token, or in ``problem`` why it cannot be.

    ``user`` and ``attempt`` say whose session it is, so that nobody else gets the token.
    """

    url: str = ""
    token: str = field(default="", repr=False)
    problem: str = ""
    user: str = ""
    attempt: str = ""
    lease_id: int = 0


class Tokens:
    """Opens the tokens of this hub's sessions; :meth:`refresh` reads the key file."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._keys: Keys | None = None
        self._problem = ""
        self._closed: frozenset[int] = frozenset()

    async def refresh(self, standings: Collection[Standing] = ()) -> None:
        """Read the key file again, and log what cannot be opened with it."""
        problem = ""
        try:
            self._keys = await self._parts.ask(lambda _: self._parts.key_file.read())
        except ConfigError as error:
            self._keys, problem = None, str(error)
        # To decrypt the tokens of two thousand sessions takes some 20 ms.
        closed = frozenset(
            [each.lease.id async for each in in_turns(standings) if self._is_closed(each)]
        )
        if problem and closed and problem != self._problem:
            log.error("%s %s", problem, _CONSEQUENCE)
        elif not problem and closed - self._closed:
            log.error(
                "The tokens of %s cannot be decrypted with the key in %s: the key was changed, "
                "or the lease database was. %s",
                plural(len(closed), "session"),
                self._parts.key_file.path,
                _CONSEQUENCE,
            )
        # Without a session that is concerned there was nothing to log yet.
        self._problem = problem if closed else ""
        self._closed = closed

    def reach(self, standing: Standing | Stranded) -> Reach:
        """Return how the server of a session is asked, by the key file as it was last read."""
        lease, stay = standing.lease, standing.stay
        if not stay.url or not stay.sealed:
            return Reach(problem="the address of its server is unknown")
        if self._keys is None:
            return Reach(problem="the hub's key for the tokens of servers cannot be used")
        token = problem = ""
        # That of an adopted server was sealed before it had this lease.
        for lease_id in (lease.id, ANY_LEASE):
            try:
                token = self._keys.open(stay.sealed, Binding(lease_id, lease.attempt, stay.url))
                break
            except SealError as error:
                problem = str(error)
        if not token:
            return Reach(problem=problem)
        return Reach(stay.url, token, user=lease.user, attempt=lease.attempt, lease_id=lease.id)

    def _is_closed(self, standing: Standing) -> bool:
        return bool(standing.stay.sealed) and bool(self.reach(standing).problem)


_CONSEQUENCE = (
    "Until they are started again, the use of these sessions is unknown, and none of them ends "
    "for being idle."
)
