"""Messages that wait to be sent to one channel: in a fair order, a few for each person, bounded.

Pure: time is passed in, nothing is sent here. Promises that one person's flood delays another's
message by a few sendings at most; that what they cause beyond a few messages a minute becomes one
message; and that the message to approvers about a request is left out once it is withdrawn.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from jupyterhub_migspawner.policy.messages import Message, merged

MOST_WAITING = 100
"""Entries of a channel that are read ahead of what was sent."""

MOST_SINGLE = 5
"""Entries about one person's requests that wait; what comes then is added to the last one."""

BURST = 5
SPAN = timedelta(minutes=1)
"""Messages about one person's requests that go out in so long; others wait, and are merged."""

LONGEST = timedelta(minutes=10)
"""For which something is put off at most."""

MOST_MERGED = 200
"""Messages in one entry that are known one by one; others are only counted."""

MOST_REMEMBERED = 1_000
"""People of whom it is known how often it was their turn lately."""

Key = tuple[str, str]


@dataclass
class Entry:
    """One message on its way, or several that become one; ``id`` is the first one's event."""

    id: int
    key: Key
    due: datetime
    items: list[tuple[int | None, Message]]
    more: int = 0
    tries: int = 0
    under_way: bool = False

    @property
    def message(self) -> Message:
        """What is sent."""
        messages = [message for _, message in self.items]
        return messages[0] if len(messages) + self.more == 1 else merged(messages, self.more)

    @property
    def is_mergeable(self) -> bool:
        """Whether it may wait for others of its kind, and become one message with them."""
        return self.items[0][1].is_mergeable


@dataclass
class Backlog:
    """What waits for one channel; not for several threads."""

    most: int = MOST_WAITING
    _entries: list[Entry] = field(default_factory=list)
    _begun: dict[Key, list[datetime]] = field(default_factory=dict)
    _sent: dict[Key, list[datetime]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def is_full(self) -> bool:
        """Whether no more is to be read ahead."""
        return len(self._entries) >= self.most

    @property
    def first_id(self) -> int | None:
        """The earliest event of which something waits; None where nothing does."""
        return min((entry.id for entry in self._entries), default=None)

    def add(self, event_id: int, message: Message, now: datetime, about: int | None) -> None:
        """Take a message in; ``about`` is the id of the request that it is about."""
        key = (message.audience, message.user)
        if message.is_mergeable:
            mine = [each for each in self._entries if each.key == key and each.is_mergeable]
            waiting = [each for each in mine if not each.under_way and not each.tries]
            if waiting and len(mine) >= MOST_SINGLE:
                last = waiting[-1]
                if len(last.items) < MOST_MERGED:
                    last.items.append((about, message))
                else:
                    last.more += 1
                return
        self._entries.append(Entry(event_id, key, now, [(about, message)]))

    def withdraw(self, about: int, audience: str) -> None:
        """Leave out messages to that audience about a request that still wait."""
        for entry in list(self._entries):
            if entry.under_way or entry.key[0] != audience:
                continue
            kept = [item for item in entry.items if item[0] != about]
            if kept:
                entry.items = kept
            elif not entry.more:
                self._entries.remove(entry)

    def next(self, now: datetime) -> Entry | None:
        """Return what is to be sent now; None where nothing is due.

        What never failed comes first, so that one address that does not work keeps nobody waiting;
        then whose turn it was less often in the last minute, some times alike; then what happened
        first.
        """
        # What is due much later was put off by a clock that was set back since.
        due = [
            each
            for each in self._entries
            if not now < each.due <= now + LONGEST and not self._is_held(each, now)
        ]
        if not due:
            return None

        def order(entry: Entry) -> tuple[int, int, int]:
            turns = len(_lately(self._begun, entry.key, now)) // MOST_SINGLE
            return entry.tries, turns, entry.id

        entry = min(due, key=order)
        entry.under_way = True
        _note(self._begun, entry.key, now)
        return entry

    def again(self, entry: Entry, due: datetime) -> None:
        """Try a message that could not be sent once more from ``due`` on."""
        entry.under_way = False
        entry.tries += 1
        entry.due = due

    def drop(self, entry: Entry) -> None:
        """Drop a message that is sent, given up, or withdrawn."""
        if entry in self._entries:
            self._entries.remove(entry)

    def sent(self, entry: Entry, now: datetime) -> None:
        """Drop a message that is sent, and count it if its kind may be merged."""
        self.drop(entry)
        if entry.is_mergeable:
            _note(self._sent, entry.key, now)

    def _is_held(self, entry: Entry, now: datetime) -> bool:
        if entry.under_way:
            return True
        return entry.is_mergeable and len(_lately(self._sent, entry.key, now)) >= BURST


def _lately(times: dict[Key, list[datetime]], key: Key, now: datetime) -> list[datetime]:
    # A clock that was set back holds nothing up.
    return [at for at in times.get(key, ()) if now - SPAN < at <= now]


def _note(times: dict[Key, list[datetime]], key: Key, now: datetime) -> None:
    # The last to be noted is the last to be forgotten.
    times[key] = [*_lately(times, key, now), now]
    times[key] = times.pop(key)
    if len(times) > MOST_REMEMBERED:
        times.pop(next(iter(times)))
