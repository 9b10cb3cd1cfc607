"""What a request may carry."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyterhub_migspawner.service.http.body import MOST_BYTES, Field, read_flags, read_object
from jupyterhub_migspawner.service.http.problem import Problem

FIELDS = {
    "tier": Field("name", required=True),
    "hours": Field("hours", required=True),
    "reason": Field("text"),
}


def read(value: Any, content_type: str = "application/json") -> dict[str, str | float]:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return read_object(raw, content_type, FIELDS)


def test_known_fields_come_out_as_they_went_in() -> None:
    assert read({"tier": "card", "hours": 4, "reason": "<b>ü</b>"}) == {
        "tier": "card",
        "hours": 4.0,
        "reason": "<b>ü</b>",
    }


def test_nothing_at_all_is_an_object_without_fields() -> None:
    assert read_object(b"  ", "", {"reason": Field("text")}) == {}


@pytest.mark.parametrize(
    ("sent", "says"),
    [
        (b"{", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 30_000, "not JSON"),
        (b'{"tier": "card", "hours": NaN}', "not JSON"),
        ([], "must be a JSON object, found a list"),
        (None, "must be a JSON object, found null"),
        ({"tier": "card"}, "'hours' is missing"),
        ({"tier": "card", "hours": 1, "user": "ada"}, "no field 'user' here"),
        ({"tier": "card", "hours": 1, "x" * 500: 1}, "…"),
        ({"tier": ["card"], "hours": 1}, "'tier' must be text, found a list"),
        ({"tier": "c" * 201, "hours": 1}, "'tier' has 201 characters"),
        ({"tier": "ca\0rd", "hours": 1}, "no text"),
        ({"tier": "\ud800", "hours": 1}, "no text"),
        ({"tier": "card", "hours": "4"}, "'hours' must be a number of hours, found text"),
        ({"tier": "card", "hours": True}, "found true or false"),
        ({"tier": "card", "hours": -1}, "above 0"),
        ({"tier": "card", "hours": 10**400}, "above 0"),
        ({"tier": "card", "hours": 1, "reason": "r" * 2001}, "2001 characters"),
    ],
)
def test_everything_else_is_refused_by_the_name_of_the_field(sent: Any, says: str) -> None:
    with pytest.raises(Problem) as refused:
        read(sent)
    assert refused.value.status_code == 400
    assert says in refused.value.sentence


def test_what_is_too_large_is_not_even_parsed() -> None:
    with pytest.raises(Problem) as refused:
        read(b"[" * (MOST_BYTES + 1))
    assert refused.value.status_code == 413


def test_a_form_is_no_json() -> None:
    with pytest.raises(Problem) as refused:
        read(b"tier=card", "application/x-www-form-urlencoded")
    assert refused.value.status_code == 415


@given(st.binary(max_size=200))
def test_any_bytes_are_either_fields_or_a_problem(raw: bytes) -> None:
    problem = None
    try:
        found = read(raw)
    except Problem as refused:
        problem = refused
    if problem is None:
        assert set(found) <= set(FIELDS)
    else:
        assert problem.status_code == 400
        assert problem.sentence.endswith(".")


def test_flags_are_true_or_false() -> None:
    assert read_flags({"all": [b"true"]}, ("all", "past")) == {"all": True, "past": False}
    assert read_flags({"past": [b"0"]}, ("past",)) == {"past": False}


@pytest.mark.parametrize(
    "query",
    [{"all": [b"yes"]}, {"all": [b"true", b"false"]}, {"user": [b"ada"]}, {"all": [b""]}],
)
def test_other_parameters_are_refused(query: dict[str, list[bytes]]) -> None:
    with pytest.raises(Problem) as refused:
        read_flags(query, ("all",))
    assert refused.value.status_code == 400
