"""More cards than are weighed against each other: what is free is found wherever it is."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from jupyterhub_migspawner.db.allocation.slices import MOST_OFFERED
from jupyterhub_migspawner.errors import Refusal
from jupyterhub_migspawner.policy.people import Person
from tests.broker.lab import SEVENTHS, WHOLE, Lab, card

ONE = SEVENTHS[:1]
MANY = 2 * MOST_OFFERED + 2


@pytest.fixture
def cluster(make_lab: Callable[..., Lab]) -> Lab:
    """Cards with one slice each; the last ones by UUID are on a node of their own."""
    lab = make_lab()
    order = sorted(range(MANY), key=lambda index: f"GPU-{index}")
    lab.report(*(card(index, ONE) for index in order[:-2]), node="n1")
    lab.report(*(card(index, ONE) for index in order[-2:]), node="n2")
    return lab


def test_every_slice_is_given_out_and_then_none(cluster: Lab) -> None:
    leases = [cluster.start(f"user{number}") for number in range(MANY)]
    assert len({lease.slice_id for lease in leases}) == MANY
    with pytest.raises(Refusal, match=f"{MANY} of {MANY} are in use"):
        cluster.start("late")
    cluster.stop(leases[MANY // 2])
    assert cluster.start("late").slice_id == leases[MANY // 2].slice_id


def test_cards_out_of_service_do_not_hide_the_others(cluster: Lab) -> None:
    for each in cluster.broker.cards.find("n1"):
        cluster.broker.cards.drain(each.uuid, "fan", "root")
    assert {cluster.start(f"user{n}").node for n in range(2)} == {"n2"}
    with pytest.raises(Refusal, match="is free"):
        cluster.start("late")


def test_a_silent_node_does_not_hide_the_others(cluster: Lab) -> None:
    cluster.clock.pass_time(minutes=10)
    cluster.broker.nodes.note_alive("n2")
    assert cluster.start().node == "n2"
    assert cluster.broker.tiers.of(Person("grace"))[0].free == 1


def test_a_node_that_is_asked_for_is_found_behind_all_others(cluster: Lab) -> None:
    assert {cluster.start(f"user{n}", node="n2").node for n in range(2)} == {"n2"}
    with pytest.raises(Refusal, match="on node"):
        cluster.start("late", node="n2")


def test_the_fullest_of_the_first_cards_is_taken_from(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab()
    lab.report(*(card(index) for index in range(MANY)))
    first = lab.start("ada")
    assert {lab.start(f"user{n}").card_uuid for n in range(6)} == {first.card_uuid}
    assert lab.start("grace").card_uuid != first.card_uuid


def test_a_slice_over_a_whole_card_needs_no_cut(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab()
    lab.report(*(card(index, ONE) for index in range(MANY)))
    last = sorted(f"GPU-{index}" for index in range(MANY))[-1]
    for each in lab.broker.cards.find():
        if each.uuid == last:
            lab.broker.layouts.set(each.uuid, WHOLE, True, "root")
    lab.report(*(card(i, WHOLE if f"GPU-{i}" == last else ONE) for i in range(MANY)))
    lab.grant("boss")
    lease = lab.start("boss", "card")
    assert (lease.card_uuid, lease.slice_uuid is None) == (last, False)
