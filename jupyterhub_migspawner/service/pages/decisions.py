"""The page of requests that wait for a decision, for approvers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial

from jupyterhub_migspawner.broker import Broker
from jupyterhub_migspawner.errors import Refusal
from jupyterhub_migspawner.model.parts import Part
from jupyterhub_migspawner.model.requests import RequestRow
from jupyterhub_migspawner.policy.approval import APPROVED, CANCELLED, DENIED, PENDING
from jupyterhub_migspawner.policy.fields import read_hours, read_minutes
from jupyterhub_migspawner.service.api.handler import read_id
from jupyterhub_migspawner.service.http.approvers import (
    Decidable,
    decidable,
    is_approver,
    only_shown,
)
from jupyterhub_migspawner.service.http.problem import Problem
from jupyterhub_migspawner.service.pages.forms import RequestPage
from jupyterhub_migspawner.service.pages.requests import shown

#: What an approver may just have done, by the word in the address: the sentence, and the state in
#: which the request is then.
DONE_TO = {
    "approved": ("Request {id} is approved.", APPROVED),
    "denied": ("Request {id} is denied.", DENIED),
    "seconded": ("You have approved request {id}; a second approval is needed.", PENDING),
    "back": ("Grant {id} is withdrawn. A server that uses it keeps running.", CANCELLED),
    "revoked": ("Grant {id} is revoked; servers that use it end after the warning.", CANCELLED),
}


#: Open requests on the page of those who decide.
MOST_DECIDED = 100


def _is_in(states: Mapping[int, str], state: str, request_id: int) -> bool:
    return states.get(request_id) == state


class Decisions(RequestPage):
    """What waits for the visitor's decision."""

    async def prepare(self) -> None:
        """Refuse visitors who are not approvers."""
        await super().prepare()
        if self.visitor and not is_approver(self.visitor, self.parts.settings.approvers):
            raise Problem(
                403, "not-allowed", "Only the hub's admins and approvers can decide on requests."
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
                    row = broker.requests.get(id_)
                    looked_up |= {each.id: each for each in only_shown([row], visitor, approvers)}
            broker.requests.expire()
            in_use = frozenset(lease.request_id for lease in broker.leases.find())
            found = decidable(broker, visitor, approvers, part, (PENDING, APPROVED))
            # What was taken back may be in use all the same, until an approver revokes it.
            rest = [broker.requests.get(id_) for id_ in sorted(filter(None, in_use))]
            cancelled = [each for each in rest if each.state == CANCELLED]
            return found, list(only_shown(cancelled, visitor, approvers)), in_use, looked_up

        found, cancelled, in_use, done = await self.ask(read)
        states = {id_: request.state for id_, request in done.items()}
        now = self.parts.broker.now()
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
            confirmation=""
            if problem
            else self.confirmation(
                {
                    word: (sentence, partial(_is_in, states, state))
                    for word, (sentence, state) in DONE_TO.items()
                }
            ),
        )


class Decide(Decisions):
    """One decision; the last part of the address says which."""

    async def get(self, raw_id: str, what: str) -> None:  # type: ignore[override]
        """Redirect to the list: there is nothing to see here."""
        self.redirect(f"{self.parts.prefix}decisions")

    async def post(self, raw_id: str, what: str) -> None:
        """Apply the visitor's decision."""
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
                lambda broker: broker.requests.decide(request_id, by, True, typed["reason"], hours),
            ),
            "deny": (
                "denied",
                lambda broker: broker.requests.decide(request_id, by, False, typed["reason"]),
            ),
            "cancel": ("back", lambda broker: broker.requests.cancel(request_id, by)),
            "revoke": (
                "revoked",
                lambda broker: broker.requests.revoke(request_id, by, typed["reason"], minutes)[0],
            ),
        }
        done, use = uses[what]
        problem = await self.change(
            use, lambda changed: "seconded" if changed.state == PENDING else done, "decisions"
        )
        if problem:
            await self.page(problem, request_id, typed)
