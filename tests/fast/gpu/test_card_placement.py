"""Which layouts a card can have, and where a list of profiles goes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyterhub_migspawner.errors import GpuError
from jupyterhub_migspawner.gpu.arrange import Want, arrange, is_legal, legal_layouts, nearest
from jupyterhub_migspawner.gpu.simulator import find_model, profiles_of
from jupyterhub_migspawner.model.inventory import Profile

A100 = profiles_of(find_model("a100"))
A30 = profiles_of(find_model("a30"))
NVIDIAS_FIVE = tuple(each for each in A100 if not each.attributes and each.name != "1g.10gb")
A30_THREE = tuple(each for each in A30 if not each.attributes)


def maximal(profiles: tuple[Profile, ...]) -> list[frozenset[tuple[str, int]]]:
    layouts = [frozenset(each) for each in legal_layouts(profiles)]
    return [each for each in layouts if not any(each < other for other in layouts)]


@pytest.mark.parametrize(
    ("profiles", "layouts", "full"),
    [
        pytest.param(NVIDIAS_FIVE, 298, 19, id="A100"),
        pytest.param(tuple(e for e in A100 if not e.attributes), 723, 78, id="A100 with 1g.10gb"),
        pytest.param(A30_THREE, 26, 5, id="A30"),
    ],
)
def test_as_many_layouts_are_legal_as_nvidia_documents(
    profiles: tuple[Profile, ...], layouts: int, full: int
) -> None:
    found = list(legal_layouts(profiles))
    assert len(found) == len({frozenset(each) for each in found}) == layouts
    assert len(maximal(profiles)) == full
    assert all(is_legal(profiles, each) == "" for each in found)


def test_the_fourteen_full_combinations_of_an_a100_are_nvidias() -> None:
    combinations = {
        tuple(sorted(int(name[0]) for name, _ in each)) for each in maximal(NVIDIAS_FIVE)
    }
    assert combinations == {
        (1, 1, 1, 1, 1, 1, 1),
        (1, 1, 1, 1, 1, 2),
        (1, 1, 1, 2, 2),
        (1, 2, 2, 2),
        (1, 1, 1, 1, 3),
        (1, 1, 1, 3),
        (1, 1, 2, 3),
        (1, 2, 3),
        (2, 2, 3),
        (3, 3),
        (1, 1, 1, 4),
        (1, 2, 4),
        (3, 4),
        (7,),
    }


@pytest.mark.parametrize(
    ("layout", "word"),
    [
        ([("1g.5gb", 7)], "may start at 0, 1, 2, 3, 4, 5, 6"),
        ([("4g.20gb", 0), ("2g.10gb", 2)], "same memory slots"),
        ([("9g.99gb", 0)], "no profile '9g.99gb'"),
        ([("1g.5gb+me", 0), ("1g.5gb+me", 1)], "at most 1"),
    ],
)
def test_an_illegal_layout_is_refused_with_its_reason(
    layout: list[tuple[str, int]], word: str
) -> None:
    assert word in is_legal(A100, layout)


def test_two_profiles_with_the_media_engines_do_not_share_an_a30() -> None:
    assert "more JPEG engines than the card has" in is_legal(
        A30, [("1g.6gb+me", 3), ("2g.12gb+me", 0)]
    )


RTX = profiles_of(find_model("rtx pro 6000"))


@pytest.mark.parametrize(
    ("layout", "why"),
    [
        # Every decoder is the first one's, however many memory slots are left.
        ([("1g.24gb+me.all", 0), ("1g.24gb+me", 3)], "more decoders"),
        ([("1g.24gb+me.all", 9), ("1g.24gb", 0)], "more decoders"),
        ([("2g.48gb+me.all", 0), ("2g.48gb", 6)], "more decoders"),
        ([("1g.24gb+me.all", 0), ("1g.24gb+gfx", 3)], "more decoders"),
        ([("2g.48gb+me.all", 0), ("1g.24gb+me.all", 6)], "more decoders"),
        ([("1g.24gb+me.all", 0), ("1g.24gb-me", 3), ("2g.48gb-me", 6)], ""),
        ([("2g.48gb+me.all", 6), ("2g.48gb-me", 0)], ""),
        ([("1g.24gb+me", 0), ("1g.24gb", 3), ("1g.24gb+gfx", 6), ("1g.24gb-me", 9)], ""),
        ([("2g.48gb+gfx", 0), ("2g.48gb", 6)], ""),
    ],
)
def test_engines_of_an_rtx_pro_6000_belong_to_one_instance_each(
    layout: list[tuple[str, int]], why: str
) -> None:
    said = is_legal(RTX, layout)
    assert (why in said) if why else said == ""
    names = [name for name, _ in layout]
    if why:
        with pytest.raises(GpuError, match=why):
            arrange(RTX, names)
    else:
        assert arrange(RTX, names)


def test_a_card_holds_no_more_graphics_instances_than_its_driver_says() -> None:
    few = tuple(
        replace(each, max_instances=1) if each.name == "1g.24gb+gfx" else each for each in RTX
    )
    assert "at most 1 of 1g.24gb+gfx" in is_legal(few, [("1g.24gb+gfx", 0), ("1g.24gb+gfx", 3)])
    one = tuple(replace(each, max_instances=1) if "+gfx" in each.name else each for each in RTX)
    assert "at most 1 instances with graphics" in is_legal(
        one, [("1g.24gb+gfx", 0), ("2g.48gb+gfx", 6)]
    )


@given(st.data())
def test_arranging_moves_as_little_as_possible(data: st.DataObject) -> None:
    layouts = list(legal_layouts(A30))
    have = data.draw(st.sampled_from(layouts))
    target = data.draw(st.sampled_from(layouts))
    names = [name for name, _ in target]
    best = max(
        len(set(each) & set(have))
        for each in layouts
        if Counter(name for name, _ in each) == Counter(names)
    )
    assert len(set(arrange(A30, names, have=have)) & set(have)) == best


def test_ones_and_threes_go_high_so_that_a_four_still_fits() -> None:
    assert arrange(A100, ["1g.5gb", "1g.5gb"]) == (("1g.5gb", 5), ("1g.5gb", 6))
    assert arrange(A100, ["3g.20gb"]) == (("3g.20gb", 4),)


def test_a_slice_that_must_stay_stays_even_where_more_others_would() -> None:
    have = [("1g.5gb", 0), ("1g.5gb", 1), ("1g.5gb", 4)]
    layout = arrange(A100, ["3g.20gb", "1g.5gb"], have=have, keep=[("1g.5gb", 4)])
    assert layout == (("3g.20gb", 0), ("1g.5gb", 4))


@pytest.mark.parametrize(
    ("held", "names", "places"),
    [
        (("1g.5gb", 0), ["2g.10gb"], (("2g.10gb", 2),)),
        (("1g.5gb", 5), ["3g.20gb"], (("3g.20gb", 0),)),
        (("1g.5gb", 0), ["1g.5gb", "2g.10gb"], (("2g.10gb", 2), ("1g.5gb", 6))),
        (("3g.20gb", 0), ["4g.20gb"], (("4g.20gb", 0),)),
        (("9g.90gb", 0), ["2g.10gb"], (("2g.10gb", 0),)),
    ],
)
def test_what_is_new_goes_beside_what_somebody_holds_if_there_is_room(
    held: tuple[str, int], names: list[str], places: tuple[tuple[str, int], ...]
) -> None:
    assert arrange(A100, names, avoid=[held]) == places


def overlapping(
    profiles: tuple[Profile, ...], layout: Collection[Want], avoid: Collection[Want]
) -> int:
    """How many places of the layout share a slot with one of ``avoid`` that it does not have."""
    sizes = {each.name: each.size for each in profiles}

    def slots(want: Want) -> set[int]:
        return set(range(want[1], want[1] + sizes[want[0]]))

    others = [each for each in avoid if each not in layout]
    return sum(any(slots(each) & slots(other) for other in others) for each in layout)


@pytest.mark.parametrize("profiles", [NVIDIAS_FIVE, A30], ids=["A100", "A30"])
@given(data=st.data())
def test_no_layout_that_keeps_as_many_lies_on_fewer_of_what_somebody_holds(
    profiles: tuple[Profile, ...], data: st.DataObject
) -> None:
    layouts = list(legal_layouts(profiles))
    have = data.draw(st.sampled_from(layouts))
    target = data.draw(st.sampled_from(layouts))
    held = [each for each in have if data.draw(st.booleans())]
    keep = [each for each in have if data.draw(st.booleans())]
    names = [name for name, _ in target]
    found = arrange(profiles, names, have=have, keep=keep, avoid=held)

    def rank(layout: Collection[Want]) -> tuple[int, int, int]:
        lying = overlapping(profiles, layout, held)
        return len(set(layout) & set(keep)), -lying, len(set(layout) & set(have))

    possible = [each for each in layouts if Counter(name for name, _ in each) == Counter(names)]
    assert rank(found) == max(rank(each) for each in possible)


@pytest.mark.parametrize(
    ("profiles", "names", "closest"),
    [
        (A100, ["3g.40gb", "3g.40gb"], ("3g.20gb", "3g.20gb")),
        (A100, ["1g.6gb+me"], ("1g.5gb+me",)),
        (A100, ["1g.20gb"], ("1g.10gb",)),
        (A100, ["7g.80gb"], ("7g.40gb",)),
        (A100, ["3g.40gb", "2g.20gb", "1g.10gb"], ("3g.20gb", "2g.10gb", "1g.10gb")),
        (A100, ["1g.5gb"] * 8, ("1g.5gb",) * 7),
        (A100, ["7g.40gb"] * 2, ("7g.40gb",)),
        (A30, ["1g.5gb"] * 7, ("1g.6gb",) * 4),
        (A30, ["3g.20gb", "3g.20gb"], ("2g.12gb", "2g.12gb")),
        (A30, ["big"], ("1g.6gb",)),
    ],
)
def test_the_nearest_layout_is_of_like_slices(
    profiles: tuple[Profile, ...], names: list[str], closest: tuple[str, ...]
) -> None:
    assert nearest(profiles, names) == closest


def test_what_does_not_fit_names_the_nearest_layout_that_does() -> None:
    with pytest.raises(GpuError, match=r"nearest layout that fits is 4g\.20gb, 3g\.20gb"):
        arrange(A100, ["4g.20gb", "3g.20gb", "1g.5gb"])


def test_a_profile_of_another_model_is_refused_with_those_the_card_has() -> None:
    with pytest.raises(GpuError, match=r"no profile '1g\.5gb'; it has 1g\.6gb.* have is 1g\.6gb\."):
        arrange(A30, ["1g.5gb"])
    with pytest.raises(GpuError, match="lists no MIG profiles"):
        arrange((), ["1g.5gb"])
