"""The configuration as the hub resolved it, as data that its other parts use.

Relies on the hub, which read its file, its command line and its environment. Promises that a part
which is given this comes to the same settings, whatever its own environment; that passwords and
tokens of other sections stay with the hub; and that what is not data (functions, handlers of
events) is made from the text that the hub read, with the hub's environment, never from a file that
has changed since.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from traitlets.config import Config
from traitlets.config.loader import DeferredConfig, DeferredConfigString, LazyConfigValue

from jupyterhub_migspawner.config.file import execute
from jupyterhub_migspawner.config.plain import Encoder, Steps, decode
from jupyterhub_migspawner.errors import ConfigError

FORMAT = 1
"""Of the document; a part that does not know it does not use it."""

BROKER = "MigBroker"

#: Settings whose objects a part makes again; functions in all others are the hub's alone.
_MADE_AGAIN = {BROKER: None, "EventLogger": None, "JupyterHub": ("template_vars",)}

#: What stands for a password or token that stays with the hub.
HIDDEN = "(kept by the hub)"

_SECRET_NAME = re.compile(
    r"(password|passwd|passphrase|secret|token|(api|crypt|access|private)_key)s?$", re.IGNORECASE
)
_PASSWORD_IN_URL = re.compile(r"(://[^/@]*:)[^@]+(@)|(\bpassword=)[^&\s]+")
_MENTIONED = re.compile(
    r"""(?:getenv\(|environ\.(?:get|pop)\()\s*["'](\w+)["']"""
    r"""|environ\[\s*["'](\w+)["']\s*\](?!\s*=[^=])"""
)

_SUBCONFIG = re.compile(r"""load_subconfig\(\s*["']([^"'\n]+)["']""")

#: Variables that are the same everywhere, or of no matter to a broker.
_COMMON = {"HOME", "LANG", "LOGNAME", "PATH", "TMPDIR", "USER"}

#: Variables of the hub by which databases and channels are reached, as their libraries read them.
_WAYS = re.compile(r"PG[A-Z]+|(?i:(http|https|all|no)_proxy)")


@dataclass(frozen=True)
class Source:
    """What the file's objects are made from again; only where it has any."""

    text: bytes = field(repr=False)
    argv: tuple[str, ...]
    environ: Mapping[str, str] = field(repr=False)
    folder: str


@dataclass(frozen=True)
class Resolved:
    """What a hub hands on.

    ``digests`` are those of the file and of what it loads with ``load_subconfig``, by path.
    ``overrides`` are the settings that its command line sets, and ``variables`` the environment
    variables that its file asks for; names only, no values. ``ways`` are the variables with which
    the hub reaches its lease database and channels.
    """

    file: str
    digests: Mapping[str, str]
    read_at: datetime
    pid: int
    overrides: tuple[str, ...]
    variables: tuple[str, ...]
    settings: Any = field(repr=False)
    ways: Mapping[str, str] = field(default_factory=dict, repr=False)
    lost: tuple[Steps, ...] = ()
    source: Source | None = field(default=None, repr=False)

    def config(self, sections: Collection[str] = (BROKER,)) -> Config:
        """Return the configuration, with the objects of these sections.

        Raises :exc:`.ConfigError`.
        """
        config = Config(decode(self.settings))
        wanted = [steps for steps in self.lost if steps[0] in sections]
        if wanted:
            self._put_back(config, wanted)
        return config

    def changed(self) -> tuple[str, ...]:
        """Return the files that are not as the hub read them; those that cannot be read, too."""
        return tuple(path for path, digest in self.digests.items() if _digest(path) != digest)

    def to_bytes(self) -> bytes:
        """Return the document; it holds passwords, so it is nobody's but the hub's user's."""
        source = self.source
        return json.dumps(
            {
                "format": FORMAT,
                "file": self.file,
                "digests": dict(self.digests),
                "read_at": self.read_at.isoformat(),
                "pid": self.pid,
                "overrides": self.overrides,
                "variables": self.variables,
                "settings": self.settings,
                "ways": dict(self.ways),
                "lost": Encoder().encode(self.lost),
                "source": source
                and Encoder().encode(
                    [source.text, list(source.argv), dict(source.environ), source.folder]
                ),
            }
        ).encode()

    @classmethod
    def from_bytes(cls, document: bytes) -> Resolved:
        """Read a document. Raises :exc:`ValueError` for what is none of this version."""
        try:
            data = json.loads(document)
            if data["format"] != FORMAT:
                raise ValueError(f"format {data['format']!r}")
            source = decode(data["source"])
            return cls(
                file=data["file"],
                digests=data["digests"],
                read_at=datetime.fromisoformat(data["read_at"]),
                pid=data["pid"],
                overrides=tuple(data["overrides"]),
                variables=tuple(data["variables"]),
                settings=data["settings"],
                ways=data["ways"],
                lost=decode(data["lost"]),
                source=source and Source(source[0], tuple(source[1]), source[2], source[3]),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"no settings of a hub: {error!r}") from error

    def _put_back(self, config: Config, wanted: Iterable[Steps]) -> None:
        assert self.source is not None
        with _as_the_hub(self.source):
            again = execute(Path(self.file), self.source.text)
        for steps in wanted:
            section, name, *inner = steps
            try:
                if name not in again[section]:
                    raise KeyError(name)
                made = _plain_value(again[section], name)
                if section != BROKER:
                    config[section][name] = again[section][name]
                    continue
                config[section][name] = _with(config[section].get(name), inner, made)
            except (KeyError, IndexError, TypeError):
                raise ConfigError(
                    f"{_shown(steps)} is a function or an object, which the hub cannot pass on "
                    f"as data. {self.file} was executed again for it, but did not define it this "
                    "time. Define it in the same way each time the file is read."
                ) from None


def of_document(document: bytes, sections: tuple[str, ...] = (BROKER,)) -> Config:
    """Return the configuration in a document of this version's hub. Raises :exc:`.ConfigError`."""
    try:
        return Resolved.from_bytes(document).config(sections)
    except ValueError as error:
        raise ConfigError(
            "The hub runs a different version of this package than the installed one "
            f"({error}). Restart the hub."
        ) from None


def resolve(
    config: Config,
    broker: Mapping[str, Any],
    *,
    file: Path,
    text: bytes,
    overrides: Config,
    read_at: datetime,
) -> Resolved:
    """Return what this process, the hub, hands on.

    ``config`` is its whole configuration, ``broker`` the values of the broker's traits, ``text``
    what it read in ``file`` and ``overrides`` what its command line sets.
    """
    visible = Config(
        {
            name: _without_secrets(section)
            for name, section in config.items()
            if isinstance(section, Config) and name != BROKER
        }
    )
    visible[BROKER] = Config(broker)
    _leave_out_functions(visible)
    encoder = Encoder()
    settings = encoder.encode({name: dict(section) for name, section in visible.items()})
    lost = tuple(steps for steps in encoder.lost if _is_made_again(steps))
    return Resolved(
        file=str(file),
        digests=_digests(file, text),
        read_at=read_at,
        pid=os.getpid(),
        overrides=tuple(
            sorted(
                f"{section}.{name}"
                for section, values in overrides.items()
                # What else a hub's command line may set, such as its port, is no matter of ours.
                if section == BROKER or section.endswith("Authenticator")
                for name in values
            )
        ),
        variables=_variables(text),
        settings=settings,
        ways={name: value for name, value in os.environ.items() if _WAYS.fullmatch(name)},
        lost=lost,
        source=Source(text, tuple(sys.argv), dict(os.environ), os.getcwd()) if lost else None,
    )


def _variables(text: bytes) -> tuple[str, ...]:
    found = {name for pair in _MENTIONED.findall(text.decode("utf-8", "replace")) for name in pair}
    return tuple(sorted(found - _COMMON - {""}))


def settled(config: Config, classes: Iterable[type]) -> Config:
    """Parse the values of a command line as the traits of these classes.

    ``config`` is changed, and returned.
    """
    known: dict[str, Any] = {}
    for each in classes:
        for parent in each.__mro__:
            if hasattr(parent, "class_traits"):
                known.setdefault(parent.__name__, parent)
    for section, values in config.items():
        traits = known[section].class_traits() if section in known else {}
        for name, value in values.items() if isinstance(values, Config) else ():
            if isinstance(value, DeferredConfig) and name in traits:
                # What the trait does not take is the hub's to say.
                with contextlib.suppress(TypeError, ValueError):
                    values[name] = value.get_value(traits[name])
    return config


def _digests(file: Path, text: bytes) -> dict[str, str]:
    """Return the files that a configuration consists of, as far as their names stand in it."""
    digests = {str(file): hashlib.sha256(text).hexdigest()}
    texts = [text]
    # Beside the file, JupyterHub reads one of the same name in JSON.
    paths = [file.with_suffix(".json")]
    while texts:
        names = _SUBCONFIG.findall(texts.pop().decode("utf-8", "replace"))
        paths += [file.parent / name for name in names]
        while paths:
            path = paths.pop()
            if str(path) not in digests and (digest := _digest(str(path))):
                digests[str(path)] = digest
                with contextlib.suppress(OSError):
                    texts.append(path.read_bytes())
    return digests


def _digest(path: str) -> str:
    """Return what tells one content of a file from another; empty where it cannot be read."""
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError:
        return ""


def is_secret(name: str, value: Any) -> bool:
    """Return whether a setting, or something in it, looks like a password, a token or a key."""
    if isinstance(value, (str, bytes)):
        text = value if isinstance(value, str) else value.decode("utf-8", "replace")
        named = bool(text) and _SECRET_NAME.search(name) is not None
        return named or _PASSWORD_IN_URL.search(text) is not None
    if isinstance(value, dict):
        return any(is_secret(str(key), each) for key, each in value.items())
    if isinstance(value, (list, tuple)):
        return any(is_secret(name, each) for each in value if not isinstance(each, str))
    return False


def _without_secrets(value: Any, name: str = "") -> Any:
    if isinstance(value, Config):
        return Config({key: _without_secrets(each, key) for key, each in value.items()})
    if isinstance(value, LazyConfigValue):
        pieces = LazyConfigValue()
        for piece in ("_extend", "_prepend", "_inserts", "_update"):
            setattr(pieces, piece, _without_secrets(getattr(value, piece), name))
        return pieces
    if _SECRET_NAME.search(name):
        # Of the same type: a class of the hub's may still be made with it.
        if isinstance(value, (str, bytes)) and value:
            return HIDDEN if isinstance(value, str) else HIDDEN.encode()
        for kind in (list, tuple, dict, set, frozenset):
            if isinstance(value, kind):
                return kind()
    if isinstance(value, dict):
        return {key: _without_secrets(each, str(key)) for key, each in value.items()}
    if isinstance(value, list):
        return [_without_secrets(each, name) for each in value]
    if isinstance(value, tuple):
        return tuple(_without_secrets(each, name) for each in value)
    if isinstance(value, str):
        shown = _PASSWORD_IN_URL.sub(rf"\1\3{HIDDEN}\2", value)
        return DeferredConfigString(shown) if isinstance(value, DeferredConfigString) else shown
    return value


def _leave_out_functions(config: Config) -> None:
    """Remove the functions in the hub's template_vars.

    The hub calls them with its own user object, which is nowhere else.
    """
    variables = config.JupyterHub.get("template_vars")
    if isinstance(variables, dict):
        config.JupyterHub.template_vars = {k: v for k, v in variables.items() if not callable(v)}


def _is_made_again(steps: Steps) -> bool:
    names = _MADE_AGAIN.get(steps[0], ())
    return names is None or steps[1] in names


def _plain_value(section: Config, name: str) -> Any:
    value = section[name]
    if not isinstance(value, LazyConfigValue):
        return value
    # As the traits of the broker take it: c.MigBroker.tiers.append(...), notices.update(...).
    return value.get_value({} if name in ("quotas", "notices") else [])


def _with(value: Any, inner: list[Any], made: Any) -> Any:
    """Return the value with what stands at the steps ``inner`` of ``made`` put in."""
    if not inner:
        if _is_data(made):
            raise TypeError("this is data now")
        return made
    first, *rest = inner
    if isinstance(value, tuple):
        items = list(value)
        items[first] = _with(items[first], rest, made[first])
        return tuple(items)
    value[first] = _with(
        value.get(first) if isinstance(value, dict) else value[first], rest, made[first]
    )
    return value


def _is_data(value: Any) -> bool:
    encoder = Encoder()
    encoder.encode(value)
    return not encoder.lost


def _shown(steps: Steps) -> str:
    section, name, *inner = steps
    return f"{section}.{name}" + "".join(f"[{step!r}]" for step in inner)


@contextlib.contextmanager
def _as_the_hub(source: Source) -> Iterator[None]:
    """Use the hub's environment, command line and folder, while its file is executed again."""
    own, argv, folder = dict(os.environ), sys.argv, os.getcwd()
    try:
        os.environ.clear()
        os.environ.update(source.environ)
        sys.argv = list(source.argv)
        with contextlib.suppress(OSError):
            os.chdir(source.folder)
        yield
    finally:
        os.environ.clear()
        os.environ.update(own)
        sys.argv = argv
        with contextlib.suppress(OSError):
            os.chdir(folder)
