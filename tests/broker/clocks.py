"""A machine whose wall clock and count of seconds are apart, and processes that go by them."""

from __future__ import annotations

from datetime import timedelta

import pytest

from jupyterhub_migspawner.broker import Broker
from jupyterhub_migspawner.db.clock import LeaseClock, Machine
from jupyterhub_migspawner.policy.clock import Count
from tests.broker.lab import START, Lab


class Clocks:
    """The clocks of one machine, which move when told to."""

    def __init__(self) -> None:
        self.boot_id = "boot-1"
        self.ticks = self.awake = 1000.0
        self.wall = START

    def pass_time(self, **units: float) -> None:
        seconds = timedelta(**units).total_seconds()
        self.ticks += seconds
        self.awake += seconds
        self.wall += timedelta(**units)

    def sleep(self, **units: float) -> None:
        self.ticks += timedelta(**units).total_seconds()
        self.wall += timedelta(**units)

    def machine(self) -> Machine:
        return Machine(self.boot_id, lambda: Count(self.ticks, self.awake), lambda: self.wall)


def process(lab: Lab, clocks: Clocks, monkeypatch: pytest.MonkeyPatch) -> Broker:
    """The broker of another process of this machine, over the lab's database.

    PostgreSQL's own clock cannot be set in a test; there, too, the wall clock stands for it.
    """
    broker = Broker(lab.store, lab.broker.settings, machine=clocks.machine())
    if lab.store.postgres:
        monkeypatch.setattr("jupyterhub_migspawner.broker.clock.ASK_SECONDS", 0.0)
        monkeypatch.setattr(LeaseClock, "wall", lambda self, tx: clocks.wall)
        clock = broker.context.lease_clock
        assert isinstance(clock, LeaseClock)
        clock._server = lambda: clocks.wall  # type: ignore[assignment]
        monkeypatch.setattr(clock, "keep_in_step", lambda: None)
    return broker
