"""Whether an answer of the REST API is as its operation is declared, key by key."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from jsonschema import Draft202012Validator

from jupyterhub_migspawner.service.api.openapi import COMMON
from jupyterhub_migspawner.service.api.operation import Operation, operations_of
from jupyterhub_migspawner.service.api.routes import ROUTES, description


def declared(method: str, path: str) -> Operation | None:
    """The operation of a method and an address below ``api``, which may have a query."""
    address = path.partition("?")[0]
    for pattern, handler in ROUTES.items():
        if re.fullmatch(pattern.replace("{id}", "[^/]+"), address):
            return operations_of(handler).get(method.lower())
    return None


def check_answer(method: str, path: str, status: int, found: Any) -> None:
    """Raise AssertionError or ValidationError where an answer is not as declared."""
    operation = declared(method, path)
    if status >= 400:
        known = {404, 405} if operation is None else {*COMMON, *operation.refusals}
        assert status in known | set(COMMON), f"{method} {path} does not declare {status}: {found}"
        validator("Error").validate(found)
    else:
        assert operation is not None, f"{method} {path} is no operation"
        assert status == operation.status
        validator(operation.name).validate(found)


@cache
def validator(name: str) -> Draft202012Validator:
    """What checks the answer of an operation, or an ``Error``."""
    whole = closed(description())
    schema: Any = {"$ref": "#/components/schemas/Error"}
    for item in whole["paths"].values():
        for operation in item.values():
            if operation["operationId"] == name:
                done = min(operation["responses"])
                schema = operation["responses"][done]["content"]["application/json"]["schema"]
    return Draft202012Validator({**schema, "components": whole["components"]})


def closed(value: Any) -> Any:
    """A description in which an object has no fields but those that are described."""
    if isinstance(value, list):
        return [closed(each) for each in value]
    if not isinstance(value, dict):
        return value
    found = {key: closed(each) for key, each in value.items()}
    if found.get("type") == "object" and "properties" in found:
        found["additionalProperties"] = False
    return found
