"""The broker against a small model of it, step by step, on both databases.

Hypothesis makes up what people, approvers, admins and agents do, in any order; after every step
the broker has to tell exactly what the model expects. A failure prints the steps that lead to it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from jupyterhub_migspawner.errors import Refusal
from jupyterhub_migspawner.leases.rows import LeaseRow
from jupyterhub_migspawner.policy.people import Person
from tests.store.lab import MIXED, SEVENTHS, WHOLE, Lab, card

Place = tuple[int, str, int]

BASE: dict[int, tuple[tuple[str, int], ...]] = {0: MIXED, 1: SEVENTHS}
PROFILE = {"small": "1g.5gb", "medium": "2g.10gb", "large": "3g.20gb"}
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


@dataclass
class CardModel:
    layout: tuple[tuple[str, int], ...]
    target: tuple[tuple[str, int], ...] | None = None
    drained: bool = False


@dataclass
class Model:
    cards: dict[int, CardModel] = field(
        default_factory=lambda: {index: CardModel(base) for index, base in BASE.items()}
    )
    live: list[Held] = field(default_factory=list)
    past: list[Held] = field(default_factory=list)
    cancelled: set[str] = field(default_factory=set)
    grants: set[str] = field(default_factory=set)
    quarantined: set[Place] = field(default_factory=set)

    def taken(self) -> set[Place]:
        return {held.place for held in self.live}

    def usable(self, index: int) -> bool:
        return not self.cards[index].drained and self.cards[index].target is None

    def free(self, profile: str) -> set[Place]:
        places = {
            (index, name, start)
            for index, model in self.cards.items()
            if self.usable(index)
            for name, start in model.layout
            if name == profile
        }
        return places - self.taken() - self.quarantined

    def idle_cards(self) -> set[int]:
        busy = {place[0] for place in self.taken() | self.quarantined}
        return {index for index in self.cards if self.usable(index)} - busy

    def held_by(self, user: str) -> list[Held]:
        return [h for h in self.live if h.user == user and h.state != "releasing"]

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
            on_grant = [h for h in self.held_by(user) if h.tier == "card"]
            if user not in self.grants or on_grant:
                return "approval"
        if len(self.held_by(user)) >= LIVE_QUOTA:
            return "quota"
        free = self.idle_cards() if tier == "card" else self.free(PROFILE[tier])
        return None if free else "capacity"


USERS = st.sampled_from(["ada", "grace", "linus"])
SERVERS = st.sampled_from(["", "a", "b", "c"])
TIERS = st.sampled_from(["small", "small", "medium", "large", "card", "cpu"])
CARDS = st.sampled_from([0, 1])


class BrokerMachine(RuleBasedStateMachine):
    url = ""

    def __init__(self) -> None:
        super().__init__()
        self.lab = Lab(self.url, quotas={"default": {"live": LIVE_QUOTA}})
        self.model = Model()
        self.numbers = iter(range(10**6))
        self.lab.clock.pass_time(seconds=1)
        self.report()
        for user in ("ada", "grace"):
            self.grant_to(user)

    def teardown(self) -> None:
        self.lab.close()

    def report(self) -> None:
        self.lab.report(*(card(i, model.layout) for i, model in self.model.cards.items()))

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
            self.expect(expected, self.lab.broker.acquire, *asked)
            return
        lease = self.lab.broker.acquire(*asked)
        if isinstance(expected, Held):
            assert lease is not None
            assert (lease.id, lease.state) == (expected.lease_id, expected.state)
        elif tier == "cpu":
            assert lease is None
        else:
            assert lease is not None
            self.new_lease(lease, tier)

    def new_lease(self, lease: LeaseRow, tier: str) -> None:
        model = self.model
        index = int(lease.card_uuid.removeprefix("GPU-"))
        place = (index, lease.profile, lease.start)
        assert place not in model.taken()
        if tier == "card":
            assert index in model.idle_cards()
            assert [(lease.profile, lease.start)] == list(WHOLE)
            if model.cards[index].layout != WHOLE:
                model.cards[index].target = WHOLE
                assert lease.slice_uuid is None
        else:
            assert place in model.free(PROFILE[tier])
            assert lease.slice_uuid == f"MIG-{index}-{lease.profile}-{lease.start}"
        model.live.append(Held(lease.id, lease.user, lease.server, tier, lease.attempt, place))

    @precondition(lambda self: self.model.live)
    @rule(data=st.data())
    def activate(self, data: Any) -> None:
        held = data.draw(st.sampled_from(self.model.live))
        found = self.lab.broker.activate(held.attempt)
        if held.state == "releasing":
            assert found is None
        else:
            held.state = "active"
            assert found is not None

    @rule(user=USERS, server=SERVERS)
    def stop(self, user: str, server: str) -> None:
        ended = self.lab.broker.release_server(user, server, "stopped", user)
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
        found = self.lab.broker.cancel_attempt(attempt, "left")
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
            self.expect("conflict", self.lab.broker.confirm_empty, held.lease_id)
            return
        self.lab.broker.confirm_empty(held.lease_id)
        self.model.live.remove(held)
        held.state = "released"
        self.model.past.append(held)
        if held.tier == "card":
            self.model.cards[held.place[0]].target = BASE[held.place[0]]

    @precondition(lambda self: self.model.past)
    @rule(data=st.data())
    def prove_empty_again(self, data: Any) -> None:
        held = data.draw(st.sampled_from(self.model.past))
        assert self.lab.broker.confirm_empty(held.lease_id).state == "released"

    @rule(index=CARDS)
    def cut(self, index: int) -> None:
        model = self.model.cards[index]
        if model.target is None:
            assert not self.lab.broker.finish_target(f"GPU-{index}")
            return
        under_it = {place for place in self.model.taken() if place[0] == index}
        assert under_it <= {(index, *want) for want in model.target}
        model.layout = model.target
        self.report()
        assert self.lab.broker.finish_target(f"GPU-{index}")
        model.target = None

    @rule(user=USERS)
    def grant(self, user: str) -> None:
        if user not in self.model.grants:
            self.grant_to(user)

    def grant_to(self, user: str) -> None:
        self.lab.grant(user, "card", hours=48)
        self.model.grants.add(user)

    @rule(user=USERS)
    def give_up_grant(self, user: str) -> None:
        for request in self.lab.broker.requests(user=user, states=("approved",)):
            self.lab.broker.cancel_request(request.id, Person(user))
            self.model.grants.discard(user)

    @rule(data=st.data(), shut=st.booleans())
    def quarantine(self, data: Any, shut: bool) -> None:
        status = data.draw(st.sampled_from(self.lab.broker.slices()))
        place = (status.row.card_index, status.row.profile, status.row.start)
        if shut:
            self.lab.broker.quarantine(status.row.id, "leftover", "agent")
            self.model.quarantined.add(place)
        else:
            self.lab.broker.unquarantine(status.row.id, "root")
            self.model.quarantined.discard(place)

    @rule(index=CARDS, drain=st.booleans())
    def drain(self, index: int, drain: bool) -> None:
        if drain:
            self.lab.broker.drain_card(f"GPU-{index}", "fan", "root")
        else:
            self.lab.broker.resume_card(f"GPU-{index}", "root")
        self.model.cards[index].drained = drain

    @rule()
    def report_and_wait(self) -> None:
        self.lab.clock.pass_time(seconds=20)
        self.report()

    @invariant()
    def leases_are_those_of_the_model(self) -> None:
        found = {lease.id: lease.state for lease in self.lab.broker.leases()}
        assert found == {held.lease_id: held.state for held in self.model.live}

    @invariant()
    def slices_are_in_the_states_of_the_model(self) -> None:
        states = self.lab.states()
        taken = self.model.taken()
        present = {
            (index, *want) for index, model in self.model.cards.items() for want in model.layout
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
        offers = {o.tier.name: o for o in self.lab.broker.tiers_for(Person("nobody"))}
        for tier in ("small", "medium"):
            assert offers[tier].free == len(self.model.free(PROFILE[tier]))
            assert offers[tier].usable == bool(self.model.free(PROFILE[tier]))
        assert offers["card"].free == len(self.model.idle_cards())


@pytest.fixture
def emptied(kind: str, url: str, request: pytest.FixtureRequest) -> Iterator[Any]:
    """Makes the database empty again for each example."""
    if kind == "sqlite":
        path = url.removeprefix("sqlite:///")
        numbers = iter(range(10**6))
        yield lambda: f"sqlite:///{path}-{next(numbers)}"
        return
    cluster = request.getfixturevalue("postgres")

    def empty() -> str:
        cluster.empty(url)
        return url

    yield empty


def test_the_broker_does_what_the_model_says(emptied: Any) -> None:
    class Machine(BrokerMachine):
        def __init__(self) -> None:
            type(self).url = emptied()
            super().__init__()

    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=40,
            stateful_step_count=50,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )
