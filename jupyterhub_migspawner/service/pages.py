"""The pages a browser is shown, in the hub's looks.

Relies on :mod:`.looks` for rendering and on the hub for signing in. Promises that a page works
without JavaScript, that it is shown to nobody who is not signed in, that it says so when the
database or the hub is away, and that no other site can frame it.
"""

from __future__ import annotations

import re
from http.client import responses
from pathlib import Path
from typing import Any

from jupyterhub.services.auth import HubOAuthCallbackHandler
from tornado.web import HTTPError, RedirectHandler, RequestHandler, StaticFileHandler

from jupyterhub_migspawner.broker import Broker
from jupyterhub_migspawner.broker.leasing import why_ending
from jupyterhub_migspawner.broker.statuses import Standing
from jupyterhub_migspawner.errors import Refusal
from jupyterhub_migspawner.model.leases import LIVE, LOST
from jupyterhub_migspawner.model.parts import Part
from jupyterhub_migspawner.policy.reclaim import short_reason
from jupyterhub_migspawner.policy.tiers import Tier
from jupyterhub_migspawner.service.approvers import is_approver
from jupyterhub_migspawner.service.auth import Asked
from jupyterhub_migspawner.service.hub import Beside, HubError
from jupyterhub_migspawner.service.limits import limits_of
from jupyterhub_migspawner.service.looks import Looks
from jupyterhub_migspawner.service.problem import Problem
from jupyterhub_migspawner.service.rest import read_id
from jupyterhub_migspawner.service.session_api import extend
from jupyterhub_migspawner.service.sessions import moment, sessions_of, use_of

#: The hub's page has scripts in it and admins add their own, so scripts are not restricted here;
#: what protects is that every text is escaped. Frames, plugins, other bases and forms that lead
#: elsewhere are nobody's need.
POLICY = "frame-ancestors 'none'; object-src 'none'; base-uri 'none'; form-action 'self'"

#: Ended sessions on the page.
MOST_ENDED = 5

#: Slices that are not proven empty on an admin's page; `migspawner doctor` names all of them.
MOST_UNPROVEN = 20
#: Lost sessions that are looked through for why a server has no GPU any more.
MOST_LOST = 50

#: Sessions to look at, and servers without a lease, that the page shows to admins; ``migspawner
#: sessions`` and ``migspawner doctor`` have more.
MOST_ODD = 20

STATIC = Path(__file__).parent / "static"


class Page(Asked):
    """Base of the pages: a visitor who is not signed in is sent to the hub first."""

    def set_default_headers(self) -> None:
        """A page is for this visitor and this moment."""
        self.set_header("Cache-Control", "no-store")
        self.set_header("Content-Security-Policy", POLICY)
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Referrer-Policy", "same-origin")

    async def prepare(self) -> None:
        """Know the visitor, or send them to sign in and back."""
        self.visitor = await self.identify()
        if self.visitor is None:
            if self.request.method not in ("GET", "HEAD"):
                raise Problem(401, "not-signed-in", "Sign in first: open the page and try again.")
            self.redirect(self.get_login_url())

    def show(self, template: str, **values: Any) -> None:
        """Answer with a page."""
        looks: Looks = self.settings["looks"]
        # Asking for the token sets its cookie, which only a signed-in visitor needs.
        xsrf = self.xsrf_token.decode("ascii") if self.visitor else ""
        self.finish(looks.render(template, self.visitor, xsrf, **values))

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """The hub's error page with the sentence in it."""
        if self.answer.retry_after is not None:
            self.set_header("Retry-After", str(self.answer.retry_after))
        try:
            self.show(
                "problem.html",
                status_code=status_code,
                status_message=responses.get(status_code, ""),
                message=self.answer.message,
            )
        except Exception as error:
            # An error page that fails would leave the visitor with nothing at all.
            self.log_exception(type(error), error, error.__traceback__)
            self.set_header("Content-Type", "text/plain; charset=UTF-8")
            self.finish(self.answer.message)


