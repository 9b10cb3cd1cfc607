"""What a person chooses before a start: the form, the options, and what comes instead of a start.

Relies on the broker for every decision. Promises that options are checked the same way whichever
way they came, that a form which asks for a tier, or takes a place in the waiting list, starts
nothing, and that no blocking call runs on the hub's event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

from jupyterhub.utils import maybe_future, url_path_join
from traitlets.config import Configurable

from jupyterhub_migspawner.broker import Broker, TierOffer
from jupyterhub_migspawner.config import MigBroker, broker_config
from jupyterhub_migspawner.errors import DatabaseError, MigspawnerError
from jupyterhub_migspawner.form import render_tiers
from jupyterhub_migspawner.form.options import own_options, split_form, wishes
from jupyterhub_migspawner.policy.fields import read_hours
from jupyterhub_migspawner.policy.people import Person
from jupyterhub_migspawner.policy.tiers import Tier, choose_tier
from jupyterhub_migspawner.refusals import DATABASE_AWAY, instead_of_a_start, spawn_exception
from jupyterhub_migspawner.wiring import SERVICE_NAME

T = TypeVar("T")

#: Blocking calls of all spawners: enough threads for a burst, few enough for the database.
_pool = ThreadPoolExecutor(max_workers=4, thread_name_prefix="migspawner")

#: Seconds the spawn page waits for the database before it says that it does not answer.
_PAGE_PATIENCE = 5.0


class TierChoice(Configurable):
    """The part of the spawner that is there before a start."""

    # Of one start only: ``clear_state`` runs before each.
    _mig_tier: Tier | None = None

    # What was filled in beside a tier and refused, for the form that is shown again.
    _mig_typed: tuple[str, dict[str, str]] = ("", {})

    @property
    def mig_config(self) -> MigBroker:
        """The broker's settings as this hub's configuration gives them."""
        return broker_config(self.config)

    def _mig_broker(self) -> Broker:
        return self.mig_config.open_broker()

    def _mig_person(self) -> Person:
        """Who this server belongs to, as the hub knows them; nothing of it comes from a form."""
        user = self.user  # type: ignore[attr-defined]
        return Person(user.name, frozenset(g.name for g in user.groups), bool(user.admin))

    async def get_options_form(self) -> str:
        """The tiers and what is free now, in front of the form the base spawner may have.

        Nothing is asked where there is nothing to choose: a person with a single tier starts
        straight away.
        """
        base = await super().get_options_form()  # type: ignore[misc]
        person = self._mig_person()
        try:
            offers = await asyncio.wait_for(
                self._mig_call(lambda broker: broker.tiers_for(person)), _PAGE_PATIENCE
            )
        except (DatabaseError, asyncio.TimeoutError) as error:
            self.log.error("No tiers to show: %r", error)  # type: ignore[attr-defined]
            return render_tiers((), notice=DATABASE_AWAY) + (base or "")
        mine = [offer for offer in offers if offer.open]
        if len(offers) == 1 == len(mine) and not (mine[0].tier.approval or mine[0].may_wait):
            return str(base or "")
        notice = "" if mine else "No tier is open to you. Ask an admin of this hub for one."
        default = self.mig_config.settings().default_of(person)
        picked, typed = self._mig_typed
        self._mig_typed = ("", {})
        form = render_tiers(
            offers,
            notice=notice,
            default=default,
            service_url=self._mig_service_url(),
            typed=typed,
            picked=picked,
        )
        return form + (base or "")

    def _mig_service_url(self) -> str:
        """Where the broker's pages are; empty where the hub does not run them, or elsewhere.

        With ``subdomain_host`` services have a host of their own, which a spawner is not told.
        """
        settings = self.user.settings  # type: ignore[attr-defined]
        if not self.mig_config.service or settings.get("subdomain_host"):
            return ""
        return str(url_path_join(settings["base_url"], "services", SERVICE_NAME) + "/")

    async def run_options_from_form(self, form_data: dict[str, list[Any]]) -> dict[str, Any]:
        """Read our field and leave the others to the base spawner's form.

        A tier that cannot start now is asked for, or waited for, as the form says: then there is
        no start, and the answer leads to the page that shows what was done.
        """
        own, rest = split_form(form_data)
        await self._mig_wish(own.get("tier"), wishes(form_data, own.get("tier")))
        options = await maybe_future(super().run_options_from_form(rest))  # type: ignore[misc]
        return {**options, **own}

    async def _mig_wish(self, name: Any, wish: dict[str, str]) -> None:
        """File the request or take the place that the form asks for, and raise what says so."""
        if not wish:
            return
        person, server = self._mig_person(), self.name  # type: ignore[attr-defined]
        url = self._mig_service_url()

        def do(broker: Broker) -> Exception | None:
            offer = _offer_of(broker, person, name)
            if offer is None:
                return None  # the check of the options says what is wrong with it
            if "reason" in wish and offer.may_ask:
                hours = read_hours(wish.get("hours", ""))
                request = broker.create_request(person, name, hours, wish["reason"])
                return instead_of_a_start(
                    url and f"{url}requests?asked={request.id}",
                    f"Request {request.id} is filed. Somebody who may approve it will decide.",
                )
            if "wait" in wish and offer.may_wait:
                start, upward = bool(wish.get("start")), bool(wish.get("upward"))
                ticket = broker.join(person, name, server=server, start=start, upward=upward)
                return instead_of_a_start(
                    url and f"{url}queue?joined={ticket.id}",
                    f"You are on the waiting list, with ticket {ticket.id}.",
                )
            # It can start now, or was asked for meanwhile, which the start itself will say.
            return None

        try:
            answer = await self._mig_call(do)
        except MigspawnerError as error:
            self._mig_typed = (str(name), wish)
            raise spawn_exception(self.log, error) from None  # type: ignore[attr-defined]
        if answer is not None:
            raise answer

    async def options_from_query(self, query_data: dict[str, list[Any]]) -> dict[str, Any]:
        """Read ``?tier=NAME`` as the form's field."""
        own, rest = split_form(query_data)
        options = {}
        if rest:
            options = await maybe_future(super().options_from_query(rest))  # type: ignore[misc]
        return {**options, **own}

    async def _run_apply_user_options(self, user_options: dict[str, Any]) -> None:
        """Check the options the same way for form, query and REST, then let the base apply its own.

        What is stored may be anything JSON can say, from anybody's token: it is only ever looked
        up in the configured tiers.
        """
        self._mig_choose(user_options)
        if getattr(self, "apply_user_options", None):
            await super()._run_apply_user_options(user_options)  # type: ignore[misc]

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
            raise spawn_exception(self.log, error) from None  # type: ignore[attr-defined]
        return self._mig_tier

    # -- the broker, off the event loop ----------------------------------------------------------

    @contextmanager
    def _mig_heard(self) -> Iterator[asyncio.Event]:
        """An event that is set whenever something may have become free."""
        woken, loop = asyncio.Event(), asyncio.get_running_loop()
        with self._mig_broker().heard(lambda: loop.call_soon_threadsafe(woken.set)):
            yield woken

    def _mig_submit(
        self, use: Callable[[Broker], T], pool: ThreadPoolExecutor | None = None
    ) -> Future[T]:
        return (pool or _pool).submit(lambda: use(self._mig_broker()))

    async def _mig_call(self, use: Callable[[Broker], T]) -> T:
        return await asyncio.wrap_future(self._mig_submit(use))


def _offer_of(broker: Broker, person: Person, name: Any) -> TierOffer | None:
    return next((each for each in broker.tiers_for(person) if each.tier.name == name), None)
