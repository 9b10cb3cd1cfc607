"""Who is on slices where nobody of theirs belongs.

A program that a user started outside of any server, or one that hid from the proof of an empty
slice: the next holder of the slice would share it without knowing. On a slice that nobody has, the
slice is quarantined, says who is on it, and comes back when they are gone. On a leased one, a
process of another system user than the session's is reported to admins. Nothing is ended here, for
nobody knows whose it is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from jupyterhub_migspawner.agent.descriptions import describe, user_name
from jupyterhub_migspawner.agent.families import Families
from jupyterhub_migspawner.agent.processes import PROC, Process, Unreadable, read_facts, uids_of
from jupyterhub_migspawner.broker import Broker, SliceStatus
from jupyterhub_migspawner.broker.quarantine import LEFTOVER, PASSING
from jupyterhub_migspawner.errors import GpuError
from jupyterhub_migspawner.gpu.nvml import Nvml
from jupyterhub_migspawner.model.cards import CardRow
from jupyterhub_migspawner.model.leases import RELEASING, LeaseRow
from jupyterhub_migspawner.policy.wording import listed

AGAIN_SECONDS = 3600.0
"""Another user's process that was away for so long is reported again."""

MOST_NAMED = 5


class Strays:
    """The watch over who is on the slices of one node.

    ``monotonic`` gives seconds; it is only ever compared with itself.
    """

    def __init__(
        self,
        broker: Broker,
        nvml: Nvml,
        *,
        node: str,
        families: Families,
        proc: Path = PROC,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._broker = broker
        self._nvml = nvml
        self._node = node
        self._families = families
        self._proc = proc
        self._monotonic = monotonic
        # When another user (uid) was last seen on the slice of a lease.
        self._seen: dict[tuple[int, int], float] = {}

    def look(self) -> None:
        """Shut out slices that are used without a lease, and let those in again that are not.

        Reports other users on those that are leased. Who is on a slice is asked after it was seen
        to be free: a process of an older reading may be that of a lease which has just ended. A
        slice that NVML tells nothing of stays as it is.
        """
        statuses = self._broker.slices.find(node=self._node)
        cards = {card.uuid: card for card in self._broker.cards.find(node=self._node)}
        live = {lease.id for status in statuses for lease in status.leases}
        self._seen = {key: at for key, at in self._seen.items() if key[0] in live}
        for status in statuses:
            if status.leases:
                self._look_at_leased(status)
            else:
                self._look_at_free(status, cards.get(status.row.card_uuid))

    def _look_at_free(self, status: SliceStatus, card: CardRow | None) -> None:
        row = status.row
        ours = row.quarantined.startswith(PASSING)
        if row.quarantined and not ours:
            return
        if row.uuid is None:
            # What is not cut holds nobody; of a card that cannot be read that is not known.
            if ours and card is not None and card.state != "lost" and not card.problem:
                self._broker.slices.let_in_again(row.id)
            return
        try:
            pids = [process.pid for process in self._nvml.processes(row.uuid)]
        except GpuError:
            return
        if pids:
            self._broker.slices.shut_out(row.id, pids, self._in_words(pids) + self._way_out(pids))
        elif ours:
            self._broker.slices.let_in_again(row.id)

    def _look_at_leased(self, status: SliceStatus) -> None:
        row, leases = status.row, status.leases
        if row.quarantined.startswith(LEFTOVER) and not any(
            lease.state == RELEASING for lease in leases
        ):
            self._broker.slices.let_in_again(row.id)
        if row.uuid is None:
            return
        try:
            pids = [process.pid for process in self._nvml.processes(row.uuid)]
        except GpuError:
            return
        self._report(leases, [pid for pid in pids if self._is_foreign(pid, leases)])

    def _is_foreign(self, pid: int, leases: Sequence[LeaseRow]) -> bool:
        try:
            return self._families.is_own(pid, leases) is False
        except Unreadable:
            return False  # nobody knows

    def _report(self, leases: Sequence[LeaseRow], pids: Sequence[int]) -> None:
        users: dict[int, str] = {}
        for pid in pids:
            try:
                uids = uids_of(self._proc / str(pid)) or frozenset()
            except Unreadable:
                continue
            users |= {uid: user_name(uid) for uid in uids - self._own_uids(leases)}
        now, lease = self._monotonic(), leases[0]
        back = [uid for uid in users if now - self._seen.get((lease.id, uid), now) > AGAIN_SECONDS]
        news = bool(back) or any((lease.id, uid) not in self._seen for uid in users)
        self._seen |= {(lease.id, uid): now for uid in users}
        if news:
            who = f"{self._in_words(pids)} on the slice, of a user other than the session's"
            why = who + self._way_out(pids)
            self._broker.processes.note_foreign(lease.id, users, why, again=back)

    def _own_uids(self, leases: Sequence[LeaseRow]) -> frozenset[int]:
        return frozenset().union(*(self._families.uids(lease) for lease in leases))

    def _in_words(self, pids: Sequence[int]) -> str:
        words = [self._of(pid) for pid in sorted(pids)[:MOST_NAMED]]
        if len(pids) > MOST_NAMED:
            words.append(f"{len(pids) - MOST_NAMED} more")
        return listed(words)

    def _way_out(self, pids: Sequence[int]) -> str:
        """Return how an admin ends those that can be seen on this machine."""
        seen = [pid for pid in sorted(pids)[:MOST_NAMED] if "(" in self._of(pid)]
        kill = " ".join(map(str, seen))
        return (
            f"; on node {self._node}, `sudo kill -9 {kill}` ends those that still run"
            if seen
            else ""
        )

    def _of(self, pid: int) -> str:
        try:
            facts = read_facts(self._proc / str(pid))
        except Unreadable:
            facts = None
        process = facts.process if facts else Process(pid, -1)
        return describe(process, self._proc)
