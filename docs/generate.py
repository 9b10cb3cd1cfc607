"""Write the generated pages of the reference: ``python docs/generate.py``.

Commands come from their parsers, settings from their traits, the REST API from its OpenAPI
description, events from their schemas. The pages are committed, in plain Markdown, so that they can
be read on a code host; a test fails when they are out of date.
"""

from __future__ import annotations

import argparse
import inspect
import json
from collections.abc import Iterable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from jupyterhub_migspawner.cli.command import build_parser
from jupyterhub_migspawner.cli.main import Migspawner
from jupyterhub_migspawner.config import MigBroker
from jupyterhub_migspawner.model.events import FAMILIES, KINDS
from jupyterhub_migspawner.service.api.routes import description
from jupyterhub_migspawner.spawner import MigSpawnerMixin

REFERENCE = Path(__file__).parent / "reference"

_NOTE = "<!-- Written by docs/generate.py from the code; do not change it here. -->\n"

#: Options that mean the same everywhere, and are explained once.
_COMMON = ("help", "config", "verbose", "json", "wide", "utc")


def pages() -> dict[str, str]:
    """Return the text of each generated page by its file name."""
    return {
        name: "\n".join([_NOTE, *lines]).rstrip("\n") + "\n"
        for name, lines in {
            "commands.md": commands(build_parser(Migspawner, "migspawner", whole=True)),
            "settings.md": settings(),
            "rest-calls.md": rest(),
            "event-kinds.md": kinds(),
        }.items()
    }


def write(folder: Path = REFERENCE) -> None:
    """Write all generated pages into ``folder``."""
    for name, text in pages().items():
        (folder / name).write_text(text, encoding="utf-8")


