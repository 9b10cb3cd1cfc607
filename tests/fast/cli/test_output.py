from __future__ import annotations

import contextlib
import io
import json

import pytest
from rich.cells import cell_len

from jupyterhub_migspawner.cli.output import complain, print_json, print_wrapped
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


def test_markup_of_the_library_that_draws_is_text() -> None:
    text = "[bold red]x[/bold red] [link=http://e.org]y[/link] :smile: [/]"
    assert table_lines([Column("reason", "reason")], [{"reason": text}])[1] == text
    below = table_lines(
        [Column("id", "id"), Column("why", "why", below=True)], [{"id": "1", "why": text}]
    )
    assert below[2] == f"    why: {text}"


def test_wide_characters_and_emoji_line_up() -> None:
    rows = [{"user": "漢字", "hours": 1.0, "ok": True}, {"user": "🚀é", "hours": 2.0, "ok": True}]
    lines = table_lines(COLUMNS, rows)
    assert {cell_len(line.partition("yes")[0]) for line in lines[1:]} == {len("USER  HOURS  ")}


def test_colors_are_for_terminals_alone(capsys: pytest.CaptureFixture[str]) -> None:
    print_wrapped("configuration: fine.", first="ok       ", style="green")
    assert capsys.readouterr().out == "ok       configuration: fine.\n"


def test_only_the_beginning_is_colored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    with contextlib.redirect_stdout(io.StringIO()) as out:
        print_wrapped("configuration: fine.", first="ok ", style="green")
    assert out.getvalue() == "\x1b[32mok \x1b[0mconfiguration: fine.\n"


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
