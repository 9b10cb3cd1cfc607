"""What a person chooses before a start: the form, the options, and what comes instead of a start.

Relies on the broker for every decision. Promises that options are checked the same way whichever
way they came, that a form which asks for a tier, or joins the waiting list, starts
nothing, and that no blocking call runs on the hub's event loop.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

from jupyterhub.utils import maybe_future, url_path_join
from tornado.web import HTTPError, RequestHandler
from traitlets.config import Configurable

from jupyterhub_migspawner.broker import Broker, TierStatus
from jupyterhub_migspawner.config import MigBroker
from jupyterhub_migspawner.errors import DatabaseError, MigspawnerError, Refusal
from jupyterhub_migspawner.hub.context import HubContext
from jupyterhub_migspawner.hub.scopes import SERVICE_NAME
from jupyterhub_migspawner.policy.fields import read_hours
from jupyterhub_migspawner.policy.people import Person
from jupyterhub_migspawner.policy.tiers import Tier, choice_holds, choose_tier
from jupyterhub_migspawner.spawner.form import render_tiers
from jupyterhub_migspawner.spawner.form.fields import own_options, request_fields, split_form
from jupyterhub_migspawner.spawner.protocols import HubSpawner
from jupyterhub_migspawner.spawner.refusals import (
    DATABASE_AWAY,
    instead_of_a_start,
    spawn_exception,
)

T = TypeVar("T")

#: Blocking calls of all spawners: enough threads for a burst, few enough for the database.
_pool = ThreadPoolExecutor(max_workers=4, thread_name_prefix="migspawner")

#: Seconds the spawn page waits for the database before it says that it does not answer.
_PAGE_PATIENCE = 5.0

#: The sentence about a stored choice that no longer holds. It names no tier: one that was renamed
#: has no title any more, and one of a group that the person has left is not theirs to read about.
GONE = "The tier last chosen for this server is no longer available to you"


class TierChoice(HubSpawner, Configurable):
    """The part of the spawner that is there before a start."""

    # Of one start only: ``clear_state`` runs before each.
    _mig_tier: Tier | None = None

    # Whether this start uses the default tier because the stored choice no longer holds.
    _mig_replaced: bool = False

    # Options that a form or query has just sent, until the start that they are for.
    _mig_sent: dict[str, Any] | None = None

    # What was filled in beside a tier and refused, for the form that is shown again.
    _mig_typed: tuple[str, dict[str, str]] = ("", {})

    @property
    def mig_hub(self) -> HubContext:
        """What this spawner shares with the other spawners of its hub."""
        return HubContext.of(self.user.settings, self.config)

    @property
    def mig_config(self) -> MigBroker:
        """The broker's settings as this hub's configuration gives them."""
        return self.mig_hub.mig

    def _mig_broker(self) -> Broker:
        return self.mig_config.open_broker()

    def _mig_person(self) -> Person:
        """Return the server's owner as the hub knows them; nothing of it comes from a form."""
        user = self.user
        return Person(user.name, frozenset(g.name for g in user.groups), bool(user.admin))

    async def get_options_form(self) -> str:
        """Return the tiers and what is free now, in front of the form the base spawner may have.

        Nothing is asked where there is nothing to choose: a person with a single tier starts
        straight away, unless the server's last choice no longer holds.
        """
        base = await super().get_options_form()
        person = self._mig_person()
        try:
            offers = await asyncio.wait_for(self._mig_call(self._mig_look()), _PAGE_PATIENCE)
        except (DatabaseError, asyncio.TimeoutError) as error:
            self.log.error("No tiers to show: %r", error)
            return render_tiers((), notice=DATABASE_AWAY) + (base or "")
        mine = [offer for offer in offers if offer.open]
        stored = self._mig_stored()
        gone = not self._mig_holds(stored)
        if len(offers) == 1 == len(mine) and not (
            gone or mine[0].tier.approval or mine[0].may_wait
        ):
            return str(base or "")
        notice = f"{GONE}. Please choose another one." if gone else ""
        notice = (
            notice if mine else "No tier is available to you. Ask an admin of this hub for one."
        )
        default = self.mig_config.settings().default_of(person)
        picked, typed = self._mig_typed
        self._mig_typed = ("", {})
        form = render_tiers(
            offers,
            notice=notice,
            default=default,
            last=None if gone else own_options(stored).get("tier"),
            service_url=self._mig_service_url(),
            typed=typed,
            picked=picked,
        )
        return form + (base or "")

    def _mig_others(self) -> tuple[int, list[str]]:
        """Return how many other servers this person has, and the names of those being stopped.

        All that run count, and those that started earlier.
        """
        mine = self.orm_spawner.started
        number, stopping = 0, []
        for other in self.user.spawners.values():
            if other is self or not other.active:
                continue
            begun = other.orm_spawner.started
            later = begun is None or (mine is not None and begun > mine)
            number += not (other.pending == "spawn" and later)
            if other.pending == "stop":
                stopping.append(other.name)
        return number, stopping

    def _mig_look(self) -> Callable[[Broker], tuple[TierStatus, ...]]:
        """Return what reads the tiers as they stand for a start of this server now."""
        person, server = self._mig_person(), self.name
        others, stopping = self._mig_others()

        def look(broker: Broker) -> tuple[TierStatus, ...]:
            return broker.tiers.of(person, server=server, other_servers=others, stopping=stopping)

        return look

    def _mig_service_url(self) -> str:
        """Return where the broker's pages are; empty where the hub does not run them, or elsewhere.

        With ``subdomain_host`` services have a host of their own, which a spawner does not know.
        """
        settings = self.user.settings
        if not self.mig_config.service or settings.get("subdomain_host"):
            return ""
        return str(url_path_join(settings["base_url"], "services", SERVICE_NAME) + "/")

    def run_options_from_form(self, form_data: dict[str, list[Any]]) -> Awaitable[dict[str, Any]]:
        """Read our field and leave the others to the base spawner's form.

        A tier that cannot start now is asked for, or waited for, as the form says: then there is
        no start, and the answer leads to the page that shows what was done.
        """
        # The hub says nowhere who has sent the form; it may be an admin who starts servers of
        # others. The handler that calls this knows, and calls it directly (5.4 to 6.1).
        return self._mig_options(form_data, _sender(sys._getframe(1)))

    async def _mig_options(
        self, form_data: dict[str, list[Any]], sender: str | None
    ) -> dict[str, Any]:
        own, rest = split_form(form_data)
        tier = own.get("tier")
        await self._mig_request_or_queue(tier, request_fields(form_data, tier), sender)
        options = await maybe_future(super().run_options_from_form(rest))
        self._mig_sent = own
        return {**options, **own}

    async def _mig_request_or_queue(
        self, name: Any, fields: dict[str, str], sender: str | None
    ) -> None:
        """Submit the request or the ticket that the form asks for, and raise what says so."""
        if not fields:
            return
        person, server = self._mig_person(), self.name
        look, (others, stopping) = self._mig_look(), self._mig_others()
        url = self._mig_service_url()

        def do(broker: Broker) -> Exception | None:
            offer = _named(look(broker), name)
            if offer is None:
                return None  # the check of the options says what is wrong with it
            if "reason" in fields and offer.may_ask:
                _demand_own(person, sender)
                hours = read_hours(fields.get("hours", ""))
                request = broker.requests.create(person, name, hours, fields["reason"])
                return instead_of_a_start(
                    url and f"{url}requests?asked={request.id}",
                    f"Request {request.id} is submitted. An approver will decide on it.",
                )
            # Also where it has become ``soon`` since the form was shown.
            if "wait" in fields and (offer.may_wait or (offer.full and offer.soon)):
                _demand_own(person, sender)
                start, upward = bool(fields.get("start")), bool(fields.get("upward"))
                # The hub has checked the server's name, by its own rules, before it asks here.
                ticket = broker.queue.join(
                    person,
                    name,
                    server=server,
                    start=start,
                    upward=upward,
                    existing=True,
                    other_servers=others,
                    stopping=stopping,
                )
                return instead_of_a_start(
                    url and f"{url}queue?joined={ticket.id}",
                    f"You are on the waiting list, with ticket {ticket.id}.",
                )
            # It can start now, or was asked for meanwhile, which the start itself will say.
            return None

        try:
            answer = await self._mig_call(do)
        except MigspawnerError as error:
            self._mig_typed = (str(name), fields)
            raise spawn_exception(self.log, error) from None
        if answer is not None:
            raise answer

    async def options_from_query(self, query_data: dict[str, list[Any]]) -> dict[str, Any]:
        """Read ``?tier=NAME`` as the form's field."""
        own, rest = split_form(query_data)
        options = {}
        if rest:
            options = await maybe_future(super().options_from_query(rest))
        self._mig_sent = own
        return {**options, **own}

    async def _run_apply_user_options(self, user_options: dict[str, Any]) -> None:
        """Check the options alike for form, query and REST, then let the base apply its own.

        What is stored may be anything JSON can say, from anybody's token: it is only ever looked
        up in the configured tiers. A choice that was sent for this start and does not hold is
        refused; one that the hub kept from an earlier start counts as none, since its tier may
        have been renamed and its person have left a group.
        """
        sent = self._mig_came_with_this_start(user_options)
        if not sent and not await self._mig_still_holds(user_options):
            self.log.info("%s of %s.", GONE, self._log_name)
            user_options, self._mig_replaced = self._mig_forget_choice(user_options), True
        try:
            self._mig_choose(user_options)
        except Exception:
            # The hub has stored it already; it is not to be tried again at the next start.
            self._mig_forget_choice(user_options)
            raise
        if getattr(self, "apply_user_options", None):
            await super()._run_apply_user_options(user_options)

    def _mig_came_with_this_start(self, user_options: Any) -> bool:
        """Return whether a form, query or REST body brought these options.

        Else the hub had them stored.
        The hub hands both on in the same way (``User.spawn``, 5.4 to 6.1), but notes the handler.
        """
        own = own_options(user_options)
        sent, self._mig_sent = self._mig_sent, None
        if not own or sent == own:
            return bool(own)
        body = _body_of(self.handler)
        inner = body.get("user_options") if isinstance(body, dict) else None
        return bool(own_options(body) == own or own_options(inner) == own)

    def _mig_stored(self) -> Any:
        """Return what the hub keeps of this server's last choice, for starts that name none."""
        return getattr(self.orm_spawner, "user_options", None) or {}

    def _mig_holds(self, stored: Any) -> bool:
        """Return whether a stored choice is one that this person could make now."""
        try:
            tiers = self.mig_config.settings().tiers
        except MigspawnerError:
            return True  # which the start itself will say
        return choice_holds(tiers, self._mig_person(), own_options(stored))

    async def _mig_still_holds(self, stored: Any) -> bool:
        """Return the same, but let a tier that needs approval hold as long as its grant does."""
        if not self._mig_holds(stored):
            return False
        name = own_options(stored).get("tier")
        tier = self.mig_config.settings().tier(name) if name else None
        if tier is None or not tier.approval:
            return True
        try:
            offer = _named(await self._mig_call(self._mig_look()), name)
        except MigspawnerError:
            return True
        return offer is not None and offer.grant is not None

    def _mig_forget_choice(self, user_options: Any) -> dict[str, Any]:
        """Drop the choice of tier from what the hub keeps of this server; return the rest."""
        own = own_options(user_options)
        rest = (
            {key: value for key, value in user_options.items() if key not in own}
            if isinstance(user_options, dict)
            else {}
        )
        self.user_options = self.orm_spawner.user_options = rest
        return rest

    def _mig_choose(self, user_options: Any) -> Tier:
        person = self._mig_person()
        try:
            settings = self.mig_config.settings()
            self._mig_tier = choose_tier(
                settings.tiers,
                person,
                own_options(user_options),
                default=settings.default_of(person),
            )
        except MigspawnerError as error:
            raise spawn_exception(self.log, error) from None
        return self._mig_tier

    # -- the broker, off the event loop ----------------------------------------------------------

    @contextmanager
    def _mig_heard(self) -> Iterator[asyncio.Event]:
        """Yield an event that is set whenever something may have become free."""
        woken, loop = asyncio.Event(), asyncio.get_running_loop()
        with self._mig_broker().events.heard(lambda: loop.call_soon_threadsafe(woken.set)):
            yield woken

    def _mig_submit(
        self, use: Callable[[Broker], T], pool: ThreadPoolExecutor | None = None
    ) -> Future[T]:
        return (pool or _pool).submit(lambda: use(self._mig_broker()))

    async def _mig_call(self, use: Callable[[Broker], T]) -> T:
        return await asyncio.wrap_future(self._mig_submit(use))


def _demand_own(owner: Person, sender: str | None) -> None:
    """Refuse a form that asks for something in another's name; to start their servers is less."""
    if sender != owner.name:
        raise Refusal(
            f"Only {owner.name!r} can ask for a tier or join the waiting list for these servers. "
            "Start the server with a tier that is free, or leave it to them.",
            reason="not-allowed",
        )


def _body_of(handler: Any) -> Any:
    """Return the JSON body of the request that a start is for; None where it has none."""
    read = getattr(handler, "get_json_body", None)
    try:
        return None if read is None else read()
    except HTTPError:
        return None


def _sender(frame: FrameType | None) -> str | None:
    """Return the user of the hub whose request a frame works on; None where that is not found."""
    for _ in range(5):
        if frame is None:
            return None
        handler = frame.f_locals.get("self")
        if isinstance(handler, RequestHandler):
            name = getattr(handler.current_user, "name", None)
            return name if isinstance(name, str) else None
        frame = frame.f_back
    return None


def _named(offers: tuple[TierStatus, ...], name: Any) -> TierStatus | None:
    return next((each for each in offers if each.tier.name == name), None)
