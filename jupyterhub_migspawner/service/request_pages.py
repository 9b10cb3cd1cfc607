"""The pages for requests: my own, and those that wait for a decision.

Plain forms, each a POST to its own address that ends in a redirect, so that reloading sends nothing
twice. What is refused comes back on the same page in a sentence, with everything that was typed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime, timezone
from functools import partial
from typing import Any, TypeVar

from jupyterhub_migspawner.broker import Broker, TierOffer
from jupyterhub_migspawner.errors import Refusal
from jupyterhub_migspawner.model.leases import LIVE, LeaseRow
from jupyterhub_migspawner.model.parts import Part
from jupyterhub_migspawner.model.requests import DraftRow, RequestRow
from jupyterhub_migspawner.model.tickets import TicketRow
from jupyterhub_migspawner.policy.approval import APPROVED, CANCELLED, DENIED, PENDING
from jupyterhub_migspawner.policy.fields import read_hours, read_minutes, read_moment
from jupyterhub_migspawner.policy.settings import Settings
from jupyterhub_migspawner.policy.wording import number
from jupyterhub_migspawner.service.approvers import (
    Decidable,
    decidable,
    is_approver,
    only_shown,
)
from jupyterhub_migspawner.service.hub import Beside
from jupyterhub_migspawner.service.pages import Page
from jupyterhub_migspawner.service.problem import Problem
from jupyterhub_migspawner.service.rest import read_id
from jupyterhub_migspawner.service.sessions import moment

#: Characters of a field that are looked at; the broker says what is too long.
MOST_CHARACTERS = 10_000

#: What a request is typed as.
TYPED = ("tier", "hours", "starts_at", "reason")

Changed = TypeVar("Changed", RequestRow, TicketRow, DraftRow)

#: What an approver may just have done, by the word in the address: the sentence, and the state in
#: which the request is then.
DONE_TO = {
    "approved": ("Request {id} is approved.", APPROVED),
    "denied": ("Request {id} is denied.", DENIED),
    "seconded": ("You have approved request {id}; a second approval is needed.", PENDING),
    "back": ("Grant {id} is taken back. A server that uses it keeps running.", CANCELLED),
    "revoked": ("Grant {id} is revoked; servers that use it end after the warning.", CANCELLED),
}

#: Past requests on a page.
MOST_SHOWN = 50

#: Open requests on the page of those who decide.
MOST_DECIDED = 100


def _is_in(states: Mapping[int, str], state: str, request_id: int) -> bool:
    return states.get(request_id) == state


class RequestPage(Page):
    """What the pages of requests share."""

    def field(self, name: str) -> str:
        """A field of the form as it was typed, or an empty text."""
        return str(self.get_body_argument(name, "", strip=False))[:MOST_CHARACTERS]

    async def change(
        self,
        use: Callable[[Broker], Changed],
        done: str | Callable[[Changed], str],
        back: str,
    ) -> str:
        """Do it and go back with a word of what was done; otherwise the sentence of why not."""
        try:
            changed = await self.ask(use)
        except Refusal as refusal:
            self.refuse(refusal)
            return str(refusal)
        word = done if isinstance(done, str) else done(changed)
        self.redirect(f"{self.parts.prefix}{back}?{word}={changed.id}", status=303)
        return ""

    def before(self) -> int | None:
        """Where the part of a list begins that the address asks for; None for the newest."""
        found = self.get_query_argument("before", "")
        return int(found) if found.isascii() and found.isdigit() and len(found) <= 18 else None

    def told(self, words: Mapping[str, tuple[str, Callable[[int], bool]]]) -> str:
        """What was just done, as the address says: a sentence for each word and when it is true.

        Anybody can write an address, so there is no message about a number for which it is not
        true.
        """
        for word, (sentence, holds) in words.items():
            found = self.get_query_argument(word, "")
            if found.isascii() and found.isdigit() and len(found) <= 18 and holds(int(found)):
                return sentence.format(id=int(found))
        return ""


class MyRequests(RequestPage):
    """What the visitor has asked for, and a form to ask for more."""

    async def get(self) -> None:
        """Show the page; ``tier`` in the address picks one in the form."""
        typed = {"tier": self.get_query_argument("tier", "")}
        draft = self.get_query_argument("draft", "")
        if draft:
            typed = await self.drafted(read_id("draft", draft))
        await self.page(typed)

    async def drafted(self, draft_id: int) -> dict[str, str]:
        """A draft of the visitor's as it was typed."""
        assert self.visitor is not None
        person = self.visitor.person
        for draft in await self.ask(lambda broker: broker.drafts(person)):
            if draft.id == draft_id:
                found = {name: getattr(draft, name) for name in TYPED}
                with suppress(Refusal, OverflowError):
                    # As the field takes it, where the draft was not typed into that.
                    begin = read_moment(draft.starts_at) if draft.starts_at.strip() else None
                    found["starts_at"] = (
                        f"{begin.astimezone(timezone.utc):%Y-%m-%dT%H:%M}" if begin else ""
                    )
                return {**found, "draft": str(draft.id)}
        raise Problem(404, "not-found", f"You have no draft {draft_id}.")

    async def post(self) -> None:
        """Ask for a tier; a draft that it was is one no more."""
        typed = {name: self.field(name) for name in (*TYPED, "draft")}
        assert self.visitor is not None
        person = self.visitor.person

        def file(broker: Broker) -> RequestRow:
            if typed["draft"]:
                draft_id = read_id("draft", typed["draft"])
                as_typed = {name: typed[name] for name in TYPED}
                broker.save_draft(person, draft_id=draft_id, **as_typed)
                return broker.file_draft(person, draft_id)
            begin = read_moment(typed["starts_at"]) if typed["starts_at"].strip() else None
            hours = read_hours(typed["hours"])
            return broker.create_request(person, typed["tier"], hours, typed["reason"], begin)

        problem = await self.change(file, "asked", "requests")
        if problem:
            await self.page(typed, problem)

    async def page(self, typed: Mapping[str, str], problem: str = "") -> None:
        """Show what there is, with the form as it was typed."""
        assert self.visitor is not None
        person = self.visitor.person

        def read(
            broker: Broker,
        ) -> tuple[
            tuple[RequestRow, ...],
            tuple[TierOffer, ...],
            tuple[DraftRow, ...],
            tuple[LeaseRow, ...],
        ]:
            broker.expire_requests()
            mine = broker.requests(user=person.name, part=Part(MOST_SHOWN + 1, before))
            if before is None:
                # What is open is shown, whatever came after it.
                open_ones = broker.requests(
                    user=person.name, states=(PENDING, APPROVED), part=Part(MOST_SHOWN)
                )
                known = {each.id for each in mine}
                mine = (*(each for each in open_ones if each.id not in known), *mine)
            leases = broker.leases(user=person.name, hub=broker.hub, states=LIVE)
            offers = broker.tiers_for(person, **vars(beside))
            return mine, offers, broker.drafts(person), leases

        before = self.before()
        servers = await self.live_servers(person.name)
        beside = Beside() if servers is None else Beside.of_next(servers)
        requests, offers, drafts, leases = await self.ask(read)
        newest = requests[-MOST_SHOWN - 1 :]
        older = newest[1].id if len(newest) > MOST_SHOWN else None
        if older is not None:
            requests = tuple(
                each for each in requests if each.id >= older or each.state in (PENDING, APPROVED)
            )
        states = {each.id: each.state for each in requests}
        begun = {each.id for each in drafts}
        told = self.told(
            {
                "asked": (
                    "Request {id} is filed. An approver will decide on it.",
                    lambda id_: states.get(id_) == PENDING,
                ),
                "cancelled": (
                    "Request {id} is cancelled.",
                    lambda id_: states.get(id_) == CANCELLED,
                ),
                "kept": ("Draft {id} is saved; only you can see it.", begun.__contains__),
                "dropped": ("Draft {id} is gone.", lambda id_: id_ not in begun),
            }
        )
        on_grants = {lease.request_id: lease for lease in leases if lease.request_id}
        usable = {offer.tier.name for offer in offers if offer.open and offer.tier.approval}
        self.show(
            "requests.html",
            requests=[
                {
                    **each,
                    "gone": each["open"] and each["tier_name"] not in usable,
                    "lease": on_grants.get(each["id"]),
                }
                for each in shown(requests, self.parts.settings, self.parts.broker.clock())
            ],
            default_runs=any(not server.name for server in servers or ()),
            named_servers=self.parts.settings.server_names.named,
            drafts=[
                (draft, self.parts.settings.title_of(draft.tier), draft.tier in usable)
                for draft in drafts
            ],
            older=older,
            tiers=[offer.tier for offer in offers if offer.open and offer.tier.approval],
            typed=typed,
            problem=problem,
            told="" if problem else told,
            decides=is_approver(self.visitor, self.parts.settings.approvers),
        )


