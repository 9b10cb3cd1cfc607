"""The broker against a small model of it, step by step, on both databases.

Hypothesis makes up what people, approvers, admins and agents do, in any order; after every step
the broker has to tell exactly what the model expects. A failure prints the steps that lead to it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from jupyterhub_migspawner.broker.reservations import KEPT
from jupyterhub_migspawner.errors import Refusal
from jupyterhub_migspawner.model.leases import LeaseRow
from jupyterhub_migspawner.policy.people import Person
from tests.broker import lab as labs
from tests.broker.lab import MIXED, SEVENTHS, WHOLE, Lab, card, inventory
from tests.broker.machines import run

Place = tuple[int, str, int]

BASE: dict[int, tuple[tuple[str, int], ...]] = {0: MIXED, 1: SEVENTHS}
PROFILE = {"small": "1g.5gb", "medium": "2g.10gb", "large": "3g.20gb", "course": "1g.5gb"}
SEATS = 3
LIVE_QUOTA = 3


@dataclass
class Held:
    lease_id: int
    user: str
    server: str
    tier: str
    attempt: str
    place: Place
    state: str = "pending"
    seat: int = 0
    grant: int | None = None


@dataclass
class CardModel:
    layout: tuple[tuple[str, int], ...]
    target: tuple[tuple[str, int], ...] | None = None
    drained: bool = False
    lost: bool = False
    reserved_for: int | None = None
    kept_until: datetime | None = None


@dataclass
class Model:
    cards: dict[int, CardModel] = field(
        default_factory=lambda: {index: CardModel(base) for index, base in BASE.items()}
    )
    live: list[Held] = field(default_factory=list)
    past: list[Held] = field(default_factory=list)
    cancelled: set[str] = field(default_factory=set)
    grants: dict[str, int] = field(default_factory=dict)
    quarantined: set[Place] = field(default_factory=set)

    def taken(self) -> set[Place]:
        return {held.place for held in self.live}

    def in_service(self, index: int) -> bool:
        model = self.cards[index]
        return not model.drained and not model.lost and model.target is None

    def usable(self, index: int) -> bool:
        return self.in_service(index) and self.cards[index].reserved_for is None

    def free(self, profile: str) -> set[Place]:
        places = {
            (index, name, start)
            for index, model in self.cards.items()
            if self.usable(index)
            for name, start in model.layout
            if name == profile
        }
        return places - self.taken() - self.quarantined

    def on(self, place: Place) -> list[Held]:
        return [held for held in self.live if held.place == place]

    def joinable(self) -> dict[Place, int]:
        """Slices with people of the sharing tier that more may join, and how many are there."""
        shared = {h.place for h in self.live if h.tier == "course" and self.usable(h.place[0])}
        seated = {place: len(self.on(place)) for place in shared - self.quarantined}
        return {place: number for place, number in seated.items() if number < SEATS}

    def seats_free(self) -> int:
        left = sum(SEATS - number for number in self.joinable().values())
        return left + SEATS * len(self.free(PROFILE["course"]))

    def may_take_all(self, grant: int | None) -> set[int]:
        shut = {place[0] for place in self.quarantined}
        return {
            index
            for index, model in self.cards.items()
            if self.in_service(index) and model.reserved_for in (None, grant)
        } - shut

    def busy(self) -> set[int]:
        return {place[0] for place in self.taken()}

    def idle_cards(self, grant: int | None = None) -> set[int]:
        """What could be given out whole: only what is kept for the grant, if something is."""
        idle = self.may_take_all(grant) - self.busy()
        kept = {i for i in idle if self.cards[i].reserved_for is not None}
        return kept or idle

    def cards_to_empty(self, grant: int) -> set[int]:
        """Which the next start on the grant may set aside; empty when one is set aside already."""
        busy = self.may_take_all(grant) & self.busy()
        if any(self.cards[index].reserved_for == grant for index in busy):
            return set()
        people = {
            index: len({held.user for held in self.live if held.place[0] == index})
            for index in busy
        }
        return {index for index in busy if people[index] == min(people.values())}

    def unreserve(self, grant: int) -> None:
        for model in self.cards.values():
            if model.reserved_for == grant:
                model.reserved_for = model.kept_until = None

    def held_by(self, user: str) -> list[Held]:
        return [h for h in self.live if h.user == user and h.state != "releasing"]

    def counted_of(self, user: str) -> list[Held]:
        """What counts against a person: all that is not proven empty."""
        return [held for held in self.live if held.user == user]

    def acquire(self, user: str, server: str, tier: str, attempt: str) -> str | Held | None:
        """A refusal's reason, the lease to get again, or None for a new one (or none at all)."""
        for held in self.live + self.past:
            if held.attempt == attempt:
                same = (held.user, held.server, held.tier) == (user, server, tier)
                return held if same and held.state in ("pending", "active") else "conflict"
        if attempt in self.cancelled:
            return "conflict"
        if tier == "large" and user != "ada":
            return "not-allowed"
        for held in self.held_by(user):
            if held.server == server:
                held.state = "releasing"
        if tier == "cpu":
            return None
        if tier == "card":
            in_use = {held.grant for held in self.counted_of(user)}
            if user not in self.grants or self.grants[user] in in_use:
                return "approval"
        if len(self.counted_of(user)) >= LIVE_QUOTA:
            return "quota"
        free: set[Any] = self.free(PROFILE[tier]) if tier != "card" else set()
        if tier == "card":
            free = self.idle_cards(self.grants[user])
        if tier == "course":
            free |= set(self.joinable())
        return None if free else "capacity"


