"""Declare an operation of the REST API: one method of one handler.

The declaration is the whole contract. What a method takes and answers is its signature: a parameter
of type ``int`` is the id in the address and named after its noun (``lease_id``), one of a
:class:`~.models.base.Body` is the request's body, and the return type is what is answered. The rest
goes to :func:`operation`. The handler is called with checked values only, and the OpenAPI
description says the same as the code, because both come from the declaration.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, get_type_hints

from tornado.web import RequestHandler

from jupyterhub_migspawner.hub.scopes import ADMIN_SCOPE, APPROVE_SCOPE, SELF_SCOPE
from jupyterhub_migspawner.service.api.models.base import Body
from jupyterhub_migspawner.service.http.auth import ALL_SERVERS
from jupyterhub_migspawner.service.http.scopes import START_SCOPES

if TYPE_CHECKING:
    from jupyterhub_migspawner.service.api.handler import ApiHandler

P = ParamSpec("P")
H = TypeVar("H", bound="ApiHandler")
T = TypeVar("T")

#: Scopes of which a token needs one, besides the access to the service.
ADMIN = (ADMIN_SCOPE, ALL_SERVERS)
DECIDE = (APPROVE_SCOPE, SELF_SCOPE)
START = START_SCOPES


@dataclass(frozen=True)
class Operation:
    """What is known of an operation.

    ``name`` is unique in the API. ``scopes`` are those of which a token needs one, none where it
    opens what is its owner's. ``flags`` are query parameters that are true or false, with their
    descriptions; a ``paged`` one also takes ``limit`` and ``before``. ``refusals`` describe the
    statuses that are refusals of this operation in particular. ``links`` name the operations that
    take the id of what is answered. ``noun`` is what the id in the address is of, or empty.
    """

    name: str
    summary: str
    description: str
    status: int
    done: str
    answer: Any
    body: type[Body] | None = None
    noun: str = ""
    scopes: tuple[str, ...] = ()
    paged: bool = False
    flags: Mapping[str, str] = field(default_factory=dict)
    refusals: Mapping[int, str] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)


def operation(
    name: str,
    *,
    status: int = 200,
    done: str = "Done.",
    scopes: tuple[str, ...] = (),
    paged: bool = False,
    flags: Mapping[str, str] | None = None,
    refusals: Mapping[int, str] | None = None,
    links: Mapping[str, str] | None = None,
) -> Callable[[Callable[Concatenate[H, P], Awaitable[T]]], Callable[..., Awaitable[None]]]:
    """Declare the method of a handler; its docstring is the summary and the description.

    The method returns the JSON value to answer ``status`` with. It finds the query's parameters in
    ``self.query``.
    """

    def declare(
        method: Callable[Concatenate[H, P], Awaitable[T]],
    ) -> Callable[..., Awaitable[None]]:
        hints = get_type_hints(method)
        summary, _, description = (inspect.getdoc(method) or "").partition("\n\n")
        ids = [each for each, hint in hints.items() if hint is int]
        bodies = [
            hint for hint in hints.values() if inspect.isclass(hint) and issubclass(hint, Body)
        ]
        declared = Operation(
            name,
            " ".join(summary.split()),
            " ".join(description.split()),
            status,
            done,
            hints["return"],
            bodies[0] if bodies else None,
            ids[0].removesuffix("_id") if ids else "",
            scopes,
            paged,
            flags or {},
            refusals or {},
            links or {},
        )

        @wraps(method)
        async def serve(self: H, *address: str) -> None:
            arguments = self.read(declared, address)
            self.reply(await method(self, *arguments), declared.status)  # type: ignore[call-arg]

        serve.operation = declared  # type: ignore[attr-defined]
        return serve

    return declare


def methods_of(handler: type[RequestHandler]) -> frozenset[str]:
    """Return the HTTP methods that a handler serves."""
    return frozenset(
        method
        for method in RequestHandler.SUPPORTED_METHODS
        if getattr(handler, method.lower()) is not getattr(RequestHandler, method.lower())
    )


def operations_of(handler: type[RequestHandler]) -> dict[str, Operation]:
    """Return the operations that a handler declares, by their HTTP method in lower case."""
    return {
        method.lower(): getattr(handler, method.lower()).operation
        for method in RequestHandler.SUPPORTED_METHODS
        if method in methods_of(handler)
    }
