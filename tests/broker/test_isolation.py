"""What keeps the server of a lease off other slices is stored before its launch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from jupyterhub_migspawner.broker.views import lease_view, slice_view
from jupyterhub_migspawner.errors import Refusal
from jupyterhub_migspawner.model.slices import SliceDevice
from jupyterhub_migspawner.policy.isolation import KINDS
from tests.broker.lab import MIXED, Lab, card


@pytest.mark.parametrize("isolation", KINDS)
def test_the_isolation_of_a_start_is_stored_with_its_lease(lab: Lab, isolation: str) -> None:
    lease = lab.start("ada", "small")
    assert lease.isolation == ""
    lab.broker.leases.note_launch(lease.attempt, isolation)
    assert lab.broker.leases.get(lease.id).isolation == isolation
    active = lab.broker.leases.activate(lease.attempt)
    assert active is not None
    assert lease_view(active)["isolation"] == isolation
    (view,) = [slice_view(each) for each in lab.broker.slices.find() if each.leases]
    assert view["lease"] is not None
    assert view["lease"]["isolation"] == view["leases"][0]["isolation"] == isolation
    (event,) = [each for each in lab.broker.events.find() if each.kind == "lease.active"]
    assert event.detail["isolation"] == isolation


def test_a_launch_learns_the_numbers_of_its_devices(lab: Lab) -> None:
    lab.report(card(0, MIXED, minor=3))
    lease = lab.start("ada", "medium")
    # The second instance of a card whose minor is not its index.
    device = lab.broker.leases.note_launch(lease.attempt, "bubblewrap")
    assert device == SliceDevice(card_minor=3, gi_id=2, ci_id=0)


def test_the_numbers_follow_the_card_as_it_is_read(lab: Lab) -> None:
    lease = lab.start("ada", "small")
    lab.report(card(0, minor=5))
    device = lab.broker.leases.note_launch(lease.attempt, "bubblewrap")
    assert device is not None
    assert device.card_minor == 5
    # An error that hides the number does not make it unknown.
    lab.report(replace(card(0, minor=-1), problem="it does not answer"))
    again = lab.broker.leases.note_launch(lease.attempt, "bubblewrap")
    assert again == device


def test_numbers_that_nobody_has_read_are_not_made_up(lab: Lab) -> None:
    lab.report(card(7, minor=-1), node="n2")
    lease = lab.start("ada", "small", node="n2")
    assert lab.broker.leases.note_launch(lease.attempt, "bubblewrap") is None
    lab.report(card(7, minor=7), node="n2")
    assert lab.broker.leases.note_launch(lease.attempt, "bubblewrap") is not None


def test_a_start_that_lost_its_lease_is_not_launched(lab: Lab) -> None:
    lease = lab.start("ada", "small")
    lab.broker.leases.release_server("ada", "", "stopped", "ada")
    with pytest.raises(Refusal) as caught:
        lab.broker.leases.note_launch(lease.attempt, "bubblewrap")
    assert caught.value.reason == "conflict"
    assert lab.broker.leases.get(lease.id).isolation == ""
    with pytest.raises(Refusal):
        lab.broker.leases.note_launch("never", "bubblewrap")


def test_only_known_kinds_of_isolation_are_stored(lab: Lab) -> None:
    lease = lab.start("ada", "small")
    with pytest.raises(ValueError, match="'hope' is no isolation"):
        lab.broker.leases.note_launch(lease.attempt, "hope")


def test_a_card_with_mig_off_has_no_instances(make_lab: Callable[..., Lab]) -> None:
    bare = {"name": "bare", "profile": "whole", "mig": "off"}
    lab = make_lab(tiers=[bare])
    off = card(0, (), minor=2, mig_enabled=False)
    lab.report(off)
    lease = lab.start("ada", "bare")
    lab.report(off)
    device = lab.broker.leases.note_launch(lease.attempt, "bubblewrap")
    assert device == SliceDevice(card_minor=2, gi_id=None, ci_id=None)
