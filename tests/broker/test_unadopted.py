"""Servers that run without a lease count against their people as if they had one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from jupyterhub_migspawner.model.leases import LeaseRow
from jupyterhub_migspawner.model.orphans import OrphanRow
from jupyterhub_migspawner.policy.people import Person
from tests.broker.lab import WHOLE, Lab, card
from tests.broker.test_orphans import LEASE, look, mark, saved
from tests.broker.test_unproven import limits, offer_of, refusal

MakeLab = Callable[..., Lab]

#: Ada's whole card, on a grant that the older database knows.
CARD = replace(
    LEASE, profile="7g.40gb", start=0, slice_uuid="MIG-0-7g.40gb-0", whole=True, tier="card"
)


def unadopted(lab: Lab, lease: LeaseRow = LEASE, **changes: Any) -> OrphanRow:
    """Ada's server runs, by its hub's word and by its processes' marks."""
    layout = [card(0, WHOLE)] if lease.whole else [card(0)]
    look(lab, mark(lease), cards=layout)
    (found,) = lab.broker.orphans.vouch([replace(saved(**vars(lease)), **changes)])
    look(lab, mark(lease), cards=layout)
    return found


@pytest.mark.parametrize("server", ["other", "third"])
def test_it_counts_in_the_quota_of_sessions(make_lab: MakeLab, server: str) -> None:
    lab = make_lab(quotas={"default": {"live": 1}})
    unadopted(lab)
    found = refusal(lab, "ada", server=server)
    assert found.reason == "quota"
    assert "allows 1 GPU server at a time and you have 1" in str(found)
    assert "Stop it to start another" in str(found)
    assert found.soon is False
    assert limits(lab) == {"live": 1}
    assert offer_of(lab) == (False, str(found))
    assert lab.start("grace").user == "grace"


def test_it_counts_once_when_it_is_adopted(make_lab: MakeLab) -> None:
    lab = make_lab(quotas={"default": {"live": 2}})
    unadopted(lab)
    assert limits(lab) == {"live": 1}
    lab.broker.orphans.adopt("root")
    assert limits(lab) == {"live": 1}
    lab.start(server="second")
    assert refusal(lab, "ada", server="third").reason == "quota"


def test_a_whole_card_counts_as_one(make_lab: MakeLab) -> None:
    lab = make_lab(quotas={"default": {"whole_cards": 1}})
    unadopted(lab, CARD)
    look(lab, mark(CARD), cards=[card(0, WHOLE), card(1, WHOLE)])
    lab.grant()
    found = refusal(lab, "ada", "card", server="second")
    assert found.reason == "quota"
    assert "allows 1 whole card at a time" in str(found)
    assert limits(lab) == {"whole_cards": 1}


def test_a_whole_card_counts_before_any_agent_has_reported_it(make_lab: MakeLab) -> None:
    lab = make_lab(quotas={"default": {"whole_cards": 1, "live": 3}})
    lab.broker.orphans.vouch([saved(**vars(CARD))])
    assert limits(lab) == {"live": 1, "whole_cards": 1}


def test_its_grant_is_in_use(make_lab: MakeLab) -> None:
    lab = make_lab()
    lab.report(card(0, WHOLE), card(1, WHOLE))
    grant = lab.grant()
    unadopted(lab, replace(CARD, request_id=grant.id))
    look(lab, mark(CARD), cards=[card(0, WHOLE), card(1, WHOLE)])
    found = refusal(lab, "ada", "card", server="second")
    assert found.reason == "approval"
    assert f"grant {grant.id} for tier 'card' is in use by your default server" in str(found)


def test_its_gpu_hours_are_used(make_lab: MakeLab) -> None:
    lab = make_lab(quotas={"default": {"gpu_hours_per_week": 1}})
    unadopted(lab)
    assert limits(lab)["gpu_hours_per_week"] == pytest.approx(2 / 7)
    lab.clock.pass_time(hours=6)
    lab.report()
    assert refusal(lab, "ada", server="other").reason == "quota"


def test_it_is_one_server_for_a_hub_that_lists_it(make_lab: MakeLab) -> None:
    lab = make_lab(quotas={"default": {"servers": 2}})
    unadopted(lab)
    assert limits(lab, servers=1) == {"servers": 1}


def test_the_mark_of_a_process_fills_nobodys_quota(make_lab: MakeLab) -> None:
    lab = make_lab(quotas={"default": {"live": 1}})
    look(lab, mark())
    assert limits(lab) == {"live": 0}
    assert lab.start().user == "ada"


def test_what_its_hub_stopped_counts_while_its_processes_run(make_lab: MakeLab) -> None:
    lab = make_lab(quotas={"default": {"live": 1}})
    unadopted(lab)
    lab.broker.orphans.unvouch("ada", "")
    look(lab, mark(), cards=[card(0)])
    found = refusal(lab, "ada", server="other")
    assert found.soon is True
    assert "Your default server (tier small) ended at" in str(found)
    assert "a program is still running on its slice" in str(found)
    lab.clock.pass_time(minutes=2)
    look(lab, mark(), cards=[card(0)])
    assert refusal(lab, "ada", server="other").soon is False
    look(lab, cards=[card(0)])
    assert lab.start(server="other").user == "ada"


def test_a_new_start_of_the_same_server_ends_the_word_of_its_hub(make_lab: MakeLab) -> None:
    lab = make_lab(quotas={"default": {"live": 1}})
    unadopted(lab)
    assert refusal(lab, "ada").soon is True
    (orphan,) = lab.broker.orphans.find()
    assert orphan.vouched is False
    look(lab, cards=[card(0)])
    lease = lab.start()
    assert lab.broker.leases.find() == (lease,)


def test_a_place_in_the_waiting_list_offers_nothing_beyond_the_quota(make_lab: MakeLab) -> None:
    lab = make_lab(quotas={"default": {"live": 1}})
    unadopted(lab)
    ticket = lab.broker.queue.join(Person("ada"), "small", server="other")
    offered = lab.broker.offers.make(ticket.id, Person("ada"), other_servers=1)
    assert offered.lease is None
    assert "GPU server at a time" in offered.why
    assert lab.broker.leases.find() == ()


def test_a_start_that_no_hub_names_ends_no_other(make_lab: MakeLab) -> None:
    lab = make_lab()
    look(lab, mark(), cards=[card(0)])
    running = lab.start()
    lab.broker.leases.activate(running.attempt)
    lab.clock.pass_time(hours=1)
    look(lab, mark(), cards=[card(0)])
    (done,) = lab.broker.orphans.adopt("root")
    assert done.lease is None
    assert f"lease {running.id} belongs to another start of the server" in done.why
    assert lab.broker.leases.get(running.id).state == "active"


def test_times_of_before_hold(make_lab: MakeLab) -> None:
    lab = make_lab()
    unadopted(lab, since=LEASE.since - timedelta(days=1))
    lab.broker.orphans.unvouch("ada", "")
    look(lab, mark(), cards=[card(0)])
    (orphan,) = lab.broker.orphans.find()
    assert orphan.since == LEASE.since - timedelta(days=1)
