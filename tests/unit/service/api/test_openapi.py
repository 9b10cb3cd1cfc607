"""The API's description and its handlers say the same."""

from __future__ import annotations

import inspect
import json

from jsonschema import Draft202012Validator

from jupyterhub_migspawner.hub.scopes import ADMIN_SCOPE
from jupyterhub_migspawner.service.api import routes
from jupyterhub_migspawner.service.api.models.base import Body
from jupyterhub_migspawner.service.api.operation import (
    ADMIN,
    DECIDE,
    Operation,
    methods_of,
    operations_of,
)
from tests.unit.service.described import declared
from tests.unit.service.http.test_scopes import ADMIN as NEEDS_ADMIN
from tests.unit.service.http.test_scopes import API, OWN

METHODS = {"get", "put", "post", "delete", "options", "head", "patch", "trace"}


def operations() -> dict[str, Operation]:
    """Every operation by its name."""
    return {
        each.name: each
        for handler in routes.ROUTES.values()
        for each in operations_of(handler).values()
    }


def test_every_address_and_method_is_described_and_served() -> None:
    described = {
        path: {name.upper() for name in item if name in METHODS}
        for path, item in routes.description()["paths"].items()
    }
    served = {path: set(methods_of(handler)) for path, handler in routes.ROUTES.items()}
    assert described == served


def test_every_operation_has_a_name_of_its_own_and_says_how_it_can_end() -> None:
    described = [
        operation
        for item in routes.description()["paths"].values()
        for name, operation in item.items()
        if name in METHODS
    ]
    names = [operation["operationId"] for operation in described]
    assert len(set(names)) == len(names)
    for operation in described:
        assert operation["summary"].endswith(".")
        assert "default" in operation["responses"]
        assert any(code.startswith("2") for code in operation["responses"])


def test_every_shape_is_a_schema_and_every_reference_leads_somewhere() -> None:
    description = routes.description()
    for schema in description["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)

    def follow(value: object) -> None:
        if isinstance(value, dict):
            reference = value.get("$ref")
            if reference is not None:
                found: object = description
                for part in str(reference).removeprefix("#/").split("/"):
                    assert isinstance(found, dict)
                    found = found[part]
            for each in value.values():
                follow(each)
        elif isinstance(value, list):
            for each in value:
                follow(each)

    follow(description)


def test_the_fields_that_are_read_are_the_fields_that_are_described() -> None:
    schemas = routes.description()["components"]["schemas"]
    for operation in operations().values():
        if operation.body is not None:
            schema = schemas[operation.body.__name__]
            assert set(schema["properties"]) == set(operation.body.model_fields)
            assert schema["additionalProperties"] is False


def test_what_changes_something_declares_its_body() -> None:
    """A handler without one would let any body pass, misspelt fields and all."""
    for handler in routes.ROUTES.values():
        for method, operation in operations_of(handler).items():
            assert (operation.body is not None) == (method != "get"), operation.name


def test_an_id_in_the_address_has_a_noun_and_may_name_nothing() -> None:
    for path, handler in routes.ROUTES.items():
        for operation in operations_of(handler).values():
            assert bool(operation.noun) == ("{id}" in path)
            assert ("{id}" not in path) or 404 in operation.refusals


def test_links_lead_to_operations_that_take_an_id() -> None:
    known = operations()
    for operation in known.values():
        for name in operation.links.values():
            assert known[name].noun


def test_scopes_are_those_that_the_table_of_rights_demands() -> None:
    for (method, path), (need, _) in API.items():
        operation = declared(method, path.removeprefix("api"))
        if "?" in path or "#" in path or operation is None:
            continue  # what a parameter or a field opens, its description says
        if need == NEEDS_ADMIN:
            assert operation.scopes == ADMIN
        elif need == OWN:
            assert operation.scopes == ()
    # One's own request needs none of them.
    assert operations()["cancelRequest"].scopes == ()
    assert operations()["approveRequest"].scopes == DECIDE
    assert ADMIN_SCOPE in ADMIN


def test_the_description_is_json_and_in_nobodys_words_but_ours() -> None:
    description = routes.description()
    assert json.loads(json.dumps(description)) == description
    assert inspect.getdoc(Body) not in json.dumps(description)
    assert "pydantic" not in json.dumps(description)
