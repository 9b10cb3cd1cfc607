"""Layouts from a file beside the cards of a simulated node: matched, compared, written."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from jupyterhub_migspawner.errors import ConfigError, GpuError
from jupyterhub_migspawner.gpu import simulator
from jupyterhub_migspawner.gpu.layout_reader import load_layouts, parse_layouts
from jupyterhub_migspawner.gpu.layouts import export_layout
from jupyterhub_migspawner.gpu.partition import apply, plan
from tests.fast.gpu.test_layout_files import BALANCED, EXAMPLE, GOOD, one

MANY = "  - devices: all\n    mig-enabled: true\n    mig-devices:\n      {}\n"


def test_a_dgx_goes_through_all_of_the_example_and_is_as_wanted_each_time(make_machine) -> None:
    machine = make_machine(cards=8)
    file = load_layouts(EXAMPLE)
    for layout in file.layouts.values():
        wanted = layout.for_cards(machine.nvml.inventory().cards)
        assert len(wanted) == 8
        for card in machine.nvml.inventory().cards:
            want = wanted[card.index]
            if want.mig_enabled and not card.mig_enabled:
                card = machine.nvml.set_mig_mode(card.uuid, True)
            steps = plan(card, layout.places(card, want), mig=want.mig_enabled)
            assert steps.blocked == ()
            apply(machine.nvml, card.uuid, steps)
        for card in machine.nvml.inventory().cards:
            assert wanted[card.index].differs(card) == ""


def test_a_device_filter_chooses_cards_by_their_pci_id(make_machine) -> None:
    text = (
        "version: v1\nmig-configs:\n  mine:\n"
        '  - {devices: all, device-filter: "0x20b010de", mig-enabled: true,\n'
        '     mig-devices: {"1g.5gb": 7}}\n'
        "  - {devices: all, device-filter: [0x20B710DE, '0x20B210DE'], mig-enabled: true,\n"
        '     mig-devices: {"1g.6gb": 4}}\n'
    )
    layout = parse_layouts(text, "f.yaml").layout("mine")
    a100 = make_machine(cards=2).nvml.inventory().cards
    assert {each.names for each in layout.for_cards(a100).values()} == {("1g.5gb",) * 7}
    a30 = make_machine(model="a30").nvml.inventory().cards
    assert {each.names for each in layout.for_cards(a30).values()} == {("1g.6gb",) * 4}


@pytest.mark.parametrize(
    ("entries", "line", "words"),
    [
        ("  - {devices: [2], mig-enabled: true}\n", 4, "names card 2, but this node has 2 cards"),
        (GOOD.replace("1g.5gb", "1g.6gb"), 6, "no profile '1g.6gb'; it has 1g.5gb"),
        (MANY.format("3g.40gb: 2"), 7, "The nearest layout it can have is 2 x 3g.20gb."),
        (
            MANY.format("1g.5gb: 1\n      3g.40gb: 1"),
            8,
            "nearest layout it can have is 3g.20gb, 1g",
        ),
        (MANY.format("3g.20gb: 2\n      1g.5gb: 1"), 8, "nearest layout that fits is 2 x 3g.20gb"),
        (MANY.format("1g.5gb: 8\n      2g.10gb: 1"), 7, "nearest layout that fits is 7 x 1g.5gb"),
    ],
)
def test_a_layout_the_node_cannot_have_is_told_with_file_line_and_reason(
    make_machine, entries: str, line: int, words: str
) -> None:
    layout = parse_layouts(one(entries), "layouts.yaml").layout("mine")
    with pytest.raises(ConfigError) as caught:
        layout.for_cards(make_machine(cards=2).nvml.inventory().cards)
    assert str(caught.value).startswith(f"layouts.yaml, line {line}: ")
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("entries", "line", "words"),
    [
        ("    []\n", 3, "mine has no entries"),
        ("  - {devices: [], mig-enabled: false}\n", 4, "mine names no card"),
        (
            "  - {devices: [], mig-enabled: false}\n"
            "  - {devices: all, device-filter: 0x20b710de, mig-enabled: false}\n",
            5,
            "device-filter 0x20B710DE; this node has 0x20B010DE:0x134F10DE (cards 0, 1).",
        ),
    ],
)
def test_a_layout_for_none_of_the_nodes_cards_is_refused(
    make_machine, entries: str, line: int, words: str
) -> None:
    layout = parse_layouts(one(entries), "layouts.yaml").layout("mine")
    with pytest.raises(ConfigError) as caught:
        layout.for_cards(make_machine(cards=2).nvml.inventory().cards)
    assert str(caught.value).startswith(f"layouts.yaml, line {line}: ")
    assert words in str(caught.value)


def test_a_lost_card_keeps_no_other_from_its_layout(make_machine) -> None:
    machine = make_machine(cards=3)
    file = load_layouts(EXAMPLE)
    for lost, read_before in ((2, False), (1, True)):
        simulator.lose_card(machine.path, machine.cards[lost])
        cards = machine.nvml.inventory().cards
        assert bool(cards[lost].uuid) == read_before
        wanted = file.layout("all-balanced").for_cards(cards)
        assert {index: each.names for index, each in wanted.items()} == dict.fromkeys(
            range(3), BALANCED
        )
    entry = "  - {devices: [0, 2], mig-enabled: true, mig-devices: {2g.10gb: 1}}\n"
    wanted = parse_layouts(one(entry), "f.yaml").layout("mine").for_cards(cards)
    assert list(wanted) == [0, 2]


def test_a_card_that_never_told_its_pci_id_is_not_passed_over_by_a_filter(make_machine) -> None:
    machine = make_machine(cards=2)
    simulator.lose_card(machine.path, machine.cards[1])
    cards = machine.nvml.inventory().cards
    text = one(
        "  - {devices: all, device-filter: 0x20B710DE, mig-enabled: false}\n"
        "  - {devices: all, device-filter: 0x20B010DE, mig-enabled: false}\n"
    )
    wanted = parse_layouts(text, "f.yaml").layout("mine").for_cards(cards)
    assert sorted(wanted) == [0, 1]
    assert "fallen off the bus" in wanted[1].differs(cards[1])
    # One that names it by its number is sure.
    text += "  - {devices: [1], mig-enabled: true}\n"
    sure = parse_layouts(text, "f.yaml").layout("mine").for_cards(cards)
    assert (sure[0].mig_enabled, sure[1].mig_enabled) == (False, True)


@pytest.mark.parametrize("read_before", [True, False])
def test_what_is_wrong_with_a_card_does_not_name_it_again(make_machine, read_before) -> None:
    machine = make_machine(cards=2)
    if read_before:
        machine.nvml.inventory()
    simulator.lose_card(machine.path, machine.cards[1])
    card = machine.nvml.inventory().cards[1]
    assert card.problem.startswith("Card 1")
    wanted = load_layouts(EXAMPLE).layout("all-balanced").for_cards([card])[1]
    assert wanted.differs(card).startswith("cannot be read: the card has fallen off the bus.")
    other = replace(card, problem="Card 11: cannot be read.")
    assert wanted.differs(other) == "Card 11: cannot be read."


def test_a_card_without_mig_may_be_off_but_not_on(make_machine) -> None:
    cards = make_machine(model="T4").nvml.inventory().cards
    file = load_layouts(EXAMPLE)
    (off,) = file.layout("all-disabled").for_cards(cards).values()
    assert off.differs(cards[0]) == ""
    with pytest.raises(ConfigError, match="none of this node's cards supports MIG"):
        file.layout("all-enabled").for_cards(cards)
    named = parse_layouts(one(GOOD.replace("all", "[0]")), "f.yaml").layout("mine")
    with pytest.raises(ConfigError, match="leave it out with devices or device-filter"):
        named.for_cards(cards)


def test_all_passes_over_a_card_that_drives_a_display(make_machine) -> None:
    (a100,) = make_machine().nvml.inventory().cards
    (t4,) = make_machine(model="T4").nvml.inventory().cards
    layout = load_layouts(EXAMPLE).layout("all-1g.5gb")
    assert list(layout.for_cards([replace(t4, index=0), replace(a100, index=1)])) == [1]
    assert layout.notices([t4, replace(a100, index=1)]) == ()


def test_absent_cards_are_passed_over_with_a_notice(make_machine) -> None:
    cards = make_machine(cards=6).nvml.inventory().cards
    custom = load_layouts(EXAMPLE).layout("custom-config")
    wanted = custom.for_cards(cards)
    assert {index: each.names for index, each in wanted.items()} == {
        **dict.fromkeys(range(4), ()),
        4: ("1g.5gb",) * 7,
        5: ("2g.10gb",) * 3,
    }
    six, seven = custom.notices(cards)
    assert "custom-config names card 6, but this node has 6 cards, counted from 0." in six
    assert "names card 7" in seven


def test_of_two_entries_for_one_card_the_last_counts_and_is_named(make_machine) -> None:
    cards = make_machine(cards=2).nvml.inventory().cards
    text = one(GOOD + "  - {devices: [1, 1], mig-enabled: false}\n")
    layout = parse_layouts(text, "f.yaml").layout("mine")
    assert [each.mig_enabled for each in layout.for_cards(cards).values()] == [True, False]
    (notice,) = layout.notices(cards)
    assert notice == "f.yaml, line 7: mine names card 1 again, after line 4; the last entry counts."


@pytest.mark.parametrize(
    ("written", "matches"),
    [
        ('"0x20B010DE:0x134F10DE"', True),
        ('["0x20B710DE", "0x20b010de:0x134f10de"]', True),
        ('"0x20B010DE:0x134E10DE"', False),
        ('"0x20B710DE:0x134F10DE"', False),
        ('""', True),
        ("[]", True),
        ("null", True),
    ],
)
def test_a_device_filter_may_name_the_board_as_well(make_machine, written, matches) -> None:
    cards = make_machine().nvml.inventory().cards
    text = one(GOOD.replace("all\n", f"all\n    device-filter: {written}\n", 1))
    layout = parse_layouts(text, "f.yaml").layout("mine")
    if matches:
        assert list(layout.for_cards(cards)) == [0]
    else:
        with pytest.raises(ConfigError, match="matches no card by its device-filter"):
            layout.for_cards(cards)


def test_what_differs_is_told(make_machine) -> None:
    machine = make_machine(layouts=[["3g.20gb"]])
    (card,) = machine.nvml.inventory().cards
    file = load_layouts(EXAMPLE)

    def differs(name: str) -> str:
        return file.layout(name).for_cards([card])[card.index].differs(card)

    assert differs("all-disabled") == "MIG is on, desired is off"
    assert differs("all-3g.20gb") == "it is cut into 3g.20gb, desired is 2 x 3g.20gb"
    simulator.orphan_instance(machine.path, card.uuid, "3g.20gb", 0)
    (card,) = machine.nvml.inventory().cards
    assert "without its full compute instance" in differs("all-3g.20gb")
    simulator.lose_card(machine.path, card.uuid)
    (card,) = machine.nvml.inventory().cards
    assert "fallen off the bus" in differs("all-3g.20gb")


def test_slices_stay_where_they_are_if_the_layout_allows(make_machine) -> None:
    machine = make_machine(layouts=[[]])
    uuid = machine.cards[0]
    for profile, start in (("3g.20gb", 4), ("1g.5gb", 0)):
        machine.nvml.create_instance(uuid, profile, start)
    card = machine.nvml.card(uuid)
    layout = load_layouts(EXAMPLE).layout("all-balanced")
    places = layout.places(card, layout.for_cards([card])[card.index])
    assert {("3g.20gb", 4), ("1g.5gb", 0)} < set(places)


def test_a_new_slice_goes_where_it_need_not_wait_for_a_leased_one(make_machine) -> None:
    machine = make_machine(layouts=[[]])
    uuid = machine.cards[0]
    machine.nvml.create_instance(uuid, "1g.5gb", 0)
    card = machine.nvml.card(uuid)
    leased = frozenset({("1g.5gb", 0)})
    layout = parse_layouts(one(GOOD.replace("1g.5gb", "2g.10gb")), "f.yaml").layout("mine")
    wanted = layout.for_cards([card])[0]
    places = layout.places(card, wanted, avoid=leased)
    assert places == (("2g.10gb", 2),)
    steps = plan(card, places, leased)
    assert apply(machine.nvml, uuid, steps)


@pytest.mark.parametrize(
    "layouts",
    [
        None,
        [[]] * 3,
        [["1g.5gb"] * 7] * 3,
        [BALANCED, ["7g.40gb"], BALANCED],
        [["1g.5gb+me", "4g.20gb"]],
    ],
)
def test_what_is_exported_is_read_back_as_what_the_cards_are(make_machine, layouts) -> None:
    cards = make_machine(cards=3, layouts=layouts).nvml.inventory().cards
    text = export_layout(cards, "now")
    wanted = parse_layouts(text, "export").layout("now").for_cards(cards)
    assert len(wanted) == 3
    for card in cards:
        assert wanted[card.index].differs(card) == ""
        assert Counter(wanted[card.index].names) == Counter(each.profile for each in card.instances)


def test_alike_cards_share_an_entry_and_a_broken_one_is_not_guessed(make_machine) -> None:
    machine = make_machine(cards=3, layouts=[BALANCED] * 3)
    cards = machine.nvml.inventory().cards
    assert "devices: all" in export_layout(cards)
    simulator.lose_card(machine.path, machine.cards[0])
    with pytest.raises(GpuError, match="fallen off the bus"):
        export_layout(machine.nvml.inventory().cards)
