"""The API's description and its handlers say the same."""

from __future__ import annotations

from jsonschema import Draft202012Validator

from jupyterhub_migspawner.service.api import routes
from jupyterhub_migspawner.service.api.handler import methods_of

METHODS = {"get", "put", "post", "delete", "options", "head", "patch", "trace"}


def test_every_address_and_method_is_described_and_served() -> None:
    described = {
        path: {name.upper() for name in item if name in METHODS}
        for path, item in routes.description()["paths"].items()
    }
    served = {path: set(methods_of(handler)) for path, handler in routes.ROUTES.items()}
    assert described == served


def test_every_operation_has_a_name_of_its_own_and_says_how_it_can_end() -> None:
    operations = [
        operation
        for item in routes.description()["paths"].values()
        for name, operation in item.items()
        if name in METHODS
    ]
    names = [operation["operationId"] for operation in operations]
    assert len(set(names)) == len(names)
    for operation in operations:
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
    assert set(schemas["Approval"]["properties"]) == set(routes.Approve.known)
    assert set(schemas["Reason"]["properties"]) == set(routes.Deny.known) == set(routes.REASON)
    assert set(schemas["Nothing"]["properties"]) == set(routes.Cancel.known)
    assert set(schemas["NewRequest"]["properties"]) == set(routes.NEW_REQUEST)
