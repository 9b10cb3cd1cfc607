"""Idle sessions of a real hub: how long one may be idle, and what is known of each.

What is tested with it is who outlives whom, on a machine of any speed: while a scene is set nothing
counts as idle for hours, and only when all is as it should be does the limit become short.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from jupyterhub_migspawner.broker.views import standing_view
from jupyterhub_migspawner.model.events import EventQuery, EventRow
from tests.acceptance.hubs import Hub
from tests.exporters import HEAD, Answer, line, page

EXTRA = """
import os
import jupyterhub.services.service as services
from traitlets import Integer

class Watched(services._ServiceSpawner):
    "A service that has ended is started again after a second."
    poll_interval = Integer(1)

services._ServiceSpawner = Watched
with open(os.path.join(os.path.dirname(__file__), "idle-minutes")) as file:
    minutes = float(file.read())
c.MigBroker.tiers = [
    {"name": "small", "profile": "1g.5gb", "idle_minutes": minutes, "extend_hours": 1}
]
c.MigBroker.dcgm_url = "{exporter}"
c.MigBroker.examine_seconds = 4
c.MigBroker.tick_seconds = 0.2
c.MigBroker.reconcile_seconds = 1
c.Spawner.cmd = [sys.executable, "-m", "jupyterhub.singleuser"]
c.Spawner.args = ["--allow-root"]
c.Spawner.default_url = "/api"
"""

#: While a scene is set, and then. Half of a limit passes between the warning and the end.
LONG_MINUTES, SHORT_MINUTES = 600.0, 1.0

#: A cell that is at work for longer than any test.
LONG = "import time; time.sleep(3000)"


def write_limit(hub: Hub, minutes: float) -> None:
    """How long a session may be idle, for a hub that starts from now on."""
    (hub.directory / "idle-minutes").write_text(str(minutes))


def set_limit(hub: Hub, minutes: float) -> None:
    """The same, from now on; the sessions go on."""
    if float((hub.directory / "idle-minutes").read_text()) != minutes:
        write_limit(hub, minutes)
        hub.restart()


def standing(hub: Hub, user: str) -> dict[str, Any] | None:
    """This person's session, as the command line lists it."""
    found = [standing_view(each) for each in hub.broker().sessions.standings(user)]
    return found[0] if found else None


def unknown(hub: Hub, user: str) -> list[str]:
    """The sources that say nothing of this person's session."""
    found = standing(hub, user)
    assert found is not None
    sources: list[str] = found["unknown"]
    return sources


def ends(hub: Hub, user: str) -> list[dict[str, Any]]:
    """How this person's sessions were ended, as the event log has it."""
    return [event.detail for event in events(hub, user, "lease.releasing")]


def events(hub: Hub, user: str, *kinds: str) -> tuple[EventRow, ...]:
    """The events of these kinds about this person, oldest first."""
    return hub.broker().events.find(query=EventQuery(user=user, kinds=kinds))


def warned(hub: Hub, user: str) -> bool:
    return bool(events(hub, user, "lease.ending"))


def seen_at_work(hub: Hub, user: str, since: datetime) -> bool:
    """Whether this person's session was examined since thenand was in use."""
    (found,) = hub.broker().sessions.standings(user)
    return found.used > since


def measured(hub: Hub, used: str = "") -> Answer:
    """An exporter's page on which one slice is at work and no other."""
    slices = [status.row for status in hub.broker().slices.find()]
    lines = [line(0.8 if row.uuid == used else 0, str(row.gi_id), row.card_uuid) for row in slices]
    return page((HEAD + "".join(lines)).encode())
