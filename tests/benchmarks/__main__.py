"""``make bench``: every figure on a line of its own, and all of them in ``bench.json``.

Figures are differences and ratios within one run, so that they hold on a slow machine too. Nothing
here asserts: a figure over its limit is marked, and the reader decides.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.benchmarks.examine import examine_block_ms
from tests.benchmarks.leases import (
    lease_flat_10k,
    lease_p99_over_median,
    lease_postgres_vs_raw,
    lease_sqlite_vs_raw,
)
from tests.benchmarks.spawn import (
    launch_bubblewrap_ratio,
    launch_docker_ratio,
    launch_systemd_ratio,
    loop_block_ms,
    spawn_added_ms,
)

#: The most a figure may be.
MOST = {
    "spawn_added_ms": 25.0,
    "launch_bubblewrap_ratio": 1.05,
    "launch_systemd_ratio": 1.05,
    "launch_docker_ratio": 1.05,
    "loop_block_ms": 50.0,
    "examine_block_ms": 50.0,
    "examine_strange_block_ms": 50.0,
    "lease_p99_over_median": 10.0,
    "lease_flat_10k": 1.5,
    "tiers_flat_10k": 2.0,
}
#: The least a figure must be.
LEAST = {"lease_sqlite_vs_raw": 0.5, "lease_postgres_vs_raw": 0.5}

MEASURES = (
    lease_sqlite_vs_raw,
    lease_postgres_vs_raw,
    lease_p99_over_median,
    lease_flat_10k,
    spawn_added_ms,
    launch_bubblewrap_ratio,
    launch_systemd_ratio,
    launch_docker_ratio,
    loop_block_ms,
    examine_block_ms,
)


def verdict(name: str, value: float) -> str:
    """The limit of a figure, and whether it is beyond it."""
    if name in MOST:
        return f"  (at most {MOST[name]:g})" + ("  OVER ITS LIMIT" if value > MOST[name] else "")
    if name in LEAST:
        return f"  (at least {LEAST[name]:g})" + (
            "  UNDER ITS LIMIT" if value < LEAST[name] else ""
        )
    return ""


def main(only: Sequence[str] = ()) -> None:
    """Run all benchmarks, or those that are named; some minutes on two cores."""
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="migspawner-bench-") as directory:
        for measure in MEASURES:
            if only and measure.__name__ not in only:
                continue
            found = measure(Path(directory) / measure.__name__)
            figures.update(found)
            for name, value in found.items():
                print(f"{name} {value:g}{verdict(name, value)}", flush=True)
    Path("bench.json").write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
