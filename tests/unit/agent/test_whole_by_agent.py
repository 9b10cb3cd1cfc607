"""Whole cards on simulated ones: as one slice, or with MIG off, and back into the layout."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from jupyterhub_migspawner.config import MigBroker
from jupyterhub_migspawner.errors import ConfigError, Refusal
from jupyterhub_migspawner.gpu import simulator
from jupyterhub_migspawner.policy.people import Person
from jupyterhub_migspawner.policy.tiers import parse_tiers
from tests.unit.agent.conftest import BALANCED, SMALL, Node, NodeMaker

TIERS = [
    {"name": "small", "profile": "1g.5gb"},
    {"name": "card", "profile": "whole", "approval": True},
    {"name": "bare", "profile": "whole", "approval": True, "mig": "off"},
]


def grant(node: Node, tier: str, user: str = "ada") -> None:
    request = node.broker.requests.create(Person(user), tier, 10, "training")
    node.broker.requests.decide(request.id, Person("root", admin=True), True)


@pytest.mark.parametrize("tier", ["card", "bare"])
@pytest.mark.parametrize("layout", [SMALL, BALANCED, ()])
def test_a_card_is_given_whole_and_goes_back_to_its_layout(
    make_node: NodeMaker, tier: str, layout: tuple[str, ...]
) -> None:
    node = make_node(layout, tiers=TIERS)
    node.tick()
    before = node.states()
    grant(node, tier)
    lease = node.lab.start("ada", tier)
    assert lease.slice_uuid is None
    node.tick()
    bound = node.broker.leases.get(lease.id)
    if tier == "bare":
        assert bound.slice_uuid == node.card().uuid
        assert not node.card().mig_enabled
    else:
        assert node.actual() == [("7g.40gb", 0)]
        assert bound.slice_uuid == simulator.slice_uuids(node.path)[0]
    assert "leased" in node.states().values()
    node.tick(2)
    node.broker.leases.activate(lease.attempt)
    node.stop(lease)
    node.tick(3)
    assert node.broker.leases.get(lease.id).state == "released"
    assert node.states() == before
    assert node.card().mig_enabled
    assert node.card().target is None


def test_a_card_with_mig_off_waits_for_the_process_on_it(
    make_node: NodeMaker, sleeper: Callable[[], int]
) -> None:
    node = make_node(SMALL, tiers=TIERS)
    node.tick()
    grant(node, "bare")
    lease = node.lab.start("ada", "bare")
    node.tick()
    pid = sleeper()
    simulator.add_process(node.path, node.card().uuid, pid)
    node.stop(lease)
    node.tick(2)
    assert node.broker.leases.get(lease.id).state == "releasing"
    assert not node.card().mig_enabled
    simulator.remove_process(node.path, node.card().uuid, pid)
    node.tick(2)
    assert set(node.states().values()) == {"free"}


def test_a_start_that_is_called_off_before_the_cut_leaves_the_card(make_node: NodeMaker) -> None:
    node = make_node(SMALL, tiers=TIERS)
    node.tick()
    uuids = simulator.slice_uuids(node.path)
    grant(node, "bare")
    lease = node.lab.start("ada", "bare")
    node.broker.leases.cancel(lease.attempt, "changed my mind")
    node.tick(2)
    assert simulator.slice_uuids(node.path) == uuids
    assert set(node.states().values()) == {"free"}


def test_a_card_whose_layout_has_mig_off_serves_only_who_wants_it_so(make_node: NodeMaker) -> None:
    node = make_node(SMALL, tiers=TIERS)
    node.tick()
    node.broker.layouts.set(node.card().uuid, (), False, "root")
    node.tick(2)
    assert not node.card().mig_enabled
    grant(node, "card")
    with pytest.raises(Refusal, match="no card with MIG on is in service"):
        node.lab.start("ada", "card")
    grant(node, "bare", "grace")
    for _ in range(2):
        lease = node.lab.start("grace", "bare")
        node.tick(2)
        assert node.broker.leases.get(lease.id).slice_uuid == node.card().uuid
        assert set(node.states().values()) == {"leased"}
        node.broker.leases.activate(lease.attempt)
        node.stop(lease)
        node.tick(3)
        # The card is its own slice, and free again.
        assert set(node.states().values()) == {"free"}


def test_mig_off_needs_leave_to_reset_cards(tmp_path: Path) -> None:
    options = MigBroker(tiers=TIERS, directory=str(tmp_path))
    with pytest.raises(ConfigError, match="allow_gpu_reset"):
        options.settings()
    options = MigBroker(tiers=TIERS, directory=str(tmp_path), allow_gpu_reset=True)
    assert options.settings().tiers[2].mig_off


@pytest.mark.parametrize(
    "tier",
    [
        {"name": "x", "profile": "1g.5gb", "mig": "off"},
        {"name": "x", "profile": "whole", "mig": False},
        {"name": "x", "profile": "whole", "mig": "maybe"},
    ],
)
def test_a_wrong_mig_is_refused_by_tier_and_field(tier: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="tier 'x': field 'mig' is"):
        parse_tiers([tier])
