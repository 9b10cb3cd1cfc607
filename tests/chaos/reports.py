"""What servers wrote down of themselves, and which of them live."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from jupyterhub_migspawner.gpu.simulator.processes import start_time


@dataclass(frozen=True)
class Process:
    """One server's process; ``started`` (clock ticks since boot) tells it from a later one."""

    pid: int
    started: int

    @property
    def lives(self) -> bool:
        return start_time(self.pid) == self.started


@dataclass(frozen=True)
class Report:
    """What a server wrote down of itself."""

    process: Process
    user: str
    attempt: str
    slice: str
    events: tuple[str, ...]
    at: float


def read_reports(directory: Path) -> list[Report]:
    """What every server of the day wrote down, in the order of their starts."""
    found = []
    for file in directory.glob("*.jsonl"):
        # A process that was killed in the middle of a line leaves half of one.
        text = file.read_text()
        lines = [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
        if lines:
            first = lines[0]
            found.append(
                Report(
                    Process(first["pid"], first["started"]),
                    first["user"],
                    first["attempt"],
                    first["slice"],
                    tuple(line["event"] for line in lines),
                    first["at"],
                )
            )
    return sorted(found, key=lambda report: report.at)
