"""What a person does in a server without a kernel or a terminal: writes, opens, other applications.

Relies on tornado to call the ``log_function`` of its settings at the end of each request, and on
jupyter-server-proxy, where it is there, to hand the messages of a websocket to ``on_message``.
Promises that what pages ask by themselves is no act: JupyterLab asks for kernels, sessions and the
files of a folder every few seconds, and jupyterlab-git for the state of a repository, for as long
as a tab is open. Jupyter Server's own ``last_activity`` counts those.
"""

from __future__ import annotations

import hashlib
import logging
from typing import Any

from tornado.web import Application

log = logging.getLogger("jupyterhub_migspawner.notebook")

_READS = frozenset({"GET", "HEAD", "OPTIONS"})
_FILES = frozenset({"file", "notebook"})
_OWN_STATE = "/lab/api/workspaces"
"""Where JupyterLab keeps which of its tabs are open; it writes that every ten seconds."""

_MOST_REMEMBERED = 256
_MOST_BYTES = 64 * 1024


class Activity:
    """How many acts of its person a server has seen since it started.

    A request is one when it was answered and either changed something, or opened a file or a page.
    The same words again are none, outside of the files: a page repeats itself, a person saves.
    Applications behind jupyter-server-proxy are held to the same rules, so that a page of theirs
    that redraws itself with GET, as TensorBoard's, does not count; what is sent through their
    websockets does.
    """

    def __init__(self) -> None:
        self.acts = 0
        # Digests of what was sent; a dict keeps the order in which they came.
        self._sent: dict[bytes, None] = {}

    def watch(self, app: Application) -> None:
        """Note each request that ends, beside whatever logs it."""
        inner = app.settings.get("log_function")
        if inner is None:
            # Then tornado logs by itself, and calls nobody.
            log.info("This server's requests cannot be watched.")
            return

        def log_function(handler: Any) -> None:
            try:
                self.acts += self.is_act(handler)
            except Exception:
                # Whatever the handler of another extension looks like: its request has been served.
                log.debug("A request cannot be distinguished from a poll.", exc_info=True)
            inner(handler)

        app.settings["log_function"] = log_function
        self._watch_proxies()

    def _watch_proxies(self) -> None:
        """Note what people send to applications behind the server."""
        try:
            from jupyter_server_proxy.handlers import ProxyHandler
        except Exception:  # it is not installed, or for another Jupyter Server
            return
        inner = ProxyHandler.on_message

        def on_message(handler: Any, message: Any) -> Any:
            self.acts += 1
            return inner(handler, message)

        ProxyHandler.on_message = on_message

    def is_act(self, handler: Any) -> bool:
        """Return whether a request that was answered was its person's act."""
        request = handler.request
        if handler.get_status() >= 400 or not getattr(handler, "_track_activity", True):
            return False
        # Callers that ask not to be counted, as Jupyter Server's API lets them.
        if handler.get_query_argument("no_track_activity", ""):
            return False
        if request.method not in _READS:
            if _OWN_STATE in request.path:
                return False
            return "/api/contents" in request.path or self._is_new(request)
        if request.method != "GET":
            return False
        if handler.get_query_argument("type", "") in _FILES:
            # JupyterLab opens a file so. The folders that it lists again and again are no files.
            return bool(handler.get_query_argument("content", "1") == "1")
        return _is_page(request.headers)

    def _is_new(self, request: Any) -> bool:
        # Not by the query: pages put the time there, to get past caches.
        parts = (request.method, request.path, str(len(request.body)))
        digest = hashlib.sha256("\n".join(parts).encode("utf-8", "replace"))
        digest.update(request.body[:_MOST_BYTES])
        key = digest.digest()
        new = key not in self._sent
        self._sent.pop(key, None)
        self._sent[key] = None
        if len(self._sent) > _MOST_REMEMBERED:
            del self._sent[next(iter(self._sent))]
        return new


def _is_page(headers: Any) -> bool:
    """Return whether a person has gone to a page, and it has not just reloaded itself.

    Browsers say so over HTTPS and to this machine (Fetch Metadata Request Headers, W3C).
    """
    mode = headers.get("Sec-Fetch-Mode")
    if mode:
        return bool(mode == "navigate" and headers.get("Sec-Fetch-User") == "?1")
    return str(headers.get("Accept", "")).startswith("text/html")
