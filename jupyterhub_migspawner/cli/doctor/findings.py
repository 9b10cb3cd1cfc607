"""What a check of ``migspawner doctor`` found."""

from __future__ import annotations

from dataclasses import dataclass

OK = "ok"
WARNING = "warning"
WRONG = "wrong"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: how it stands, in a sentence, and what to do about it."""

    check: str
    state: str
    message: str
    mend: str = ""


def isolation_off(spawner: str) -> Finding:
    """Return the finding that a spawner's configuration wants no isolation."""
    return Finding(
        "isolation",
        WARNING,
        f"{spawner}.isolation is 'none': any server can open the slices of others.",
        f"Set c.{spawner}.isolation = 'auto', unless everybody on this machine may do that.",
    )


def isolation_missing(why: str, mend: str, *, demanded: bool) -> Finding:
    """Return the finding that servers cannot be isolated, which is wrong where it is demanded."""
    if demanded:
        return Finding("isolation", WRONG, f"{why} No server can start without that.", mend)
    return Finding(
        "isolation",
        WARNING,
        f"{why} Servers run without isolation: any of them can open the slices of others.",
        mend,
    )
