"""Short pauses for the garbage collector.

Relies on CPython (``gc.freeze``). Now and then the collector looks at everything that is alive, and
nothing else of the program runs meanwhile: 60 to 100 ms with all that a service of the hub imports.
"""

from __future__ import annotations

import gc


def keep_short() -> None:
    """Have the collector pass over what is there by now; it is there to stay.

    Call it once, when everything is loaded: what is there now is never freed.
    """
    gc.collect()
    gc.freeze()
