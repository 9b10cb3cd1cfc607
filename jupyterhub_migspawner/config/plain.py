"""Configuration values as JSON, and back, without losing their types.

Relies on the standard library and traitlets. Promises that what comes back equals what went in, of
the same type: sets, tuples, paths, times, bytes, dicts with any keys, values that the file only
adds to (``c.X.names.add(...)``) and values of a command line that are not parsed yet. A subclass of
a plain type comes back as that type, a class as its dotted name. What is not data (functions,
objects) is left out, and the paths to it are kept. Decoding creates values only: no code is run and
nothing is imported.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path, PurePath
from typing import Any
from zoneinfo import ZoneInfo

from traitlets.config import Config
from traitlets.config.loader import DeferredConfigList, DeferredConfigString, LazyConfigValue

Steps = tuple[Any, ...]
"""The way to a value: names of sections and settings, keys of dicts, indices of lists."""

MOST_DEPTH = 60
"""Containers within containers; what lies deeper counts as an object."""

_TAG = "!"
_ABSENT = object()
_LAZY = ("_extend", "_prepend", "_inserts", "_update")


@dataclass
class Encoder:
    """Encodes values; ``lost`` are the paths to functions and objects that it left out."""

    lost: list[Steps] = field(default_factory=list)

    def encode(self, value: Any, at: Steps = ()) -> Any:
        """Return what :func:`json.dumps` takes.

        What cannot be encoded is left out of its container.
        """
        encoded = self._encode(value, at)
        return None if encoded is _ABSENT else encoded

    def _encode(self, value: Any, at: Steps) -> Any:
        if len(at) > MOST_DEPTH:
            return self._lose(at)
        if value is None or isinstance(value, bool):
            return value
        for kind, encode in _SCALARS:
            if isinstance(value, kind):
                encoded = encode(value)
                return self._lose(at) if encoded is _ABSENT else encoded
        return self._container(value, at)

    def _container(self, value: Any, at: Steps) -> Any:
        if isinstance(value, LazyConfigValue):
            # Its pieces are lists, and a dict or a set; a value that was asked for is created
            # again.
            pieces = {name: getattr(value, name) for name in _LAZY}
            return {_TAG: "lazy", "v": self._pairs(pieces, at)}
        if isinstance(value, DeferredConfigList):
            return {_TAG: "deferred-list", "v": [str(each) for each in value]}
        if isinstance(value, Config):
            return {_TAG: "config", "v": self._pairs(value, at)}
        if isinstance(value, Mapping):
            if all(type(key) is str for key in value) and _TAG not in value:
                return {key: each for [key, each] in self._pairs(value, at)}
            return {_TAG: "dict", "v": self._pairs(value, at)}
        if isinstance(value, list):
            return self._items(value, at)
        if isinstance(value, tuple):
            return {_TAG: "tuple", "v": self._items(value, at)}
        if isinstance(value, (set, frozenset)):
            return self._set(value, at)
        if isinstance(value, type):
            # JupyterHub takes a class and its dotted name alike.
            return f"{value.__module__}.{value.__qualname__}"
        return self._lose(at)

    def _pairs(self, value: Mapping[Any, Any], at: Steps) -> list[list[Any]]:
        pairs = []
        for key, each in value.items():
            name = self._encode(key, at)
            encoded = self._encode(each, (*at, key)) if name is not _ABSENT else _ABSENT
            if encoded is not _ABSENT:
                pairs.append([name, encoded])
        return pairs

    def _items(self, value: Any, at: Steps) -> list[Any]:
        # What is left out of a list stands as null in it, so that paths to the others stay true.
        found = (self._encode(each, (*at, index)) for index, each in enumerate(value))
        return [None if each is _ABSENT else each for each in found]

    def _set(self, value: Set[Any], at: Steps) -> Any:
        # There is no path to one element: a set with an object in it is lost as a whole.
        inner = Encoder()
        items = inner._items(sorted(value, key=repr), at)
        if inner.lost:
            return self._lose(at)
        return {_TAG: "set" if isinstance(value, set) else "frozenset", "v": items}

    def _lose(self, at: Steps) -> Any:
        self.lost.append(at)
        return _ABSENT


def decode(encoded: Any) -> Any:
    """Return the value that was encoded. Raises :exc:`ValueError` for what no encoder made."""
    if isinstance(encoded, list):
        return [decode(each) for each in encoded]
    if not isinstance(encoded, dict):
        return encoded
    if _TAG not in encoded:
        return {key: decode(each) for key, each in encoded.items()}
    try:
        return _DECODERS[encoded[_TAG]](encoded["v"])
    except (KeyError, TypeError, ArithmeticError) as error:
        raise ValueError(f"{encoded[_TAG]!r} is no value of a configuration") from error


def _tagged(tag: str, convert: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: {_TAG: tag, "v": convert(value)}


def _float(value: float) -> Any:
    value = float(value)
    return value if math.isfinite(value) else {_TAG: "float", "v": repr(value)}


def _time(tag: str) -> Callable[[Any], Any]:
    def encode(value: datetime | time) -> Any:
        zone = value.tzinfo
        if zone is None or isinstance(zone, timezone):
            named = ""
        elif isinstance(zone, ZoneInfo) and zone.key:
            named, value = zone.key, value.replace(tzinfo=None)
        else:
            return _ABSENT
        return {_TAG: tag, "v": [value.isoformat(), named, value.fold]}

    return encode


def _time_back(kind: type[datetime] | type[time]) -> Callable[[Any], Any]:
    def decoded(value: list[Any]) -> Any:
        at: Any = kind.fromisoformat(value[0])
        if value[1]:
            at = at.replace(tzinfo=ZoneInfo(value[1]))
        return at.replace(fold=value[2])

    return decoded


_SCALARS: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (DeferredConfigString, _tagged("deferred", str.__str__)),
    (str, str.__str__),
    (int, int),
    (float, _float),
    (bytes, _tagged("bytes", lambda value: value.decode("latin-1"))),
    (PurePath, _tagged("path", str)),
    (datetime, _time("datetime")),
    (date, _tagged("date", date.isoformat)),
    (time, _time("time")),
    (timedelta, _tagged("timedelta", lambda v: [v.days, v.seconds, v.microseconds])),
    (Decimal, _tagged("decimal", str)),
)


def _mapping(pairs: Any) -> dict[Any, Any]:
    return {decode(key): decode(value) for key, value in pairs}


def _lazy(pairs: Any) -> LazyConfigValue:
    value = LazyConfigValue()
    for name, piece in _mapping(pairs).items():
        if name in _LAZY:
            setattr(value, name, piece)
    return value


_DECODERS: dict[str, Callable[[Any], Any]] = {
    "deferred": DeferredConfigString,
    "deferred-list": DeferredConfigList,
    "lazy": _lazy,
    "config": lambda pairs: Config(_mapping(pairs)),
    "dict": _mapping,
    "tuple": lambda items: tuple(decode(each) for each in items),
    "set": lambda items: {decode(each) for each in items},
    "frozenset": lambda items: frozenset(decode(each) for each in items),
    "float": float,
    "bytes": lambda text: text.encode("latin-1"),
    "path": Path,
    "datetime": _time_back(datetime),
    "date": date.fromisoformat,
    "time": _time_back(time),
    "timedelta": lambda v: timedelta(days=v[0], seconds=v[1], microseconds=v[2]),
    "decimal": Decimal,
}