class KeepDraft(MyRequests):
    """What was typed is kept as a draft."""

    async def get(self) -> None:
        """Nothing to see here: back to the list."""
        self.redirect(f"{self.parts.prefix}requests")

    async def post(self) -> None:
        """Keep it."""
        assert self.visitor is not None
        person = self.visitor.person
        typed = {name: self.field(name) for name in TYPED}
        raw = self.field("draft")
        draft_id = read_id("draft", raw) if raw else None
        problem = await self.change(
            lambda broker: broker.save_draft(person, draft_id=draft_id, **typed), "kept", "requests"
        )
        if problem:
            await self.page({**typed, "draft": raw}, problem)


class DropDraft(MyRequests):
    """A draft is thrown away."""

    async def get(self, raw_id: str) -> None:  # type: ignore[override]
        """Nothing to see here: back to the list."""
        self.redirect(f"{self.parts.prefix}requests")

    async def post(self, raw_id: str) -> None:  # type: ignore[override]
        """Throw it away."""
        assert self.visitor is not None
        draft_id, person = read_id("draft", raw_id), self.visitor.person
        problem = await self.change(
            lambda broker: broker.drop_draft(person, draft_id), "dropped", "requests"
        )
        if problem:
            await self.page({}, problem)


class CancelMine(MyRequests):
    """The withdrawal of a request."""

    async def get(self, raw_id: str) -> None:  # type: ignore[override]
        """Nothing to see here: back to the list."""
        self.redirect(f"{self.parts.prefix}requests")

    async def post(self, raw_id: str) -> None:  # type: ignore[override]
        """Withdraw it."""
        assert self.visitor is not None
        request_id, by = read_id("request", raw_id), self.visitor.person
        problem = await self.change(
            lambda broker: broker.cancel_request(request_id, by), "cancelled", "requests"
        )
        if problem:
            await self.page({}, problem)


