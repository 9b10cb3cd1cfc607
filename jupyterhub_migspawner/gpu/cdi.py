"""CDI specifications: which device of a container engine is exactly one slice.

An engine that knows the Container Device Interface is asked for a device by name, and gives the
container what a file says of that name. ``nvidia-ctk cdi generate`` writes such files and does not
notice when cards are cut again, and it names MIG devices by an index that moves when they are. So a
slice's device is searched by the nodes that it gives, and a file that has none with exactly the
slice's is reported as outdated before anything is launched.

Relies on the specification's format (``SPEC.md`` of cncf-tags/container-device-interface, 0.3 to
1.0). Promises that nothing in these files raises anything but :exc:`.LaunchError`, and that their
reading is bounded.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

from jupyterhub_migspawner.errors import LaunchError
from jupyterhub_migspawner.gpu.devices import DeviceNode
from jupyterhub_migspawner.policy.wording import listed

FOLDERS = ("/etc/cdi", "/var/run/cdi")
"""Where engines look for specifications by default; a later folder wins."""

KIND = "nvidia.com/gpu"

MOST_FILES = 64
MOST_BYTES = 4 << 20
MOST_DEVICES = 4096
MOST_NODES = 32768

#: Nodes of the driver that are no slice's and no card's: every container may have them.
COMMON = frozenset(
    {"/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools", "/dev/nvidia-modeset"}
)

_RENDER = re.compile(r"/dev/dri/(card|renderD)\d+")
_MOST_NAMED = 3
# Without libyaml, its slower twin. Neither gives a scalar a type, or merges mappings.
_Loader: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)


class Malformed(Exception):
    """What makes a file no specification, in words that follow its name."""


@dataclass(frozen=True)
class Device:
    """A device of a specification, with the device nodes of the host that it gives.

    ``numbers`` are the major and minor numbers that the file itself gives for some of them.
    """

    name: str
    file: Path
    nodes: frozenset[str]
    numbers: tuple[tuple[str, int, int], ...] = ()

    @property
    def qualified(self) -> str:
        """The name by which an engine is asked for it."""
        return f"{KIND}={self.name}"


@dataclass(frozen=True)
class Specifications:
    """The devices of the files in an engine's folders, and what is wrong with some files."""

    folders: tuple[str, ...]
    devices: tuple[Device, ...] = ()
    files: tuple[Path, ...] = ()
    problems: tuple[str, ...] = ()


@dataclass
class _Found:
    by_name: dict[str, Device] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def read_specifications(folders: Sequence[str] = FOLDERS) -> Specifications:
    """Return the NVIDIA devices of the files in these folders, the most important folder last.

    A name that two files of one folder give is no device: engines refuse it.
    """
    found = _Found()
    for folder in folders:
        here: dict[str, Device] = {}
        twice: set[str] = set()
        for path in _files(Path(folder), found.problems):
            try:
                devices = _devices(path)
            except Malformed as error:
                found.problems.append(f"{path} {error}")
                continue
            if devices:
                found.files.append(path)
            for device in devices:
                if device.name in here:
                    twice.add(device.name)
                    found.problems.append(
                        f"{path} and {here[device.name].file} both have {device.qualified}"
                    )
                here[device.name] = device
        found.by_name |= here
        for name in twice:
            del found.by_name[name]
    return Specifications(
        tuple(folders), tuple(found.by_name.values()), tuple(found.files), tuple(found.problems)
    )


def device_of(
    specifications: Specifications,
    nodes: Sequence[DeviceNode],
    uuid: str,
    *,
    root: Path = Path("/"),
) -> Device:
    """Return the device that gives exactly these nodes, and the driver's that are no slice's.

    ``nodes`` are those of one slice or card, and ``uuid`` is its UUID, by which it may be named.
    ``root`` is where ``dev`` lies.

    Raises :exc:`.LaunchError` where there is none: with the file, what it lists, what was expected
    and the way out.
    """
    expected = _own(node.path for node in nodes)
    is_slice = any(node.capability is not None for node in nodes)
    named, others = None, []
    matching = []
    for device in specifications.devices:
        if device.name == "all":
            continue  # it may be this slice alone now, and another one as well in a moment
        own = _own(device.nodes)
        if not is_slice:
            own = frozenset(path for path in own if not _RENDER.fullmatch(path))
        if own == expected and expected:
            matching.append(device)
        if device.name == uuid:
            named = device
        elif own & expected:
            others.append(device)
    if named is not None and named not in matching:
        raise _outdated(specifications, expected, [named])
    for device in sorted(matching, key=lambda each: each.name != uuid):
        wrong = _wrong_number(device, root)
        if wrong:
            raise _outdated(specifications, expected, [device], wrong)
        return device
    # Those of the same card have its node in common; the likeliest come first.
    others.sort(key=lambda each: -len(_own(each.nodes) & expected))
    raise _outdated(specifications, expected, others)


def _own(paths: Iterable[str]) -> frozenset[str]:
    return frozenset(path for path in paths if path not in COMMON)


