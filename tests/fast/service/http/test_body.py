"""What a request may carry."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyterhub_migspawner.policy.fields import Expected
from jupyterhub_migspawner.policy.notices import TOPICS
from jupyterhub_migspawner.service.api.models.base import Body, Nothing, Reason
from jupyterhub_migspawner.service.api.models.drafts import NewDraft
from jupyterhub_migspawner.service.api.models.notices import NewNoticeChoices
from jupyterhub_migspawner.service.api.models.queue import NewTicket
from jupyterhub_migspawner.service.api.models.quotas import NewException
from jupyterhub_migspawner.service.api.models.requests import Approval, NewRequest, Revocation
from jupyterhub_migspawner.service.api.models.sessions import Protection
from jupyterhub_migspawner.service.http.body import MOST_BYTES, read_body, read_flags
from jupyterhub_migspawner.service.http.problem import Problem

ASK = {"tier": "card", "hours": 1, "reason": "a run"}

BODIES: list[type[Body]] = [
    Approval,
    NewDraft,
    NewException,
    NewNoticeChoices,
    NewRequest,
    NewTicket,
    Nothing,
    Protection,
    Reason,
    Revocation,
]


def read(value: Any, model: type[Body] = NewRequest, content_type: str = "application/json") -> Any:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return read_body(raw, content_type, model)


def refusal(value: Any, model: type[Body] = NewRequest) -> str:
    with pytest.raises(Problem) as refused:
        read(value, model)
    assert refused.value.status_code == 400
    return refused.value.sentence


def test_known_fields_come_out_as_they_went_in() -> None:
    found = read({"tier": "card", "hours": 4, "reason": "<b>ü</b>"})
    assert (found.tier, found.hours, found.reason) == ("card", 4.0, "<b>ü</b>")
    assert found.starts_at is None


def test_a_time_is_read_with_its_zone() -> None:
    noon = datetime(2026, 12, 1, 12, tzinfo=timezone.utc)
    for text in ("2026-12-01T12:00:00Z", "2026-12-01T13:00:00+01:00", "2026-12-01T12:00z"):
        assert read({**ASK, "starts_at": text}).starts_at == noon


def test_a_limit_may_be_null_and_so_may_a_warning() -> None:
    sent = {"user": "ada", "field": "live", "until": "2026-12-01T12:00:00Z", "reason": "a run"}
    assert read({**sent, "limit": None}, NewException).limit is None
    assert read({**sent, "limit": 3}, NewException).limit == 3
    assert read({"reason": "over", "warning_minutes": None}, Revocation).warning_minutes is None
    assert read({"reason": "over"}, Revocation).warning_minutes == 15


@pytest.mark.parametrize("model", [Nothing, Reason, Approval, NewDraft, NewNoticeChoices])
def test_nothing_at_all_is_an_object_without_fields(model: type[Body]) -> None:
    assert read_body(b"  ", "", model).model_dump(exclude_unset=True) == {}


@pytest.mark.parametrize(
    ("sent", "says"),
    [
        (b"{", "The body is not JSON."),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 30_000, "not JSON"),
        (b'{"tier": "card", "hours": NaN}', "not JSON"),
        (b'{"tier": "card", "hours": -Infinity}', "not JSON"),
        (b'{"tier": "card", "hours": 1, "tier": "cpu"}', "'tier' is there more than once"),
        ([], "must be a JSON object, found a list."),
        (None, "must be a JSON object, found null."),
        ("text", "must be a JSON object, found 'text'."),
        ({"tier": "card"}, "'hours' is missing; known fields: hours, reason, starts_at, tier."),
        ({**ASK, "user": "ada"}, "no field 'user' here; known fields: hours, "),
        ({**ASK, "houers": 1}, "no field 'houers' here (did you mean 'hours'?); known fields"),
        ({"tier": "card", "houers": 1, "reason": "a run"}, "did you mean 'hours'"),
        ({**ASK, "x" * 500: 1}, "…"),
        ({**ASK, "\ud800": 1}, r"no field '\ud800' here"),
        ({**ASK, "tier": ["card"]}, "'tier' must be text of at most 200 characters, found a list."),
        ({**ASK, "tier": {"a": 1}}, "found an object."),
        ({**ASK, "tier": None}, "found null."),
        ({**ASK, "tier": 5}, "found 5."),
        ({**ASK, "tier": "c" * 201}, "found text of 201 characters."),
        ({**ASK, "tier": "ca\0rd"}, "found text of 5 characters, of which at least one cannot be"),
        ({**ASK, "tier": "\ud800"}, "cannot be stored (NUL, or half a surrogate pair)."),
        ({**ASK, "hours": "4"}, "'hours' must be a number of hours above 0, found '4'."),
        ({**ASK, "hours": True}, "found true."),
        ({**ASK, "hours": None}, "found null."),
        ({**ASK, "hours": -1}, "above 0, found -1."),
        ({**ASK, "hours": 0}, "above 0, found 0."),
        ({**ASK, "hours": 10**400}, "above 0, found 1000"),
        (b'{"tier": "card", "hours": 1e999, "reason": "a run"}', "above 0, found Infinity."),
        ({**ASK, "reason": "r" * 2001}, "of at most 2000 characters, found text of 2001"),
        ({**ASK, "starts_at": "2026-12-01T18:00:00"}, "must be a time with its zone, such as"),
        ({**ASK, "starts_at": "9999-12-31T23:59:59-12:00"}, "must be a time with its zone"),
        ({**ASK, "starts_at": 1_800_000_000}, "such as 2026-12-01T18:00:00Z, found 1800000000."),
        ({**ASK, "starts_at": None}, "found null."),
    ],
)
def test_everything_else_is_refused_by_the_name_of_the_field(sent: Any, says: str) -> None:
    assert says in refusal(sent)


def test_nothing_is_taken_for_what_it_is_not() -> None:
    for sent in ("true", 1, 0, None, "yes"):
        assert "'start' must be true or false, found" in refusal(
            {"tier": "small", "start": sent}, NewTicket
        )
        assert "'offers' must be true or false" in refusal({"offers": sent}, NewNoticeChoices)
    assert "'hours' must be a number of hours" in refusal({"hours": None}, Approval)
    assert "from 0 to 1440" in refusal({"reason": "over", "warning_minutes": 1441}, Revocation)


def test_topics_that_can_be_chosen_are_those_that_there_are() -> None:
    assert set(NewNoticeChoices.model_fields) == set(TOPICS)


@pytest.mark.parametrize("model", BODIES)
def test_every_field_says_in_words_what_it_has_to_be(model: type[Body]) -> None:
    """Otherwise a user would be shown pydantic's own words."""
    for name, field in model.model_fields.items():
        assert any(isinstance(each, Expected) for each in field.metadata), name