class Decisions(RequestPage):
    """What waits for the visitor's decision."""

    async def prepare(self) -> None:
        """For approvers only."""
        await super().prepare()
        if self.visitor and not is_approver(self.visitor, self.parts.settings.approvers):
            raise Problem(
                403, "not-allowed", "Only the hub's admins and approvers decide on requests."
            )

    async def get(self) -> None:
        """Show the page."""
        await self.page()

    async def page(
        self, problem: str = "", about: int = 0, typed: Mapping[str, str] | None = None
    ) -> None:
        """Show what waits; ``typed`` stands in the form of request ``about``."""
        assert self.visitor is not None

        visitor, approvers, part = (
            self.visitor,
            self.parts.settings.approvers,
            Part(MOST_DECIDED, self.before()),
        )

        decided = frozenset(
            int(value)
            for word in DONE_TO
            if (value := self.get_query_argument(word, "")).isascii()
            and value.isdigit()
            and len(value) <= 18
        )

        def read(
            broker: Broker,
        ) -> tuple[Decidable, list[RequestRow], frozenset[int | None], dict[int, RequestRow]]:
            looked_up: dict[int, RequestRow] = {}
            for id_ in decided:
                with suppress(Refusal):
                    row = broker.request(id_)
                    looked_up |= {each.id: each for each in only_shown([row], visitor, approvers)}
            broker.expire_requests()
            in_use = frozenset(lease.request_id for lease in broker.leases())
            found = decidable(broker, visitor, approvers, part, (PENDING, APPROVED))
            # What was taken back may be in use all the same, until an approver revokes it.
            rest = [broker.request(id_) for id_ in sorted(filter(None, in_use))]
            cancelled = [each for each in rest if each.state == CANCELLED]
            return found, list(only_shown(cancelled, visitor, approvers)), in_use, looked_up

        found, cancelled, in_use, done = await self.ask(read)
        states = {id_: request.state for id_, request in done.items()}
        now = self.parts.broker.clock()
        mine = (*found.requests, *cancelled)
        requests = shown(mine, self.parts.settings, now, in_use=in_use)
        self.show(
            "decisions.html",
            waiting=[each for each in requests if each["state"] == PENDING][::-1],
            older=found.older_than,
            granted=[each for each in requests if each["state"] in (APPROVED, CANCELLED)],
            me=self.visitor.person.name,
            problem=problem,
            about=about,
            typed=typed or {},
            told=""
            if problem
            else self.told(
                {
                    word: (sentence, partial(_is_in, states, state))
                    for word, (sentence, state) in DONE_TO.items()
                }
            ),
        )


