"""Lives of servers in processes that die on the way.

``python -m tests.chaos.lives`` reads one life a line from its input, as JSON, forks a process that
lives it, and answers with how that ended: the number of the signal, negative, or 0. What the hub
would have written down on the way goes into a journal.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
import traceback
from datetime import timedelta
from pathlib import Path
from typing import Any

from traitlets.config import Config

from jupyterhub_migspawner.agent import Agent, make_agent
from jupyterhub_migspawner.broker import Broker
from jupyterhub_migspawner.broker.readings import Answer
from jupyterhub_migspawner.config import MigBroker
from jupyterhub_migspawner.policy.people import Person
from jupyterhub_migspawner.policy.reclaim import KERNELS, PROCESSES
from tests.chaos.fuse import burn, light
from tests.chaos.spawner import Spawner

TIERS = [
    {"name": "small", "profile": "1g.5gb"},
    {"name": "card", "profile": "whole"},
    {"name": "idling", "profile": "1g.5gb", "idle_minutes": 60},
]
NODE = "n1"


def config_of(folder: Path, url: str) -> Config:
    """The admin's file, as it were."""
    return Config(
        {
            "MigBroker": {
                "tiers": TIERS,
                "database_url": url,
                "directory": str(folder),
                "nvml": "sim:cards.json",
                "node": NODE,
            }
        }
    )


def work_until_given_back(agent: Agent, broker: Broker, patience: float = 60) -> None:
    """Rounds of the agent until nothing is lent to ada any more.

    One look may leave open whether a slice is empty: with many processes on the machine, each round
    reads a share of what they carry.
    """
    give_up = time.monotonic() + patience
    while broker.leases.find(user="ada"):
        assert time.monotonic() < give_up, broker.leases.find(user="ada")
        agent.tick()


async def session(config: Config, journal: Path) -> None:
    """A server is started, runs, and is stopped."""
    spawner = Spawner("ada", config)
    await spawner.hub_starts()
    assert spawner.process is not None
    burn("before the hub writes down the server")
    journal.write_text(json.dumps([spawner.process.pid, spawner.process.started]))
    burn("after the hub wrote down the server")
    await spawner.hub_stops()
    burn("before the hub forgets the server")
    journal.unlink()
    burn("after the hub forgot the server")
    options = MigBroker(config=config)
    broker = options.open_broker()
    if broker.leases.find(user="ada"):
        work_until_given_back(make_agent(options), broker)


async def whole_card(config: Config, journal: Path) -> None:
    """A whole card is lent, cut, used and given back, with an agent that works in between."""
    options = MigBroker(config=config)
    broker, agent = options.open_broker(), make_agent(options)
    lease = broker.leases.acquire(Person("ada"), "", "card", "the-card")
    assert lease is not None
    agent.tick()
    found = broker.leases.of_attempt("the-card")
    assert found is not None
    assert found.slice_uuid
    broker.leases.activate("the-card")
    broker.leases.release_server("ada", "", "stopped", "hub")
    work_until_given_back(agent, broker)
    agent.tick()


async def idle(config: Config, journal: Path) -> None:
    """A session that nobody uses is warned of its end, kept once by its person, and ended."""
    options = MigBroker(config=config)
    broker, agent = options.open_broker(), make_agent(options)
    real, ahead = broker.context.clock, timedelta()
    broker.context.clock = lambda: real() + ahead
    lease = broker.leases.acquire(Person("ada"), "", "idling", "the-idle-one")
    assert lease is not None
    broker.leases.activate("the-idle-one")
    broker.readings.reach("the-idle-one", "http://127.0.0.1:1/", "v1:sealed")
    quiet = [Answer(lease.id, source, fingerprint="quiet") for source in (KERNELS, PROCESSES)]
    broker.readings.note(quiet)
    for minutes, act in (
        (46, lambda: broker.sessions.warn_idle([lease.id])),
        (1, lambda: broker.sessions.extend(lease.id, Person("ada"))),
        (59, lambda: broker.sessions.warn_idle([lease.id])),
        (16, lambda: broker.sessions.end_over(lease.id)),
    ):
        ahead += timedelta(minutes=minutes)
        broker.readings.note(quiet)
        assert act()
    broker.context.clock = real
    work_until_given_back(agent, broker)
    agent.tick()
    broker.readings.forget_ended()


LIVES = {"session": session, "whole_card": whole_card, "idle": idle}


def live(life: dict[str, Any]) -> None:
    """Live it to its end, or until it passes the last point, as often as is given with its name."""
    folder = Path(life["folder"])
    light(None if life["last"] is None else tuple(life["last"]), folder / "passed")
    asyncio.run(LIVES[life["name"]](config_of(folder, life["url"]), folder / "journal"))


def main() -> None:
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                live(json.loads(line))
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