class MySession(Page):
    """What runs for the visitor, on which slice, since when; and what could be started."""

    async def get(self) -> None:
        """Show the page."""
        await self.page()

    def told(self) -> str:
        """What was just done, as the address says; its number is looked at and nothing else."""
        found = self.get_query_argument("extended", "")
        number = found.isascii() and found.isdigit() and len(found) <= 18
        return "Your session is kept for longer." if number else ""

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
            leases = broker.leases(user=person.name, hub=broker.hub, states=LIVE)
            lost = broker.leases(
                user=person.name, hub=broker.hub, states=(LOST,), part=Part(MOST_LOST)
            )
            leases = (*lost, *broker.unadopted_sessions(person.name), *leases)
            cards = {card.uuid: card for card in broker.cards()} if leases else {}
            quotas = broker.quota_of(person, servers=running, stopping=stopping)
            standings = broker.standings(person.name)
            offers = broker.tiers_for(person, **vars(beside))
            ended = broker.ended_lately(person.name, most=MOST_ENDED)
            return leases, cards, offers, quotas, default_tier(broker), standings, ended

        def unproven(broker: Broker) -> list[tuple[str, str]]:
            now = broker.clock()
            return [
                why_ending(lease, status.row.quarantined)
                for status in broker.slices()
                for lease in status.leases
                if lease.overdue(now)
            ]

        def default_tier(broker: Broker) -> Tier | None:
            try:
                tier = broker.choose_tier(person, {})
            except Refusal:
                return None
            return tier if tier.is_none else None

        leases, cards, offers, quotas, unnamed, standings, ended = await self.ask(read)
        odd = await self.ask(doubtful) if self.visitor.is_admin else []
        orphans = await self.ask(Broker.orphans) if self.visitor.is_admin else ()
        now = self.parts.broker.clock()
        indexes = {uuid: card.index for uuid, card in cards.items()}
        troubled = {uuid for uuid, card in cards.items() if card.problem}
        self.show(
            "my_session.html",
            sessions=sessions_of(servers, leases, settings, indexes, unnamed, troubled),
            uses={each.lease.id: use_of(each, now, settings.examine_seconds) for each in standings},
            title_of=self.parts.settings.title_of,
            short_reason=short_reason,
            ended=[(moment(each.ended_at), each) for each in ended if each.ended_at],
            told=self.told(),
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
    """The sessions of this hub that admins should look at, as many as a page shows."""
    return [each for each in broker.standings() if each.doubt is not None][:MOST_ODD]


class ExtendMine(MySession):
    """A session is kept for longer."""

    async def get(self, raw_id: str) -> None:  # type: ignore[override]
        """Nothing to see here: back to the sessions."""
        self.redirect(self.parts.prefix)

    async def post(self, raw_id: str) -> None:
        """Extend it."""
        assert self.visitor is not None
        lease_id, visitor = read_id("lease", raw_id), self.visitor
        try:
            await self.ask(lambda broker: extend(broker, lease_id, visitor))
        except Refusal as refusal:
            self.refuse(refusal)
            await self.page(str(refusal))
            return
        self.redirect(f"{self.parts.prefix}?extended={lease_id}", status=303)


class Callback(Page, HubOAuthCallbackHandler):  # type: ignore[misc]
    """The end of the hub's OAuth: sets the cookie and goes back to the page that was asked for."""

    async def prepare(self) -> None:
        """Whether a user is signed in already is asked here, where it does not block the loop."""
        self.current_user = None
        try:
            self.current_user = await self.hub_auth.get_user(self, sync=False)
        except HTTPError as error:
            raise HubError("The hub did not say who a visitor is.") from error

    async def get(self) -> None:
        """Finish signing in."""
        try:
            await HubOAuthCallbackHandler.get(self)
        except HTTPError as error:
            if error.status_code >= 500:
                raise HubError("The hub did not finish signing a visitor in.") from error
            raise Problem(
                error.status_code,
                "sign-in",
                "Signing in was not completed; perhaps it took too long. "
                "Go to the hub's home page and open this page again from there.",
            ) from None


class NoPage(Page):
    """Any other address of the service that is not the API's."""

    async def prepare(self) -> None:
        """Nobody needs to be known for the answer that there is nothing."""
        self.current_user = None
        raise Problem(404, "not-found", "There is no such page here.")


class StaticFile(StaticFileHandler):
    """The style sheet and the script of the pages."""

    def set_default_headers(self) -> None:
        """Files are what their name says."""
        self.set_header("X-Content-Type-Options", "nosniff")


def handlers(prefix: str) -> list[Any]:
    """tornado's rules for the pages of a service at ``prefix``."""
    base = re.escape(prefix)
    rules: list[Any] = [
        (base, MySession),
        (base + "sessions/([^/]+)/extend", ExtendMine),
        (base + "oauth_callback", Callback),
        (base + r"static/(.+)", StaticFile, {"path": str(STATIC)}),
    ]
    if prefix != "/":
        rules.append((re.escape(prefix.rstrip("/")), RedirectHandler, {"url": prefix}))
    return rules


def not_found() -> type[RequestHandler]:
    """Who answers for every address that nothing else does."""
    return NoPage
