"""Another culler of idle servers beside ours: the hub's own, which goes by what the hub knows."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

from tests.acceptance.hubs import Hub
from tests.acceptance.idle import LONG, ends
from tests.acceptance.test_notebooks_stay import Notebook

CULLER = """
c.MigBroker.tiers = [{"name": "small", "profile": "1g.5gb", "idle_minutes": 60}]
c.MigBroker.examine_seconds = 2
c.MigBroker.tick_seconds = 0.2
c.Spawner.cmd = [sys.executable, "-m", "jupyterhub.singleuser"]
c.Spawner.args = ["--allow-root"]
c.Spawner.default_url = "/api"
c.JupyterHub.services += [
    {
        "name": "cull",
        # Not before a user is at work: what the hub knows of is older than that.
        "command": [
            "/bin/sh",
            "-c",
            "until [ -e {directory}/begin ]; do sleep 0.2; done; exec "
            + sys.executable
            + " -m jupyterhub_idle_culler --timeout=60 --cull-every=3",
        ],
    }
]
c.JupyterHub.load_roles += [
    {
        "name": "cull",
        "services": ["cull"],
        "scopes": ["list:users", "read:users:activity", "read:servers", "delete:servers"],
    }
]
"""


def hub_knows_of_use(hub: Hub, user: str, since: datetime) -> bool:
    """Whether the hub has a report of use after then, by which the other culler goes."""
    activity = hub.api("GET", f"users/{user}")[1]["servers"][""]["last_activity"]
    return datetime.fromisoformat(activity.replace("Z", "+00:00")) > since


async def test_another_culler_lets_alone_what_is_seen_to_work(tmp_path: Path) -> None:
    """The hub's own culler ends what the hub thinks idle: a silent kernel among it, but for us."""
    extra = CULLER.replace("{directory}", str(tmp_path))
    hub = Hub(tmp_path, layouts=[["1g.5gb"] * 7], extra=extra)
    with hub.running():
        works = Notebook(hub, "works")
        socket = await works.execute(LONG)
        begun = datetime.now(timezone.utc)
        hub.until(lambda: hub_knows_of_use(hub, "works", begun))
        (tmp_path / "begin").touch()
        for name in ("first", "second"):
            idle = Notebook(hub, name)
            hub.until(lambda idle=idle: not idle.runs())  # type: ignore[misc]
        # Both had begun later and are gone.
        assert works.runs()
        assert ends(hub, "works") == []
        socket.close()
