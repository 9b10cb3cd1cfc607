"""From one layout to another: fewest destructions, nothing leased or used touched."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyterhub_migspawner.errors import GpuError
from jupyterhub_migspawner.gpu import simulator
from jupyterhub_migspawner.gpu.arrange import Want, legal_layouts
from jupyterhub_migspawner.gpu.partition import Create, Destroy, Plan, arrange, plan
from jupyterhub_migspawner.model.inventory import Card, GpuProcess, Instance, Profile

A100 = simulator.profiles_of(simulator.find_model("a100"))
A30 = simulator.profiles_of(simulator.find_model("a30"))
A30_THREE = tuple(each for each in A30 if not each.attributes)


def card_with(
    layout: Iterable[Want],
    profiles: tuple[Profile, ...] = A100,
    *,
    used: Iterable[Want] = (),
    halves: Iterable[Want] = (),
) -> Card:
    """A card cut so; ``used`` slices have a process, ``halves`` lack their compute instance."""
    sizes = {each.name: each for each in profiles}
    used, halves = set(used), set(halves)
    instances = tuple(
        Instance(
            gi_id=number,
            ci_id=None if (name, start) in halves else 0,
            profile=name,
            profile_id=sizes[name].id,
            start=start,
            size=sizes[name].size,
            compute_slices=sizes[name].compute_slices,
            memory_mib=sizes[name].memory_mib,
            uuid=None if (name, start) in halves else f"MIG-{name}-{start}",
            processes=(GpuProcess(42, 1),) if (name, start) in used else (),
        )
        for number, (name, start) in enumerate(layout)
    )
    return Card(0, "GPU-x", "a card", 0, 40960, True, True, True, profiles, instances)


def carried_out(layout: Iterable[Want], steps: Plan) -> set[Want]:
    """The layout after the steps; an overlap or the destruction of nothing fails."""
    sizes = {each.name: each.size for each in (*A100, *A30)}
    there = set(layout)
    for step in steps.steps:
        if isinstance(step, Destroy):
            there.remove((step.profile, step.start))
        elif isinstance(step, Create):
            there.add((step.profile, step.start))
            slots = [s for name, start in there for s in range(start, start + sizes[name])]
            assert len(slots) == len(set(slots))
    return there


def fewest(layouts: list[tuple[Want, ...]], have: tuple[Want, ...], names: Counter[str]) -> int:
    return min(
        len(set(have) - set(each)) for each in layouts if Counter(name for name, _ in each) == names
    )


def test_to_every_list_of_profiles_of_an_a30_the_fewest_slices_are_destroyed() -> None:
    layouts = list(legal_layouts(A30_THREE))
    for have, target in itertools.product(layouts, layouts):
        names = [name for name, _ in target]
        want = arrange(A30_THREE, names, have=have)
        destroyed = len(set(have) - set(want))
        assert destroyed == fewest(layouts, have, Counter(names))


A100_LAYOUTS = list(legal_layouts(A100))


@given(st.sampled_from(A100_LAYOUTS), st.sampled_from(A100_LAYOUTS))
def test_to_a_list_of_profiles_of_an_a100_the_fewest_slices_are_destroyed(
    have: tuple[Want, ...], target: tuple[Want, ...]
) -> None:
    names = [name for name, _ in target]
    want = arrange(A100, names, have=have)
    assert len(set(have) - set(want)) == fewest(A100_LAYOUTS, have, Counter(names))


@given(st.data())
def test_leased_and_used_slices_survive_and_what_they_block_is_said(data: st.DataObject) -> None:
    have = data.draw(st.sampled_from(A100_LAYOUTS))
    want = data.draw(st.sampled_from(A100_LAYOUTS))
    leased = frozenset(each for each in have if data.draw(st.booleans()))
    used = frozenset(each for each in have if data.draw(st.booleans()))
    made = plan(card_with(have, used=used), want, leased)
    after = carried_out(have, made)
    assert (leased | used) <= after
    if made.blocked:
        assert (leased | used) - set(want)
    else:
        assert after == set(want)
    # What is missing in the end is named, each with the slice it waits for.
    for name, start in set(want) - after:
        assert any(f"{name} at {start} must wait for" in each for each in made.blocked)
    # When what blocked has gone, a new plan ends in the desired layout.
    again = plan(card_with(after), want)
    assert again.blocked == ()
    assert carried_out(after, again) == set(want)


@given(st.data())
def test_a_plan_cut_off_anywhere_is_continued_by_the_next(data: st.DataObject) -> None:
    have = data.draw(st.sampled_from(A100_LAYOUTS))
    want = data.draw(st.sampled_from(A100_LAYOUTS))
    first = plan(card_with(have), want)
    cut = data.draw(st.integers(0, len(first.steps)))
    between = carried_out(have, Plan(first.steps[:cut]))
    rest = plan(card_with(sorted(between)), want)
    assert len(rest.steps) == len(first.steps) - cut
    assert carried_out(between, rest) == set(want)


def test_a_card_that_is_as_wanted_needs_nothing() -> None:
    layout = [("3g.20gb", 4), ("2g.10gb", 0)]
    assert plan(card_with(layout), layout).done


def test_a_half_made_slice_that_is_wanted_is_completed_without_destroying_it() -> None:
    have = [("3g.20gb", 4)]
    assert plan(card_with(have, halves=have), have) == Plan((Create("3g.20gb", 4),))


def test_the_reasons_name_the_slice_and_its_processes() -> None:
    have = [("1g.5gb", 0), ("1g.5gb", 6)]
    made = plan(card_with(have, used=have[1:]), [("7g.40gb", 0)], frozenset(have[:1]))
    assert made.steps == ()
    assert made.blocked == (
        "1g.5gb at 0 is leased.",
        "1g.5gb at 6 is used by process 42.",
        "7g.40gb at 0 must wait for 1g.5gb at 0 to end.",
    )


@pytest.mark.parametrize(
    ("want", "words"),
    [
        ([("1g.6gb", 0)], "no profile '1g.6gb'"),
        ([("3g.20gb", 1)], "may start at 0, 4"),
        ([("4g.20gb", 0), ("3g.20gb", 0)], "same memory slots"),
    ],
)
def test_a_layout_that_cannot_be_is_refused_with_the_card(want: list[Want], words: str) -> None:
    with pytest.raises(GpuError) as caught:
        plan(card_with([]), want)
    assert words in str(caught.value)
    assert "GPU-x" in str(caught.value)


def test_mig_stays_on_while_a_slice_is_leased() -> None:
    have = [("1g.5gb", 0), ("1g.5gb", 1)]
    made = plan(card_with(have), [], frozenset(have[:1]), mig=False)
    assert made == Plan((Destroy(1, "1g.5gb", 1),), ("1g.5gb at 0 is leased.",))
