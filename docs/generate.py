"""Write the generated pages of the reference: ``python docs/generate.py``.

Commands come from their definitions, settings from their traits, the REST API from its OpenAPI
description, events from their schemas. The pages are committed, in plain Markdown, so that they can
be read on a code host; a test fails when they are out of date.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import click
import yaml

from jupyterhub_migspawner.cli.main import COMMANDS, migspawner
from jupyterhub_migspawner.config import MigBroker
from jupyterhub_migspawner.model.events import FAMILIES, KINDS
from jupyterhub_migspawner.service.api.routes import description
from jupyterhub_migspawner.spawner import MigSpawnerMixin
from jupyterhub_migspawner.spawner.launchers.bubblewrap import Bubblewrapped
from jupyterhub_migspawner.spawner.launchers.docker import MigDockerSpawner
from jupyterhub_migspawner.spawner.launchers.systemd import MigSystemdSpawner

#: What stands before a setting in an admin's file.
_PREFIX = {
    MigBroker: "c.MigBroker",
    MigSpawnerMixin: "c.Spawner",
    Bubblewrapped: "c.MigLocalSpawner",
    MigSystemdSpawner: "c.MigSystemdSpawner",
    MigDockerSpawner: "c.MigDockerSpawner",
}

REFERENCE = Path(__file__).parent / "reference"

_NOTE = "<!-- Written by docs/generate.py from the code; do not change it here. -->\n"

#: Options that mean the same everywhere, and are explained once.
_COMMON = ("--help", "--config", "--verbose", "--json", "--wide", "--utc")


def pages() -> dict[str, str]:
    """Return the text of each generated page by its file name."""
    return {
        name: "\n".join([_NOTE, *lines]).rstrip("\n") + "\n"
        for name, lines in {
            "commands.md": commands(migspawner),
            "settings.md": settings(),
            "rest-calls.md": rest(),
            "event-kinds.md": kinds(),
        }.items()
    }


def write(folder: Path = REFERENCE) -> None:
    """Write all generated pages into ``folder``."""
    for name, text in pages().items():
        (folder / name).write_text(text, encoding="utf-8")


def commands(root: click.Command) -> Iterator[str]:
    """Yield a section for every command, after the options that many commands share."""
    every = list(_every(click.Context(root, info_name="migspawner", **root.context_settings)))
    yield "# Commands\n"
    yield "[The command line](cli.md) describes what all commands have in common.\n"
    yield "Options of many commands:\n"
    by_name = {param.opts[-1]: param for ctx in every for param in ctx.command.get_params(ctx)}
    yield from _options([by_name[name] for name in _COMMON])
    for ctx in every:
        yield from _section(ctx)


def _every(ctx: click.Context) -> Iterator[click.Context]:
    """Yield a command and all below it, each as its help would be shown."""
    yield ctx
    for child, _ in _below(ctx):
        yield from _every(child)


def _below(ctx: click.Context) -> Iterator[tuple[click.Context, str]]:
    """Yield the commands below one, each with its summary."""
    command = ctx.command
    if isinstance(command, click.Group):
        for name in command.list_commands(ctx):
            child = command.get_command(ctx, name)
            assert child is not None
            summary = COMMANDS[name][1] if command is migspawner else child.short_help or ""
            yield click.Context(child, info_name=name, parent=ctx), summary


def _section(ctx: click.Context) -> Iterator[str]:
    command, path = ctx.command, ctx.command_path
    yield f"{'#' * min(1 + len(path.split()), 6)} `{path}`\n"
    yield f"{_text(command.help or '')}\n"
    params = sorted(command.get_params(ctx), key=lambda param: isinstance(param, click.Option))
    below = list(_below(ctx))
    words = [_usage(param) for param in params]
    yield f"```text\n{_wrapped(path, [*words, *(['COMMAND …'] if below else [])])}\n```\n"
    own = [param for param in params if param.opts[-1] not in _COMMON]
    if own:
        yield from _options(own)
    if below:
        yield "| command | purpose |\n|---|---|"
        for child, summary in below:
            name = child.command_path
            yield f"| [`{name}`](#{name.replace(' ', '-')}) | {_cell(summary)} |"
        yield ""


def _options(params: Iterable[click.Parameter]) -> Iterator[str]:
    yield "| option | meaning |\n|---|---|"
    for param in params:
        yield f"| `{_written(param)}` | {_cell(param.help or '')} |"
    yield ""


def _written(param: click.Parameter) -> str:
    """Return an option or argument as it is typed."""
    if isinstance(param, click.Option):
        names = ", ".join(param.opts)
        return names if param.is_flag else f"{names} {param.metavar}"
    return str(param.metavar)


def _usage(param: click.Parameter) -> str:
    if isinstance(param, click.Option):
        word = param.opts[0] if param.is_flag else f"{param.opts[0]} {param.metavar}"
        return word if param.required else f"[{word}]"
    return str(param.metavar)


def _wrapped(prog: str, words: list[str]) -> str:
    lines = [prog]
    for word in words:
        if len(lines[-1]) + 1 + len(word) > 80:
            lines.append(" " * len(prog))
        lines[-1] += f" {word}"
    return "\n".join(lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


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
        (Bubblewrapped, "Local servers"),
        (MigSystemdSpawner, "Servers in systemd units"),
        (MigDockerSpawner, "Servers in containers"),
    ):
        yield f"## {heading}\n"
        for name, trait in sorted(vars(owner).items()):
            metadata: dict[str, Any] = getattr(trait, "metadata", {})
            if not metadata.get("config"):
                continue
            default = trait.default() if hasattr(trait, "default") else None
            prefix = _PREFIX[owner]
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
