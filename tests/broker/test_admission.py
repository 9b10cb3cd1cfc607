"""What the list of tiers says, the start does, and so does the waiting list: on both databases."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from jupyterhub_migspawner.broker import Broker
from jupyterhub_migspawner.broker.statuses import SliceStatus, TierStatus
from jupyterhub_migspawner.errors import Refusal
from jupyterhub_migspawner.model.cards import Layout
from jupyterhub_migspawner.model.inventory import Card
from jupyterhub_migspawner.model.leases import LeaseRow
from jupyterhub_migspawner.policy.people import Person
from jupyterhub_migspawner.policy.tiers import Tier
from tests.broker import lab as labs
from tests.broker.lab import A30, MIXED, QUARTERS, SEVENTHS, WHOLE, Lab, card
from tests.broker.machines import run
from tests.broker.mixed_cards import t4

T = TypeVar("T")

ROOT = Person("root", admin=True)
ADA = Person("ada")
HOME = "hub:/etc/hub.py"


def offer_of(lab: Lab, person: Person, tier: str, **asked: Any) -> TierStatus:
    offers = lab.broker.tiers.of(person, **asked)
    return next(each for each in offers if each.tier.name == tier)


def refusal(call: Callable[..., object], *args: Any, **named: Any) -> Refusal:
    with pytest.raises(Refusal) as caught:
        call(*args, **named)
    return caught.value


def answer_of(call: Callable[[], T]) -> T | Refusal:
    try:
        return call()
    except Refusal as said:
        return said


def soon_grant(lab: Lab, user: str, minutes: float) -> None:
    begin = lab.clock.now + timedelta(minutes=minutes)
    request = lab.broker.requests.create(Person(user), "card", 4, "a deadline", starts_at=begin)
    lab.broker.requests.decide(request.id, ROOT, True)


# -- what used to disagree -------------------------------------------------------------------------


def test_just_before_a_grant_that_needs_the_only_card_there_is_a_way_out(
    make_lab: Callable[..., Lab],
) -> None:
    lab = make_lab()
    lab.report(card(0, WHOLE))
    lab.broker.hubs.claim(HOME)
    soon_grant(lab, "grace", 60)
    lab.grant("ada", hours=20)
    lab.clock.pass_time(minutes=51)
    lab.report(card(0, WHOLE))
    lab.broker.hubs.claim(HOME)
    found = offer_of(lab, ADA, "card", server="")
    said = refusal(lab.start, "ada", "card")
    assert not found.usable
    assert "reserved for a grant that begins" in found.why
    assert str(said) == found.why
    assert found.may_wait
    assert lab.broker.queue.join(ADA, "card").state == "waiting"


@pytest.mark.parametrize("known", [True, False])
def test_a_quota_of_servers_is_seen_in_the_list(make_lab: Callable[..., Lab], known: bool) -> None:
    lab = make_lab(quotas={"default": {"servers": 1}})
    lab.report()
    lab.start("ada", server="first")
    others = {"other_servers": 1 if known else None}
    found = offer_of(lab, ADA, "small", server="", **others)
    said = refusal(lab.broker.leases.acquire, ADA, "", "small", lab.attempt(), **others)
    assert (said.reason, said.soon) == ("quota", False)
    assert (found.usable, found.soon, found.why) == (False, False, str(said))
    # Servers without a GPU count too, and only the caller knows of them.
    grace = Person("grace")
    assert not offer_of(lab, grace, "cpu", server="", other_servers=1).usable
    assert offer_of(lab, grace, "cpu", server="", other_servers=0).usable


def test_what_a_crash_left_of_the_same_server_is_on_its_way_out(
    make_lab: Callable[..., Lab],
) -> None:
    lab = make_lab(quotas={"default": {"live": 1}})
    lab.report()
    crashed = lab.start("ada", server="exp")
    found = offer_of(lab, ADA, "small", server="exp", other_servers=0)
    said = refusal(lab.start, "ada", "small", "exp")
    assert (found.usable, found.soon, said.soon) == (False, True, True)
    assert found.why == str(said)
    assert "ended at" in found.why
    # The list only says so; it was the start that ended what was left.
    lab.broker.leases.confirm_empty(crashed.id)
    assert offer_of(lab, ADA, "small", server="exp").usable
    lab.start("ada", "small", "exp")
    # Seen from another server it runs.
    assert "Stop it" in offer_of(lab, ADA, "small", server="other").why


def test_the_list_changes_nothing(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab(quotas={"default": {"live": 1}})
    lab.report()
    lab.start("ada", server="exp")
    before = lab.stored()
    for server in ("exp", "", None):
        lab.broker.tiers.of(ADA, server=server)
    assert lab.stored() == before


@pytest.mark.parametrize("full", [True, False])
def test_who_is_over_quota_may_wait_until_that_is_over(
    make_lab: Callable[..., Lab], full: bool
) -> None:
    lab = make_lab(quotas={"user:ada": {"live": 1}})
    lab.report(card(0, [("1g.5gb", 0), ("2g.10gb", 2)]))
    lab.broker.hubs.claim(HOME)
    running = lab.start("ada", "medium", "first")
    grace = lab.start("grace") if full else None
    found = offer_of(lab, ADA, "small", server="")
    assert (found.usable, found.may_wait) == (False, True)
    assert found.why.startswith("Your quota allows 1 GPU server")
    ticket = lab.broker.queue.join(ADA, "small")
    lab.stop(running)
    if grace is not None:
        lab.stop(grace)
    assert lab.broker.offers.make(ticket.id, ADA).lease is not None


def test_nobody_waits_for_what_their_quota_never_allows(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab(quotas={"default": {"live": 0}})
    lab.report()
    lab.broker.hubs.claim(HOME)
    found = offer_of(lab, ADA, "small")
    said = refusal(lab.broker.queue.join, ADA, "small")
    assert (found.usable, found.may_wait) == (False, False)
    assert (said.reason, str(said)) == ("quota", found.why)


def test_who_has_just_stopped_a_server_may_start_and_wait(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab(quotas={"user:ada": {"live": 1}})
    lab.report(card(0, MIXED))
    lab.broker.hubs.claim(HOME)
    lab.start("ada", "medium", "first")
    lab.broker.leases.release_server("ada", "first", "stopped", "ada")
    found = offer_of(lab, ADA, "small", server="")
    # A start waits for the proof; nobody has to join the waiting list for that.
    assert (found.usable, found.soon, found.may_wait) == (False, True, False)
    assert lab.broker.queue.join(ADA, "small").state == "waiting"


def test_nobody_empties_a_card_past_those_who_wait_for_one(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab()
    lab.report(card(0, MIXED))
    lab.broker.hubs.claim(HOME)
    lab.start("linus")
    lab.grant("grace")
    lab.grant("ada")
    lab.broker.queue.join(Person("grace"), "card")
    found = offer_of(lab, ADA, "card", server="")
    said = refusal(lab.start, "ada", "card")
    assert (found.usable, found.may_wait) == (False, True)
    assert str(said).startswith(found.why)
    assert "waiting for tier card" in found.why
    assert [each.reserved_for for each in lab.broker.cards.find()] == [None]


def test_a_tier_that_is_only_seen_is_neither_started_nor_waited_for(
    make_lab: Callable[..., Lab],
) -> None:
    closed = {"name": "closed", "profile": "1g.5gb", "users": ["bob"], "seen_by": "everybody"}
    lab = make_lab(tiers=[closed, *labs.TIERS])
    lab.report()
    lab.broker.hubs.claim(HOME)
    found = offer_of(lab, ADA, "closed")
    assert (found.open, found.usable, found.may_wait) == (False, False, False)
    for call in (lab.broker.queue.join, lambda who, tier: lab.start(who.name, tier)):
        said = refusal(call, ADA, "closed")
        assert said.reason == "not-allowed"
        assert str(said).startswith(found.why)


def test_what_is_free_counts_on_the_node_that_is_asked_for(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab()
    lab.report(card(0, [("1g.5gb", 0)]), node="n1")
    lab.report(card(1, [("1g.5gb", 0)], uuid="GPU-9"), node="n2")
    lab.start("ada", node="n1")
    said = refusal(lab.start, "grace", node="n1")
    assert "No 1g.5gb slice is free on node 'n1'" in str(said)
    assert lab.start("grace", node="n2").node == "n2"


def test_a_free_slice_over_a_whole_card_is_given_whatever_was_on_the_card(
    make_lab: Callable[..., Lab],
) -> None:
    lab = make_lab(tiers=[{"name": "card", "profile": "whole"}])
    lab.report(card(0, SEVENTHS))
    lab.broker.slices.quarantine(lab.broker.slices.find()[0].row.id, "xid 95", "agent")
    assert not offer_of(lab, ADA, "card").usable
    lab.report(card(0, WHOLE))  # re-cut by hand
    found = offer_of(lab, ADA, "card")
    assert (found.usable, found.free) == (True, 1)
    assert lab.start("ada", "card").profile == "7g.40gb"


def test_a_start_says_once_where_to_wait(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab(tiers=[{"name": "small", "profile": "1g.5gb"}])
    lab.report(card(0, [("1g.5gb", 0)]))
    lab.broker.hubs.claim(HOME)
    held = lab.start("grace")
    lab.broker.queue.join(Person("linus"), "small")
    lab.stop(held)
    said = refusal(lab.start, "ada")
    assert str(said) == offer_of(lab, ADA, "small").why
    assert str(said).lower().count("join the waiting list") == 1


# -- the same for whatever people do ---------------------------------------------------------------

TIERS = [
    *labs.TIERS,
    {"name": "course", "profile": "1g.5gb", "seats": 2},
    {"name": "bare", "profile": "whole", "mig": "off", "approval": True},
    {
        "name": "big",
        "profile": "3g.20gb",
        "card": "A100*",
        "seen_by": "everybody",
        "users": ["ada"],
    },
    {"name": "quarter", "profile": "1g.6gb"},
    {"name": "old", "profile": "whole", "mig": "off", "approval": True, "card": "T4"},
    {"name": "half", "profile": "whole", "approval": True, "card": "<=24GB"},
]
WHOLE_TIERS = [tier["name"] for tier in TIERS if tier["profile"] == "whole"]
QUOTAS = {
    "default": {"live": 2, "servers": 3, "gpu_hours_per_week": 12},
    "user:grace": {"servers": 2, "whole_cards": 1},
}
USERS = st.sampled_from(["ada", "grace", "linus"])
SERVERS = st.sampled_from(["", "a", "b"])
NAMES = st.sampled_from([tier["name"] for tier in TIERS])
HUBS = st.sampled_from(["hub", "other"])
#: By card: its node, what makes it, how it is cut, and cut whole.
CARDS: list[tuple[str, Callable[..., Card], Layout, Layout]] = [
    ("n1", card, MIXED, WHOLE),
    ("n1", card, SEVENTHS, WHOLE),
    ("n2", partial(card, profiles=A30), QUARTERS, (("4g.24gb", 0),)),
    ("n2", lambda index, _: t4(index), (), ()),
]


class Admission(RuleBasedStateMachine):
    url = ""

    def __init__(self) -> None:
        super().__init__()
        self.lab = Lab(self.url, tiers=TIERS, quotas=QUOTAS)
        self.broker = self.lab.broker
        settings = replace(self.broker.settings, hub="other")
        self.other = Broker(self.lab.store, settings, clock=self.lab.clock)
        self.report()

    def teardown(self) -> None:
        self.lab.close()

    def report(self) -> None:
        wholes = {each.card_uuid for each in self.broker.leases.find() if each.whole}
        for node in ("n1", "n2"):
            cards = [
                make(index, whole if f"GPU-{index}" in wholes else cut)
                for index, (where, make, cut, whole) in enumerate(CARDS)
                if where == node
            ]
            self.lab.report(*cards, node=node)
        self.broker.hubs.claim(HOME)
        self.other.hubs.claim("other:/etc/hub.py")

    def at(self, hub: str) -> Broker:
        return self.other if hub == "other" else self.broker

    @rule(
        user=USERS,
        server=SERVERS,
        tier=NAMES,
        others=st.sampled_from([None, 0, 1, 2]),
        hub=HUBS,
    )
    def start(self, user: str, server: str, tier: str, others: int | None, hub: str) -> None:
        person, broker = Person(user), self.at(hub)
        offers = broker.tiers.of(person, server=server, other_servers=others)
        found = {each.tier.name: each for each in offers}.get(tier)
        reserved = {each.reserved_for for each in self.broker.cards.find()}
        answer = answer_of(
            lambda: broker.leases.acquire(
                person, server, tier, self.lab.attempt(), other_servers=others
            )
        )
        if found is None or not found.open:
            assert isinstance(answer, Refusal)
            assert answer.reason == "not-allowed"
            assert found is None or not (found.usable or found.may_wait)
        elif isinstance(answer, Refusal):
            assert str(answer).startswith(found.why)
            assert found.soon == answer.soon
            if "is free for tier" in str(answer):
                assert not self.in_sight(found)
            if found.usable:
                # Worth it all the same: a card is emptied for the grant.
                assert found.grant is not None
                assert not found.free
                assert "is being emptied for your grant" in str(answer)
                after = {each.reserved_for for each in self.broker.cards.find()}
                assert after - reserved <= {found.grant.id}
        else:
            assert (found.usable, found.why, found.soon) == (True, "", False)
            assert (answer is None) == found.tier.is_none
            if answer is not None:
                assert found.free or found.held is not None
                assert answer.request_id == (found.grant.id if found.grant else None)
                self.activate(answer)

    def in_sight(self, offer: TierStatus) -> list[object]:
        """What could be had of a tier, by the slices and cards themselves."""
        tier = offer.tier
        kinds = {card.uuid: card.kind for card in self.broker.cards.find()}
        # No seats are added on a card that is being emptied for a grant, or taken out of service.
        closed = {
            card.uuid
            for card in self.broker.cards.find()
            if (card.state, card.problem, card.target, card.reserved_for) != ("ok", "", None, None)
        }
        if not tier.is_whole:
            return [
                status
                for status in self.broker.slices.find()
                if status.row.profile == tier.profile
                and tier.means(kinds[status.row.card_uuid])
                and (
                    status.state == "free"
                    or (status.row.card_uuid not in closed and self.has_seat(status, tier))
                )
            ]
        busy = {lease.card_uuid for lease in self.broker.leases.find()}
        mine = {None, offer.grant.id if offer.grant else None}
        return [
            card
            for card in self.broker.cards.find()
            if card.uuid not in busy
            and tier.means(card.kind)
            and (card.state, card.problem, card.target) == ("ok", "", None)
            and card.reserved_for in mine
            and (tier.mig_off or card.mig_enabled)
        ]

    @staticmethod
    def has_seat(status: SliceStatus, tier: Tier) -> bool:
        return status.state == "leased" and all(
            each.tier == tier.name and len(status.leases) < tier.seats for each in status.leases
        )

    def activate(self, lease: LeaseRow) -> None:
        # Odd ones stay pending.
        if lease.id % 3:
            self.broker.leases.activate(lease.attempt)

    @rule(user=USERS, tier=NAMES, server=SERVERS, others=st.sampled_from([None, 0, 1]), hub=HUBS)
    def join(self, user: str, tier: str, server: str, others: int | None, hub: str) -> None:
        person, broker = Person(user), self.at(hub)
        if any(each.tier == tier for each in broker.queue.tickets(user)):
            return
        offers = broker.tiers.of(person, server=server, other_servers=others)
        found = {each.tier.name: each for each in offers}.get(tier)
        answer = answer_of(
            lambda: broker.queue.join(person, tier, server=server, other_servers=others)
        )
        if not isinstance(answer, Refusal):
            assert found is not None
            assert found.may_wait or found.soon
        elif "already waiting" not in str(answer):
            # Nobody waits for a tier without a GPU, even where a start would have to wait briefly.
            waits = found is not None and (found.may_wait or found.soon)
            assert not waits or (found.tier.is_none and not found.may_wait)
            if answer.reason == "conflict" and found is not None and not found.tier.is_none:
                assert "start your server" in str(answer)
                assert found.usable
            elif found is not None and found.open and not found.tier.is_none:
                assert str(answer) == found.why

    @rule(user=USERS, server=SERVERS, hub=HUBS)
    def stop(self, user: str, server: str, hub: str) -> None:
        self.at(hub).leases.release_server(user, server, "stopped", user)

    @rule(data=st.data())
    def prove_empty(self, data: Any) -> None:
        ending = [each for each in self.broker.leases.find() if each.ending]
        if ending:
            lease = data.draw(st.sampled_from(ending))
            self.broker.leases.confirm_empty(lease.id)
            self.report()
            for each in self.broker.cards.find():
                self.broker.layouts.finish_target(each.uuid)
            self.report()

    @rule(user=USERS, tier=st.sampled_from(WHOLE_TIERS), soon=st.booleans(), hub=HUBS)
    def grant(self, user: str, tier: str, soon: bool, hub: str) -> None:
        begin = self.lab.clock.now + timedelta(minutes=30) if soon else None
        try:
            request = self.at(hub).requests.create(
                Person(user), tier, 3, "a deadline", starts_at=begin
            )
        except Refusal:
            return  # one that is open is enough
        if request.id % 4:
            self.at(hub).requests.decide(request.id, ROOT, True)

    @rule(hub=HUBS)
    def serve(self, hub: str) -> None:
        broker = self.at(hub)
        broker.reservations.keep()
        broker.offers.settle()
        for ticket in broker.offers.turns(blocked=True):
            broker.offers.make(ticket.id, Person(ticket.user))

    @rule(minutes=st.sampled_from([0.5, 2, 15, 60]))
    def pass_time(self, minutes: float) -> None:
        self.lab.clock.pass_time(minutes=minutes)
        self.broker.requests.expire()
        self.other.requests.expire()
        self.report()

    @rule(index=st.sampled_from(range(len(CARDS))), drained=st.booleans())
    def drain(self, index: int, drained: bool) -> None:
        if drained:
            self.broker.cards.drain(f"GPU-{index}", "a fan", "root")
        else:
            self.broker.cards.resume(f"GPU-{index}", "root")


def test_what_is_offered_is_given_and_what_is_refused_is_said(emptied: Any) -> None:
    run(Admission, emptied, examples=40, steps=40)
