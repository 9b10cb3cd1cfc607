"""Base of the REST handlers: JSON in, JSON out, a signed-in person, ids, parts of lists."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar
from urllib.parse import urlencode

from jupyterhub_migspawner.model.parts import MOST_ROWS, Part
from jupyterhub_migspawner.service.api.operation import Operation, methods_of
from jupyterhub_migspawner.service.http import body
from jupyterhub_migspawner.service.http.auth import Asked, Visitor
from jupyterhub_migspawner.service.http.problem import Problem

#: Ids count up from 1 in a 64-bit column; longer digits name nothing.
MOST_DIGITS = 18
MOST_ID = 10**MOST_DIGITS - 1

#: Rows of a list unless asked otherwise.
USUAL_ROWS = 100

Row = TypeVar("Row")
View = TypeVar("View")


@dataclass(frozen=True)
class Query:
    """The parameters of a request: flags, and which part of a list is asked for."""

    flags: dict[str, bool]
    part: Part

    def __getitem__(self, flag: str) -> bool:
        return self.flags[flag]


class ApiHandler(Asked):
    """Base of the REST handlers."""

    #: The address below ``api``; ``{id}`` stands for an id.
    path: ClassVar[str]

    query: Query

    def set_default_headers(self) -> None:
        """Limit an answer to this visitor and this moment, and have nothing in it run."""
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
                "You are not signed in. Send 'Authorization: token …' with a token of the hub.",
            )

    @property
    def who(self) -> Visitor:
        """The visitor; every method runs after ``prepare``."""
        assert self.visitor is not None
        return self.visitor

    def read(self, operation: Operation, address: Sequence[str]) -> list[Any]:
        """Return the arguments of an operation: id and body; its parameters go into ``query``.

        Raises :exc:`.Problem` for what the operation does not declare.
        """
        query = dict(self.request.query_arguments)
        limit = before = None
        if operation.paged:
            limit = body.read_count(query, "limit", MOST_ROWS)
            before = body.read_count(query, "before", MOST_ID)
            query = {name: query[name] for name in query if name not in ("limit", "before")}
        flags = body.read_flags(query, operation.flags)
        self.query = Query(flags, Part(limit or USUAL_ROWS, before))
        arguments: list[Any] = [read_id(operation.noun, raw) for raw in address]
        if operation.body is not None:
            content_type = self.request.headers.get("Content-Type", "")
            arguments.append(body.read_body(self.request.body, content_type, operation.body))
        return arguments

    def part_of(
        self, rows: Sequence[Row], view: Callable[[Row], View], id_of: Callable[[Row], int]
    ) -> list[View]:
        """Return the newest rows of a list, of which one more than asked for were read.

        ``Link`` leads to the rows before those, where there are any. ``id_of`` is what they are
        ordered by.
        """
        part = self.query.part
        shown = rows[-part.limit :]
        if len(rows) > part.limit:
            self.link_next(id_of(shown[0]))
        return [view(row) for row in shown]

    def link_next(self, before: int) -> None:
        """Link to the rows with smaller ids than ``before``."""
        kept = {
            name: values[-1].decode("utf-8", "replace")
            for name, values in self.request.query_arguments.items()
        }
        query = urlencode({**kept, "limit": self.query.part.limit, "before": before})
        self.set_header("Link", f'<{self.request.path}?{query}>; rel="next"')

    def reply(self, value: Any, status: int = 200) -> None:
        """Answer with JSON."""
        self.set_status(status)
        self.finish(json.dumps(value))

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Answer every error with an object of status, reason and message."""
        if status_code == 405:
            self.set_header("Allow", ", ".join(sorted(methods_of(type(self)))))
        if status_code == 401:
            self.set_header("WWW-Authenticate", "token")
        if self.answer.retry_after is not None:
            self.set_header("Retry-After", str(self.answer.retry_after))
        self.finish(json.dumps(self.answer.as_json()))


def read_id(noun: str, raw: str) -> int:
    """Return an id out of an address. Raises :exc:`.Problem` when it names nothing."""
    if not raw.isascii() or not raw.isdigit() or len(raw) > MOST_DIGITS:
        raise Problem(404, "not-found", f"There is no {noun} {body.shown(raw)}.")
    return int(raw)
