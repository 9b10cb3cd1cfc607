"""What counts as its person's act in a real Jupyter Server, and behind it."""

from __future__ import annotations

import asyncio
import http.server
import threading
import urllib.request
from collections.abc import Iterator

import pytest
from tornado.httpclient import HTTPRequest
from tornado.websocket import WebSocketHandler, websocket_connect

from jupyterhub_migspawner.notebook import ACTIVITY_PATH, KERNELS_PATH, PATH
from tests.unit.notebook.servers import TOKEN, Server

NOTEBOOK = {"type": "file", "format": "text", "content": "first"}
PAGE = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    (folder / "here.txt").write_text("here")
    made = Server(folder, "a1")
    yield made
    made.close()


class Application(http.server.BaseHTTPRequestHandler):
    """A program behind the server that answers whatever it is asked."""

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    do_POST = do_GET

    def log_message(self, *_: object) -> None: ...


@pytest.fixture(scope="module")
def application() -> Iterator[int]:
    serving = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Application)
    thread = threading.Thread(target=serving.serve_forever, daemon=True)
    thread.start()
    yield serving.server_address[1]
    serving.shutdown()
    serving.server_close()


def acts(server: Server) -> int:
    status, said = server.call("GET", ACTIVITY_PATH)
    assert status == 200
    return int(said["acts"])


def send(
    server: Server, method: str, path: str, headers: dict[str, str] | None = None, body: bytes = b""
) -> int:
    request = urllib.request.Request(
        server.url + path,
        method=method,
        data=None if method in ("GET", "HEAD") else body,
        headers={"Authorization": f"token {TOKEN}", **(headers or {})},
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            answer.read()
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_an_open_tab_that_polls_is_no_act(server: Server) -> None:
    before = acts(server)
    for poll in range(3):
        for path in (
            *("api/kernels", "api/sessions", "api/terminals", "api/status", "api/kernelspecs"),
            "api/contents/?content=1&hash=0",
            "api/contents/here.txt?content=0&type=file",
            *(ACTIVITY_PATH, KERNELS_PATH, PATH),
        ):
            assert send(server, "GET", path) == 200, path
        assert send(server, "HEAD", "api/status") in (200, 405)
        # JupyterLab keeps its own state every ten seconds, in another query each time.
        workspace = {"data": {"tabs": poll}, "metadata": {"id": "default"}}
        path = f"lab/api/workspaces/default?{poll}"
        assert server.call("PUT", path, workspace)[0] == 204
    word = {"notice": None}
    assert server.call("PUT", PATH, word)[0] == 200, "the broker's own word"
    assert acts(server) == before


def test_writing_and_opening_are_acts(server: Server) -> None:
    count = acts(server)
    for method, path, body in [
        ("PUT", "api/contents/new.txt", NOTEBOOK),
        # Saved again as it was: a person does that, and JupyterLab of its own accord does not.
        ("PUT", "api/contents/new.txt", NOTEBOOK),
        ("PATCH", "api/contents/new.txt", {"path": "other.txt"}),
        ("GET", "api/contents/other.txt?type=file&content=1&hash=1", None),
        ("DELETE", "api/contents/other.txt", None),
    ]:
        assert server.call(method, path, body)[0] < 300, (method, path)
        count += 1
        assert acts(server) == count, (method, path)


def test_what_is_refused_is_no_act(server: Server) -> None:
    before = acts(server)
    assert server.call("PUT", "api/contents/new.txt", NOTEBOOK, token="wrong")[0] == 403
    assert server.call("DELETE", "api/contents/missing.txt")[0] == 404
    assert send(server, "GET", "nowhere", PAGE) == 404
    assert acts(server) == before


def test_going_to_a_page_is_an_act_and_its_reload_is_none(server: Server) -> None:
    for headers, more in [
        (PAGE, 1),
        ({**PAGE, "Sec-Fetch-Mode": "navigate", "Sec-Fetch-User": "?1"}, 1),
        ({**PAGE, "Sec-Fetch-Mode": "navigate"}, 0),
        ({**PAGE, "Sec-Fetch-Mode": "cors", "Sec-Fetch-User": "?1"}, 0),
        ({"Accept": "*/*"}, 0),
    ]:
        before = acts(server)
        assert send(server, "GET", "files/here.txt", headers) == 200
        assert acts(server) == before + more, headers


def test_the_same_words_again_are_a_poll(server: Server, application: int) -> None:
    before = acts(server)
    for poll in range(5):
        assert send(server, "POST", f"proxy/{application}/status?at={poll}", body=b"{}") == 200
    assert acts(server) == before + 1
    for number in range(300):
        assert send(server, "POST", f"proxy/{application}/edit", body=b"%d" % number) == 200
    assert acts(server) == before + 301
    # What was forgotten counts again, once.
    assert send(server, "POST", f"proxy/{application}/edit", body=b"0") == 200
    assert acts(server) == before + 302


def test_an_application_that_draws_itself_anew_is_no_act(server: Server, application: int) -> None:
    before = acts(server)
    for number in range(3):
        assert send(server, "GET", f"proxy/{application}/data?at={number}") == 200
    assert acts(server) == before
    assert send(server, "GET", f"proxy/{application}/", PAGE) == 200
    assert acts(server) == before + 1


async def test_what_is_sent_through_an_applications_websocket_is_an_act(server: Server) -> None:
    from tornado.httpserver import HTTPServer
    from tornado.testing import bind_unused_port
    from tornado.web import Application as Web

    class Echo(WebSocketHandler):
        def on_message(self, message: str | bytes) -> None:
            self.write_message(message)

    sock, port = bind_unused_port()
    behind = HTTPServer(Web([("/line", Echo)]))
    behind.add_socket(sock)
    url = server.url.replace("http:", "ws:", 1) + f"proxy/{port}/line"
    line = await websocket_connect(
        HTTPRequest(url, headers={"Authorization": f"token {TOKEN}"}, connect_timeout=30)
    )
    loop = asyncio.get_running_loop()
    before = await loop.run_in_executor(None, acts, server)
    for number in range(1, 4):
        line.write_message("a key")
        assert await line.read_message() == "a key"
        assert await loop.run_in_executor(None, acts, server) == before + number
    line.close()
    behind.stop()
