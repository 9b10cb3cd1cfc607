"""The service's log of requests: those that change something or fail, never what they carry."""

from __future__ import annotations

import logging

from tornado.web import RequestHandler

from jupyterhub_migspawner.service.http.auth import MOST_PATH

requests_log = logging.getLogger("migspawner.service.requests")


def log_request(handler: RequestHandler) -> None:
    """Log a request that changes something or fails; never its query, which may hold a secret."""
    status = handler.get_status()
    request = handler.request
    level = logging.DEBUG
    if status >= 500:
        level = logging.ERROR
    elif status >= 400 or request.method not in ("GET", "HEAD"):
        level = logging.INFO
    visitor = getattr(handler, "visitor", None)
    requests_log.log(
        level,
        "%d %s %s %s %.0f ms",
        status,
        request.method,
        request.path[:MOST_PATH],
        visitor.person.name if visitor else "-",
        1000 * request.request_time(),
    )
