"""A JupyterLab of a real hub in a browser, with a real kernel, whose session is idle too long soon.

The limit is short once the page is open.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page

from tests.acceptance.hubs import Hub
from tests.acceptance.idle import EXTRA, LONG_MINUTES, set_limit, write_limit
from tests.browser.test_requests import signed_in

#: A notice in JupyterLab is shown for three examinations after the last that confirmed it.
LAB = (
    EXTRA.replace("{exporter}", "")
    + """
c.Spawner.default_url = "/lab"
c.MigBroker.examine_seconds = 10
"""
)

#: While the page is used. Half of the limit passes between the warning and the end.
SHORT_MINUTES = 3.0


@pytest.fixture
def idle_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    hub = Hub(tmp_path_factory.mktemp("open"), layouts=[["1g.5gb"] * 7], extra=LAB)
    write_limit(hub, LONG_MINUTES)
    with hub.running():
        yield hub


def opened(browser: Browser, hub: Hub, name: str) -> Page:
    """A new notebook of this person in JupyterLab, with its kernel at rest."""
    page = signed_in(browser, hub, name, "**/lab**")
    # The limit changes with a restart of the hub, of which JupyterLab may ask what to do.
    page.add_locator_handler(
        page.get_by_role("dialog").filter(has_text="Server unavailable or unreachable"),
        lambda dialog: dialog.get_by_role("button", name="Dismiss").click(),
    )
    page.click(".jp-LauncherCard[data-category=Notebook]")
    page.wait_for_selector(".jp-Notebook")
    page.wait_for_selector(".jp-Notebook-ExecutionIndicator[data-status=idle]")
    return page


def shorten(page: Page, hub: Hub, minutes: float) -> None:
    """Set the limit, which takes a restart of the hub, and have the page connected again."""
    set_limit(hub, minutes)
    page.reload()
    page.wait_for_selector(".jp-Notebook")
    page.wait_for_selector(".jp-Notebook-ExecutionIndicator[data-status=idle]")
