"""Lines that outsiders cause are counted; the service's own are all there."""

from __future__ import annotations

import logging
import sys

import pytest

from jupyterhub_migspawner import logs
from jupyterhub_migspawner.logs import Bounded, PrintableFormatter


class Log:
    """A logger with the filter, and the time in the test's hand."""

    def __init__(self) -> None:
        self.now = 0.0
        self.filter = Bounded(monotonic=lambda: self.now)

    def write(self, name: str, text: str, *values: object) -> str | None:
        record = logging.LogRecord(name, logging.INFO, "", 0, text, values, None)
        return record.getMessage() if self.filter.filter(record) else None


@pytest.mark.parametrize(
    "name", ["tornado.general", "tornado.access", "asyncio", "migspawner.service.requests"]
)
def test_a_flood_of_lines_is_counted(name: str) -> None:
    log = Log()
    written = [log.write(name, "Malformed request from %s", at) for at in range(1000)]
    assert written[: logs.BURST] == [f"Malformed request from {at}" for at in range(logs.BURST)]
    assert written[logs.BURST :] == [None] * (1000 - logs.BURST)
    # Another kind of line is not held back by them.
    assert log.write(name, "something else") == "something else"
    log.now += logs.SECONDS_PER_LINE
    again = log.write(name, "Malformed request from %s", "b")
    assert again == f"Malformed request from b ({1000 - logs.BURST} more of this kind before)"


def test_kinds_without_number_are_one_kind() -> None:
    log = Log()
    written = [log.write("tornado.general", f"line {at}") for at in range(5000)]
    assert sum(each is not None for each in written) == logs.MOST_KINDS + logs.BURST


def test_the_services_own_lines_are_all_written() -> None:
    log = Log()
    written = [log.write("migspawner.service", "Lease %d ends", at) for at in range(1000)]
    assert None not in written


def test_text_from_people_steers_no_terminal_and_begins_no_line() -> None:
    name = "ada\x1b[2J\u202e\r[E 2026-01-01 forged\nnext"
    record = logging.LogRecord("x", logging.INFO, "f", 1, "Hello %s.", (name,), None)
    formatter = PrintableFormatter(fmt="%(message)s", color=False)
    lines = formatter.format(record).split("\n")
    assert all(line.isprintable() for line in lines)
    assert lines[0].startswith("Hello ada\\x1b[2J\\u202e\\r[E")
    assert all(line.startswith("    ") for line in lines[1:])
    assert record.args == (name,)  # other handlers get the record as it was


def test_text_in_a_traceback_steers_nothing_either() -> None:
    try:
        raise ValueError("ada\x1b[2J\u202e")
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, "f", 1, "Failed.", (), sys.exc_info())
    text = PrintableFormatter(fmt="%(message)s", color=False).format(record)
    assert "ValueError: ada\\x1b[2J\\u202e" in text
    assert all(line.isprintable() for line in text.split("\n"))
