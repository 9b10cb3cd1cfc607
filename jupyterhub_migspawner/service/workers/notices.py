"""Notices: each of the admin's channels reads the event log and sends what is for it.

Relies on the event log, which has everything that leads to a notice, and on :mod:`...channels`.
Promises that no channel waits for another and nothing else for any of them; that a message which
could not be sent is tried again, a few times and for as long as it is of use; and that after a
crash or a restart nothing is left out, though something may be sent twice. What is given up is
counted and logged.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from jupyterhub_migspawner import channels
from jupyterhub_migspawner.model.events import EventQuery, EventRow
from jupyterhub_migspawner.policy.backlog import Backlog, Entry
from jupyterhub_migspawner.policy.messages import KINDS, Happening, Message, message_of
from jupyterhub_migspawner.policy.notices import APPROVERS, USERS, Channel, Notices
from jupyterhub_migspawner.service.parts import Parts

log = logging.getLogger("migspawner.service")

PAUSE = 2.0
"""Seconds between two looks for something to send."""

AGAIN = tuple(timedelta(seconds=seconds) for seconds in (5, 30, 120, 600))
"""After each failure but the last, how long until the next try."""

PATIENCE = 2.0
"""Seconds a round waits for a sending; one that takes longer is looked after in later rounds."""

OVERDUE = timedelta(minutes=1)
"""A sending that takes so long has failed, though its thread does not know yet."""

MOST_HUNG = 3
"""Threads of a channel that may be left hanging; with so many it waits until one of them ends."""

WITHDRAWN = "request.cancelled"

_PAGE = 200
_NOTABLE = EventQuery(kinds=tuple(sorted(KINDS)))
_SENDINGS = 20

Send = Callable[[Channel, str, str, str, str], str]


@dataclass
class _Sending:
    entry: Entry
    since: datetime
    done: asyncio.Future[str]


class Outbox:
    """What is sent to one channel, one :meth:`round` at a time.

    ``clock`` gives the present as aware UTC, ``send`` is :func:`...channels.send`. ``link`` is the
    service's public address, where that is known.
    """

    def __init__(
        self,
        parts: Parts,
        channel: Channel,
        notices: Notices,
        *,
        clock: Callable[[], datetime],
        link: str = "",
        send: Send = channels.send,
    ) -> None:
        self._parts = parts
        self._channel = channel
        self._notices = notices
        self._clock = clock
        self._link = link
        self._send = send
        # A channel of another URL is another one: it begins with what happens from then on.
        digest = hashlib.sha256(f"{channel.audience} {channel.url}".encode()).hexdigest()[:16]
        self._reader = f"notices {parts.broker.hub} {digest}"
        self._noted: int | None = None
        self._read_to = 0
        self._backlog = Backlog()
        self._sending: _Sending | None = None
        self._hung: list[asyncio.Future[str]] = []
        self.sent = 0
        self.given_up = 0

    async def round(self) -> None:
        """Read what is new; send what is due. Raises :exc:`.DatabaseError`."""
        ask = self._parts.ask
        await ask(lambda broker: broker.hubs.demand(self._parts.home))
        if self._noted is None:
            self._noted = await ask(lambda broker: broker.events.reader_position(self._reader))
            self._read_to = self._noted
        await self._read()
        for _ in range(_SENDINGS):
            if not await self._go_on():
                break
        await self._note()

    async def _read(self) -> None:
        stale = 0
        while not self._backlog.is_full:
            page = await self._parts.ask(
                lambda broker: broker.events.page(self._read_to, _PAGE, _NOTABLE)
            )
            now = self._clock()
            for event in page.events:
                if event.kind == WITHDRAWN and event.request_id is not None:
                    # Those to whom it was not announced get no notice of it any more.
                    self._backlog.withdraw(event.request_id, APPROVERS)
                message = self._message(event)
                if message is None:
                    continue
                if message.until <= now:
                    stale += 1
                    continue
                self._backlog.add(event.id, message, now, event.request_id)
            self._read_to = page.read_to
            if len(page.events) < _PAGE:
                break
        if stale:
            self.given_up += stale
            log.warning(
                "%d notices were not sent to %s: they came too late to be of use.",
                stale,
                self._channel.name,
            )

    def _message(self, event: EventRow) -> Message | None:
        # Others may lend from this database too, to people of the same names.
        if event.detail.get("hub", self._parts.broker.hub) != self._parts.broker.hub:
            return None
        message = message_of(
            Happening(
                event.kind,
                event.at,
                event.actor,
                event.user,
                event.request_id,
                event.lease_id,
                event.card_uuid,
                event.detail,
            ),
            self._parts.settings.zone,
            self._parts.settings.title_of,
        )
        return message if message is not None and message.is_for(self._channel) else None

    async def _go_on(self) -> bool:
        """Look after the sending under way, or begin one; return False when nothing moves now."""
        if self._sending is None:
            if sum(not each.done() for each in self._hung) >= MOST_HUNG:
                return False
            now = self._clock()
            entry = self._backlog.next(now)
            if entry is None:
                return False
            if entry.message.until <= now:
                self._give_up(entry, "it came too late to be of use")
                return True
            if not await self._is_wanted(entry.message):
                self._backlog.drop(entry)
                return True
            self._sending = _Sending(entry, now, self._begin(entry.message))
        sending = self._sending
        await asyncio.wait({sending.done}, timeout=PATIENCE)
        if not sending.done.done():
            if abs(self._clock() - sending.since) < OVERDUE:
                return False
            # Its thread cannot be ended; it is left behind, and what it says is not listened to.
            self._sending = None
            self._hung = [each for each in self._hung if not each.done()]
            self._hung.append(sending.done)
            self._failed(sending.entry, "it takes longer than a minute")
            return True
        self._sending = None
        problem = sending.done.result()
        if not problem:
            self.sent += 1
            self._backlog.sent(sending.entry, self._clock())
        else:
            self._failed(sending.entry, problem)
        return True

    async def _is_wanted(self, message: Message) -> bool:
        if message.audience != USERS or not message.topic:
            return True
        choices = await self._parts.ask(lambda broker: broker.notices.choices(message.user))
        return choices.get(message.topic, True)

    def _begin(self, message: Message) -> asyncio.Future[str]:
        """Send in a background thread, which the end of the service need not wait for."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[str] = loop.create_future()

        def tell(problem: str) -> None:
            if not done.done():
                done.set_result(problem)

        def work() -> None:
            try:
                problem = self._deliver(message)
            except Exception as error:
                problem = f"{type(error).__name__} while looking up the address"
                log.exception("A notice for %s could not be prepared.", self._channel.name)
            # RuntimeError: the service has ended meanwhile.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(tell, problem)

        threading.Thread(target=work, name=f"notices {self._channel.name}", daemon=True).start()
        return done

    def _deliver(self, message: Message) -> str:
        address = ""
        if self._channel.wants_address:
            address = self._notices.address(message.user)
        if self._channel.url_for(message.user, address) is None:
            told = "%r gets no notice through %s: there is no name or address to send to."
            log.info(told, message.user, self._channel.name)
            return ""
        title = self._channel.shown(message.title)
        body = message.text(self._link, self._channel)
        return self._send(self._channel, title, body, message.user, address)

    def _failed(self, entry: Entry, problem: str) -> None:
        if entry.tries >= len(AGAIN):
            self._give_up(entry, problem)
            return
        self._backlog.again(entry, self._clock() + AGAIN[entry.tries])
        log.warning(
            "Notice %d could not be sent to %s: %s. It is tried again.",
            entry.id,
            self._channel.name,
            problem,
        )

    def _give_up(self, entry: Entry, problem: str) -> None:
        self.given_up += 1
        self._backlog.drop(entry)
        log.error(
            "Notice %d (%r) is given up, %s did not take it: %s.",
            entry.id,
            entry.message.title,
            self._channel.name,
            problem,
        )

    async def _note(self) -> None:
        """Note up to where everything was sent or given up."""
        first = self._backlog.first_id
        done = self._read_to if first is None else first - 1
        if self._noted is None or done > self._noted:
            await self._parts.ask(
                lambda broker: broker.events.move_reader(reader=self._reader, event_id=done)
            )
            self._noted = done
