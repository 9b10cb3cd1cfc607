"""Who may have what now: the rules, each on its own, and their order."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from jupyterhub_migspawner.model.cards import CardKind
from jupyterhub_migspawner.policy.admission import (
    RULES,
    Admit,
    Ask,
    Deny,
    Facts,
    Reason,
    Use,
    Wait,
    decide,
)
from jupyterhub_migspawner.policy.grants import Grant, Grants, Holder
from jupyterhub_migspawner.policy.people import Person
from jupyterhub_migspawner.policy.proof import Ending
from jupyterhub_migspawner.policy.queue import pool_of
from jupyterhub_migspawner.policy.quotas import Quota, Usage
from jupyterhub_migspawner.policy.supply import Ahead, Supply
from jupyterhub_migspawner.policy.tiers import Tier, parse_tiers

NOW = datetime(2026, 11, 23, 12, tzinfo=timezone.utc)
A100 = CardKind("NVIDIA A100-SXM4-40GB", 40960)
H100 = CardKind("NVIDIA H100 80GB HBM3", 81559)
BOTH = frozenset((A100, H100))

SMALL, CARD, CPU, OTHERS = parse_tiers(
    [
        {"name": "small", "profile": "1g.5gb"},
        {"name": "card", "profile": "whole", "approval": True},
        {"name": "cpu", "profile": "none"},
        {"name": "others", "profile": "1g.5gb", "groups": ["vision"]},
    ]
)


def ask(tier: Tier = SMALL, **fields: Any) -> Ask:
    return Ask(person=Person("ada"), tier=tier, now=NOW, **fields)


def supply(free: int = 1, **fields: Any) -> Supply:
    counts = {None: free, A100: free, H100: 0}
    usual = {"kinds": None, "known": BOTH, "every": BOTH, "total": 7, "free": counts}
    return replace(Supply(**usual), **fields)


def facts(**fields: Any) -> Facts:
    usual = {"limits": Quota(), "used": Usage(NOW), "supply": supply()}
    return Facts(**{**usual, **fields})


GRANTED = Grants((Grant(3),))
FULL = {"limits": Quota(live=1), "used": Usage(NOW, live=1)}
PROMISED = {kind: NOW + timedelta(minutes=9) for kind in BOTH}
THEY_WAIT = Ahead(2, pools=(pool_of(SMALL, BOTH), pool_of(CARD, BOTH)))

#: For each rule an ask, and facts to which that rule alone says no.
NO = {
    Reason.TIER: (ask(OTHERS), facts()),
    Reason.GRANT: (ask(CARD), facts()),
    Reason.QUOTA: (ask(), facts(**FULL)),
    Reason.RESERVATION: (ask(CARD), facts(grants=GRANTED, supply=supply(promised=PROMISED))),
    Reason.TURN: (ask(), facts(supply=supply(ahead=THEY_WAIT))),
    Reason.CAPACITY: (ask(), facts(supply=supply(0))),
}


@pytest.mark.parametrize("reason", Reason)
def test_each_rule_says_no_alone(reason: Reason, monkeypatch: pytest.MonkeyPatch) -> None:
    verdict = decide(*NO[reason])
    assert isinstance(verdict, Deny | Wait)
    assert verdict.reason is reason
    assert verdict.sentence
    denied = reason in (Reason.TIER, Reason.GRANT)
    assert isinstance(verdict, Deny if denied else Wait)
    others = tuple(rule for rule in RULES if rule.reason is not reason)
    monkeypatch.setattr("jupyterhub_migspawner.policy.admission.RULES", others)
    assert isinstance(decide(*NO[reason]), Admit)


def test_the_first_rule_that_says_no_is_the_answer() -> None:
    tier = CARD.model_copy(update={"groups": ("vision",)})
    everything = facts(
        **FULL, supply=supply(0, promised=PROMISED, ahead=THEY_WAIT), grants=Grants(pending=7)
    )
    granted = replace(everything, grants=GRANTED)
    within = replace(granted, limits=Quota())
    steps = [
        (ask(tier), everything),
        (ask(CARD), everything),
        (ask(CARD), granted),
        (ask(CARD), within),
        (ask(CARD), replace(within, supply=supply(0, ahead=THEY_WAIT))),
        (ask(CARD), replace(within, supply=supply(0))),
    ]
    found = [decide(*each) for each in steps]
    assert [each.reason for each in found if not isinstance(each, Admit)] == list(Reason)
    assert decide(ask(CARD), replace(within, supply=supply())) == Admit((None,), 3)
    assert [rule.reason for rule in RULES] == list(Reason)


@pytest.mark.parametrize("use", Use)
def test_without_a_gpu_only_tier_and_quota_count(use: Use) -> None:
    none = facts(supply=None)
    assert isinstance(decide(ask(CPU, use=use), none), Admit)
    assert isinstance(decide(ask(CPU, use=use), replace(none, **FULL)), Admit)
    servers = {"limits": Quota(servers=1), "used": Usage(NOW, servers=1)}
    verdict = decide(ask(CPU, use=use), replace(none, **servers))  # type: ignore[arg-type]
    assert isinstance(verdict, Wait)
    assert verdict.reason is Reason.QUOTA


def test_what_is_held_needs_neither_supply_nor_turn_but_rights() -> None:
    nothing = facts(supply=supply(0, promised=PROMISED, ahead=THEY_WAIT), is_held=True)
    assert isinstance(decide(ask(), nothing), Admit)
    verdict = decide(ask(), replace(nothing, **FULL))  # type: ignore[arg-type]
    assert isinstance(verdict, Wait)
    assert verdict.reason is Reason.QUOTA


def test_waiting_does_not_help_where_the_limit_is_none_at_all() -> None:
    verdict = decide(ask(), facts(limits=Quota(live=0)))
    assert isinstance(verdict, Deny)
    assert verdict.reason is Reason.QUOTA


def test_an_offer_skips_the_turn_and_takes_first_what_nobody_else_waits_for() -> None:
    mine = Ahead(1, pools=(replace(pool_of(SMALL, BOTH), kinds=frozenset((H100,))),))
    have = facts(supply=supply(ahead=mine))
    assert decide(ask(use=Use.OFFER), have) == Admit((frozenset((A100,)), None))
    assert decide(ask(), have) == Admit((frozenset((A100,)),))
    kept = replace(have, supply=supply(ahead=mine, is_kept=True))
    assert decide(ask(use=Use.OFFER), kept) == Admit((None,))
    assert isinstance(decide(ask(use=Use.OFFER), facts(supply=supply(ahead=THEY_WAIT))), Admit)


def test_a_promise_leaves_the_other_kinds_of_cards() -> None:
    one = {A100: NOW + timedelta(minutes=9), H100: NOW + timedelta(minutes=11)}
    of_both = replace(supply(), promised=one, free={None: 2, A100: 1, H100: 1})
    have = facts(grants=GRANTED, supply=of_both)
    assert decide(ask(CARD), have) == Admit((frozenset((H100,)),), 3)
    # What is free there must be left for those who wait for it, too.
    waits = Ahead(1, pools=(replace(pool_of(CARD, BOTH), kinds=frozenset((H100,))),))
    verdict = decide(ask(CARD), replace(have, supply=replace(of_both, ahead=waits)))
    assert isinstance(verdict, Wait)
    assert verdict.reason is Reason.TURN


def test_a_seat_beside_others_is_nobodys_turn_unless_somebody_waits_for_a_seat() -> None:
    for seats, admitted in ((0, True), (1, False)):
        ahead = Ahead(1, seats, (pool_of(SMALL, BOTH),))
        verdict = decide(ask(), facts(supply=supply(ahead=ahead, has_seat=True)))
        assert isinstance(verdict, Admit) == admitted


@pytest.mark.parametrize("minutes", [0.5, 2])
def test_what_ended_a_moment_ago_is_over_soon(minutes: float) -> None:
    ending = Ending("exp", "Small", NOW - timedelta(minutes=minutes))
    for have in (
        facts(limits=Quota(live=1), used=Usage(NOW, ending=(ending,)), grants=GRANTED),
        facts(grants=Grants((Grant(3, (Holder("exp", ending),)),))),
    ):
        verdict = decide(ask(CARD), have)
        assert isinstance(verdict, Wait)
        assert verdict.soon == (minutes < 1)
        assert "ended at" in verdict.sentence


def test_a_card_that_can_be_emptied_is_said_with_the_wait() -> None:
    have = facts(grants=GRANTED, supply=supply(0, can_empty=True))
    verdict = decide(ask(CARD), have)
    assert isinstance(verdict, Wait)
    assert verdict.can_empty
    past = decide(ask(CARD), replace(have, supply=supply(0, can_empty=True, ahead=THEY_WAIT)))
    assert isinstance(past, Wait)
    assert not past.can_empty
