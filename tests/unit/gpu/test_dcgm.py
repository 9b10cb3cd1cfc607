"""What dcgm-exporter says of slices: its page, and a server that answers well, badly or never."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyterhub_migspawner.errors import GpuError
from jupyterhub_migspawner.gpu import dcgm
from jupyterhub_migspawner.gpu.dcgm import Exporter, Figures, read

CARD = "GPU-58e8f5ea-13cc-013a-d88f-2bcf5ae8bc77"
HEAD = """# HELP DCGM_FI_DEV_SM_CLOCK SM clock frequency (in MHz).
# TYPE DCGM_FI_DEV_SM_CLOCK gauge
DCGM_FI_DEV_SM_CLOCK{gpu="0",UUID="GPU-1",device="nvidia0",GPU_I_PROFILE="1g.5gb",GPU_I_ID="7"} 1410
# HELP DCGM_FI_PROF_GR_ENGINE_ACTIVE Ratio of time the graphics engine is active.
# TYPE DCGM_FI_PROF_GR_ENGINE_ACTIVE gauge
"""


def line(value: object, gi_id: str | None = "7", card: str = CARD) -> str:
    part = "" if gi_id is None else f',GPU_I_PROFILE="1g.5gb",GPU_I_ID="{gi_id}"'
    labels = f'gpu="0",UUID="{card}",pci_bus_id="00000000:1A:00.0",device="nvidia0"{part}'
    return f'DCGM_FI_PROF_GR_ENGINE_ACTIVE{{{labels},Hostname="n1",pod="a \\"b\\""}} {value}\n'


def test_figures_are_per_card_and_gpu_instance() -> None:
    page = HEAD + line("0.250000") + line("1", "13") + line("0", None, "GPU-2")
    assert read(page) == {(CARD, 7): 25.0, (CARD, 13): 100.0, ("GPU-2", None): 0.0}


@pytest.mark.parametrize("value", ["NaN", "-1", "1.5", "+Inf", "18446744073709551615"])
def test_what_is_no_share_of_the_time_is_no_figure(value: str) -> None:
    """DCGM has numbers that mean that there is none."""
    assert read(HEAD + line(value) + line("0.5", "8")) == {(CARD, 8): 50.0}


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


Answer = Callable[[BaseHTTPRequestHandler], None]


class Site:
    """A real server on loopback that answers as it is told."""

    def __init__(self) -> None:
        self.answer: Answer = lambda handler: None
        self.done = threading.Event()
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.answer(self)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/metrics"

    def close(self) -> None:
        self.done.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


def page(body: bytes, status: int = 200, **headers: str) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        with contextlib.suppress(OSError):  # the other side has had enough
            handler.wfile.write(body)

    return answer


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(dcgm, "PATIENCE", 0.5)
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
    deadline = time.monotonic() + 30
    assert exporter.look() is None
    while time.monotonic() < deadline:
        found = exporter.look()
        if found is not None:
            return found
        time.sleep(0.01)
    raise AssertionError("no answer")


def test_a_look_says_what_was_answered_since(site: Site, exporter: Exporter) -> None:
    site.answer = page((HEAD + line("0.75")).encode())
    assert said(exporter) == {(CARD, 7): 75.0}


def test_who_looks_never_waits(site: Site, exporter: Exporter) -> None:
    site.answer = lambda handler: site.done.wait() and None  # type: ignore[func-returns-value]
    assert exporter.look() is None
    with pytest.raises(GpuError, match=r"does not answer \(.*[Tt]imeout"):
        said_later(exporter)


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


def test_a_page_that_trickles_in_is_given_up(site: Site, exporter: Exporter) -> None:
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


def test_nobody_there(exporter: Exporter, site: Site) -> None:
    site.server.server_close()
    with pytest.raises(GpuError, match="does not answer"):
        said(exporter)
