"""Idle sessions over a crash of the hub: what was known of them is known to the next one."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.hubs import Hub
from tests.acceptance.idle import (
    EXTRA,
    LONG,
    LONG_MINUTES,
    SHORT_MINUTES,
    ends,
    measured,
    seen_at_work,
    set_limit,
    standing,
    warned,
    write_limit,
)
from tests.acceptance.test_notebooks_stay import Notebook
from tests.exporters import Site


@pytest.fixture
def exporter() -> Iterator[Site]:
    """The node's dcgm-exporter."""
    made = Site()
    yield made
    made.close()


@pytest.fixture
def hub(tmp_path: Path, exporter: Site) -> Iterator[Hub]:
    extra = EXTRA.replace("{exporter}", exporter.url)
    hub = Hub(tmp_path, layouts=[["1g.5gb"] * 7], extra=extra)
    write_limit(hub, LONG_MINUTES)
    with hub.running():
        yield hub


async def test_a_hub_that_starts_anew_goes_on_where_it_was(hub: Hub, exporter: Site) -> None:
    exporter.answer = measured(hub)
    notebook = Notebook(hub, "restart")
    busy = Notebook(hub, "restart-busy")
    socket = await busy.execute(LONG)
    begun = datetime.now(timezone.utc)
    hub.until(lambda: seen_at_work(hub, "restart-busy", begun))
    # So that it is not over before it has been seen to be near its end.
    set_limit(hub, 4 * SHORT_MINUTES)
    told: dict[str, Any] = {}

    def seen_near_its_end() -> bool:
        found = standing(hub, "restart")
        if found is None or found["idle_since"] is None or not warned(hub, "restart"):
            return False
        told.update(found)
        return True

    hub.until(seen_near_its_end)
    hub.kill()
    hub.until(lambda: not hub.service_pids())
    hub.start()
    again = standing(hub, "restart")
    assert again is None or again["idle_since"] in (told["idle_since"], None)
    hub.until(lambda: bool(ends(hub, "restart")))
    (end,) = ends(hub, "restart")
    assert end["rule"] == "idle"
    # Warned again if it was unknown meanwhile because the hub was away; never ended before that.
    words = hub.cli("events", "--user", "restart", "--kind", "lease.ending")
    (event,) = hub.cli("events", "--user", "restart", "--kind", "lease.releasing")
    assert words
    assert all(word["detail"]["until"] <= event["at"] for word in words)
    assert ends(hub, "restart-busy") == []
    assert busy.runs()
    hub.until(lambda: not notebook.runs())
    socket.close()
