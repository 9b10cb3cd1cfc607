"""The generated half of the reference: commands from their parsers, settings from their traits,
the REST API from its OpenAPI description.
"""

from __future__ import annotations

import argparse
import inspect
import json
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from jupyterhub_migspawner.cli.command import build_parser
from jupyterhub_migspawner.cli.main import Migspawner
from jupyterhub_migspawner.config import MigBroker
from jupyterhub_migspawner.leases.kinds import FAMILIES, KINDS
from jupyterhub_migspawner.spawner import MigSpawnerMixin


def write(folder: Path) -> None:
    """Write all generated pages into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, lines in {
        "commands.md": commands(build_parser(Migspawner, "migspawner"), level=2),
        "settings.md": settings(),
        "rest.md": rest(),
        "kinds.md": kinds(),
    }.items():
        (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")


def commands(parser: argparse.ArgumentParser, level: int) -> Iterator[str]:
    """A section for a command, and for every command below it."""
    yield f"{'#' * level} `{parser.prog}`\n"
    yield f"```text\n{parser.format_help().rstrip()}\n```\n"
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                yield from commands(child, level + 1)


def settings() -> Iterator[str]:
    """A section for each class with traits, an entry for each trait."""
    for owner, heading in (
        (MigBroker, "c.MigBroker"),
        (MigSpawnerMixin, "The spawner"),
    ):
        yield f"## {heading}\n"
        for name, trait in sorted(vars(owner).items()):
            metadata: dict[str, Any] = getattr(trait, "metadata", {})
            if not metadata.get("config"):
                continue
            default = trait.default() if hasattr(trait, "default") else None
            prefix = "c.MigBroker" if owner is MigBroker else "c.Spawner"
            yield f"### `{prefix}.{name}`\n"
            yield inspect.cleandoc(trait.help).replace("``", "`") + "\n"
            if name not in ("node", "hub_home"):
                yield f"Default: `{default!r}`\n"


def kinds() -> Iterator[str]:
    """A section for each family of events: its kinds, and what their detail may say."""
    schemas = files("jupyterhub_migspawner.service").joinpath("event-schemas")
    for family in FAMILIES:
        schema = yaml.safe_load(schemas.joinpath(f"{family}.yaml").read_text("utf-8"))
        yield f"### `{family}`\n"
        yield f"{schema['description']} Schema `{schema['$id']}`, version {schema['version']}.\n"
        yield "| kind | what happened |\n|---|---|"
        for kind in schema["properties"]["kind"]["enum"]:
            yield f"| `{kind}` | {KINDS[kind]} |"
        yield "\n| in `detail` | type | |\n|---|---|---|"
        for name, field in schema["properties"]["detail"]["properties"].items():
            types = field["type"] if isinstance(field["type"], list) else [field["type"]]
            yield f"| `{name}` | {' or '.join(types)} | {field['description']} |"
        yield ""


def rest() -> Iterator[str]:
    """A section for each address and method."""
    text = files("jupyterhub_migspawner.service").joinpath("openapi.json").read_text("utf-8")
    for path, item in json.loads(text)["paths"].items():
        for method, operation in item.items():
            if method not in ("get", "post", "put", "patch", "delete"):
                continue
            yield f"## `{method.upper()} {path}`\n"
            yield f"{operation.get('summary', '').rstrip('.')}.\n"
            if operation.get("description"):
                yield f"{operation['description']}\n"
            for status, response in operation.get("responses", {}).items():
                if "description" in response:
                    yield f"- `{status}`: {response['description']}"
            yield ""