class Decide(Decisions):
    """One decision; the last part of the address says which."""

    async def get(self, raw_id: str, what: str) -> None:  # type: ignore[override]
        """Nothing to see here: back to the list."""
        self.redirect(f"{self.parts.prefix}decisions")

    async def post(self, raw_id: str, what: str) -> None:
        """Decide."""
        assert self.visitor is not None
        request_id, by = read_id("request", raw_id), self.visitor.decider
        typed = {name: self.field(name) for name in ("hours", "reason", "minutes")}
        try:
            hours = read_hours(typed["hours"]) if what == "approve" else 0.0
            minutes = read_minutes(typed["minutes"]) if what == "revoke" else 0.0
        except Refusal as refusal:
            self.refuse(refusal)
            await self.page(str(refusal), request_id, typed)
            return
        uses: dict[str, tuple[str, Callable[[Broker], RequestRow]]] = {
            "approve": (
                "approved",
                lambda broker: broker.decide(request_id, by, True, typed["reason"], hours),
            ),
            "deny": (
                "denied",
                lambda broker: broker.decide(request_id, by, False, typed["reason"]),
            ),
            "cancel": ("back", lambda broker: broker.cancel_request(request_id, by)),
            "revoke": (
                "revoked",
                lambda broker: broker.revoke(request_id, by, typed["reason"], minutes)[0],
            ),
        }
        done, use = uses[what]
        problem = await self.change(
            use, lambda changed: "seconded" if changed.state == PENDING else done, "decisions"
        )
        if problem:
            await self.page(problem, request_id, typed)


def shown(
    requests: tuple[RequestRow, ...],
    settings: Settings,
    now: datetime,
    in_use: frozenset[int | None] = frozenset(),
) -> list[dict[str, Any]]:
    """Requests as the pages show them, the newest first."""
    found = []
    for request in reversed(requests):
        tier = settings.tier(request.tier)
        found.append(
            {
                "id": request.id,
                "user": request.user,
                "tier": settings.title_of(request.tier),
                "tier_name": request.tier,
                "grantable": tier is not None and tier.approval,
                "hours": number(request.hours),
                "most": number(min(request.hours, tier.max_hours or request.hours)) if tier else "",
                "reason": request.reason,
                "state": request.state,
                "open": request.state in (PENDING, APPROVED),
                "made": moment(request.created_at),
                "decided_by": request.decided_by,
                "answer": request.decision_reason,
                "until": moment(request.valid_until) if request.valid_until else None,
                "over": request.valid_until is not None and request.valid_until <= now,
                "begins": moment(request.valid_from)
                if request.valid_from and request.valid_from > now
                else None,
                "wanted": moment(request.starts_at) if request.starts_at else None,
                "first_by": request.first_by,
                "in_use": request.id in in_use,
            }
        )
    return found


def handlers(prefix: str) -> list[Any]:
    """tornado's rules for the pages of requests of a service at ``prefix``."""
    base = re.escape(prefix)
    return [
        (base + "requests", MyRequests),
        (base + "requests/([^/]+)/cancel", CancelMine),
        (base + "drafts", KeepDraft),
        (base + "drafts/([^/]+)/drop", DropDraft),
        (base + "decisions", Decisions),
        (base + "decisions/([^/]+)/(approve|deny|cancel|revoke)", Decide),
    ]