USERS = st.sampled_from(["ada", "grace", "linus"])
SERVERS = st.sampled_from(["", "a", "b", "c"])
TIERS = st.sampled_from(["small", "course", "course", "medium", "large", "card", "cpu"])
CARDS = st.sampled_from([0, 1])


class BrokerMachine(RuleBasedStateMachine):
    url = ""

    def __init__(self) -> None:
        super().__init__()
        tiers = [*labs.TIERS, {"name": "course", "profile": "1g.5gb", "seats": SEATS}]
        self.lab = Lab(self.url, tiers=tiers, quotas={"default": {"live": LIVE_QUOTA}})
        self.model = Model()
        self.numbers = iter(range(10**6))
        self.lab.clock.pass_time(seconds=1)
        self.report()
        for user in ("ada", "grace"):
            self.grant_to(user)

    def teardown(self) -> None:
        self.lab.close()

    def report(self) -> None:
        cards = [card(i, model.layout) for i, model in self.model.cards.items() if not model.lost]
        self.lab.broker.nodes.record_inventory("n1", inventory(*cards))

    def known_attempts(self) -> list[str]:
        model = self.model
        return [h.attempt for h in model.live + model.past] + sorted(model.cancelled)

    def expect(self, reason: str, call: Any, *args: Any) -> None:
        with pytest.raises(Refusal) as caught:
            call(*args)
        assert caught.value.reason == reason

    @rule(user=USERS, server=SERVERS, tier=TIERS)
    def start(self, user: str, server: str, tier: str) -> None:
        self.attempt_to_start(user, server, tier, f"attempt-{next(self.numbers)}")

    @precondition(lambda self: self.known_attempts())
    @rule(user=USERS, server=SERVERS, tier=TIERS, data=st.data(), own=st.booleans())
    def start_again(self, user: str, server: str, tier: str, data: Any, own: bool) -> None:
        attempt = data.draw(st.sampled_from(self.known_attempts()))
        if own:
            for held in self.model.live:
                if held.attempt == attempt:
                    user, server, tier = held.user, held.server, held.tier
        if tier == "large":
            user = "ada"
        self.attempt_to_start(user, server, tier, attempt)

    def attempt_to_start(self, user: str, server: str, tier: str, attempt: str) -> None:
        groups = frozenset({"vision"}) if user == "ada" else frozenset()
        asked = (Person(user, groups), server, tier, attempt)
        expected = self.model.acquire(user, server, tier, attempt)
        if isinstance(expected, str):
            self.expect(expected, self.lab.broker.leases.acquire, *asked)
            if (expected, tier) == ("capacity", "card"):
                self.a_card_is_set_aside(self.model.grants[user])
            return
        lease = self.lab.broker.leases.acquire(*asked)
        if isinstance(expected, Held):
            assert lease is not None
            assert (lease.id, lease.state) == (expected.lease_id, expected.state)
        elif tier == "cpu":
            assert lease is None
        else:
            assert lease is not None
            self.new_lease(lease, tier)

    def a_card_is_set_aside(self, grant: int) -> None:
        choice = self.model.cards_to_empty(grant)
        if not choice:
            return
        chosen = {c.index for c in self.lab.broker.cards.find() if c.reserved_for == grant}
        assert len(chosen) == 1
        assert chosen <= choice
        self.model.unreserve(grant)
        self.model.cards[chosen.pop()].reserved_for = grant

    def new_lease(self, lease: LeaseRow, tier: str) -> None:
        model = self.model
        index = int(lease.card_uuid.removeprefix("GPU-"))
        place = (index, lease.profile, lease.start)
        joinable = model.joinable()
        if tier == "course" and joinable:
            # Beside others where they are most, on the first seat that is empty.
            assert joinable[place] == max(joinable.values())
            seats = {held.seat for held in model.on(place)}
            assert lease.seat == min(set(range(SEATS)) - seats)
        else:
            assert place not in model.taken()
            assert lease.seat == 0
        if tier == "card":
            grant = model.grants[lease.user]
            assert index in model.idle_cards(grant)
            assert [(lease.profile, lease.start)] == list(WHOLE)
            assert lease.request_id == grant
            model.unreserve(grant)
            if model.cards[index].layout != WHOLE:
                model.cards[index].target = WHOLE
                assert lease.slice_uuid is None
        else:
            assert place in joinable or place in model.free(PROFILE[tier])
            assert lease.slice_uuid == f"MIG-{index}-{lease.profile}-{lease.start}"
        held = Held(lease.id, lease.user, lease.server, tier, lease.attempt, place)
        held.seat, held.grant = lease.seat, lease.request_id
        model.live.append(held)

    @precondition(lambda self: self.model.live)
    @rule(data=st.data())
    def activate(self, data: Any) -> None:
        held = data.draw(st.sampled_from(self.model.live))
        found = self.lab.broker.leases.activate(held.attempt)
        if held.state == "releasing":
            assert found is None
        else:
            held.state = "active"
            assert found is not None

    @rule(user=USERS, server=SERVERS)
    def stop(self, user: str, server: str) -> None:
        ended = self.lab.broker.leases.release_server(user, server, "stopped", user)
        expected = [h for h in self.model.held_by(user) if h.server == server]
        assert {lease.id for lease in ended} == {held.lease_id for held in expected}
        for held in expected:
            held.state = "releasing"

    @rule(data=st.data(), fresh=st.booleans())
    def cancel(self, data: Any, fresh: bool) -> None:
        known = self.known_attempts()
        attempt = f"attempt-{next(self.numbers)}"
        if known and not fresh:
            attempt = data.draw(st.sampled_from(known))
        found = self.lab.broker.leases.cancel(attempt, "left")
        mine = [h for h in self.model.live + self.model.past if h.attempt == attempt]
        assert (found is None) == (not mine)
        for held in mine:
            if held.state in ("pending", "active"):
                held.state = "releasing"
        if not mine:
            self.model.cancelled.add(attempt)

    @precondition(lambda self: self.model.live)
    @rule(data=st.data())
    def prove_empty(self, data: Any) -> None:
        held = data.draw(st.sampled_from(self.model.live))
        if held.state != "releasing":
            self.expect("conflict", self.lab.broker.leases.confirm_empty, held.lease_id)
            return
        self.lab.broker.leases.confirm_empty(held.lease_id)
        self.model.live.remove(held)
        held.state = "released"
        self.model.past.append(held)
        if held.tier == "card":
            self.model.cards[held.place[0]].target = BASE[held.place[0]]

    @precondition(lambda self: self.model.past)
    @rule(data=st.data())
    def prove_empty_again(self, data: Any) -> None:
        held = data.draw(st.sampled_from(self.model.past))
        assert self.lab.broker.leases.confirm_empty(held.lease_id).state == held.state

    @rule(index=CARDS)
    def cut(self, index: int) -> None:
        model = self.model.cards[index]
        if model.target is None or model.lost:
            assert not self.lab.broker.layouts.finish_target(f"GPU-{index}")
            return
        under_it = {place for place in self.model.taken() if place[0] == index}
        assert under_it <= {(index, *want) for want in model.target}
        model.layout = model.target
        self.report()
        assert self.lab.broker.layouts.finish_target(f"GPU-{index}")
        model.target = None

    @rule(user=USERS)
    def grant(self, user: str) -> None:
        if user not in self.model.grants:
            self.grant_to(user)

    def grant_to(self, user: str) -> None:
        self.model.grants[user] = self.lab.grant(user, "card", hours=48).id

    @rule(user=USERS)
    def give_up_grant(self, user: str) -> None:
        for request in self.lab.broker.requests.find(user=user, states=("approved",)):
            self.lab.broker.requests.cancel(request.id, Person(user))
            self.model.grants.pop(user)

    @rule(data=st.data(), shut=st.booleans())
    def quarantine(self, data: Any, shut: bool) -> None:
        status = data.draw(st.sampled_from(self.lab.broker.slices.find()))
        place = (status.row.card_index, status.row.profile, status.row.start)
        if shut:
            self.lab.broker.slices.quarantine(status.row.id, "leftover", "agent")
            self.model.quarantined.add(place)
        else:
            self.lab.broker.slices.unquarantine(status.row.id, "root")
            self.model.quarantined.discard(place)

    @rule(index=CARDS, drain=st.booleans())
    def drain(self, index: int, drain: bool) -> None:
        if drain:
            self.lab.broker.cards.drain(f"GPU-{index}", "fan", "root")
        else:
            self.lab.broker.cards.resume(f"GPU-{index}", "root")
        self.model.cards[index].drained = drain

    @rule(index=CARDS)
    def lose(self, index: int) -> None:
        model = self.model.cards[index]
        if model.lost:
            return
        model.lost = True
        self.report()
        for held in [h for h in self.model.live if h.place[0] == index]:
            self.model.live.remove(held)
            held.state = "lost"
            self.model.past.append(held)
            if held.tier == "card":
                model.target = BASE[index]

    @rule(index=CARDS)
    def come_back(self, index: int) -> None:
        self.model.cards[index].lost = False
        self.report()

    @rule(seconds=st.sampled_from([20, 20, 1000]))
    def report_and_wait(self, seconds: int) -> None:
        now = self.lab.clock.pass_time(seconds=seconds)
        self.report()
        self.lab.broker.reservations.look_after()
        valid = set(self.model.grants.values())
        for index, model in self.model.cards.items():
            if model.reserved_for is None:
                continue
            if model.reserved_for not in valid:
                self.model.unreserve(model.reserved_for)
            elif index in self.model.busy():
                model.kept_until = None
            elif model.kept_until is None:
                model.kept_until = now + KEPT
            elif model.kept_until <= now:
                self.model.unreserve(model.reserved_for)

    @invariant()
    def leases_are_those_of_the_model(self) -> None:
        found = {lease.id: lease.state for lease in self.lab.broker.leases.find()}
        assert found == {held.lease_id: held.state for held in self.model.live}

    @invariant()
    def nobody_has_more_than_their_quota_and_no_grant_two_cards(self) -> None:
        live = self.lab.broker.leases.find()
        assert max(Counter(lease.user for lease in live).values(), default=0) <= LIVE_QUOTA
        cards = Counter(lease.request_id for lease in live if lease.whole)
        assert max(cards.values(), default=0) <= 1
        for user, number in Counter(lease.user for lease in live).items():
            (limit,) = self.lab.broker.quotas.of(Person(user))
            assert (limit.field, limit.used) == ("live", number)

    @invariant()
    def what_is_offered_is_given(self) -> None:
        for user in ("ada", "grace", "linus"):
            groups = frozenset({"vision"}) if user == "ada" else frozenset()
            full = len(self.model.counted_of(user)) >= LIVE_QUOTA
            in_use = {held.grant for held in self.model.counted_of(user)}
            for offer in self.lab.broker.tiers.of(Person(user, groups)):
                if offer.tier.name == "cpu":
                    assert offer.usable
                elif full:
                    assert not offer.usable
                elif offer.tier.name == "card" and offer.open:
                    mine = self.model.grants.get(user)
                    if mine is None or mine in in_use:
                        assert not offer.usable
                        continue
                    # A start allocates a card, or sets one aside that is to be emptied.
                    sets_aside = self.model.may_take_all(mine) & self.model.busy()
                    assert offer.usable == bool(self.model.idle_cards(mine) or sets_aside)

    @invariant()
    def a_slice_has_one_lease_or_seats_of_one_tier(self) -> None:
        for status in self.lab.broker.slices.find():
            tiers = {lease.tier for lease in status.leases}
            assert len(tiers) <= 1
            assert len(status.leases) <= (SEATS if tiers == {"course"} else 1)
            assert len({lease.seat for lease in status.leases}) == len(status.leases)

    @invariant()
    def cards_are_set_aside_as_in_the_model(self) -> None:
        found = {card.index: card.reserved_for for card in self.lab.broker.cards.find()}
        assert found == {i: model.reserved_for for i, model in self.model.cards.items()}
        grants = [grant for grant in found.values() if grant is not None]
        assert len(grants) == len(set(grants))

    @invariant()
    def slices_are_in_the_states_of_the_model(self) -> None:
        states = self.lab.states()
        taken = self.model.taken()
        present = {
            (index, *want)
            for index, model in self.model.cards.items()
            if not model.lost
            for want in model.layout
        }
        assert taken | present | self.model.quarantined <= set(states)
        for place, state in states.items():
            if place in taken:
                assert state == "leased"
            elif place in self.model.quarantined:
                assert state == "quarantined"
            elif place not in present:
                assert state == "missing"
            elif self.model.usable(place[0]):
                assert state == "free"
            else:
                assert state == "draining"

    @invariant()
    def what_is_said_to_be_free_is_free(self) -> None:
        offers = {o.tier.name: o for o in self.lab.broker.tiers.of(Person("nobody"))}
        for tier in ("small", "medium"):
            assert offers[tier].free == len(self.model.free(PROFILE[tier]))
            assert offers[tier].usable == bool(self.model.free(PROFILE[tier]))
        assert offers["course"].free == self.model.seats_free()
        assert offers["course"].usable == bool(self.model.seats_free())
        assert offers["card"].free == len(self.model.idle_cards())


def test_the_broker_does_what_the_model_says(emptied: Any) -> None:
    run(BrokerMachine, emptied, examples=40, steps=50)
