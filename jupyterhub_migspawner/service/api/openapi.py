"""Generate the OpenAPI 3.1 description of the REST API from the declarations of its handlers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ConfigDict, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from jupyterhub_migspawner.model.parts import MOST_ROWS
from jupyterhub_migspawner.service.api.handler import MOST_ID, USUAL_ROWS, ApiHandler
from jupyterhub_migspawner.service.api.operation import Operation, operations_of
from jupyterhub_migspawner.service.http.problem import Error

Json = dict[str, Any]

INFO = {
    "title": "jupyterhub_migspawner",
    "version": "1",
    "description": "Tiers, slices, leases, the waiting list and requests of the slice broker. "
    "Times are UTC. Sign in with a token of the hub: 'Authorization: token …'. In a browser you "
    "can use the sign-in cookie instead; changes then need the page's XSRF token in the header "
    "X-XSRFToken.",
}

SECURITY = {
    "hubToken": {
        "type": "apiKey",
        "in": "header",
        "name": "Authorization",
        "description": "token TOKEN, or Bearer TOKEN; the token needs the scope "
        "access:services!service=migspawner. Where an operation names scopes, it also needs one of "
        "those.",
    }
}

PAGE = {
    "Limit": {
        "name": "limit",
        "in": "query",
        "description": "The maximum number of entries: the newest ones, oldest first.",
        "required": False,
        "schema": {"type": "integer", "minimum": 1, "maximum": MOST_ROWS, "default": USUAL_ROWS},
    },
    "Before": {
        "name": "before",
        "in": "query",
        "description": "Only entries with smaller ids than this, as given in the header Link of "
        "the previous part.",
        "required": False,
        "schema": {"type": "integer", "minimum": 1, "maximum": MOST_ID},
    },
}

LINK = {
    "description": 'The address of the previous entries, with rel="next"; omitted if there are '
    "none.",
    "required": False,
    "schema": {"type": "string"},
}

#: Refusals that any operation may answer with.
COMMON = {
    400: "the request is invalid",
    401: "not signed in",
    403: "this sign-in does not reach the service, or lacks the XSRF token",
    405: "no such method",
    413: "the body is over 64 KiB",
    415: "the body is not JSON",
    429: "too many changes in a minute, or too many requests at once",
    500: "an unexpected error, which is in the log of the service",
    503: "no capacity, or the lease database or the hub does not answer",
}


class _Schemas(GenerateJsonSchema):
    """Schemas without what says nothing: titles of fields, and defaults that cannot be sent."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        """Return False: no field has a title, as its name says the same."""
        return False

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        """Leave out a default of null: the field may be left out, and cannot be null."""
        found = super().default_schema(schema)
        return {key: value for key, value in found.items() if (key, value) != ("default", None)}

    def generate_inner(self, schema: Any) -> JsonSchemaValue:
        """Write descriptions, which are docstrings, in one line."""
        found = super().generate_inner(schema)
        if isinstance(found.get("description"), str):
            found["description"] = " ".join(found["description"].split())
        return found


def describe(routes: Mapping[str, type[ApiHandler]]) -> Json:
    """Return the description of these routes."""
    declared = [
        (path, method, operation)
        for path, handler in routes.items()
        for method, operation in operations_of(handler).items()
    ]
    types = [Error, *(kind for _, _, each in declared for kind in _types(each))]
    references, schemas = _schemas(types)
    paths: Json = {}
    for path, method, operation in declared:
        paths.setdefault(path, {})[method] = _operation(operation, references)
    return {
        "openapi": "3.1.0",
        "info": INFO,
        "security": [{"hubToken": []}],
        "paths": paths,
        "components": {
            "securitySchemes": SECURITY,
            "parameters": PAGE,
            "headers": {"Link": LINK},
            "responses": {"Refused": _refused(references)},
            "schemas": schemas,
        },
    }


def _types(operation: Operation) -> Iterator[Any]:
    yield operation.answer
    if operation.body is not None:
        yield operation.body


def _schemas(types: list[Any]) -> tuple[dict[str, Json], Json]:
    """Return the schema of each type, by its ``repr``, and all that they refer to by name."""
    config = ConfigDict(use_attribute_docstrings=True)
    # A model has its own; that of a list reaches the views in it.
    adapters: dict[str, TypeAdapter[Any]] = {}
    for kind in types:
        adapters[repr(kind)] = TypeAdapter(list[kind], config=config)  # type: ignore[valid-type]
    found, shared = TypeAdapter.json_schemas(
        [(name, "validation", adapter) for name, adapter in adapters.items()],
        ref_template="#/components/schemas/{model}",
        schema_generator=_Schemas,
    )
    schemas = shared["$defs"]
    for schema in schemas.values():
        schema.pop("title", None)
    return {name: schema["items"] for (name, _), schema in found.items()}, schemas


def _operation(operation: Operation, references: Mapping[str, Json]) -> Json:
    found: Json = {"operationId": operation.name, "summary": operation.summary}
    if operation.description:
        found["description"] = operation.description
    if operation.scopes:
        found["security"] = [{"hubToken": [scope]} for scope in operation.scopes]
    parameters = [*_parameters(operation)]
    if parameters:
        found["parameters"] = parameters
    if operation.body is not None:
        fields = operation.body.model_fields.values()
        found["requestBody"] = {
            "required": any(field.is_required() for field in fields),
            "content": _json(references[repr(operation.body)]),
        }
    done: Json = {"description": operation.done}
    if operation.paged:
        done["headers"] = {"Link": {"$ref": "#/components/headers/Link"}}
    done["content"] = _json(references[repr(operation.answer)])
    if operation.links:
        done["links"] = {
            name: {"operationId": to, "parameters": {"id": "$response.body#/id"}}
            for name, to in operation.links.items()
        }
    error = _json(references[repr(Error)])
    found["responses"] = {
        str(operation.status): done,
        **{
            str(status): {"description": sentence, "content": error}
            for status, sentence in sorted(operation.refusals.items())
        },
        "default": {"$ref": "#/components/responses/Refused"},
    }
    return found


def _parameters(operation: Operation) -> Iterator[Json]:
    if operation.noun:
        yield {
            "name": "id",
            "in": "path",
            "required": True,
            "description": f"The {operation.noun}'s id.",
            "schema": {"type": "integer", "minimum": 1},
        }
    for name, description in operation.flags.items():
        yield {
            "name": name,
            "in": "query",
            "description": description,
            "required": False,
            "schema": {"type": "boolean", "default": False},
        }
    if operation.paged:
        yield from ({"$ref": f"#/components/parameters/{name}"} for name in PAGE)


def _refused(references: Mapping[str, Json]) -> Json:
    statuses = "; ".join(f"{status}: {words}" for status, words in COMMON.items())
    return {
        "description": f"Nothing was changed. {statuses}.",
        "headers": {
            "Retry-After": {
                "description": "With status 429: seconds to wait before trying again.",
                "required": False,
                "schema": {"type": "integer"},
            }
        },
        "content": _json(references[repr(Error)]),
    }


def _json(schema: Json) -> Json:
    return {"application/json": {"schema": schema}}
