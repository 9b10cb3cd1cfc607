"""Which cards a tier means: how it is written, and what it matches."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from jupyterhub_migspawner.errors import ConfigError
from jupyterhub_migspawner.gpu.simulator.catalogue import MODELS, find_model
from jupyterhub_migspawner.model.cards import CardKind
from jupyterhub_migspawner.policy.card_filter import (
    CardFilter,
    nominal_gigabytes,
    normalized,
    parse_card_filter,
)
from jupyterhub_migspawner.policy.tiers import parse_tiers

A100_40 = CardKind("NVIDIA A100-SXM4-40GB", 40960)
A100_80 = CardKind("NVIDIA A100 80GB PCIe", 81920)
H100 = CardKind("NVIDIA H100 80GB HBM3", 81559)
A30 = CardKind("NVIDIA A30", 24576)
A10 = CardKind("NVIDIA A10", 23028)
T4 = CardKind("Tesla T4", 15360)
SHARED_MEMORY = CardKind("NVIDIA GB10", 0)
ALL = (A100_40, A100_80, H100, A30, A10, T4, SHARED_MEMORY)


def filter_of(text: str) -> CardFilter:
    found = parse_card_filter(text)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("A100*", {A100_40, A100_80}),
        ("a100*", {A100_40, A100_80}),
        ("NVIDIA A100*", {A100_40, A100_80}),
        ("nvidia-a100-sxm4-40gb", {A100_40}),
        ("A100 SXM4 40GB", {A100_40}),
        ("A100*80GB*", {A100_80}),
        ("*80GB*", {A100_80, H100}),
        ("?100*", {A100_40, A100_80, H100}),
        ("A100", set()),
        ("A10", {A10}),
        # What is apart in the name is apart in the pattern.
        ("A10-*", set()),
        ("A10*", {A10, A100_40, A100_80}),
        ("T4", {T4}),
        ("Tesla T4", {T4}),
        ("NVIDIA T4", {T4}),
        ("Tesla*", {T4}),
        ("NVIDIA*", {A100_40, A100_80, H100, A30, A10, SHARED_MEMORY}),
        ("80GB", {A100_80, H100}),
        ("80 gb", {A100_80, H100}),
        ("40GB", {A100_40}),
        ("24GB", {A30, A10}),
        (">=40GB", {A100_40, A100_80, H100}),
        (" >= 24 GB ", {A100_40, A100_80, H100, A30, A10}),
        ("<=16GB", {T4}),
        ("<=24GB", {A30, A10, T4}),
    ],
)
def test_a_filter_means_these_cards(text: str, meant: set[CardKind]) -> None:
    assert filter_of(text).among(ALL) == meant


@pytest.mark.parametrize(
    "wrong",
    [
        *("", "   ", "*", "???", "- -", "80", "80G", "80GiB", "81920MiB", "40.5GB", "-40GB", "0GB"),
        *(">40GB", "<40GB", "==40GB", ">=", ">=A100", ">=40", "40GB*", "40GB-80GB", "40GB 80GB"),
        *("A[13]00*", "A100!", "A100\n*", "A100*, H100*", "x" * 101, "ä"),
        *(80, 80.0, True, ["A100*"], {"model": "A100*"}, b"A100*"),
    ],
)
def test_what_chooses_no_cards_is_refused_with_the_tier_and_the_way_out(wrong: object) -> None:
    assert parse_card_filter(wrong) is None
    with pytest.raises(ConfigError) as caught:
        parse_tiers([{"name": "card", "profile": "whole", "card": wrong}])
    said = str(caught.value)
    assert said.startswith("tier 'card': field 'card' is ")
    assert repr(wrong)[:20] in said
    assert "'A100*'" in said
    assert "'>=40GB'" in said
    assert "without the field a tier means any card" in said


def test_a_tier_without_a_gpu_is_on_no_card() -> None:
    with pytest.raises(ConfigError, match=r"'card' is 'A100\*'.*without a GPU"):
        parse_tiers([{"name": "cpu", "profile": "none", "card": "A100*"}])


def test_without_the_field_a_tier_means_any_card() -> None:
    plain, none, some = parse_tiers(
        [
            {"name": "plain", "profile": "whole"},
            {"name": "none", "profile": "1g.5gb", "card": None},
            {"name": "some", "profile": "1g.5gb", "card": "A100*"},
        ]
    )
    assert plain.card is none.card is None
    assert all(plain.means(kind) for kind in ALL)
    assert plain.kinds(ALL) is None
    assert some.kinds(ALL) == {A100_40, A100_80}
    assert (some.means(A100_40), some.means(T4)) == (True, False)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("A100*", "of model A100*"),
        ("80gb", "with 80 GB"),
        (">=40GB", "with at least 40 GB"),
        ("<=24GB", "with at most 24 GB"),
    ],
)
def test_a_filter_can_be_said_in_a_sentence(text: str, words: str) -> None:
    assert filter_of(text).words == words


@pytest.mark.parametrize(
    ("mib", "size"),
    [
        (0, None),
        # As nvidia-smi shows cards of these sizes: A2, T4, P100, V100, A10G, A10, L4, RTX 4090,
        (15356, 16),
        (15360, 16),
        (16280, 16),
        (32768, 32),
        (22731, 24),
        (23028, 24),
        (23034, 24),
        (24564, 24),
        # K80, RTX 2080 Ti, RTX A6000 with and without error correction, L40S,
        (11441, 12),
        (11019, 11),
        (46068, 48),
        (49140, 48),
        # A30, A100, H100, H100 NVL, H100 and GH200 of 96 GB, H200, B200, B300, RTX PRO 5000.
        (24576, 24),
        (40960, 40),
        (40536, 40),
        (81251, 80),
        (81559, 80),
        (81920, 80),
        (95830, 94),
        (97871, 96),
        (143771, 141),
        (183359, 180),
        (275040, 269),
        (73415, 72),
    ],
)
def test_memory_is_what_the_card_is_sold_with(mib: int, size: int | None) -> None:
    assert nominal_gigabytes(mib) == size


@given(st.integers(1, 400_000))
def test_a_nominal_size_is_never_less_and_a_little_more_at_most(mib: int) -> None:
    size = nominal_gigabytes(mib)
    assert size is not None
    assert mib <= size * 1024 <= max(mib / 0.92, mib + 1023)


@given(st.integers(1, 400_000), st.integers(1, 400_000))
def test_more_memory_is_never_a_smaller_size(one: int, other: int) -> None:
    assume(one <= other)
    small, large = nominal_gigabytes(one), nominal_gigabytes(other)
    assert small is not None
    assert large is not None
    assert small <= large


@given(st.integers(0, 400_000), st.integers(1, 400))
def test_a_card_has_exactly_a_size_if_it_has_at_least_and_at_most_that(mib: int, size: int) -> None:
    kind = CardKind("NVIDIA A100", mib)
    exactly, least, most = (filter_of(f"{how}{size}GB") for how in ("", ">=", "<="))
    assert exactly.matches(kind) == (least.matches(kind) and most.matches(kind))
    assert (least.matches(kind) or most.matches(kind)) == (mib > 0)


@given(
    st.sampled_from([model.name for model in MODELS.values()]),
    st.lists(st.sampled_from([" ", "-", "_", "  ", " - "]), min_size=12, max_size=12),
    st.sampled_from([str.upper, str.lower, str.title]),
)
def test_a_models_name_matches_itself_however_it_is_written(
    model: str, marks: list[str], case: object
) -> None:
    words = model.replace("-", " ").split()
    written = "".join(word + mark for word, mark in zip(words, marks, strict=False))
    kind = CardKind(model, 40960)
    assert filter_of(case(written)).matches(kind)  # type: ignore[operator]
    assert normalized(case(written)) == normalized(model)  # type: ignore[operator]
    # The simulator reads names alike.
    assert find_model(written).name == find_model(model).name


@given(st.text(max_size=30))
def test_whatever_is_written_is_refused_or_can_be_compared(text: str) -> None:
    found = parse_card_filter(text)
    assert found is None or isinstance(found.matches(T4), bool)
