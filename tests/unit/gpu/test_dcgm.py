"""What dcgm-exporter says of slices: its page, and a server that answers well, badly or never."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import wait
from http.server import BaseHTTPRequestHandler

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyterhub_migspawner.errors import GpuError
from jupyterhub_migspawner.gpu import dcgm
from jupyterhub_migspawner.gpu.dcgm import Exporter, Figures, read
from tests.exporters import CARD, HEAD, Answer, Site, line, page
from tests.unit.strangers import STRANGER, as_stranger, needs_root


def test_figures_are_per_card_and_gpu_instance() -> None:
    page = HEAD + line("0.250000") + line("1", "13") + line("0", None, "GPU-2")
    assert read(page) == {(CARD, 7): 25.0, (CARD, 13): 100.0, ("GPU-2", None): 0.0}


@pytest.mark.parametrize("value", ["NaN", "-1", "1.5", "+Inf", "18446744073709551615"])
def test_what_is_no_share_of_the_time_is_no_figure(value: str) -> None:
    """DCGM has numbers that mean that there is none."""
    assert read(HEAD + line(value) + line("0.5", "8")) == {(CARD, 8): 50.0}


@pytest.mark.parametrize("values", [("0.9", "0"), ("0", "0.9")])
def test_of_two_figures_of_one_slice_the_higher_one_counts(values: tuple[str, str]) -> None:
    assert read(HEAD + line(values[0]) + line(values[1])) == {(CARD, 7): 90.0}


def test_an_old_page_says_nothing_of_now(site: Site) -> None:
    now = [0.0]
    exporter = Exporter(site.url, monotonic=lambda: now[0])
    try:
        site.answer = page((HEAD + line("0")).encode())
        assert said(exporter) == {(CARD, 7): 0.0}
        assert exporter._asked is not None
        wait([exporter._asked])
        site.answer = page((HEAD + line("1")).encode())
        now[0] += 3600
        assert exporter.look() is None
        assert said_after(exporter) == {(CARD, 7): 100.0}
    finally:
        exporter.close()


def test_a_page_without_a_length_is_read_up_to_a_bound(
    site: Site, exporter: Exporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dcgm, "MOST_BYTES", 100_000)
    site.answer = page(b"#" * 1_000_000)
    with pytest.raises(GpuError, match="does not answer"):
        said(exporter)


def test_a_page_without_the_metric_has_no_figures() -> None:
    assert read("") == {}
    assert read(HEAD) == {}


@pytest.mark.parametrize(
    "page", ["<html>\n", "DCGM_FI_PROF_GR_ENGINE_ACTIVE{", 'a{b="c"} d\n', "{} {}\n", "a b c d\n"]
)
def test_another_page_is_refused(page: str) -> None:
    with pytest.raises(GpuError, match="cannot be read"):
        read(page)


@given(st.text() | st.text(alphabet='ab{}=",# \n\\0.1DCGM_'))
def test_any_page_is_read_or_refused(page: str) -> None:
    try:
        found = read(page)
    except GpuError:
        return
    assert all(0 <= value <= 100 for value in found.values())


@pytest.fixture
def site() -> Iterator[Site]:
    made = Site()
    yield made
    made.close()


@pytest.fixture
def exporter(site: Site) -> Iterator[Exporter]:
    made = Exporter(site.url)
    yield made
    made.close()


def said(exporter: Exporter) -> Figures:
    """What a look says once there is an answer."""
    assert exporter.look() is None
    return said_after(exporter)


def said_after(exporter: Exporter) -> Figures:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        found = exporter.look()
        if found is not None:
            return found
        time.sleep(0.01)
    raise AssertionError("no answer")


def test_a_look_says_what_was_answered_since(site: Site, exporter: Exporter) -> None:
    site.answer = page((HEAD + line("0.75")).encode())
    assert said(exporter) == {(CARD, 7): 75.0}


def test_who_looks_never_waits(
    site: Site, exporter: Exporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dcgm, "PATIENCE", 0.5)
    site.answer = lambda handler: site.done.wait() and None  # type: ignore[func-returns-value]
    assert exporter.look() is None
    with pytest.raises(GpuError, match=r"does not answer \(.*[Tt]imeout"):
        said_later(exporter)
    site.done.set()


def said_later(exporter: Exporter) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        assert exporter.look() is None
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (page(b"", 404), r"does not answer \(status 404\)"),
        (page(b"", 302, Location="http://127.0.0.1:1/"), r"does not answer \(status 302\)"),
        (page(b"<html>"), "cannot be read"),
        (page(b"\xff\xfe\x00{"), "cannot be read"),
        (page(b"#" * 100, 200, **{"Content-Length": str(10**9)}), "does not answer"),
        (lambda handler: handler.wfile.write(b"garbage\r\n\r\n"), "does not answer"),
    ],
    ids=["missing", "redirect", "another page", "bytes", "too long", "no HTTP"],
)
def test_a_bad_answer_is_told_with_its_address(
    site: Site, exporter: Exporter, answer: Answer, words: str
) -> None:
    site.answer = answer
    with pytest.raises(GpuError, match=words) as caught:
        said(exporter)
    assert site.url in str(caught.value)
    site.answer = page((HEAD + line("0.5")).encode())
    deadline = time.monotonic() + 30
    found: Figures | None = None
    while not found and time.monotonic() < deadline:
        try:
            found = exporter.look()
        except GpuError:
            continue
    assert found == {(CARD, 7): 50.0}, "it is asked again"


def test_a_page_that_trickles_in_is_given_up(
    site: Site, exporter: Exporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dcgm, "PATIENCE", 0.5)

    def trickle(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        while not site.done.wait(0.05):
            try:
                handler.wfile.write(b"#")
            except OSError:
                return

    site.answer = trickle
    with pytest.raises(GpuError, match="does not answer"):
        said(exporter)
    site.done.set()


def test_nobody_there(exporter: Exporter, site: Site) -> None:
    site.server.server_close()
    with pytest.raises(GpuError, match="does not answer"):
        said(exporter)


EXPORTER = """
import socket
listening = socket.create_server(("127.0.0.1", 0))
print(listening.getsockname()[1], flush=True)
while True:
    connection, _ = listening.accept()
    connection.recv(65536)
    connection.sendall(b"HTTP/1.0 200 OK\\r\\nContent-Length: 0\\r\\n\\r\\n")
    connection.close()
"""


@needs_root
def test_figures_from_a_persons_process_count_for_nothing() -> None:
    with as_stranger(EXPORTER) as stranger:
        assert stranger.stdout is not None
        port = int(stranger.stdout.readline())
        with pytest.raises(GpuError, match=f"uid {STRANGER} has its port"):
            dcgm.ask(f"http://127.0.0.1:{port}/metrics")
