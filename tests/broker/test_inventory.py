"""What agents report, and what the broker makes of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from jupyterhub_migspawner.db import queries
from jupyterhub_migspawner.errors import Refusal
from jupyterhub_migspawner.model.inventory import Card, Inventory
from tests.broker.lab import MIXED, SEVENTHS, WHOLE, Lab, card, inventory
from tests.broker.test_lease_life import refused


def test_a_first_report_brings_node_cards_and_slices(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab()
    lab.report(card(0, MIXED), card(1, WHOLE))
    (node,) = lab.broker.nodes.find()
    assert (node.name, node.heartbeat_at, node.driver_version) == (
        "n1",
        lab.clock.now,
        "535.129.03",
    )
    first, second = lab.broker.cards.find()
    assert (first.uuid, first.index, first.model, first.memory_mib) == (
        "GPU-0",
        0,
        "NVIDIA A100-SXM4-40GB",
        40960,
    )
    assert (first.state, first.layout, first.target, first.problem) == ("ok", MIXED, None, "")
    assert (first.compute_slices, first.whole) == (7, ("7g.40gb", 0))
    assert second.layout == WHOLE
    rows = [status.row for status in lab.broker.slices.find()]
    assert [(r.profile, r.start, r.size, r.compute_slices, r.whole) for r in rows] == [
        ("3g.20gb", 0, 4, 3, False),
        ("2g.10gb", 4, 2, 2, False),
        ("1g.5gb", 6, 1, 1, False),
        ("7g.40gb", 0, 8, 7, True),
    ]
    assert (rows[0].uuid, rows[0].gi_id, rows[0].ci_id) == ("MIG-0-3g.20gb-0", 1, 0)
    assert sorted(lab.kinds()) == [*["card.seen"] * 2, "node.seen", *["slice.seen"] * 4]


def test_the_same_report_again_is_only_a_heartbeat(lab: Lab) -> None:
    before = lab.stored()
    lab.clock.pass_time(seconds=10)
    lab.report()
    assert lab.stored() == before
    assert lab.broker.nodes.find()[0].heartbeat_at == lab.clock.now


def test_a_slice_is_known_again_by_card_profile_and_start_whatever_its_uuid(lab: Lab) -> None:
    lease = lab.start()
    ids = {s.row.id for s in lab.broker.slices.find()}
    lab.report(card(0, ()), card(1))
    assert lab.states()[(0, "1g.5gb", 0)] == "leased"
    assert lab.states()[(0, "1g.5gb", 1)] == "missing"
    gone = next(s for s in lab.broker.slices.find() if s.row.start == 1 and s.row.card_index == 0)
    assert (gone.row.uuid, gone.row.present) == (None, False)
    assert "does not list it" in gone.why
    lab.report(card(0, salt="-new"), card(1))
    assert {s.row.id for s in lab.broker.slices.find()} == ids
    taken = next(s for s in lab.broker.slices.find() if s.lease)
    assert taken.row.uuid == "MIG-0-1g.5gb-0-new"
    # What the server was started with is not rewritten under it.
    assert lab.broker.leases.get(lease.id).slice_uuid == "MIG-0-1g.5gb-0"


def test_missing_slices_are_not_given_out(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab()
    lab.report(card(0))
    lab.report(card(0, SEVENTHS[:1]))
    lab.start("ada")
    refused("capacity", lab.start, "grace")


def test_an_instance_without_compute_instance_is_no_slice(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab()
    whole, half = card(0, SEVENTHS[:2]).instances
    lab.report(card(0, instances=(whole, replace(half, uuid=None, ci_id=None))))
    assert [s.row.start for s in lab.broker.slices.find()] == [0]


def test_an_instance_of_a_profile_without_name_is_no_slice(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab()
    (instance,) = card(0, SEVENTHS[:1]).instances
    lab.report(card(0, instances=(replace(instance, profile=""),)))
    assert lab.broker.slices.find() == ()


def test_a_vanished_card_is_lost_and_its_leases_with_it(lab: Lab) -> None:
    lease = lab.start()
    lab.broker.leases.activate(lease.attempt)
    lab.report(card(1))
    assert [(c.uuid, c.state) for c in lab.broker.cards.find()] == [
        ("GPU-0", "lost"),
        ("GPU-1", "ok"),
    ]
    over = lab.broker.leases.get(lease.id)
    assert (over.state, over.ended_at) == ("lost", lab.clock.now)
    assert "is no longer listed by the driver" in over.end_reason
    assert "save your work and start again" in over.end_reason
    assert {s for place, s in lab.states().items() if place[0] == 0} == {"missing"}
    assert lab.start("ada").card_uuid == "GPU-1"
    assert lab.start("grace").card_uuid == "GPU-1"
    before = lab.kinds()
    lab.report(card(1))
    assert lab.kinds() == before
    lab.report()
    assert {c.state for c in lab.broker.cards.find()} == {"ok"}
    assert lab.kinds().count("card.back") == 1
    assert lab.states()[(0, "1g.5gb", 1)] == "free"
    # What was lost stays so; a user who has to start again does.
    assert lab.broker.leases.get(lease.id).state == "lost"


def test_a_server_without_its_card_is_listed_until_it_is_over(lab: Lab) -> None:
    lease = lab.start()
    named = lab.start("ada", server="two")
    for each in (lease, named, lab.start("grace")):
        lab.broker.leases.activate(each.attempt)
    lab.report(card(1))
    assert [each.user for each in lab.broker.leases.stranded()] == ["ada", "ada", "grace"]
    assert lab.broker.leases.stranded("linus") == ()
    # Started again: that server has another slice, and the other one still has none.
    lab.start("ada")
    assert [each.id for each in lab.broker.leases.stranded("ada")] == [named.id]
    # A stop that comes late is not that of the server that runs now.
    early = lease.since - timedelta(seconds=1)
    lab.broker.leases.release_server("ada", "two", "the server stopped", "hub", early)
    assert [each.id for each in lab.broker.leases.stranded("ada")] == [named.id]
    lab.broker.leases.release_server("ada", "two", "the server stopped", "hub")
    assert lab.broker.leases.stranded("ada") == ()
    assert lab.broker.leases.get(named.id).state == "lost"
    # Nor does it come back with the card.
    lab.report()
    assert [each.user for each in lab.broker.leases.stranded()] == ["grace"]


def test_a_lease_that_was_ending_leaves_no_server_without_its_card(lab: Lab) -> None:
    lease = lab.start()
    lab.broker.leases.release_server("ada", "", "the server stopped", "hub")
    lab.report(card(1))
    assert lab.broker.leases.get(lease.id).state == "lost"
    assert lab.broker.leases.stranded() == ()


def test_a_card_that_is_first_seen_during_a_look_is_in_the_next_one(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each statement of PostgreSQL sees what is committed by then."""
    read = queries.cards.select
    with monkeypatch.context() as patch:
        patch.setattr(queries.cards, "select", lambda tx, node: read(tx, node)[:1])
        assert {status.row.card_uuid for status in lab.broker.slices.find()} == {"GPU-0"}
    assert {status.row.card_uuid for status in lab.broker.slices.find()} == {"GPU-0", "GPU-1"}


