"""A tier with a title is called by it: its key is for configuration and programs."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from jupyterhub_migspawner.errors import Refusal
from jupyterhub_migspawner.policy.grants import Grant, Grants, Holder, why_not
from jupyterhub_migspawner.policy.people import Person
from jupyterhub_migspawner.policy.supply import none_free, they_wait
from jupyterhub_migspawner.policy.tiers import choose_tier, may_use, parse_tiers

NOW = datetime(2026, 11, 23, 12, tzinfo=timezone.utc)


@pytest.mark.parametrize("profile", ["1g.5gb", "whole"])
@pytest.mark.parametrize("seats", [1, 2])
def test_refusals_say_the_title(profile: str, seats: int) -> None:
    fields = {"title": "A small slice", "profile": profile, "users": ["grace"]}
    if profile != "whole":
        fields["seats"] = seats
    (tier,) = parse_tiers([{"name": "xq1", **fields}])
    for said in (
        may_use(tier, Person("ada")),
        why_not(tier, Grants(), NOW),
        why_not(tier, Grants(pending=3), NOW),
        why_not(tier, Grants(begins_at=NOW + timedelta(hours=1)), NOW),
        why_not(tier, Grants((Grant(1, (Holder("exp"),)),)), NOW),
        why_not(tier, Grants((Grant(1, (Holder("exp", is_offer=True),)),)), NOW),
        why_not(tier, Grants((Grant(1, (Holder("exp", is_unfit=True),)),)), NOW),
        they_wait(tier, 1),
        they_wait(tier, 2),
        none_free(tier, 0),
        none_free(tier, 3),
    ):
        assert "A small slice" in said
        assert "xq1" not in said


def test_a_choice_that_is_refused_names_what_to_write_and_what_it_is_called() -> None:
    tiers = parse_tiers(
        [
            {"name": "xq1", "profile": "1g.5gb", "title": "A small slice"},
            {"name": "cpu", "profile": "none"},
        ]
    )
    with pytest.raises(Refusal, match=r"You may choose xq1 \(A small slice\) or cpu\."):
        choose_tier(tiers, Person("ada"), {"tier": "xq2"})
