from __future__ import annotations

import json

import pytest

from jupyterhub_migspawner.cli.output import complain, print_json
from jupyterhub_migspawner.cli.table import Column, print_table
from tests.unit.cli.tables import table_lines

COLUMNS = [Column("user", "user"), Column("hours", "hours", number=True), Column("ok", "ok")]


def test_columns_line_up_and_numbers_stand_to_the_right() -> None:
    rows = [
        {"user": "ada", "hours": 1.5, "ok": True},
        {"user": "grace-hopper", "hours": 12.0, "ok": False},
    ]
    assert table_lines(COLUMNS, rows) == [
        "USER          HOURS  OK",
        "ada             1.5  yes",
        "grace-hopper     12  no",
    ]


@pytest.mark.parametrize("nothing", [None, "", []])
def test_what_is_not_known_is_a_dash(nothing: object) -> None:
    assert table_lines([Column("user", "user")], [{"user": nothing}, {}]) == ["USER", "-", "-"]


def test_text_from_people_cannot_steer_the_terminal() -> None:
    line = table_lines([Column("reason", "reason")], [{"reason": "\x1b[2Jhi\nadmin\u202egnp"}])[1]
    assert line == "\\x1b[2Jhi\\nadmin\\u202egnp"


def test_an_empty_listing_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(COLUMNS, [], empty="Nobody has asked for anything.")
    assert capsys.readouterr().out == "Nobody has asked for anything.\n"


def test_json_is_one_document_on_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    print_json([{"user": "ada", "é": None}])
    assert json.loads(capsys.readouterr().out) == [{"user": "ada", "é": None}]


def test_a_complaint_goes_to_standard_error_line_by_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    complain("The hub did not start:\n\x1b[31mred")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "The hub did not start:\n\\x1b[31mred\n"