def test_other_nodes_cards_are_not_lost_by_a_report(lab: Lab) -> None:
    lab.report(card(7), node="n2")
    lab.report()
    assert {(c.node, c.uuid, c.state) for c in lab.broker.cards.find()} == {
        ("n1", "GPU-0", "ok"),
        ("n1", "GPU-1", "ok"),
        ("n2", "GPU-7", "ok"),
    }
    assert [c.uuid for c in lab.broker.cards.find(node="n2")] == ["GPU-7"]
    assert [n.name for n in lab.broker.nodes.find()] == ["n1", "n2"]


def test_a_card_that_is_put_into_another_node_is_the_same_card(lab: Lab) -> None:
    lease = lab.start()
    lab.report(card(1))
    lab.report(card(0), node="n2")
    assert {(c.uuid, c.node, c.state) for c in lab.broker.cards.find()} == {
        ("GPU-0", "n2", "ok"),
        ("GPU-1", "n1", "ok"),
    }
    assert len(lab.broker.slices.find()) == 14
    # Nobody moves a card under power: what ran on it is over.
    assert lab.broker.leases.get(lease.id).state == "lost"
    assert lab.start("grace", node="n2").card_uuid == "GPU-0"


def test_a_card_without_uuid_is_left_out(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab()
    lab.report(card(0, uuid="", problem="It fell off the bus."), card(1))
    assert [c.uuid for c in lab.broker.cards.find()] == ["GPU-1"]


def test_a_card_with_a_problem_gives_nothing_new_and_proves_nothing_gone(lab: Lab) -> None:
    lab.report(card(0, (), problem="The card is lost; reboot n1."), card(1))
    problem = next(s for s in lab.broker.slices.find() if s.row.card_index == 0)
    assert (problem.row.present, problem.state) == (True, "draining")
    assert problem.why == "The card is lost; reboot n1."
    assert lab.start().card_uuid == "GPU-1"
    lab.report()
    assert lab.states()[(0, "1g.5gb", 0)] == "free"


def test_the_base_layout_follows_what_is_cut_by_hand(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab()
    lab.report(card(0, (), mig_enabled=False, profiles=()))
    assert (lab.broker.cards.find()[0].layout, lab.broker.cards.find()[0].mig_wanted) == ((), False)
    lab.report(card(0, MIXED))
    assert (lab.broker.cards.find()[0].layout, lab.broker.cards.find()[0].mig_wanted) == (
        MIXED,
        True,
    )
    lab.report(card(0, SEVENTHS))
    assert lab.broker.cards.find()[0].layout == SEVENTHS


def test_the_base_layout_keeps_what_is_only_gone(make_lab: Callable[..., Lab]) -> None:
    """After a restart of the node nothing is there, and all of it has to come back."""
    lab = make_lab()
    lab.report(card(0, MIXED))
    lab.report(card(0, ()))
    assert lab.broker.cards.find()[0].layout == MIXED
    lab.report(card(0, MIXED[1:]))
    assert lab.broker.cards.find()[0].layout == MIXED
    assert lab.states()[(0, *MIXED[0])] == "missing"


def test_the_base_layout_that_somebody_set_is_nobody_elses_to_change(
    make_lab: Callable[..., Lab],
) -> None:
    lab = make_lab()
    lab.report(card(0, MIXED))
    lab.broker.layouts.set("GPU-0", MIXED, True, "root")
    lab.report(card(0, SEVENTHS))
    assert lab.broker.cards.find()[0].layout == MIXED


def test_a_card_that_stops_listing_its_profiles_keeps_what_was_known(
    make_lab: Callable[..., Lab],
) -> None:
    lab = make_lab()
    lab.report(card(0))
    lab.broker.nodes.record_inventory("n1", inventory(replace(card(0), profiles=())))
    assert lab.broker.cards.find()[0].whole == ("7g.40gb", 0)


def test_slices_that_a_re_cut_has_replaced_are_not_shown_as_missing(
    make_lab: Callable[..., Lab],
) -> None:
    lab = make_lab()
    lab.report(card(0, MIXED))
    lab.report(card(0, SEVENTHS))
    lab.report(card(0, MIXED))
    assert set(lab.states()) == {(0, name, start) for name, start in MIXED}


def test_driver_version_and_index_follow_the_report(lab: Lab) -> None:
    lab.broker.nodes.record_inventory(
        "n1", replace(inventory(replace(card(0), index=5), card(1)), driver_version="550.1")
    )
    assert lab.broker.nodes.find()[0].driver_version == "550.1"
    assert {c.uuid: c.index for c in lab.broker.cards.find()} == {"GPU-0": 5, "GPU-1": 1}


@pytest.mark.parametrize("node", ["", "x" * 256, "nul\x00"])
def test_a_node_needs_a_name_that_can_be_stored(lab: Lab, node: str) -> None:
    with pytest.raises(Refusal):
        lab.report(node=node)


def test_finishing_an_unknown_card_or_one_without_target_changes_nothing(lab: Lab) -> None:
    before = lab.stored()
    assert not lab.broker.layouts.finish_target("GPU-0")
    assert not lab.broker.layouts.finish_target("GPU-9")
    assert lab.stored() == before


def test_a_renamed_node_goes_on_with_the_leases_on_its_cards(lab: Lab) -> None:
    """Nobody answers to the old name any more, so nobody else could prove them empty."""
    lease = lab.start()
    lab.report(card(0), card(1), node="renamed")
    assert lab.broker.leases.get(lease.id).node == "renamed"
    assert [found.id for found in lab.broker.leases.find(node="renamed")] == [lease.id]
    assert lab.broker.leases.find(node="n1") == ()


def booted(*cards: Card, boot: str) -> Inventory:
    return replace(inventory(*cards), boot_id=boot)


def test_a_restarted_node_is_not_offered_before_its_agent_has_looked(
    make_lab: Callable[..., Lab],
) -> None:
    lab = make_lab()
    assert not lab.broker.nodes.note_boot("n1", "first")
    lab.broker.nodes.record_inventory("n1", booted(card(0), boot="first"))
    lease = lab.start()
    assert not lab.broker.nodes.note_boot("n1", "first")
    assert lab.start("grace").card_uuid == "GPU-0"
    # Seconds later the node is up again: its last report is still fresh, its slices are gone.
    assert lab.broker.nodes.note_boot("n1", "second")
    assert not lab.broker.nodes.note_boot("n1", "second")
    assert not lab.broker.nodes.note_boot("n1", "")
    assert lab.kinds().count("node.booted") == 1
    refused("capacity", lab.start, "linus")
    assert lab.broker.leases.get(lease.id).state == "pending"
    lab.broker.nodes.record_inventory("n1", booted(card(0, ()), boot="second"))
    refused("capacity", lab.start, "linus")
    lab.broker.nodes.record_inventory("n1", booted(card(0), boot="second"))
    assert lab.start("linus").card_uuid == "GPU-0"


def test_a_report_from_another_boot_needs_nobody_to_announce_it(
    make_lab: Callable[..., Lab],
) -> None:
    lab = make_lab()
    lab.broker.nodes.record_inventory("n1", booted(card(0), boot="first"))
    lab.broker.nodes.record_inventory("n1", booted(card(0), boot="second"))
    assert lab.broker.nodes.find()[0].boot_id == "second"
    assert not lab.broker.nodes.note_boot("n1", "second")
    # An agent that does not know the boot changes nothing about it.
    lab.report(card(0))
    assert lab.broker.nodes.find()[0].boot_id == "second"
    assert lab.start().card_uuid == "GPU-0"