def _outdated(
    specifications: Specifications,
    expected: frozenset[str],
    devices: Sequence[Device],
    why: str = "",
) -> LaunchError:
    """Return the error for specifications that do not have a slice as it is now."""
    wanted = f"expected is a device with exactly {_paths(expected)}"
    if devices:
        said = [
            f"{each.file} lists {each.qualified} with {_paths(_own(each.nodes))}"
            for each in devices[:_MOST_NAMED]
        ]
        if len(devices) > _MOST_NAMED:
            said.append(f"{len(devices) - _MOST_NAMED} more of that card")
        found = "; ".join(said)
    elif specifications.files:
        found = f"{listed([str(each) for each in specifications.files])} has no device of that card"
    else:
        found = f"there is no file of kind {KIND} in {listed(list(specifications.folders))}"
    file = devices[0].file if devices else (specifications.files or (None,))[-1]
    output = file or Path(specifications.folders[-1] if specifications.folders else FOLDERS[-1])
    if file is None:
        output = output / "nvidia.yaml"
    ills = "".join(f" Also, {each}." for each in specifications.problems[:_MOST_NAMED])
    return LaunchError(
        f"The CDI specification does not have the slice as it is now: {found}; {wanted}"
        f"{f', and {why}' if why else ''}. Run 'nvidia-ctk cdi generate --output={output}' after "
        f"each cut; MigBroker.after_cut can do that.{ills}"
    )


def _paths(paths: Iterable[str]) -> str:
    every = sorted(paths)
    more = [f"{len(every) - 8} more"] if len(every) > 8 else []
    return listed([*every[:8], *more]) if every else "no device file of its own"


def _wrong_number(device: Device, root: Path) -> str:
    """Return which node of a device has other numbers than its file says, in words."""
    for path, major, minor in device.numbers:
        try:
            real = os.stat(root / path.lstrip("/")).st_rdev
        except OSError:
            continue  # whether it has to exist, others say
        if (os.major(real), os.minor(real)) != (major, minor):
            return (
                f"the file gives {path} the numbers {major}:{minor}, while they are "
                f"{os.major(real)}:{os.minor(real)}"
            )
    return ""


def _files(folder: Path, problems: list[str]) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            names = sorted(e.name for e in islice(entries, 4096) if _is_specification(e.name))
    except FileNotFoundError:
        return []
    except OSError as error:
        problems.append(f"{folder} cannot be read ({error.strerror})")
        return []
    if len(names) > MOST_FILES:
        problems.append(f"{folder} has more than {MOST_FILES} specifications")
    return [folder / name for name in names[:MOST_FILES]]


def _is_specification(name: str) -> bool:
    return name.endswith((".yaml", ".yml", ".json")) and not name.startswith(".")


def _devices(path: Path) -> list[Device]:
    """Return the NVIDIA devices of one file; none where it is another vendor's."""
    document = _parsed(path)
    if not isinstance(document, dict):
        raise Malformed("is no CDI specification")
    if document.get("kind") != KIND:
        return []
    count = 0
    common = list(_nodes(document))
    devices: list[Device] = []
    for entry in _sequence(document, "devices")[: MOST_DEVICES + 1]:
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str | int):
            raise Malformed("has a device without a name")
        nodes = [*common, *_nodes(entry)]
        count += len(nodes)
        if count > MOST_NODES or len(devices) >= MOST_DEVICES:
            raise Malformed("has more devices than a machine can have")
        devices.append(
            Device(
                str(entry["name"]),
                path,
                frozenset(host for host, *_ in nodes),
                tuple((p, ma, mi) for p, ma, mi in nodes if ma is not None and mi is not None),
            )
        )
    return devices


def _nodes(owner: dict[Any, Any]) -> Iterator[tuple[str, int | None, int | None]]:
    """Yield the device nodes of a specification's or a device's edits, with their numbers."""
    edits = owner.get("containerEdits") or {}
    if not isinstance(edits, dict):
        raise Malformed("has containerEdits that are no mapping")
    for node in _sequence(edits, "deviceNodes")[: MOST_NODES + 1]:
        path = node.get("hostPath") or node.get("path") if isinstance(node, dict) else None
        if not isinstance(path, str) or not path:
            raise Malformed("has a device node without a path")
        yield os.path.normpath(path), _number(node, "major"), _number(node, "minor")


def _number(node: dict[Any, Any], name: str) -> int | None:
    value = str(node.get(name, ""))
    return int(value) if re.fullmatch(r"[0-9]{1,10}", value) else None


def _sequence(owner: dict[Any, Any], name: str) -> list[Any]:
    found = owner.get(name) or []
    if not isinstance(found, list):
        raise Malformed(f"has {name} that are no list")
    return found


def _parsed(path: Path) -> Any:
    try:
        # A name in /var/run may be anything; a pipe without a writer would block here.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise Malformed(f"cannot be read ({error.strerror})") from None
    if content is None or len(content) > MOST_BYTES:
        raise Malformed(f"is longer than {MOST_BYTES >> 20} MiB")
    try:
        text = content.decode("utf-8")
        if path.suffix == ".json":
            return json.loads(text)
        return yaml.load(text, Loader=_Loader)  # it makes texts only
    except RecursionError:
        raise Malformed("is nested too deeply") from None
    except (yaml.YAMLError, ValueError, TypeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = getattr(mark, "line", getattr(error, "lineno", 0) - 1) + 1
        where = f", line {line}," if line > 0 else ""
        raise Malformed(f"is no CDI specification{where} and is passed over") from None
