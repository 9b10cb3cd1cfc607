"""Reading layouts in nvidia-mig-parted's file format (``v1``), which admins already have.

A file names configurations; each is a list of entries that say for some cards of a node whether MIG
is on and how many slices of which profile they get::

    version: v1
    mig-configs:
      morning:
        - devices: all            # or a list of NVML indices
          device-filter: ["0x20B010DE"]   # optional: PCI ids, device and vendor; a colon and
                                  # the board's ids may follow: "0x20B010DE:0x134F10DE"
          mig-enabled: true
          mig-devices: {"3g.20gb": 1, "1g.5gb": 4}

The format is described in the README of NVIDIA/mig-parted and defined in its ``api/spec/v1`` (read
in 0.15); what that program applies is read here. A key that is given twice and a filter that is no
PCI id, which it passes over without a word, are errors. Every error is a
:class:`~jupyterhub_migspawner.errors.ConfigError` with file and line. Compute instances smaller
than their GPU instance (``1c.3g.20gb``) are refused: a slice here is one GPU instance with its one
full compute instance. Names are the text as it is written, so that a configuration may be called
``off``. Relies on PyYAML for the syntax and the line numbers.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from pathlib import Path

import yaml
from yaml.constructor import SafeConstructor

from jupyterhub_migspawner.errors import ConfigError
from jupyterhub_migspawner.gpu.layouts import VERSION, Layout, LayoutEntry, LayoutFile, PciFilter

_FILE_KEYS = ("version", "mig-configs")
_ENTRY_KEYS = ("devices", "device-filter", "mig-enabled", "mig-devices")
# Thor shares the CPU's memory: its profiles are called 1g.0gb and the like.
_PROFILE = re.compile(r"[1-9][0-9]*g\.(0|[1-9][0-9]*)gb([+-][a-z.,]+)?")
_PART = re.compile(r"([1-9][0-9]*)c\.(([1-9][0-9]*)g\..*)")
_PCI_ID = re.compile(r"0[xX][0-9A-Fa-f]{1,8}")
_MERGE = "tag:yaml.org,2002:merge"
_LARGEST_MIB = 1  # files in use have some kilobytes, and YAML is slow to read
_MOST_MERGES = 1000  # merges inside merges multiply: a few lines could fill the memory
_MOST_OF_A_PROFILE = 64  # no card holds more; it keeps a typing error from filling the memory


def load_layouts(path: str | Path) -> LayoutFile:
    """Read a file of layouts.

    Raises :exc:`.ConfigError` when it cannot be read, is larger than 1 MiB, or is no such file.
    """
    largest = _LARGEST_MIB * 1024 * 1024
    try:
        with Path(path).open("rb") as file:
            content = file.read(largest + 1)
    except OSError as error:
        raise ConfigError(f"The layouts' file {path} cannot be read: {error.strerror}.") from error
    if len(content) > largest:
        raise ConfigError(
            f"The layouts' file {path} is larger than {_LARGEST_MIB} MiB; keep in it only the"
            " configurations that are in use."
        )
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"The layouts' file {path} is not text in UTF-8.") from error
    return parse_layouts(text, str(path))


def parse_layouts(text: str, source: str) -> LayoutFile:
    """Read a file's text; ``source`` names it in errors.

    Raises :exc:`.ConfigError` with ``source``, the line and what was expected.
    """
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        place = getattr(error, "problem_mark", None)
        where = f"{source}, line {place.line + 1}" if place is not None else source
        why = getattr(error, "problem", None) or "it is not YAML"
        if "expected a single document" in (getattr(error, "context", None) or ""):
            why = (
                "a second YAML document begins here; keep one of them in the file, with the keys"
                " version and mig-configs"
            )
        raise ConfigError(f"{where}: {why}.") from error
    except RecursionError as error:
        raise ConfigError(f"{source} is nested too deeply to be a file of layouts.") from error
    if root is None:
        raise ConfigError(f"{source} is empty; it must have the keys version and mig-configs.")
    return _Reader(source).file(root)


class _Reader:
    """A reader of the composed YAML, which knows the line of everything."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._values = SafeConstructor()
        self._merging: list[yaml.Node] = []
        self._merges = 0

    def file(self, root: yaml.Node) -> LayoutFile:
        self._refuse_manifest(root)
        fields = self._fields(root, "the file", _FILE_KEYS, required=_FILE_KEYS)
        version = self._scalar(fields["version"])
        if version != VERSION:
            raise self._error(
                fields["version"], f"version is {version!r}, and only {VERSION!r} is known"
            )
        configs = self._pairs(fields["mig-configs"], "mig-configs")
        layouts = {}
        for name, key, value in configs:
            layouts[name] = Layout(name, self._source, _line(key), self._entries(value, name))
        return LayoutFile(self._source, layouts)

    def _refuse_manifest(self, root: yaml.Node) -> None:
        """Refuse a Kubernetes object and name it: the layouts are inside one of its values."""
        if not isinstance(root, yaml.MappingNode):
            return
        found = {key.value: value for key, value in root.value if isinstance(key, yaml.ScalarNode)}
        kind = found.get("kind")
        if "apiVersion" in found and isinstance(kind, yaml.ScalarNode):
            raise self._error(
                kind,
                f"this is a Kubernetes {str(kind.value)[:60]}, not a file of layouts; save the text"
                " under its data, such as that of config.yaml, as a file of its own",
            )

    def _entries(self, node: yaml.Node, name: str) -> tuple[LayoutEntry, ...]:
        if not isinstance(node, yaml.SequenceNode):
            raise self._error(node, f"{name} must be a list of entries, each beginning with a dash")
        return tuple(self._entry(each, name) for each in node.value)

    def _entry(self, node: yaml.Node, name: str) -> LayoutEntry:
        required = ("devices", "mig-enabled")
        fields = self._fields(node, f"an entry of {name}", _ENTRY_KEYS, required=required)
        enabled = self._scalar(fields["mig-enabled"])
        if not isinstance(enabled, bool):
            raise self._error(
                fields["mig-enabled"], f"mig-enabled must be true or false, not {enabled!r}"
            )
        names: tuple[str, ...] = ()
        lines: tuple[int, ...] = ()
        if "mig-devices" in fields:
            names, lines = self._profiles(fields["mig-devices"])
            if names and not enabled:
                raise self._error(
                    fields["mig-devices"], "mig-devices needs mig-enabled: true in its entry"
                )
        return LayoutEntry(
            line=_line(node),
            devices=self._devices(fields["devices"]),
            filters=self._filters(fields.get("device-filter")),
            mig_enabled=enabled,
            names=names,
            lines=lines,
        )

    def _devices(self, node: yaml.Node) -> tuple[int, ...] | None:
        if isinstance(node, yaml.SequenceNode):
            found = [self._scalar(each) for each in node.value]
            indices = [each for each in found if type(each) is int and each >= 0]
            if len(indices) == len(found):
                return tuple(dict.fromkeys(indices))
        elif self._scalar(node) == "all":
            return None
        raise self._error(
            node, "devices must be all, or a list of card numbers from 0, like [0, 1]"
        )

    def _filters(self, node: yaml.Node | None) -> tuple[PciFilter, ...]:
        if node is None or (isinstance(node, yaml.ScalarNode) and node.value in ("", "~", "null")):
            return ()
        nodes = node.value if isinstance(node, yaml.SequenceNode) else [node]
        found = []
        for each in nodes:
            # The text as it was written: YAML itself would read an unquoted 0x20B010DE as a number.
            written = each.value if isinstance(each, yaml.ScalarNode) else ""
            device, colon, board = written.partition(":")
            if not all(_PCI_ID.fullmatch(part) for part in (device, *([board] if colon else ()))):
                raise self._error(
                    each,
                    "device-filter must be one or a list of PCI ids like '0x20B010DE' or"
                    f" '0x20B010DE:0x134F10DE', not {written[:60]!r}",
                )
            found.append(PciFilter(int(device, 16), int(board, 16) if colon else None))
        return tuple(found)

    def _profiles(self, node: yaml.Node) -> tuple[tuple[str, ...], tuple[int, ...]]:
        """Return each profile as often as it is listed, and the line of each."""
        names: list[str] = []
        lines: list[int] = []
        for name, key, value in self._pairs(node, "mig-devices"):
            count = self._scalar(value)
            part = _PART.fullmatch(name)
            if part and part[1] == part[3]:
                name = part[2]  # all of the instance's compute: nothing but the instance itself
            elif part:
                raise self._error(
                    key,
                    f"{name} is a part of a GPU instance; a slice has the whole of it: write"
                    f" {part[2]}",
                )
            if not _PROFILE.fullmatch(name):
                raise self._error(
                    key,
                    f"{name[:60]!r} is not a MIG profile; profiles look like 1g.5gb or 1g.5gb+me",
                )
            if type(count) is not int or not 0 <= count <= _MOST_OF_A_PROFILE:
                raise self._error(
                    value, f"{name} needs a number of slices, 0 or more, not {str(count)[:60]!r}"
                )
            names += [name] * count
            lines += [_line(key)] * count
        return tuple(names), tuple(lines)

    def _fields(
        self, node: yaml.Node, what: str, known: Sequence[str], required: Sequence[str]
    ) -> dict[str, yaml.Node]:
        fields = {}
        for name, key, value in self._pairs(node, what):
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1) or [", ".join(known)]
                raise self._error(key, f"{what} has no key {name[:60]!r}; did you mean {near[0]}?")
            fields[name] = value
        for name in required:
            if name not in fields:
                raise self._error(node, f"{what} lacks the key {name}")
        return fields

    def _pairs(self, node: yaml.Node, what: str) -> list[tuple[str, yaml.Node, yaml.Node]]:
        """Return keys as written, with their nodes and values; merged ones (``<<``) last."""
        if not isinstance(node, yaml.MappingNode):
            raise self._error(node, f"{what} must be keys and values, written as key: value")
        seen: dict[str, int] = {}
        pairs = []
        merged: list[tuple[str, yaml.Node, yaml.Node]] = []
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag == _MERGE:
                parts = value.value if isinstance(value, yaml.SequenceNode) else [value]
                for part in parts:
                    if part in self._merging:
                        raise self._error(key, f"{what} is merged into itself")
                    self._merges += 1
                    if self._merges > _MOST_MERGES:
                        raise self._error(key, "the file merges (<<) more often than is allowed")
                    self._merging.append(part)
                    merged += self._pairs(part, what)
                    self._merging.pop()
                continue
            name = self._name(key)
            if name in seen:
                raise self._error(key, f"{name[:60]} is given again, after line {seen[name]}")
            seen[name] = _line(key)
            pairs.append((name, key, value))
        for name, key, value in merged:
            if name not in seen:
                seen[name] = _line(key)
                pairs.append((name, key, value))
        return pairs

    def _name(self, key: yaml.Node) -> str:
        """Return a key's own text: YAML itself would read an unquoted ``off`` as false."""
        if not isinstance(key, yaml.ScalarNode):
            raise self._error(key, "a single value is expected here")
        if not key.value:
            raise self._error(key, "a name is expected before the colon")
        return str(key.value)

    def _scalar(self, node: yaml.Node) -> object:
        """Return the plain value of a node: text, number, truth or None."""
        if not isinstance(node, yaml.ScalarNode):
            raise self._error(node, "a single value is expected here")
        try:
            return self._values.construct_object(node)
        except (yaml.YAMLError, ValueError) as error:
            raise self._error(node, f"{str(node.value)[:60]!r} cannot be read") from error

    def _error(self, node: yaml.Node, why: str) -> ConfigError:
        separator = "" if why.endswith("?") else "."
        return ConfigError(f"{self._source}, line {_line(node)}: {why}{separator}")


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1
