"""All that can go wrong, in one place.

Every message is a sentence that names the thing and the way out; it is shown as it stands in the
spawn form, in REST answers and on the command line. Text that came from a person or a file is
put in with ``repr``-like quoting by the caller and escaped where it is rendered, never here.
"""

from __future__ import annotations


class MigspawnerError(Exception):
    """Base of every error this package raises on purpose."""


class ConfigError(MigspawnerError):
    """The admin's file is wrong: names tier or quota, field, what was found and expected."""


class DatabaseError(MigspawnerError):
    """The lease database cannot be used: which one, why, and what to do."""


class GpuError(MigspawnerError):
    """NVML refused or failed: names the card and the way out.

    ``code`` is the NVML return code (``nvmlReturn_t``), or None when NVML itself is missing.
    """

    def __init__(self, message: str, *, code: int | None = None) -> None:
        super().__init__(message)
        self.code = code


class LaunchError(MigspawnerError):
    """A server cannot be launched as it has to be: says why, and the way out, for admins."""


class UnitError(MigspawnerError):
    """The unit of a server cannot be started, asked for or stopped: says which, and why."""


class EngineError(MigspawnerError):
    """The container engine does not answer, or refuses: says what it was asked, and why."""


class Refusal(MigspawnerError):
    """A person asked for something and does not get it; nothing was changed.

    ``reason`` is one of a few stable words, fit for a metric label: ``options`` (the request makes
    no sense), ``not-allowed``, ``approval`` (needs a grant), ``quota``, ``capacity``,
    ``not-found``, ``conflict``, ``too-many``. ``status`` is the HTTP status that carries it, and
    ``retry_after`` how many seconds later it may be allowed, where that is known. ``soon`` says
    that waiting for a few seconds may help: all that is in the way is an earlier session of the
    same person that is just ending.
    """

    STATUS = {
        "options": 400,
        "not-allowed": 403,
        "approval": 403,
        "quota": 403,
        "not-found": 404,
        "conflict": 409,
        "too-many": 429,
        "capacity": 503,
    }

    def __init__(
        self, message: str, *, reason: str, soon: bool = False, retry_after: int | None = None
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.soon = soon
        self.retry_after = retry_after
        self.status = self.STATUS[reason]
