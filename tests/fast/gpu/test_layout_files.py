"""Files of layouts as admins have them for nvidia-mig-parted: read and checked."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyterhub_migspawner.errors import ConfigError
from jupyterhub_migspawner.gpu.layout_reader import load_layouts, parse_layouts

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


GOOD = "  - devices: all\n    mig-enabled: true\n    mig-devices: {1g.5gb: 1}\n"


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
        (one(GOOD.replace("1g.5gb", "1g5gb")), 6, "is not a MIG profile"),
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
        ("version: \x00", None, "is not YAML"),
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


@pytest.mark.parametrize("devices", ["all", "[0]"])
def test_no_layout_is_for_a_node_without_cards(devices: str) -> None:
    entry = f"  - {{devices: {devices}, mig-enabled: false}}\n"
    layout = parse_layouts(one(entry), "f.yaml").layout("mine")
    with pytest.raises(ConfigError, match=r"f\.yaml, line \d: mine .*this node has no cards"):
        layout.for_cards([])


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
