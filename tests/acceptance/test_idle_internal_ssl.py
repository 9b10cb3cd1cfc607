"""Idle sessions where servers let in the hub only: they are asked with the hub's certificate."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

from tests.acceptance.hubs import Hub
from tests.acceptance.idle import (
    EXTRA,
    LONG,
    LONG_MINUTES,
    SHORT_MINUTES,
    ends,
    seen_at_work,
    set_limit,
    write_limit,
)
from tests.acceptance.test_notebooks_stay import Notebook

INTERNAL_SSL = """
c.JupyterHub.internal_ssl = True
c.JupyterHub.internal_certs_location = "{directory}/internal-ssl"
c.JupyterHub.hub_bind_url = c.JupyterHub.hub_bind_url.replace("http:", "https:")
c.ConfigurableHTTPProxy.api_url = c.ConfigurableHTTPProxy.api_url.replace("http:", "https:")
"""


async def test_servers_that_let_in_the_hub_only_are_asked_too(tmp_path: Path) -> None:
    extra = EXTRA.replace("{exporter}", "") + INTERNAL_SSL.replace("{directory}", str(tmp_path))
    hub = Hub(tmp_path, layouts=[["1g.5gb"] * 7], extra=extra)
    write_limit(hub, LONG_MINUTES)
    with hub.running():
        works, idle = Notebook(hub, "works"), Notebook(hub, "idle")
        socket = await works.execute(LONG)
        begun = datetime.now(timezone.utc)
        hub.until(lambda: seen_at_work(hub, "works", begun))
        set_limit(hub, SHORT_MINUTES)
        hub.until(lambda: bool(ends(hub, idle.user)))
        (end,) = ends(hub, idle.user)
        assert end["rule"] == "idle"
        assert ends(hub, works.user) == []
        socket.close()
