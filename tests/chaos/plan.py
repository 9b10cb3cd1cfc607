"""What happens in a day of chaos, all of it decided beforehand by one number, the seed.

The same seed, length and people give the same plan. What comes of it depends on the machine too:
a kill hits whatever the processes are doing at that moment.
"""

from __future__ import annotations

import random
from collections.abc import Collection
from dataclasses import dataclass

#: What people do with their server, and how often against the rest.
CLICKS = {"small": 8, "large": 3, "card": 1, "hasty": 3, "stop": 3, "wait": 3}

#: What is killed, and how often against the rest.
BLOWS = {
    "hub": 4,
    "service": 3,
    "hub and service": 2,
    "clock": 2,
    "descriptors": 1,
    "port of the service": 2,
    "mark": 3,
    "database lost": 1,
    "database swapped": 1,
    "hub and service, database restored": 1,
}
BLOWS_TO_A_SERVER = {
    "server of the database": 3,
    "server of the database at once": 2,
    "hub and server of the database": 1,
}


@dataclass(frozen=True)
class Step:
    """Wait ``pause`` seconds, then do ``what``; ``later`` (0 to 1) decides how exactly."""

    pause: float
    what: str
    later: float


@dataclass(frozen=True)
class Plan:
    """Steps of each person, and of the killer: more than fit into ``seconds``, several times."""

    seed: int
    seconds: float
    people: dict[str, tuple[Step, ...]]
    blows: tuple[Step, ...]


def make_plan(
    seed: int, seconds: float, people: int, *, server: bool, only: Collection[str] = ()
) -> Plan:
    """A day of ``seconds``; ``server`` says that the database is one that can be restarted.

    ``only`` names the blows to choose from; all of them when it is empty.
    """
    blows = {**BLOWS, **BLOWS_TO_A_SERVER} if server else BLOWS
    if only:
        if unknown := sorted(set(only) - {*BLOWS, *BLOWS_TO_A_SERVER}):
            raise ValueError(f"There is no blow {unknown}; known are {sorted(blows)}.")
        blows = {what: often for what, often in blows.items() if what in only}
    return Plan(
        seed,
        seconds,
        {
            f"user{number}": _steps(f"{seed}/{number}", seconds, CLICKS, 3.0)
            for number in range(people)
        },
        _steps(f"{seed}/blows", seconds, blows, 10.0),
    )


def _steps(seed: str, seconds: float, kinds: dict[str, int], longest: float) -> tuple[Step, ...]:
    chance = random.Random(seed)
    steps = []
    # A day may take longer, until enough has happened.
    left = 10 * seconds
    while left > 0:
        # Many short pauses and a few long ones.
        pause = longest * chance.random() ** 2
        left -= pause
        (what,) = chance.choices(list(kinds), list(kinds.values()))
        steps.append(Step(pause, what, chance.random()))
    return tuple(steps)
