"""The page of the visitor's requests, and a form to file one."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime, timezone
from typing import Any

from jupyterhub_migspawner.broker import Broker, TierStatus
from jupyterhub_migspawner.errors import Refusal
from jupyterhub_migspawner.model.leases import LIVE, LeaseRow
from jupyterhub_migspawner.model.parts import Part
from jupyterhub_migspawner.model.requests import DraftRow, RequestRow
from jupyterhub_migspawner.policy.approval import APPROVED, CANCELLED, PENDING
from jupyterhub_migspawner.policy.fields import read_hours, read_moment
from jupyterhub_migspawner.policy.settings import Settings
from jupyterhub_migspawner.policy.wording import number
from jupyterhub_migspawner.service.api.handler import read_id
from jupyterhub_migspawner.service.clients.hub import Beside
from jupyterhub_migspawner.service.http.approvers import is_approver
from jupyterhub_migspawner.service.http.problem import Problem
from jupyterhub_migspawner.service.pages.forms import RequestPage
from jupyterhub_migspawner.service.pages.status import moment

#: What a request is typed as.
TYPED = ("tier", "hours", "starts_at", "reason")


#: Past requests on a page.
MOST_SHOWN = 50


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
        """Return a draft of the visitor's as it was typed."""
        assert self.visitor is not None
        person = self.visitor.person
        for draft in await self.ask(lambda broker: broker.drafts.of(person)):
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
        """Request a tier; the draft that it came from ceases to be one."""
        typed = {name: self.field(name) for name in (*TYPED, "draft")}
        assert self.visitor is not None
        person = self.visitor.person

        def file(broker: Broker) -> RequestRow:
            if typed["draft"]:
                draft_id = read_id("draft", typed["draft"])
                as_typed = {name: typed[name] for name in TYPED}
                broker.drafts.save(person, draft_id=draft_id, **as_typed)
                return broker.drafts.file(person, draft_id)
            begin = read_moment(typed["starts_at"]) if typed["starts_at"].strip() else None
            hours = read_hours(typed["hours"])
            return broker.requests.create(person, typed["tier"], hours, typed["reason"], begin)

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
            tuple[TierStatus, ...],
            tuple[DraftRow, ...],
            tuple[LeaseRow, ...],
        ]:
            broker.requests.expire()
            mine = broker.requests.find(user=person.name, part=Part(MOST_SHOWN + 1, before))
            if before is None:
                # What is open is shown, whatever came after it.
                open_ones = broker.requests.find(
                    user=person.name, states=(PENDING, APPROVED), part=Part(MOST_SHOWN)
                )
                known = {each.id for each in mine}
                mine = (*(each for each in open_ones if each.id not in known), *mine)
            leases = broker.leases.find(user=person.name, hub=broker.hub, states=LIVE)
            offers = broker.tiers.of(person, **vars(beside))
            return mine, offers, broker.drafts.of(person), leases

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
        confirmation = self.confirmation(
            {
                "asked": (
                    "Request {id} is submitted. An approver will decide on it.",
                    lambda id_: states.get(id_) == PENDING,
                ),
                "cancelled": (
                    "Request {id} is cancelled.",
                    lambda id_: states.get(id_) == CANCELLED,
                ),
                "kept": ("Draft {id} is saved; only you can see it.", begun.__contains__),
                "dropped": ("Draft {id} is discarded.", lambda id_: id_ not in begun),
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
                for each in shown(requests, self.parts.settings, self.parts.broker.now())
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
            confirmation="" if problem else confirmation,
            decides=is_approver(self.visitor, self.parts.settings.approvers),
        )


class CancelMine(MyRequests):
    """The withdrawal of a request."""

    async def get(self, raw_id: str) -> None:  # type: ignore[override]
        """Redirect to the list: there is nothing to see here."""
        self.redirect(f"{self.parts.prefix}requests")

    async def post(self, raw_id: str) -> None:  # type: ignore[override]
        """Withdraw the request."""
        assert self.visitor is not None
        request_id, by = read_id("request", raw_id), self.visitor.person
        problem = await self.change(
            lambda broker: broker.requests.cancel(request_id, by), "cancelled", "requests"
        )
        if problem:
            await self.page({}, problem)


def shown(
    requests: tuple[RequestRow, ...],
    settings: Settings,
    now: datetime,
    in_use: frozenset[int | None] = frozenset(),
) -> list[dict[str, Any]]:
    """Return requests as the pages show them, the newest first."""
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
