"""The extension inside a server, as a real Jupyter Server runs it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.notebook.servers import Server

NOTICE = {
    "rule": "idle",
    "why": "",
    "ends_at": "2026-11-23T12:00:00Z",
    "extendable": True,
    "page": "/services/migspawner/",
    "holds_seconds": 600,
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = Server(tmp_path_factory.mktemp("server"), "a1")
    yield made
    made.close()


def test_a_server_without_a_slice_has_nothing_to_tell(tmp_path: Path) -> None:
    made = Server(tmp_path, "")
    try:
        assert made.call("GET")[0] == 404
    finally:
        made.close()


def test_a_notice_is_shown_until_there_is_none(server: Server) -> None:
    assert server.call("PUT", body={"notice": NOTICE}) == (200, {"wish": ""})
    assert server.call("GET") == (200, {"notice": NOTICE, "answer": {}, "wished": False})
    assert server.call("PUT", body={"notice": None}) == (200, {"wish": ""})
    assert server.call("GET")[1]["notice"] is None


def test_a_notice_that_is_not_given_again_is_over(server: Server) -> None:
    """As when the service has ended: it reports no end that nobody brings about."""
    server.call("PUT", body={"notice": {**NOTICE, "holds_seconds": 0}})
    assert server.call("GET")[1]["notice"] is None
    assert server.call("POST")[0] == 409


def test_a_wish_stays_until_it_is_answered(server: Server) -> None:
    server.call("PUT", body={"notice": NOTICE})
    assert server.call("POST") == (202, {"wished": True})
    assert server.call("POST") == (202, {"wished": True}), "twice is once"
    wish = server.call("PUT", body={"notice": NOTICE})[1]["wish"]
    assert wish
    assert server.call("PUT", body={"notice": NOTICE})[1]["wish"] == wish, "it was not answered"
    other = {"wish": "another", "refusal": "no", "kept_until": ""}
    assert server.call("PUT", body={"notice": NOTICE, "answer": other})[1]["wish"] == wish
    answer = {"wish": wish, "refusal": "", "kept_until": "2026-11-23T13:00:00Z"}
    assert server.call("PUT", body={"notice": None, "answer": answer}) == (200, {"wish": ""})
    assert server.call("GET")[1] == {"notice": None, "answer": answer, "wished": False}


@pytest.mark.parametrize("notice", [None, {**NOTICE, "rule": "time", "extendable": False}])
def test_what_cannot_be_put_off_is_not_wished_for(server: Server, notice: Any) -> None:
    server.call("PUT", body={"notice": notice})
    status, answer = server.call("POST")
    assert status == 409
    assert "no end" in answer["message"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"\xff", 400),
        (b"[" * 10_000, 400),
        ([], 400),
        ({"notice": "soon"}, 400),
        ({"notice": {**NOTICE, "ends_at": "soon"}}, 400),
        ({"notice": {**NOTICE, "extendable": "yes"}}, 400),
        ({"notice": {**NOTICE, "page": "javascript:alert(1)"}}, 400),
        ({"notice": {**NOTICE, "rule": "x" * 2000}}, 400),
        ({"notice": {**NOTICE, "holds_seconds": 1e9}}, 400),
        (b'{"notice": {"holds_seconds": NaN}}', 400),
        ({"notice": None, "answer": {"wish": 1}}, 400),
        (b" " * 20_000, 413),
    ],
)
def test_what_is_no_notice_is_refused_and_changes_nothing(
    server: Server, body: Any, status: int
) -> None:
    server.call("PUT", body={"notice": NOTICE})
    assert server.call("PUT", body=body)[0] == status
    assert server.call("GET")[1]["notice"] == NOTICE


@pytest.mark.parametrize("method", ["GET", "PUT", "POST"])
def test_strangers_see_and_say_nothing(server: Server, method: str) -> None:
    assert server.call(method, body={"notice": None}, token="another")[0] == 403


def test_a_page_that_asks_is_no_use_of_the_server(server: Server) -> None:
    before = server.call("GET", "api/status?no_track_activity=1")[1]["last_activity"]
    time.sleep(0.01)  # times are compared that have microseconds
    server.call("PUT", body={"notice": NOTICE})
    server.call("GET")
    after = server.call("GET", "api/status?no_track_activity=1")[1]["last_activity"]
    assert after == before