def test_what_is_too_large_is_not_even_parsed() -> None:
    with pytest.raises(Problem) as refused:
        read(b"[" * (MOST_BYTES + 1))
    assert refused.value.status_code == 413


def test_a_form_is_no_json() -> None:
    with pytest.raises(Problem) as refused:
        read(b"tier=card", content_type="application/x-www-form-urlencoded")
    assert refused.value.status_code == 415


@given(st.sampled_from(BODIES), st.binary(max_size=200))
def test_any_bytes_are_either_fields_or_a_problem(model: type[Body], raw: bytes) -> None:
    check_sentence(raw, model)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from(BODIES), st.data())
def test_any_json_is_either_fields_or_a_sentence(model: type[Body], data: st.DataObject) -> None:
    names = st.sampled_from([*model.model_fields, "user"])
    sent = data.draw(st.dictionaries(names, VALUES, max_size=4))
    check_sentence(json.dumps(sent).encode(), model)


def check_sentence(raw: bytes, model: type[Body]) -> None:
    problem = None
    try:
        found = read(raw, model)
    except Problem as refused:
        problem = refused
    if problem is None:
        assert found.model_fields_set <= set(model.model_fields)
    else:
        assert problem.status_code == 400
        assert problem.sentence.endswith(".")
        assert "Input should" not in problem.sentence
        assert "alue error" not in problem.sentence


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


def test_a_misspelt_parameter_is_told_what_was_meant() -> None:
    with pytest.raises(Problem) as refused:
        read_flags({"passt": [b"1"]}, ("all", "past"))
    assert "did you mean 'past'" in refused.value.sentence
