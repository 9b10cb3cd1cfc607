"""Whatever is desired, held and killed: nobody loses a slice, and every card gets its layout.

Random days of a node: layouts are set, people come and go, the agent and the command line cut, and
either is killed between any two of its calls to the lease database, or of those that change a card.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

import pynvml
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jupyterhub_migspawner.agent.layouts import Cutter, plan_card
from jupyterhub_migspawner.errors import GpuError, Refusal
from jupyterhub_migspawner.gpu import simulator
from jupyterhub_migspawner.gpu.arrange import Want, legal_layouts
from jupyterhub_migspawner.gpu.partition import Create, Destroy, Mode
from jupyterhub_migspawner.policy.layouts import Desired
from tests.fast.gpu.test_card_partition import A30, A100, card_with
from tests.unit.agent.conftest import Node, NodeMaker

LAYOUTS = {
    "A30": list(legal_layouts([each for each in A30 if not each.attributes])),
    "A100-SXM4-40GB": list(legal_layouts([each for each in A100 if not each.attributes])),
}

TIERS = [
    {"name": name.replace("+", "-"), "profile": name}
    for profiles in (A30, A100)
    for name in [each.name for each in profiles]
]


class Killed(BaseException):
    """The process is gone: nothing of it runs any more, not even what cleans up."""


class Fuse:
    """Burns down by one at each call; at its end, and ever after, calls end the process."""

    def __init__(self, calls: int) -> None:
        self.calls = calls

    def burn(self) -> None:
        self.calls -= 1
        if self.calls < 0:
            raise Killed


class Mortal:
    """An object whose caller may be killed before or after each call."""

    def __init__(self, inner: Any, fuse: Fuse) -> None:
        self._inner, self._fuse = inner, fuse

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._inner, name)
        if type(value).__module__.startswith("jupyterhub_migspawner.broker."):
            return Mortal(value, self._fuse)
        if not callable(value):
            return value

        def call(*args: Any, **kwargs: Any) -> Any:
            self._fuse.burn()
            result = value(*args, **kwargs)
            self._fuse.burn()
            return result

        return call


CHANGES = (
    "nvmlDeviceSetMigMode",
    "nvmlDeviceCreateGpuInstanceWithPlacement",
    "nvmlGpuInstanceCreateComputeInstance",
    "nvmlComputeInstanceDestroy",
    "nvmlGpuInstanceDestroy",
)
"""What changes a card, one instance at a time: cutting one slice takes two of them."""


def kill_within(cutter: Cutter, calls: int, work: Callable[[], object]) -> bool:
    """Do the work with a process that dies after so many calls; False when it is done before."""
    fuse = Fuse(calls)
    cutter._broker = Mortal(cutter._broker, fuse)
    driver = Mortal(pynvml, fuse)
    with ExitStack() as stack:
        for name in CHANGES:
            stack.enter_context(mock.patch.object(pynvml, name, getattr(driver, name)))
        try:
            work()
        except Killed:
            return True
        except GpuError:
            return False
    return False


class Day:
    """A node on which the actions happen, and what must be true after each of them."""

    def __init__(self, folder: Path, model: str) -> None:
        self.layouts = LAYOUTS[model]
        self.node = Node(folder, [(), ()], model=model, tiers=TIERS)
        self.node.tick()
        self.number = 0
        self.held: dict[int, str] = {}

    def act(self, action: tuple[str, int, int]) -> None:
        kind, first, second = action
        node = self.node
        card = node.card(first % 2)
        if kind == "layout":
            wants = self.layouts[second % len(self.layouts)]
            node.broker.layouts.set(card.uuid, wants, True, "root")
        elif kind == "start":
            names = sorted({s.row.profile for s in node.broker.slices.find() if s.state == "free"})
            if names:
                self.number += 1
                tier = names[second % len(names)].replace("+", "-")
                try:
                    lease = node.lab.start(f"user{self.number}", tier)
                except Refusal:
                    return
                self.held[lease.id] = str(lease.slice_uuid)
        elif kind == "stop" and self.held:
            number = sorted(self.held)[second % len(self.held)]
            del self.held[number]
            node.stop(node.broker.leases.get(number))
        elif kind == "tick":
            node.tick()
        elif kind == "other":
            # An admin at the command line, who ends with it.
            other = node.cutter()
            kill_within(other, second % 30, lambda: other.converge(card.uuid))
            other._nvml = None  # type: ignore[assignment]
        elif kind == "kill":
            agent = node.agent
            kill_within(agent._cutter, second % 40, agent.tick)
            node.restart()
        elif kind == "reboot" and not self.held:
            simulator.reboot(node.path)
            # Longer than a silent node is trusted: nothing is lent before the agent has looked.
            node.lab.clock.pass_time(seconds=90)
            node.restart()
        self.check()

    def check(self) -> None:
        uuids = simulator.slice_uuids(self.node.path)
        for number, uuid in self.held.items():
            lease = self.node.broker.leases.get(number)
            assert lease.live, lease
            assert uuid in uuids, f"the slice of lease {number} was destroyed"
            assert lease.slice_uuid == uuid
        for index in (0, 1):
            found = self.node.nvml.inventory().cards[index]
            slots = [
                slot
                for each in found.instances
                for slot in range(each.start, each.start + each.size)
            ]
            assert len(slots) == len(set(slots))

    def end(self) -> None:
        """While people stay, each card is as desired or says who is in the way; then it is so."""
        node = self.node
        node.tick(4)
        for index in (0, 1):
            outcome = node.cutter().converge(node.card(index).uuid)
            if set(node.actual(index)) != set(node.card(index).layout):
                assert outcome.waiting
            for number in self.held:
                lease = node.broker.leases.get(number)
                unwanted = (lease.profile, lease.start) not in node.card(index).layout
                if lease.card_uuid == node.card(index).uuid and unwanted:
                    assert any(f"(lease {number}" in why for why in outcome.waiting)
        self.check()
        for number in self.held:
            node.stop(node.broker.leases.get(number))
        self.held.clear()
        node.tick(4)
        for index in (0, 1):
            assert set(node.actual(index)) == set(node.card(index).layout)
            left = [each for each in node.nvml.inventory().cards[index].instances if not each.uuid]
            assert left == []
        assert set(node.states().values()) <= {"free"}


kinds = st.sampled_from(
    [*["layout", "tick", "kill"] * 2, *["start"] * 3, "stop", "other", "reboot"],
)
days = st.lists(st.tuples(kinds, st.integers(0, 1), st.integers(0, 10_000)), max_size=15)


def live(model: str, actions: list[tuple[str, int, int]]) -> None:
    # In memory where that can be: a lease database waits for the disk at each commit.
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        day = Day(Path(folder), model)
        try:
            for action in actions:
                day.act(action)
            day.end()
        finally:
            day.node.close()


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(days)
def test_nobody_loses_a_slice_of_an_a30_and_the_layout_is_reached(
    actions: list[tuple[str, int, int]],
) -> None:
    live("A30", actions)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(days)
def test_nobody_loses_a_slice_of_an_a100_and_the_layout_is_reached(
    actions: list[tuple[str, int, int]],
) -> None:
    live("A100-SXM4-40GB", actions)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (("1g.5gb",) * 7, ("1g.5gb",) * 3),
        (("3g.20gb", "3g.20gb"), ("1g.5gb", "2g.10gb", "3g.20gb")),
        ((), ("7g.40gb",)),
    ],
)
def test_death_at_every_call_of_a_cut_is_mended(
    make_node: NodeMaker, before: tuple[str, ...], after: tuple[str, ...]
) -> None:
    calls, killed = 0, True
    while killed:
        node = make_node(before)
        node.tick()
        wants = node.set_layout(*after)
        agent = node.agent
        killed = kill_within(agent._cutter, calls, agent.tick)
        node.restart()
        node.tick(3)
        found = node.nvml.inventory().cards[0].instances
        assert tuple((each.profile, each.start) for each in found) == wants, calls
        assert all(each.uuid for each in found), calls
        assert {s for p, s in node.states().items() if p[1:] in wants} == {"free"}
        node.close()
        calls += 1
    assert calls > 10


class Held:
    """As much of a lease as a plan looks at."""

    def __init__(self, want: Want) -> None:
        self.profile, self.start = want
        self.slice_uuid, self.user, self.id = "MIG-x", "ada", 7
        self.server, self.ends_at = "", None


@given(st.data())
def test_a_plan_reaches_the_layout_or_says_what_blocks_it(data: st.DataObject) -> None:
    layouts = LAYOUTS["A100-SXM4-40GB"]
    have = data.draw(st.sampled_from(layouts))
    want = data.draw(st.sampled_from(layouts))
    mig = data.draw(st.booleans())
    held = data.draw(st.sets(st.sampled_from(have)) if have else st.just(set()))
    used = data.draw(st.sets(st.sampled_from(have)) if have else st.just(set()))
    wish = Desired(want if mig else (), mig)
    plan = plan_card(card_with(have, A100, used=used), wish, [Held(each) for each in held])  # type: ignore[misc]
    after = set(have)
    for step in plan.steps:
        if isinstance(step, Destroy):
            assert (step.profile, step.start) not in held | used
            after.remove((step.profile, step.start))
        elif isinstance(step, Create):
            after.add((step.profile, step.start))
        elif isinstance(step, Mode):
            assert not held
            assert not after
    in_the_way = (held | used) - set(wish.wants)
    reached = after == set(wish.wants) and (mig or any(isinstance(s, Mode) for s in plan.steps))
    assert bool(plan.blocked) == (not reached)
    assert bool(in_the_way) == bool(plan.blocked)
    for name, start in held - set(wish.wants):
        assert any(f"{name} at {start} is leased by ada (lease 7)" in b for b in plan.blocked)
