"""Servers that run on a slice without a lease in this database."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class OrphanRow:
    """A server that runs on a slice although this database has no lease for its attempt.

    ``start`` is None where only the slice's UUID is known. ``identity`` and ``generation`` are of
    the database that lent the slice. ``vouched`` says that the hub names the server as running;
    what else is here is its word then, and that of the processes' marks otherwise. ``pids`` are
    processes that carry the mark, as the node's agent last saw them. ``found_at`` is when it was
    found; of one that its hub does not run any more, when the hub said so. ``started`` is when the
    hub began the start, by its own clock. ``url`` and ``sealed`` are how the server is asked, with
    its token sealed for this attempt (:mod:`..keys`); empty where the hub has not saved them,
    and in what the lease database answers: there they are asked for alone.
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
