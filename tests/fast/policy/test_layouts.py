"""The desired state of a card: its target, or else its layout, or that it is left alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from jupyterhub_migspawner.model.cards import MIG_OFF, CardRow, Layout, Want
from jupyterhub_migspawner.policy.layouts import (
    Desired,
    desired,
    is_desired,
    is_going_back,
    is_reached,
)

SMALL: Layout = (("1g.5gb", 0), ("1g.5gb", 1))
WHOLE: Layout = (("7g.40gb", 0),)
LEFT_ALONE = None

SET = CardRow(
    uuid="GPU-0",
    node="n1",
    index=0,
    model="NVIDIA A100-SXM4-40GB",
    memory_mib=40960,
    mig_enabled=True,
    state="ok",
    layout=SMALL,
    target=None,
    problem="",
    layout_by="root",
)
FOUND = replace(SET, layout_by="")
UNCUT = replace(FOUND, layout=())
WITHOUT_MIG = replace(SET, layout=(), mig_wanted=False, mig_enabled=False)


@pytest.mark.parametrize(
    ("card", "given_whole", "expected"),
    [
        (SET, False, Desired(SMALL, True)),
        (replace(SET, state="draining"), False, Desired(SMALL, True)),
        (FOUND, False, Desired(SMALL, True)),
        (WITHOUT_MIG, False, Desired((), False)),
        # A target goes before the layout, also while the card is given out.
        (replace(FOUND, target=WHOLE), True, Desired(WHOLE, True)),
        (replace(SET, target=WHOLE), False, Desired(WHOLE, True)),
        (replace(SET, target=(MIG_OFF,)), True, Desired((), False)),
        # On its way back it has the mode of its layout.
        (replace(SET, target=SMALL), False, Desired(SMALL, True)),
        (replace(WITHOUT_MIG, target=()), False, Desired((), False)),
        (replace(WITHOUT_MIG, target=WHOLE), True, Desired(WHOLE, True)),
        # Its slice of the whole card stays until the lease has ended.
        (SET, True, LEFT_ALONE),
        # An admin may be at work on a card whose layout nobody has set.
        (UNCUT, False, LEFT_ALONE),
        (replace(FOUND, state="draining"), False, LEFT_ALONE),
        (replace(SET, layout=()), False, Desired((), True)),
        (replace(SET, state="lost"), False, LEFT_ALONE),
        (replace(SET, state="lost", target=WHOLE), False, LEFT_ALONE),
    ],
)
def test_a_card_is_cut_to_its_target_or_layout_or_left_alone(
    card: CardRow, given_whole: bool, expected: Desired | None
) -> None:
    assert desired(card, given_whole=given_whole) == expected


@pytest.mark.parametrize(
    ("card", "present", "reached"),
    [
        (SET, set(SMALL), False),
        (replace(SET, target=WHOLE), set(WHOLE), True),
        (replace(SET, target=WHOLE), set(SMALL), False),
        (replace(SET, target=WHOLE), set(), False),
        (replace(SET, target=WHOLE, mig_enabled=False), set(WHOLE), False),
        (replace(SET, target=SMALL), {SMALL[0]}, False),
        (replace(SET, target=SMALL), {*SMALL, MIG_OFF}, True),
        (replace(SET, target=(MIG_OFF,), mig_enabled=False), {MIG_OFF}, True),
        (replace(SET, target=(MIG_OFF,)), {MIG_OFF}, False),
        (replace(SET, target=(MIG_OFF,), mig_enabled=False), set(), False),
        (replace(WITHOUT_MIG, target=()), set(), True),
        (replace(WITHOUT_MIG, target=(), mig_enabled=True), set(), False),
    ],
)
def test_a_target_is_reached_by_the_slices_and_the_mode_of_the_card(
    card: CardRow, present: set[Want], reached: bool
) -> None:
    assert is_reached(card, present) == reached


@pytest.mark.parametrize(
    ("card", "want", "expected"),
    [
        (SET, SMALL[0], True),
        (SET, ("1g.5gb", 6), False),
        (SET, MIG_OFF, False),
        (replace(SET, target=WHOLE), WHOLE[0], True),
        (replace(SET, target=WHOLE), SMALL[0], False),
        (replace(SET, target=(MIG_OFF,)), MIG_OFF, True),
        # Nobody has said how it is to be cut, and it was not cut when it was first seen.
        (UNCUT, SMALL[0], True),
        (replace(UNCUT, target=WHOLE), SMALL[0], False),
        (replace(UNCUT, layout_by="root"), SMALL[0], False),
        (WITHOUT_MIG, MIG_OFF, True),
        (WITHOUT_MIG, SMALL[0], False),
        (replace(WITHOUT_MIG, target=WHOLE), MIG_OFF, False),
    ],
)
def test_a_slice_is_desired_by_target_or_layout(card: CardRow, want: Want, expected: bool) -> None:
    assert is_desired(card, want) == expected


@pytest.mark.parametrize(
    ("card", "expected"),
    [
        (replace(SET, target=SMALL), True),
        (replace(SET, target=WHOLE), False),
        (SET, False),
        (replace(SET, target=SMALL, state="draining"), False),
        (replace(SET, target=SMALL, problem="Card 0: no answer."), False),
    ],
)
def test_only_a_working_card_with_its_layout_as_target_is_going_back(
    card: CardRow, expected: bool
) -> None:
    assert is_going_back(card) == expected
