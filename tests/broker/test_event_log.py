"""The event log: one event for every change, in the transaction of the change, never altered."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jupyterhub_migspawner.db.store import Store
from jupyterhub_migspawner.errors import Refusal
from jupyterhub_migspawner.model.cards import MIG_OFF
from jupyterhub_migspawner.model.inventory import GpuEvent
from jupyterhub_migspawner.policy.people import Person
from tests.broker.event_watch import Watched
from tests.broker.lab import MIXED, SEVENTHS, TIERS, WHOLE, Lab, card, inventory

BARE = {"name": "bare", "profile": "whole", "approval": True, "mig": "off"}
ROOT = Person("root", admin=True)
PEOPLE = [Person("ada", frozenset({"vision"})), Person("grace"), Person("linus")]
CARDS = ["GPU-0", "GPU-1"]
WANTS = [SEVENTHS, MIXED, WHOLE, ()]


class Anything:
    """Does whatever the broker can be asked to do, by the numbers of a seed."""

    def __init__(self, lab: Lab, seed: int) -> None:
        self.lab = lab
        self.broker = lab.broker
        self.random = random.Random(seed)

    def step(self) -> None:
        names = sorted(name for name in vars(Anything) if name.startswith("may_"))
        try:
            getattr(self, self.random.choice(names))()
        except Refusal:
            self.lab.clock.pass_time(seconds=1)

    def pick(self, some: Any) -> Any:
        found = list(some)
        if not found:
            raise Refusal("There is nothing to do it with.", reason="not-found")
        return self.random.choice(found)

    def attempt(self) -> str:
        return str(self.pick([self.lab.attempt(), *(e.attempt for e in self.broker.leases.find())]))

    def may_start(self) -> None:
        tier = self.pick(["small", "small", "medium", "large", "cpu"])
        self.broker.leases.acquire(self.pick(PEOPLE), self.pick("ab"), tier, self.attempt())

    def may_start_on_a_grant(self) -> None:
        tier, server = self.pick(["card", "bare"]), self.pick("ab")
        self.broker.leases.acquire(self.pick(PEOPLE), server, tier, self.attempt())

    def may_join(self) -> None:
        self.broker.hubs.claim("here")
        tier = self.pick(["small", "medium", "large", "card"])
        upward, start = self.pick([True, False]), self.pick([True, False])
        self.broker.queue.join(
            self.pick(PEOPLE), tier, server=self.pick("ab"), start=start, upward=upward
        )

    def may_offer(self) -> None:
        ticket = self.pick(self.broker.queue.tickets())
        person = next(each for each in PEOPLE if each.name == ticket.user)
        self.broker.offers.make(ticket.id, self.pick([person, person, person, None]))

    def may_settle(self) -> None:
        self.lab.clock.pass_time(minutes=self.pick([1, 11]))
        self.broker.offers.settle()

    def may_leave(self) -> None:
        self.broker.queue.leave(self.pick(self.broker.queue.tickets()).id, ROOT)

    def may_activate(self) -> None:
        self.broker.leases.activate(self.attempt())

    def may_renew(self) -> None:
        self.broker.leases.renew(self.attempt())

    def may_cancel_attempt(self) -> None:
        self.broker.leases.cancel(self.attempt(), "left")

    def may_stop(self) -> None:
        self.broker.leases.release_server(self.pick(PEOPLE).name, self.pick("ab"), "stopped", "hub")

    def may_release(self) -> None:
        self.broker.leases.release(self.pick(self.broker.leases.find()).id, "over", "root")

    def may_wait(self) -> None:
        lease = self.pick(self.broker.leases.find())
        self.broker.leases.note_waiting(lease.id, self.pick(["", "a process", "another"]))

    def may_prove_empty(self) -> None:
        self.broker.leases.confirm_empty(self.pick(self.broker.leases.find(include_past=True)).id)

    may_prove_another_empty = may_prove_empty

    def may_ask(self) -> None:
        self.broker.requests.create(self.pick(PEOPLE), self.pick(["card", "bare"]), 5, "training")

    def may_decide(self) -> None:
        request = self.pick(self.broker.requests.find(states=("pending",)))
        self.broker.requests.decide(request.id, ROOT, self.random.random() < 0.8)

    may_decide_another = may_decide

    def may_withdraw(self) -> None:
        self.broker.requests.cancel(self.pick(self.broker.requests.find()).id, ROOT)

    def may_expire(self) -> None:
        self.broker.requests.expire()

    def may_look_after_reservations(self) -> None:
        self.broker.reservations.look_after()

    def may_wait_long(self) -> None:
        self.lab.clock.pass_time(minutes=self.pick([1, 40, 400]))
        self.lab.broker.nodes.note_alive("n1")

    def may_drain(self) -> None:
        self.broker.cards.drain(self.pick(CARDS), self.pick(["fan", "smoke"]), "root")

    def may_resume(self) -> None:
        self.broker.cards.resume(self.pick(CARDS), "root")

    may_resume_another = may_resume

    def may_quarantine(self) -> None:
        self.broker.slices.quarantine(
            self.pick(self.broker.slices.find()).row.id, "leftover", "root"
        )

    def may_unquarantine(self) -> None:
        self.broker.slices.unquarantine(self.pick(self.broker.slices.find()).row.id, "root")

    def may_set_layout(self) -> None:
        wants = self.pick(WANTS)
        mig = bool(wants) or self.random.random() < 0.5
        self.broker.layouts.set(self.pick(CARDS), wants, mig, "root")

    def may_claim(self) -> None:
        row = self.pick(self.broker.slices.find()).row
        self.broker.layouts.claim_slice(row.card_uuid, (row.profile, row.start), "n1")

    def may_claim_mode(self) -> None:
        self.broker.layouts.claim_mode(self.pick(CARDS), self.random.random() < 0.5, "n1")

    def may_finish(self) -> None:
        for uuid in CARDS:
            self.broker.layouts.finish_target(uuid)

    def may_note_a_step(self) -> None:
        self.broker.layouts.record_step(
            self.pick(CARDS), "n1", "destroy", error=self.pick(["", "busy"])
        )

    def may_hit_xid(self) -> None:
        where = self.pick([None, 1, 2])
        event = GpuEvent("xid", self.pick(CARDS), gi_id=where, xid=self.pick([13, 48, 79]))
        self.broker.cards.record_xid("n1", event)

    def may_boot(self) -> None:
        self.broker.nodes.note_boot("n1", self.pick(["boot 1", "boot 2"]))

    def may_report_what_is_wanted(self) -> None:
        """What an agent reads once it has cut all cards as desired."""
        found = []
        for row in self.broker.cards.find():
            wants = row.layout if row.target is None else row.target
            off = wants == (MIG_OFF,) or (row.target is None and not row.mig_wanted)
            layout = () if off else wants
            found.append(card(row.index, layout, mig_enabled=not off))
        self.broker.nodes.record_inventory("n1", inventory(*found))
        self.may_finish()

    may_report_again = may_report_what_is_wanted

    def may_report_anything(self) -> None:
        found = []
        for index in (0, 1):
            if self.random.random() < 0.2:
                continue
            problem = self.pick(["", "", "", "It does not answer."])
            salt = self.pick(["", "x"])
            found.append(card(index, self.pick(WANTS), salt=salt, problem=problem))
        self.broker.nodes.record_inventory(self.pick(["n1", "n1", "n2"]), inventory(*found))


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**32), steps=st.just(60))
def test_every_change_is_one_event_in_its_transaction(
    emptied: Callable[[], str], seed: int, steps: int
) -> None:
    lab = watched_lab(emptied())
    try:
        lab.report()
        anything = Anything(lab, seed)
        for _ in range(steps):
            anything.step()
    finally:
        lab.close()


def watched_lab(url: str) -> Lab:
    lab = Lab(url, tiers=[*TIERS, BARE])
    lab.store.close()
    lab.store = lab.broker.context.store = Watched.open(url)
    assert isinstance(lab.store, Store)
    return lab
