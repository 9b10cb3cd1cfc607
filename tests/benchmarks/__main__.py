"""``make bench``: every figure on a line of its own, and all of them in ``bench.json``.

Figures are differences and ratios within one run, so that they hold on a slow machine too. Nothing
here asserts: a figure over its limit is marked, and the reader decides.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from tests.benchmarks.spawn import loop_block_ms, spawn_added_ms

#: The most a figure may be (or, below zero, the least it must be).
LIMITS = {"spawn_added_ms": 25.0, "loop_block_ms": 50.0}


def main() -> None:
    """Run all benchmarks; a few minutes on two cores."""
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="migspawner-bench-") as directory:
        for measure in (spawn_added_ms, loop_block_ms):
            found = measure(Path(directory) / measure.__name__)
            figures.update(found)
            for name, value in found.items():
                limit = LIMITS.get(name)
                verdict = "" if limit is None else f"  (limit {limit:g})"
                if limit is not None and value > limit:
                    verdict += "  OVER ITS LIMIT"
                print(f"{name} {value:g}{verdict}", flush=True)
    Path("bench.json").write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
