"""Names of servers: the hub's rule, as it is in JupyterHub 5 and 6."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyterhub_migspawner.policy.server_names import ServerNames

SLUGS = ServerNames(slugs=True)
ANY = ServerNames(slugs=False)
NONE = ServerNames(named=False)

#: Refused whatever the hub is.
NEVER = [
    "../x",
    "..",
    ".",
    "a/b",
    "/",
    "a\nb",
    "a\x1b[31m",
    "a\u202eb",
    "a\u200bb",
    "x" * 256,
    "\0",
]
#: Names of JupyterHub 5, which servers of that time keep.
OLD = [
    "Lab",
    "a b",
    "ünder",
    "a_b",
    "1st",
    "a--b",
    "-a",
    "a-",
    "x" * 31,
    "%2e%2e",
    "?x",
    "a#b",
    "a:b",
]
GOOD = ["lab", "a", "a1", "a-1-b", "x" * 30]


@pytest.mark.parametrize("name", NEVER)
def test_names_that_could_be_another_address_are_refused_everywhere(name: str) -> None:
    for names in (SLUGS, ANY):
        assert names.why_not(name).endswith(".")
        assert names.why_not(name, existing=True)
        assert names.why_not(name).isprintable()


@pytest.mark.parametrize("name", OLD)
def test_names_of_old_servers_are_kept_and_given_to_no_new_one(name: str) -> None:
    assert SLUGS.why_not(name)
    assert not SLUGS.why_not(name, existing=True)
    assert not ANY.why_not(name)


@pytest.mark.parametrize("name", GOOD)
def test_good_names_are_good(name: str) -> None:
    assert not SLUGS.why_not(name)
    assert not ANY.why_not(name)
    assert "no named servers" in NONE.why_not(name)


def test_names_are_as_long_as_the_hub_s() -> None:
    assert not ANY.why_not("x" * 255)
    assert ANY.why_not("x" * 256)


def test_the_default_server_has_no_name() -> None:
    assert not any(names.why_not("") for names in (SLUGS, ANY, NONE))


@given(st.integers(0, 4), st.sets(st.sampled_from(["", "a", "b", "c", "d"])))
def test_one_server_too_many_is_as_the_hub_counts(most: int, existing: set[str]) -> None:
    """JupyterHub 6.1, ``_check_named_server_request``; 5.4 counts the same."""
    names = ServerNames(most=most)
    for name in ("", "a", "new"):
        refused = 0 < most <= len(existing - {""}) and name not in existing and name != ""
        assert bool(names.one_too_many(name, existing)) is refused


@given(st.text(st.sampled_from(string.ascii_letters + string.digits + "-_./ü"), max_size=35))
def test_new_names_are_those_that_the_hub_gives(name: str) -> None:
    slugs = pytest.importorskip("jupyterhub.slugs")
    if name:
        assert (not SLUGS.why_not(name)) is slugs.is_valid_safe_slug(name)
