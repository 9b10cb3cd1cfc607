"""Names of units: each server's own, valid, and the same whenever they are asked for."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jupyterhub_migspawner.policy.units import escape, unit_name

ODD = st.text("a-/\\x2d.:_@%$ \u00fc\u4e2d~*?[\n", min_size=1, max_size=12) | st.text(min_size=1)
SERVER = ODD | st.just("")
ADDRESS = st.tuples(ODD, ODD, SERVER)


def unescape(part: str) -> str:
    """What ``systemd-escape --unescape`` does."""
    found = re.sub(rb"\\x([0-9a-f]{2})", lambda m: bytes([int(m[1], 16)]), part.encode())
    return found.decode("utf-8", "surrogatepass")


@pytest.mark.parametrize(
    ("user", "server", "name"),
    [
        ("ada", "", "migspawner-hub-ada"),
        ("ada", "lab", "migspawner-hub-ada-lab"),
        ("ada", "a-b", r"migspawner-hub-ada-a\x2db"),
        ("ada-b", "a", r"migspawner-hub-ada\x2db-a"),
        ("ada/b", "", r"migspawner-hub-ada\x2fb"),
        ("ada@lab.org", "..", r"migspawner-hub-ada\x40lab.org-\x2e."),
        ("\u00fcl", "", r"migspawner-hub-\xc3\xbcl"),
    ],
)
def test_a_unit_has_the_name_of_hub_user_and_server(user: str, server: str, name: str) -> None:
    assert unit_name("hub", user, server) == name


@given(ADDRESS)
@example(("h", "u" * 300, ""))
@example(("h", "-" * 62, "-"))
def test_any_names_make_a_valid_name_of_a_unit(address: tuple[str, str, str]) -> None:
    name = unit_name(*address)
    assert re.fullmatch(r"[A-Za-z0-9:_.\\-]+", name)
    assert len(f"{name}.service") <= 255
    assert not name.startswith(".")


@given(ADDRESS, ADDRESS)
@example(("h", "a-b", ""), ("h", "a", "b"))
@example(("h", "a/b", ""), ("h", "a", "b"))
@example(("h", "a\\x2db", ""), ("h", "a-b", ""))
@example(("h", "a", "x" * 300), ("h", "a", "x" * 301))
@example(("h", "a", "-" * 300), ("h", "a", "-" * 301))
def test_two_servers_never_have_one_name(
    one: tuple[str, str, str], other: tuple[str, str, str]
) -> None:
    assert (unit_name(*one) == unit_name(*other)) == (one == other)


@given(ODD)
def test_a_name_can_be_read_back(name: str) -> None:
    assert unescape(escape(name)) == name


@given(st.integers(1, 300), st.sampled_from(["-", "\u00fc", "a", "a-"]))
def test_a_name_that_is_cut_is_not_taken_for_one_that_is_not(length: int, text: str) -> None:
    name = unit_name("hub", (text * 300)[:length], "s")
    whole = "-".join(["migspawner", "hub", escape((text * 300)[:length]), "s"])
    assert (name == whole) == (len(whole) <= 247)
    assert ("--" in name) == (name != whole)