def commands(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Yield a section for every command, after the options that many commands share."""
    yield "# Commands\n"
    yield "[The command line](cli.md) describes what all commands have in common.\n"
    yield "Options of many commands:\n"
    by_name = {a.dest: a for command in _every(parser) for a in command._actions}
    yield from _options([by_name[name] for name in _COMMON])
    yield from _sections(parser, 2)


def _every(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    for child, _ in _below(parser):
        yield from _every(child)
    yield parser


def _below(parser: argparse.ArgumentParser) -> Iterator[tuple[argparse.ArgumentParser, str]]:
    """Yield the commands below one, each with its summary."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for choice in action._choices_actions:
                yield action.choices[choice.dest], choice.help or ""


def _sections(parser: argparse.ArgumentParser, level: int) -> Iterator[str]:
    below = list(_below(parser))
    yield f"{'#' * min(level, 6)} `{parser.prog}`\n"
    yield f"{_text(parser.description or '')}\n"
    actions = [a for a in parser._actions if not isinstance(a, argparse._SubParsersAction)]
    words = [_usage(action) for action in actions]
    yield f"```text\n{_wrapped(parser.prog, [*words, *(['COMMAND …'] if below else [])])}\n```\n"
    own = [action for action in actions if action.dest not in _COMMON]
    if own:
        yield from _options(own)
    if below:
        yield "| command | purpose |\n|---|---|"
        for child, summary in below:
            yield f"| [`{child.prog}`](#{child.prog.replace(' ', '-')}) | {_cell(summary)} |"
        yield ""
    for child, _ in below:
        yield from _sections(child, level + 1)


def _options(actions: Iterable[argparse.Action]) -> Iterator[str]:
    yield "| option | meaning |\n|---|---|"
    for action in actions:
        yield f"| `{_written(action)}` | {_cell(action.help or '')} |"
    yield ""


def _written(action: argparse.Action) -> str:
    """Return an option or argument as typed; argparse's own form differs between Pythons."""
    value = action.metavar or (
        "{" + ",".join(map(str, action.choices)) + "}" if action.choices else action.dest.upper()
    )
    if isinstance(value, tuple):
        value = " ".join(value)
    if not action.option_strings:
        return value
    names = ", ".join(action.option_strings)
    return names if action.nargs == 0 else f"{names} {value}"


def _usage(action: argparse.Action) -> str:
    many = "" if action.nargs in (None, 0, "?") else " …"
    if not action.option_strings:
        word = f"{_written(action)}{many}"
        return f"[{word}]" if action.nargs in ("?", "*") else word
    name = action.option_strings[0]
    word = _written(action).replace(", ".join(action.option_strings), name, 1) + many
    return word if action.required else f"[{word}]"


def _wrapped(prog: str, words: list[str]) -> str:
    lines = [prog]
    for word in words:
        if len(lines[-1]) + 1 + len(word) > 80:
            lines.append(" " * len(prog))
        lines[-1] += f" {word}"
    return "\n".join(lines)


def _cell(text: str) -> str:
    return " ".join(text.replace("%%", "%").split()).replace("|", "\\|")


def _text(description: str) -> str:
    """Return a description as paragraphs; in a fence if it has indented lines."""
    text = inspect.cleandoc(description)
    if any(line.startswith(" ") for line in text.splitlines()):
        return f"```text\n{text}\n```"
    return text


def settings() -> Iterator[str]:
    """Yield a section for each class with traits, with an entry for each trait."""
    yield "# Settings\n"
    yield "[The configuration](configuration.md) explains how to write them.\n"
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
    """Yield a section for each family of events: its kinds, and the fields of their detail."""
    yield "# Kinds of events\n"
    yield "[Events](events.md) explains what an event is and how to read events.\n"
    schemas = files("jupyterhub_migspawner.service").joinpath("event-schemas")
    for family in FAMILIES:
        schema = yaml.safe_load(schemas.joinpath(f"{family}.yaml").read_text("utf-8"))
        yield f"## `{family}`\n"
        yield f"{schema['description']} Schema `{schema['$id']}`, version {schema['version']}.\n"
        yield "| kind | meaning |\n|---|---|"
        for kind in schema["properties"]["kind"]["enum"]:
            yield f"| `{kind}` | {KINDS[kind]} |"
        yield "\n| field of `detail` | type | meaning |\n|---|---|---|"
        for name, field in schema["properties"]["detail"]["properties"].items():
            types = field["type"] if isinstance(field["type"], list) else [field["type"]]
            yield f"| `{name}` | {' or '.join(types)} | {field['description']} |"
        yield ""


def rest() -> Iterator[str]:
    """Yield a section for each address and method, then one for each type of JSON object."""
    yield "# REST calls\n"
    yield "[The REST API](rest-api.md) describes what all calls have in common.\n"
    whole = description()
    for path, item in whole["paths"].items():
        for method, operation in item.items():
            yield f"## `{method.upper()} {path}`\n"
            yield f"{operation['summary'].rstrip('.')}.\n"
            if operation.get("description"):
                yield f"{operation['description']}\n"
            tokens = operation.get("security", ())
            scopes = [f"`{scope}`" for token in tokens for scope in token["hubToken"]]
            if scopes:
                yield f"The token needs {' or '.join(scopes)}.\n"
            flags = [each for each in operation.get("parameters", ()) if each.get("in") == "query"]
            if flags:
                yield "| parameter | |\n|---|---|"
                for flag in flags:
                    yield f"| `{flag['name']}` | {_cell(flag['description'])} |"
                yield ""
            if "requestBody" in operation:
                name = _type(_schema(operation["requestBody"]))
                needed = "" if operation["requestBody"]["required"] else "; it can be omitted"
                yield f"The body is {name}{needed}.\n"
            for status, response in operation["responses"].items():
                if "description" in response:
                    answer = f" ({_type(_schema(response))})" if status < "3" else ""
                    yield f"- `{status}`: {response['description']}{answer}"
            yield ""
    yield "## Types\n"
    yield "A body can omit all fields that are not marked *Required*. Times are in ISO 8601, with"
    yield "their zone.\n"
    for name, schema in sorted(whole["components"]["schemas"].items()):
        yield f"### `{name}`\n"
        yield f"{schema['description']}\n"
        if schema["properties"]:
            yield from _fields(schema)


def _fields(schema: dict[str, Any]) -> Iterator[str]:
    body = schema.get("additionalProperties") is False
    yield "| field | type | |\n|---|---|---|"
    for name, field in schema["properties"].items():
        words = [field.get("description", "")]
        if body:
            if name in schema.get("required", ()):
                words.insert(0, "*Required.*")
            elif field.get("default") not in (None, ""):
                words.append(f"Default: `{json.dumps(field['default'])}`.")
        yield f"| `{name}` | {_type(field)} | {_cell(' '.join(filter(None, words)))} |"
    yield ""


def _schema(content: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = content["content"]["application/json"]["schema"]
    return found


def _type(schema: dict[str, Any]) -> str:
    """Return the type of a value in words, e.g. ``text or null``."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[`{name}`](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(_type(each) for each in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if schema["type"] == "array":
        return f"list of {_type(schema['items'])}"
    if schema.get("format") == "date-time":
        return "time"
    words = {"string": "text", "boolean": "true or false", "integer": "whole number"}
    return words.get(schema["type"], schema["type"])


if __name__ == "__main__":
    write()
