"""The page of sessions: what runs for the visitor, and what could be started."""

from __future__ import annotations

from typing import Any

from jupyterhub_migspawner.broker import Broker
from jupyterhub_migspawner.broker.leases import why_ending
from jupyterhub_migspawner.broker.statuses import Standing
from jupyterhub_migspawner.errors import Refusal
from jupyterhub_migspawner.model.leases import LIVE, LOST
from jupyterhub_migspawner.model.parts import Part
from jupyterhub_migspawner.policy.reclaim import short_reason
from jupyterhub_migspawner.policy.tiers import Tier
from jupyterhub_migspawner.service.api.handler import read_id
from jupyterhub_migspawner.service.api.sessions import extend
from jupyterhub_migspawner.service.clients.hub import Beside
from jupyterhub_migspawner.service.http.approvers import is_approver
from jupyterhub_migspawner.service.pages.page import Page
from jupyterhub_migspawner.service.pages.quotas import limits_of
from jupyterhub_migspawner.service.pages.status import moment, sessions_of, use_of

#: Ended sessions on the page.
MOST_ENDED = 5


#: Slices that are not proven empty on an admin's page; `migspawner doctor` names all of them.
MOST_UNPROVEN = 20


#: Lost sessions that are looked through for why a server has no GPU any more.
MOST_LOST = 50


#: Sessions to look at, and servers without a lease, that the page shows to admins; ``migspawner
#: sessions`` and ``migspawner doctor`` have more.
MOST_ODD = 20


class MySession(Page):
    """What runs for the visitor, on which slice, since when; and what could be started."""

    async def get(self) -> None:
        """Show the page."""
        await self.page()

    def confirmation(self) -> str:
        """Return what was just done, as the address says; only its number is looked at."""
        found = self.get_query_argument("extended", "")
        number = found.isascii() and found.isdigit() and len(found) <= 18
        return "Your session is extended." if number else ""

    async def page(self, problem: str = "") -> None:
        """Show what there is."""
        assert self.visitor is not None
        person = self.visitor.person
        settings = self.parts.settings
        servers = await self.live_servers(person.name)
        beside = Beside() if servers is None else Beside.of_next(servers)
        running = None if servers is None else len(servers)
        stopping = [server.name for server in servers or () if server.pending == "stop"]

        def read(broker: Broker) -> tuple[Any, Any, Any, Any, Tier | None, Any, Any]:
            leases = broker.leases.find(user=person.name, hub=broker.hub, states=LIVE)
            lost = broker.leases.find(
                user=person.name, hub=broker.hub, states=(LOST,), part=Part(MOST_LOST)
            )
            leases = (*lost, *broker.quotas.unadopted_sessions(person.name), *leases)
            cards = {card.uuid: card for card in broker.cards.find()} if leases else {}
            quotas = broker.quotas.of(person, servers=running, stopping=stopping)
            standings = broker.sessions.standings(person.name)
            offers = broker.tiers.of(person, **vars(beside))
            ended = broker.leases.ended_lately(person.name, most=MOST_ENDED)
            return leases, cards, offers, quotas, default_tier(broker), standings, ended

        def unproven(broker: Broker) -> list[tuple[str, str]]:
            now = broker.now()
            return [
                why_ending(lease, status.row.quarantined)
                for status in broker.slices.find()
                for lease in status.leases
                if lease.overdue(now)
            ]

        def default_tier(broker: Broker) -> Tier | None:
            try:
                tier = broker.tiers.choose(person, {})
            except Refusal:
                return None
            return tier if tier.is_none else None

        leases, cards, offers, quotas, unnamed, standings, ended = await self.ask(read)
        odd = await self.ask(doubtful) if self.visitor.is_admin else []
        orphans = (
            await self.ask(lambda broker: broker.orphans.find()) if self.visitor.is_admin else ()
        )
        now = self.parts.broker.now()
        indexes = {uuid: card.index for uuid, card in cards.items()}
        failing = {uuid for uuid, card in cards.items() if card.problem}
        self.show(
            "my_session.html",
            sessions=sessions_of(servers, leases, settings, indexes, unnamed, failing),
            uses={each.lease.id: use_of(each, now, settings.examine_seconds) for each in standings},
            title_of=self.parts.settings.title_of,
            short_reason=short_reason,
            ended=[(moment(each.ended_at), each) for each in ended if each.ended_at],
            confirmation=self.confirmation(),
            problem=problem,
            hub_is_silent=servers is None,
            orphans=orphans[:MOST_ODD],
            hub_name=self.parts.broker.hub,
            more_orphans=len(orphans[MOST_ODD:]),
            odd=[(moment(each.doubt.since), each) for each in odd if each.doubt is not None],
            offers=offers,
            deadlines={
                each.held.id: moment(each.held.deadline) if each.held.deadline else None
                for each in offers
                if each.held is not None
            },
            limits=limits_of(quotas),
            decides=is_approver(self.visitor, settings.approvers),
            unproven=(await self.ask(unproven))[:MOST_UNPROVEN] if self.visitor.is_admin else [],
        )


def doubtful(broker: Broker) -> list[Standing]:
    """Return the sessions of this hub that admins should look at, as many as a page shows."""
    return [each for each in broker.sessions.standings() if each.doubt is not None][:MOST_ODD]


class ExtendMine(MySession):
    """A session is kept for longer."""

    async def get(self, raw_id: str) -> None:  # type: ignore[override]
        """Redirect to the sessions: there is nothing to see here."""
        self.redirect(self.parts.prefix)

    async def post(self, raw_id: str) -> None:
        """Extend the session."""
        assert self.visitor is not None
        lease_id, visitor = read_id("lease", raw_id), self.visitor
        try:
            await self.ask(lambda broker: extend(broker, lease_id, visitor))
        except Refusal as refusal:
            self.refuse(refusal)
            await self.page(str(refusal))
            return
        self.redirect(f"{self.parts.prefix}?extended={lease_id}", status=303)
