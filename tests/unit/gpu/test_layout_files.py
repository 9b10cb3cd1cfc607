"""Layouts as admins have them for nvidia-mig-parted: read, checked, compared, written."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyterhub_migspawner.errors import ConfigError, GpuError
from jupyterhub_migspawner.gpu import simulator
from jupyterhub_migspawner.gpu.layout_reader import load_layouts, parse_layouts
from jupyterhub_migspawner.gpu.layouts import export_layout
from jupyterhub_migspawner.gpu.partition import apply, plan

EXAMPLE = Path(__file__).parents[2] / "data" / "mig-parted-example.yaml"
BALANCED = ("1g.5gb", "1g.5gb", "2g.10gb", "3g.20gb")


def one(entry: str) -> str:
    """A file of one layout, whose only entry is this one (of lines that begin with line 4)."""
    return "version: v1\nmig-configs:\n  mine:\n" + entry


def test_the_whole_example_of_mig_parted_is_read() -> None:
    file = load_layouts(EXAMPLE)
    assert list(file.layouts) == [
        "all-disabled",
        "all-enabled",
        "all-1g.5gb",
        "all-1g.5gb.me",
        "all-1g.10gb",
        "all-2g.10gb",
        "all-3g.20gb",
        "all-balanced",
        "custom-config",
    ]
    (off,) = file.layout("all-disabled").entries
    assert (off.devices, off.mig_enabled, off.names) == (None, False, ())
    (on,) = file.layout("all-enabled").entries
    assert (on.mig_enabled, on.names) == (True, ())
    custom = file.layout("custom-config").entries
    assert [each.devices for each in custom] == [(0, 1, 2, 3), (4,), (5,), (6,), (7,)]
    assert [each.mig_enabled for each in custom] == [False, True, True, True, True]
    assert custom[-1].names == BALANCED
    assert EXAMPLE.read_text().splitlines()[custom[-1].line - 1].strip() == "- devices: [7]"


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


GOOD = "  - devices: all\n    mig-enabled: true\n    mig-devices: {1g.5gb: 1}\n"
MANY = "  - devices: all\n    mig-enabled: true\n    mig-devices:\n      {}\n"


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("", None, "is empty"),
        ("version: v2\nmig-configs: {}\n", 1, "version is 'v2', and only 'v1' is known"),
        ("mig-configs: {}\n", 1, "lacks the key version"),
        ("version: v1\nmig_configs: {}\n", 2, "did you mean mig-configs?"),
        ("version: v1\nmig-configs: []\n", 2, "must be keys and values"),
        ("version: v1\nmig-configs:\n  a: {}\n", 3, "must be a list of entries"),
        ("version: v1\nmig-configs:\n  a: []\n  b: []\n  a: []\n", 5, "given again, after line 3"),
        (one("  - mig-enabled: true\n"), 4, "lacks the key devices"),
        (one("  - devices: all\n"), 4, "lacks the key mig-enabled"),
        (one("  - devices: some\n    mig-enabled: true\n"), 4, "devices must be all, or a list"),
        (one("  - devices: [0, -1]\n    mig-enabled: true\n"), 4, "devices must be all"),
        (one("  - devices: [true]\n    mig-enabled: true\n"), 4, "devices must be all"),
        (one("  - devices: all\n    mig-enabled: 1\n"), 5, "must be true or false, not 1"),
        (one(GOOD + "    mig-device: {}\n"), 7, "did you mean mig-devices?"),
        (one(GOOD.replace("true", "false")), 6, "needs mig-enabled: true"),
        (one(GOOD.replace(": 1", ": -1")), 6, "needs a number of slices"),
        (one(GOOD.replace(": 1", ": many")), 6, "needs a number of slices"),
        (one(GOOD.replace(": 1", ": 1000000000")), 6, "needs a number of slices"),
        (one(GOOD.replace("1g.5gb", "1g5gb")), 6, "is no MIG profile"),
        (one(GOOD.replace("1g.5gb", "1c.3g.20gb")), 6, "write 3g.20gb"),
        (one(GOOD.replace("{1g.5gb: 1}", "[1g.5gb]")), 6, "must be keys and values"),
        (one(GOOD.replace("all", "all\n    device-filter: A100")), 5, "PCI ids like"),
        (one("  - devices: all\n   mig-enabled: true\n"), 5, "expected"),
        (one("  - {<<: *nothing}\n"), 4, "undefined alias"),
        ("version: v1\nmig-configs: {a: [{? [x] : y}]}\n", 2, "single value"),
        ("version: v1\nmig-configs: {? [a] : []}\n", 2, "single value"),
        ("version: v1\nmig-configs: {off: [], 'off': []}\n", 2, "off is given again"),
        ("version: v1\nmig-configs: {'': []}\n", 2, "a name is expected"),
        ("version: v1\nmig-configs: &a {<<: *a}\n", 2, "merged into itself"),
        (one(GOOD.replace("all", "all\n    device-filter: '0x20B010DE:'")), 5, "not '0x20B010DE:'"),
        (one(GOOD) + "---\nversion: v1\n", 7, "a second YAML document begins here"),
        (
            "apiVersion: v1\nkind: ConfigMap\ndata:\n  config.yaml: |\n    version: v1\n",
            2,
            "this is a Kubernetes ConfigMap, not a file of layouts; save the text under its data",
        ),
        ("[" * 5000, None, "nested too deeply"),
        ("version: \x00", None, "is no YAML"),
    ],
)
def test_a_mistake_is_told_with_file_line_and_what_was_expected(
    text: str, line: int | None, words: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_layouts(text, "layouts.yaml")
    assert str(caught.value).startswith("layouts.yaml" + (f", line {line}: " if line else ""))
    assert words in str(caught.value)


@given(st.text(alphabet='versionmgcfga1:-[]{}"\n #&*!|>%@`?0x,.\t', max_size=80))
def test_no_text_gets_past_the_reader_with_another_error(text: str) -> None:
    for each in (text, f"version: v1\nmig-configs:\n  a:\n  - {text}"):
        try:
            parse_layouts(each, "layouts.yaml")
        except ConfigError:
            continue


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml cannot be read: No such file"):
        load_layouts(tmp_path / "none.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not text in UTF-8"):
        load_layouts(tmp_path / "binary.yaml")


def test_a_file_that_is_far_too_large_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "long.yaml"
    text = one(GOOD)
    path.write_text(text + "#" * (1024 * 1024 - len(text)))
    assert list(load_layouts(path).layouts) == ["mine"]
    path.write_text(text + "#" * (1024 * 1024 - len(text) + 1))
    with pytest.raises(ConfigError, match=r"long\.yaml is larger than 1 MiB"):
        load_layouts(path)


@pytest.mark.parametrize("name", ["off", "on", "yes", "No", "1", "1.0", "0x10", "2024-01-01", "~"])
def test_a_name_that_yaml_takes_for_something_else_is_the_text_as_written(name: str) -> None:
    file = parse_layouts(f"version: v1\nmig-configs:\n  {name}:\n{GOOD}", "f.yaml")
    assert file.layout(name).name == name
    assert list(file.layouts) == [name]


def test_an_unknown_layout_names_those_there_are_and_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"it has all-disabled.*mean 'all-balanced'"):
        load_layouts(EXAMPLE).layout("all-balance")


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


@pytest.mark.parametrize("devices", ["all", "[0]"])
def test_no_layout_is_for_a_node_without_cards(devices: str) -> None:
    entry = f"  - {{devices: {devices}, mig-enabled: false}}\n"
    layout = parse_layouts(one(entry), "f.yaml").layout("mine")
    with pytest.raises(ConfigError, match=r"f\.yaml, line \d: mine .*this node has no cards"):
        layout.for_cards([])


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


def test_a_compute_instance_of_the_whole_instance_is_the_instance() -> None:
    text = one(GOOD.replace("1g.5gb: 1", "3c.3g.20gb: 1, 1c.1g.5gb+me: 1"))
    (entry,) = parse_layouts(text, "f.yaml").layout("mine").entries
    assert entry.names == ("3g.20gb", "1g.5gb+me")


@pytest.mark.parametrize(
    "name", ["1g.0gb+me", "2g.0gb+gfx", "3g.0gb", "1g.24gb+me.all", "2g.48gb-me"]
)
def test_names_of_newer_profiles_are_read(name: str) -> None:
    (entry,) = parse_layouts(one(GOOD.replace("1g.5gb", name)), "f.yaml").layout("mine").entries
    assert entry.names == (name,)


def test_merged_keys_are_read_and_cannot_fill_the_memory() -> None:
    text = (
        "version: v1\nmig-configs:\n  base:\n  - &one\n    devices: all\n    mig-enabled: true\n"
        "    mig-devices: {1g.5gb: 7}\n"
        "  other:\n  - <<: *one\n    devices: [1]\n"
    )
    (entry,) = parse_layouts(text, "f.yaml").layout("other").entries
    assert (entry.devices, entry.names) == ((1,), ("1g.5gb",) * 7)
    deep = "version: v1\nmig-configs:\n  a0: &a0 {}\n" + "".join(
        f"  a{n + 1}: &a{n + 1} {{<<: [*a{n}, *a{n}]}}\n" for n in range(40)
    )
    with pytest.raises(ConfigError):
        parse_layouts(deep, "f.yaml")
    deep = deep.replace("mig-configs:\n", "x:\n", 1).replace("version: v1\n", "")
    with pytest.raises(ConfigError, match="more often than is allowed"):
        parse_layouts(f"{deep}<<: *a40\n", "f.yaml")


def test_what_differs_is_told(make_machine) -> None:
    machine = make_machine(layouts=[["3g.20gb"]])
    (card,) = machine.nvml.inventory().cards
    file = load_layouts(EXAMPLE)

    def differs(name: str) -> str:
        return file.layout(name).for_cards([card])[card.index].differs(card)

    assert differs("all-disabled") == "MIG is on, wanted is off"
    assert differs("all-3g.20gb") == "it is cut into 3g.20gb, wanted is 2 x 3g.20gb"
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
