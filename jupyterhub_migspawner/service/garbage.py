"""Short pauses for the garbage collector.

Relies on CPython (``gc.freeze``). Now and then the collector looks at everything that is alive, and
nothing else of the program runs meanwhile: 60 to 100 ms with all that a service of the hub imports.
Promises that it looks only at what has come since.
"""

from __future__ import annotations

import gc

_kept = False


def keep_short() -> None:
    """Have the collector pass over what is there by now, once; it is there to stay."""
    # Not gc.get_freeze_count(): Python 3.12 freezes some things itself.
    global _kept
    if not _kept:
        _kept = True
        gc.freeze()
