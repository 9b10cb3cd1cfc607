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
