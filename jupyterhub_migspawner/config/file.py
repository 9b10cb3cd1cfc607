"""Read a ``jupyterhub_config.py`` outside a hub, and say why it cannot be read here.

Relies on traitlets. Promises that whatever the file raises becomes one sentence that names the
line, and the environment variable, module or file that is missing here; the hub may have it.
"""

from __future__ import annotations

import os
import re
import socket
import stat
import sys
from pathlib import Path
from types import FrameType, TracebackType

from traitlets.config import Config
from traitlets.config.loader import PyFileConfigLoader

from jupyterhub_migspawner.errors import ConfigError, MigspawnerError

#: Environment variables that a line asks for without demanding them.
_ASKED = re.compile(r"""(?:getenv|environ\.(?:get|pop))\(\s*["'](\w+)["']""")


class NotHere(ConfigError):
    """The file needs something that this process lacks; a hub in its own unit may well have it."""


def load_config_file(path: str | Path) -> Config:
    """Read a ``jupyterhub_config.py`` as the hub would. Raises :exc:`.ConfigError`."""
    file = readable(path)
    config = execute(file, _content(file))
    if "directory" not in config.MigBroker:
        config.MigBroker.directory = str(file.parent)
    if "hub_home" not in config.MigBroker:
        config.MigBroker.hub_home = home_of(file)
    return config


def execute(file: Path, text: bytes) -> Config:
    """Return what the text of a configuration file sets. Raises :exc:`.ConfigError`.

    ``file`` is where it stands, or stood: relative subconfigurations are looked for beside it.
    """
    loader = PyFileConfigLoader(file.name, path=str(file.parent))
    loader.clear()
    config: Config = loader.config
    namespace = {
        "c": config,
        "get_config": lambda: config,
        "load_subconfig": loader.load_subconfig,
        "__file__": str(file),
    }
    try:
        exec(compile(text, str(file), "exec"), namespace, namespace)  # noqa: S102
    except MigspawnerError:
        raise
    except SystemExit as error:
        raise ConfigError(
            f"{file} ends the program (exit status {error.code!r}) when it is read; "
            "it must only set traits."
        ) from None
    except Exception as error:
        raise _explained(file, error) from error
    return config


def readable(path: str | Path) -> Path:
    """Return a configuration file's absolute path if it can be read. Raises :exc:`.ConfigError`."""
    way_out = "name another one with --config FILE."
    try:
        file = expanded(str(path)).absolute()
        mode = file.stat().st_mode
        if stat.S_ISREG(mode):
            file.open("rb").close()
            return file
    except FileNotFoundError:
        raise ConfigError(
            f"There is no configuration file {file}; name one with --config FILE."
        ) from None
    except PermissionError:
        raise ConfigError(
            f"This user is not permitted to read the configuration file {file}; run this as the "
            f"user that runs the hub, or {way_out}"
        ) from None
    except (OSError, RuntimeError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error).rstrip(".")
        raise ConfigError(
            f"The configuration file {str(path)[:400]!r} cannot be read ({why}); {way_out}"
        ) from None
    what = "a directory" if stat.S_ISDIR(mode) else "not a regular file"
    raise ConfigError(f"The configuration file {file} is {what}; {way_out}")


def expanded(path: str) -> Path:
    """Return the path with ``~`` filled in; without such a user, it stays and is not found."""
    return Path(os.path.expanduser(path))


def home_of(place: Path) -> str:
    """Return what identifies the hub that is configured there among all others."""
    return f"{socket.gethostname()}:{place.resolve()}"


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"The configuration file {file} cannot be read ({error.strerror})."
        ) from None


def _explained(file: Path, error: Exception) -> ConfigError:
    """Return why the file cannot be read, in a sentence."""
    where, number, line = _place(file, error.__traceback__)
    at = f"{where}, line {number}," if number else f"{where}"
    if (name := _missing_variable(error)) is not None:
        return NotHere(_needs(at, name))
    if isinstance(error, ModuleNotFoundError) and error.name:
        return NotHere(
            f"{at} imports {error.name!r}, which {sys.executable} does not have. Run this with the "
            "hub's Python, and with its PYTHONPATH if it has one."
        )
    if isinstance(error, OSError) and isinstance(error.filename, (str, bytes)):
        return NotHere(
            f"{at} uses {os.fsdecode(error.filename)!r}, which cannot be used here: "
            f"{error.strerror}. Run this as the user that runs the hub, from the folder in which "
            "the hub starts; or start the hub, and its settings are used."
        )
    what = f"{where} cannot be read as a configuration: {type(error).__name__}: {error}"
    if number and not isinstance(error, SyntaxError):
        what = f"{what} (line {number})"
    unset = [name for name in _ASKED.findall(line) if name not in os.environ]
    if unset:
        return NotHere(f"{what}. {_needs('That line', unset[0])}")
    return ConfigError(what)


def _needs(what: str, name: str) -> str:
    return (
        f"{what} needs the environment variable {name}, which is not set here. The hub has its own "
        "environment, such as that of its systemd unit. Start the hub, and its settings are used; "
        f"or set {name} here as well; or give it a default: os.environ.get({name!r}, …)."
    )


def _place(file: Path, trace: TracebackType | None) -> tuple[str, int, str]:
    """Return the file, the line's number and its text.

    The file is this one, or a subconfiguration; the number is 0 without a line.
    """
    found = str(file), 0
    while trace is not None:
        named = _config_file(trace.tb_frame)
        if named:
            found = named, trace.tb_lineno
        trace = trace.tb_next
    name, number = found
    try:
        lines = Path(name).read_text("utf-8", "replace").splitlines()
    except OSError:
        lines = []
    return name, number, lines[number - 1] if 0 < number <= len(lines) else ""


def _config_file(frame: FrameType) -> str:
    """Return the configuration file that a frame executes; empty for any other code."""
    name = frame.f_code.co_filename
    if "load_subconfig" in frame.f_globals and frame.f_globals.get("__file__") == name:
        return name
    return ""


def _missing_variable(error: Exception) -> str | None:
    """Return the environment variable whose absence raised this KeyError; None for other errors."""
    if not isinstance(error, KeyError) or not error.args:
        return None
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = trace.tb_frame.f_locals.get("self") if trace is not None else None
    if where is not os.environ and where is not getattr(os, "environb", os.environ):
        return None
    name = error.args[0]
    return os.fsdecode(name) if isinstance(name, (str, bytes)) else str(name)
