"""Running a state machine of Hypothesis on the test's database, which is emptied each time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test


def run(machine: type[Any], emptied: Callable[[], str], *, examples: int, steps: int) -> None:
    """Run ``machine``, whose ``url`` is set to an empty lease database for each example."""

    class Machine(machine):  # type: ignore[misc]
        def __init__(self) -> None:
            type(self).url = emptied()
            super().__init__()

    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )
