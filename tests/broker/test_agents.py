"""Which process reports for a node: one at a time, and never another machine with other cards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from jupyterhub_migspawner.broker.agents import Superseded
from jupyterhub_migspawner.errors import Refusal
from jupyterhub_migspawner.model.nodes import AgentProcess
from tests.broker.lab import Lab, card

FIRST = AgentProcess("gpu1", "machine-1", "boot-1", "pid:[1]", 100, 7)
SECOND = AgentProcess("gpu2", "machine-2", "boot-2", "pid:[1]", 200, 8)

MakeLab = Callable[..., Lab]


def begin(
    lab: Lab,
    me: AgentProcess,
    *,
    gone: bool = False,
    cards: tuple[str, ...] | None = ("GPU-0", "GPU-1"),
    replaces: bool = False,
) -> None:
    lab.broker.agents.begin("n1", me, lambda _: gone, cards=lambda: cards, replaces=replaces)


@pytest.fixture
def other(lab: Lab, make_lab: MakeLab) -> Lab:
    """The broker of another agent, beside the one of ``lab``, which reports."""
    begin(lab, FIRST)
    lab.report()
    return make_lab()


def test_the_second_agent_of_a_name_is_refused_and_the_first_goes_on(lab: Lab, other: Lab) -> None:
    with pytest.raises(Refusal) as refused:
        begin(other, SECOND)
    assert "process 100 on gpu1" in str(refused.value)
    assert "its own c.MigBroker.node" in str(refused.value)
    lab.report()
    (node,) = lab.broker.nodes.find()
    assert node.agent == FIRST


def test_a_silent_agent_is_followed_and_writes_nothing_any_more(lab: Lab, other: Lab) -> None:
    lease = lab.start()
    lab.clock.pass_time(seconds=61)
    begin(other, SECOND)
    other.report()
    assert "node.taken-over" in lab.kinds()
    other.broker.leases.release_server("ada", "", "stopped", "ada")
    # The first one wakes up, and would prove the slice empty on a machine where nothing runs.
    for change in (
        lab.report,
        lambda: lab.broker.leases.confirm_empty(lease.id),
        lambda: lab.broker.nodes.note_alive("n1"),
    ):
        with pytest.raises(Superseded, match="Process 200 on gpu2 reports for node n1 now"):
            change()
    assert other.broker.leases.get(lease.id).state == "releasing"
    with pytest.raises(Refusal):
        begin(lab, replace(FIRST, pid=101))


def test_an_agent_that_has_provably_ended_is_followed_at_once(lab: Lab, other: Lab) -> None:
    begin(other, SECOND, gone=True)
    other.report()


def test_after_a_clean_end_the_next_one_begins_at_once(lab: Lab, other: Lab) -> None:
    lab.broker.agents.end("n1", FIRST)
    begin(other, replace(FIRST, pid=101))
    other.report()
    assert "node.taken-over" not in lab.kinds()


def test_the_end_of_an_earlier_agent_does_not_touch_the_next(lab: Lab, other: Lab) -> None:
    lab.clock.pass_time(seconds=61)
    begin(other, SECOND)
    lab.broker.agents.end("n1", FIRST)
    (node,) = other.broker.nodes.find()
    assert (node.agent, node.agent_at) == (SECOND, other.clock())


def test_a_start_of_another_hub_does_not_make_an_agent_silent(lab: Lab, other: Lab) -> None:
    """A hub with the name of a node withdraws what its machine offers, not the agent."""
    other.broker.nodes.note_boot("n1", "another boot")
    with pytest.raises(Refusal):
        begin(other, SECOND)


@pytest.mark.parametrize("cards", [("GPU-8", "GPU-9"), None])
def test_another_machine_with_other_cards_ends_no_sessions_by_mistake(
    lab: Lab, other: Lab, cards: tuple[str, ...] | None
) -> None:
    lease = lab.start()
    lab.clock.pass_time(minutes=10)
    with pytest.raises(Refusal) as refused:
        begin(other, SECOND, cards=cards)
    assert "was another machine (gpu1)" in str(refused.value)
    assert "`migspawner agent --replace`" in str(refused.value)
    assert other.broker.leases.get(lease.id).live
    begin(other, SECOND, cards=("GPU-8",), replaces=True)
    other.report(card(8))
    assert other.broker.leases.get(lease.id).state == "lost"


@pytest.mark.parametrize(
    ("me", "cards"),
    [
        # The machine was installed again, or its disk is in another one: the cards are the same.
        (SECOND, ("GPU-1", "GPU-9")),
        # Its cards were replaced.
        (replace(SECOND, machine="machine-1"), ("GPU-9",)),
    ],
)
def test_the_same_machine_or_the_same_cards_are_no_mistake(
    lab: Lab, other: Lab, me: AgentProcess, cards: tuple[str, ...]
) -> None:
    lab.start()
    lab.clock.pass_time(minutes=10)
    begin(other, me, cards=cards)


def test_another_machine_may_have_the_name_when_nobody_is_on_the_cards(
    lab: Lab, other: Lab
) -> None:
    lab.clock.pass_time(minutes=10)
    begin(other, SECOND, cards=("GPU-9",))


def test_agents_of_a_new_name_notice_each_other(make_lab: MakeLab) -> None:
    """Both begin before anything was reported; the first report decides."""
    first, second = make_lab(), make_lab()
    for lab, me in ((first, FIRST), (second, SECOND)):
        lab.broker.agents.begin("n2", me, lambda _: False, cards=lambda: None)
    first.report(node="n2")
    first.broker.nodes.note_alive("n2")
    with pytest.raises(Superseded):
        second.report(node="n2")
