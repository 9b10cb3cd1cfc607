"""What the handlers of the REST API share: JSON in, JSON out, a signed-in person, ids."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import urlencode

from tornado.web import RequestHandler

from jupyterhub_migspawner.model.parts import MOST_ROWS, Part
from jupyterhub_migspawner.service.http import body
from jupyterhub_migspawner.service.http.auth import Asked, Visitor
from jupyterhub_migspawner.service.http.body import Field
from jupyterhub_migspawner.service.http.problem import Problem

#: What a person may send with a decision.
REASON = {"reason": Field("text")}

#: Ids count up from 1 in a 64-bit column; longer digits name nothing.
MOST_DIGITS = 18
MOST_ID = 10**MOST_DIGITS - 1

#: Rows of a list unless asked otherwise.
USUAL_ROWS = 100

T = TypeVar("T")


class ApiHandler(Asked):
    """Base of the REST handlers: JSON in, JSON out, a signed-in person."""

    def set_default_headers(self) -> None:
        """An answer is for this visitor and this moment, and nothing in it is ever run."""
        self.set_header("Content-Type", "application/json")
        self.set_header("Cache-Control", "no-store")
        self.set_header("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
        self.set_header("X-Content-Type-Options", "nosniff")

    async def prepare(self) -> None:
        """Refuse large bodies and visitors who are not signed in, before any method runs."""
        self.current_user = None
        if len(self.request.body) > body.MOST_BYTES:
            raise body.too_large(len(self.request.body))
        self.visitor = await self.identify()
        if self.visitor is None:
            raise Problem(
                401,
                "not-signed-in",
                "Nobody is signed in. Send 'Authorization: token …' with a token of the hub.",
            )

    @property
    def who(self) -> Visitor:
        """The visitor; every method runs after ``prepare``."""
        assert self.visitor is not None
        return self.visitor

    def flags(self, *known: str) -> dict[str, bool]:
        """The query's parameters, all true or false."""
        return body.read_flags(self.request.query_arguments, known)

    def listing(self, *known: str) -> tuple[dict[str, bool], Part]:
        """The parameters of a list: flags, and which part of it is asked for."""
        query = dict(self.request.query_arguments)
        limit = body.read_count(query, "limit", MOST_ROWS)
        before = body.read_count(query, "before", MOST_ID)
        rest = {name: query[name] for name in query if name not in ("limit", "before")}
        return body.read_flags(rest, known), Part(limit or USUAL_ROWS, before)

    def reply_part(
        self, rows: Sequence[T], view: Callable[[T], Any], part: Part, *, id_name: str = "id"
    ) -> None:
        """Answer with the newest rows of a list, of which one more than asked for were read.

        ``Link`` leads to the rows before those, where there are any. ``id_name`` is the field of
        the view that they are ordered by.
        """
        shown = rows[-part.limit :]
        if len(rows) > part.limit:
            self.link_next(view(shown[0])[id_name], part)
        self.reply([view(row) for row in shown])

    def link_next(self, before: int, part: Part) -> None:
        """Say where the rows with smaller ids than ``before`` are."""
        kept = {
            name: values[-1].decode("utf-8", "replace")
            for name, values in self.request.query_arguments.items()
        }
        query = urlencode({**kept, "limit": part.limit, "before": before})
        self.set_header("Link", f'<{self.request.path}?{query}>; rel="next"')

    def fields(self, known: Mapping[str, Field]) -> dict[str, Any]:
        """The body's fields, checked."""
        content_type = self.request.headers.get("Content-Type", "")
        return body.read_object(self.request.body, content_type, known)

    def reply(self, value: Any, status: int = 200) -> None:
        """Answer with JSON."""
        self.set_status(status)
        self.finish(json.dumps(value))

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Every error is an object with status, reason and message."""
        if status_code == 405:
            self.set_header("Allow", ", ".join(sorted(methods_of(type(self)))))
        if status_code == 401:
            self.set_header("WWW-Authenticate", "token")
        if self.answer.retry_after is not None:
            self.set_header("Retry-After", str(self.answer.retry_after))
        self.finish(json.dumps(self.answer.as_json()))


def methods_of(handler: type[RequestHandler]) -> frozenset[str]:
    """The HTTP methods that a handler serves."""
    return frozenset(
        method
        for method in RequestHandler.SUPPORTED_METHODS
        if getattr(handler, method.lower()) is not getattr(RequestHandler, method.lower())
    )


def read_id(what: str, raw: str) -> int:
    """An id out of an address. Raises :exc:`.Problem` when it names nothing."""
    if not raw.isascii() or not raw.isdigit() or len(raw) > MOST_DIGITS:
        raise Problem(404, "not-found", f"There is no {what} {body.shown(raw)}.")
    return int(raw)
