"""What the spawn form picks for a person, and what it says of offers and grants."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone

from bs4 import BeautifulSoup
from hypothesis import given, settings
from hypothesis import strategies as st

from jupyterhub_migspawner.broker import TierStatus
from jupyterhub_migspawner.model.requests import RequestRow
from jupyterhub_migspawner.policy.tiers import parse_tiers
from jupyterhub_migspawner.spawner.form import preselected, render_tiers
from tests.unit.service.pages.test_status import LEASE

NOW = datetime(2026, 11, 23, 9, 0, tzinfo=timezone.utc)
CPU, SMALL, LARGE, CARD = parse_tiers(
    [
        {"name": "cpu", "profile": "none"},
        {"name": "small", "profile": "1g.5gb", "default": True},
        {"name": "large", "profile": "3g.20gb"},
        {"name": "card", "profile": "whole", "approval": True},
    ]
)
HELD = replace(LEASE, tier="large", ticket_id=3, deadline=NOW + timedelta(minutes=10))
GRANT = RequestRow(
    id=4,
    user="ada",
    tier="card",
    hours=8,
    reason="training",
    state="approved",
    created_at=NOW,
    decided_by="grace",
    decided_at=NOW,
    decision_reason="",
    valid_until=NOW + timedelta(hours=8),
    hub="hub",
)


def offers(*, held: bool = False, grant: bool = False, free: bool = True) -> list[TierStatus]:
    return [
        TierStatus(CPU, 0, 0, True, "", None),
        TierStatus(SMALL, 3, 7, True, "", None),
        TierStatus(LARGE, 0, 1, held, "" if held else "full", None, held=HELD if held else None),
        TierStatus(
            CARD,
            int(free),
            1,
            grant and free,
            "" if grant and free else "Tier 'card' needs approval.",
            GRANT if grant else None,
        ),
    ]


def test_what_is_held_is_picked_then_a_grant_then_the_last_tier_then_the_default() -> None:
    assert preselected(offers(held=True, grant=True), "small", "cpu") == "large"
    assert preselected(offers(grant=True), "small", "cpu") == "card"
    assert preselected(offers(), "small", "cpu") == "cpu"
    assert preselected(offers(), "cpu") == "cpu"
    assert preselected(offers()) == "small"


def test_a_grant_that_cannot_start_now_is_not_picked() -> None:
    assert preselected(offers(grant=True, free=False), None, "cpu") == "cpu"


@settings(deadline=None)
@given(
    held=st.booleans(),
    grant=st.booleans(),
    free=st.booleans(),
    default=st.sampled_from([None, "cpu", "small", "large", "card", "gone"]),
    last=st.sampled_from([None, "cpu", "small", "large", "card", "gone"]),
)
def test_what_is_picked_can_start(
    held: bool, grant: bool, free: bool, default: str | None, last: str | None
) -> None:
    shown = offers(held=held, grant=grant, free=free)
    picked = preselected(shown, default, last)
    assert picked in {offer.tier.name for offer in shown if offer.usable}
    soup = BeautifulSoup(render_tiers(shown, default=default, last=last), "html.parser")
    assert [field["value"] for field in soup.select("input[name=tier][checked]")] == [picked]


def form_of(*shown: TierStatus) -> BeautifulSoup:
    return BeautifulSoup(render_tiers(shown), "html.parser")


def test_a_larger_tier_is_offered_where_there_is_one_and_by_title() -> None:
    full = TierStatus(SMALL, 0, 7, False, "full", None, full=True, larger=(LARGE,))
    form = form_of(full)
    assert form.select_one("[name=migspawner-upward-small]")
    assert "Also accept any larger tier: large" in " ".join(form.text.split())


def test_nothing_is_larger_than_the_largest_tier_or_a_whole_card() -> None:
    for tier, grant in ((LARGE, None), (CARD, GRANT)):
        form = form_of(TierStatus(tier, 0, 1, False, "full", grant, full=True))
        assert form.select_one(f"[name=migspawner-wait-{tier.name}]")
        assert form.select_one(f"[name=migspawner-start-{tier.name}]")
        assert "arger tier" not in form.text
        assert not form.select_one(f"[name=migspawner-upward-{tier.name}]")


def test_cards_out_of_service_are_told_once() -> None:
    out = "1 of its cards is out of service."
    for offer in (
        TierStatus(SMALL, 3, 7, True, "", None, outage=out),
        TierStatus(SMALL, 0, 7, False, f"No slice is free. {out}", None, outage=out),
        TierStatus(SMALL, 3, 7, False, "Your quota is used up.", None, outage=out),
    ):
        assert " ".join(form_of(offer).text.split()).count(out) == 1


def test_a_tier_says_after_how_long_without_use_it_ends() -> None:
    idle = SMALL.model_copy(update={"idle_minutes": 60.0, "idle_minutes_when_wanted": 1.0})
    always = idle.model_copy(update={"idle_minutes_when_wanted": None})
    for tier, words in (
        (idle, "Ends after 60 minutes without use, 1 minute while others wait."),
        (always, "Ends after 60 minutes without use."),
    ):
        assert words in " ".join(form_of(TierStatus(tier, 3, 7, True, "", None)).text.split())
    for tier in (SMALL, CPU.model_copy(update={"idle_minutes": 60.0})):
        assert "without use" not in form_of(TierStatus(tier, 3, 7, True, "", None)).text


def test_tiers_on_the_same_slices_say_so() -> None:
    form = form_of(TierStatus(SMALL, 3, 7, True, "", None, shares_with=(LARGE, CPU)))
    said = " ".join(form.text.split())
    assert "Uses the same slices as large and cpu, so their numbers overlap." in said
    card = form_of(TierStatus(CARD, 1, 1, True, "", None, shares_with=(CARD,)))
    assert "Uses the same cards as card, so their numbers overlap." in " ".join(card.text.split())
    assert "Uses the same" not in form_of(TierStatus(SMALL, 3, 7, True, "", None)).text


def test_an_offer_and_a_grant_are_shown_with_their_deadline() -> None:
    said = " ".join(
        BeautifulSoup(render_tiers(offers(held=True, grant=True)), "html.parser").text.split()
    )
    assert "One is held for you until Mon 23 Nov 2026 09:10 UTC: start it with this tier." in said
    assert "You have a grant for it until Mon 23 Nov 2026 17:00 UTC." in said


def test_the_form_says_how_much_of_the_machine_a_server_may_use() -> None:
    limited, free = parse_tiers(
        [
            {"name": "limited", "profile": "1g.5gb", "cpus": 0.5, "memory_gib": 8},
            {"name": "free", "profile": "1g.5gb"},
        ]
    )
    form = form_of(
        TierStatus(limited, 1, 1, True, "", None), TierStatus(free, 1, 1, True, "", None)
    )
    about, other = (each.get_text() for each in form.select(".small[id$=about]"))
    assert "Up to 0.5 CPUs and 8 GiB of main memory." in about
    assert "Up to" not in other
