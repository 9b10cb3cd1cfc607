"""What people and programs see of a slice that several share."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from jupyterhub_migspawner.broker import TierStatus
from jupyterhub_migspawner.policy.tiers import parse_tiers
from jupyterhub_migspawner.service.pages.status import sessions_of
from jupyterhub_migspawner.spawner.environment import describe, slice_environment
from jupyterhub_migspawner.spawner.form import render_tiers
from tests.unit.service.pages.test_status import LEASE, SERVER, SETTINGS

ALONE, SHARED, CPU = parse_tiers(
    [
        {"name": "small", "profile": "1g.5gb"},
        {"name": "course", "profile": "1g.5gb", "seats": 4},
        {"name": "cpu", "profile": "none"},
    ]
)


def words(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", html))


def test_the_form_counts_in_seats_and_says_that_they_are_shared() -> None:
    said = words(render_tiers([TierStatus(SHARED, 5, 28, True, "", None)]))
    assert "5 of 28 shared seats free" in said
    assert "A seat on one 1g.5gb slice. Shared by up to 4 people" in said
    none = words(render_tiers([TierStatus(SHARED, 0, 28, False, "No seat is free.", None)]))
    assert "none of 28 shared seats free" in none


def test_the_form_says_nothing_of_seats_where_each_has_a_slice() -> None:
    said = words(render_tiers([TierStatus(ALONE, 5, 7, True, "", None)]))
    assert "5 of 7 free" in said
    assert "One 1g.5gb slice." in said
    assert "seat" not in said
    assert "hared" not in said


@pytest.mark.parametrize(
    ("tier", "seats"), [(ALONE, "1"), (SHARED, "4"), (None, "1")], ids=["alone", "shared", "gone"]
)
def test_a_server_is_told_how_many_may_be_on_its_slice(tier: object, seats: str) -> None:
    env = slice_environment(tier, LEASE)  # type: ignore[arg-type]
    assert env["MIGSPAWNER_SEATS"] == seats
    assert env["CUDA_VISIBLE_DEVICES"] == "MIG-1"
    assert env["MIGSPAWNER_MEMORY_MIB"] == "4864"


def test_a_server_without_a_gpu_has_no_seat() -> None:
    assert slice_environment(CPU, None)["MIGSPAWNER_SEATS"] == "0"


def test_who_waits_reads_that_the_slice_is_shared() -> None:
    assert describe(LEASE, SHARED) == (
        "one of 4 seats on a shared slice 1g.5gb with 4.8 GiB on node node1"
    )
    assert describe(LEASE, ALONE) == "slice 1g.5gb with 4.8 GiB on node node1"


def test_a_session_knows_how_many_may_be_on_its_slice() -> None:
    settings = replace(SETTINGS, tiers=(ALONE, SHARED))
    for tier, seats in (("course", 4), ("small", 1), ("taken out", 1)):
        lease = replace(LEASE, tier=tier)
        (session,) = sessions_of((SERVER,), (lease,), settings, {})
        assert session.seats == seats
