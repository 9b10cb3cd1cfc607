"""A dcgm-exporter's page, and a real server that shows it, or answers badly or never."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

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


Answer = Callable[[BaseHTTPRequestHandler], None]


class Site:
    """A real server on loopback that answers as configured."""

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
