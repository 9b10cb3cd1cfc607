"""A notebook that is left open in a browser: its person is warned there, keeps it once, and loses
it.

A real JupyterLab with a real kernel in a real Chromium. The limit is short once the page is open.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.acceptance.hubs import Hub
from tests.acceptance.test_idle import EXTRA, LONG_MINUTES, ends, set_limit, standing, write_limit
from tests.browser.test_requests import MILLISECONDS, signed_in

LAB = EXTRA.replace("{exporter}", "") + 'c.Spawner.default_url = "/lab"\n'


@pytest.fixture
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
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


def kept(hub: Hub) -> list[dict[str, Any]]:
    events = hub.cli("events", "--user", "ada", "--kind", "lease.extended")
    return [{"by": event["actor"], **event["detail"]} for event in events]


def test_who_leaves_a_notebook_open_is_told_there(browser: Browser, hub: Hub) -> None:
    page = opened(browser, hub, "ada")
    shorten(page, hub, 2.0)
    toast = page.get_by_role("alert").filter(has_text="is not in use and ends at")
    expect(toast).to_contain_text("Use it or extend it to keep it.", timeout=3 * MILLISECONDS)
    session = standing(hub, "ada")
    assert session is not None
    assert session["ends_at"]
    toast.get_by_role("button", name="Keep it for longer").click()
    expect(page.get_by_role("alert").filter(has_text="Your request to keep it")).to_be_visible(
        timeout=MILLISECONDS
    )
    expect(page.get_by_role("alert").filter(has_text="Kept. If nobody uses it")).to_be_visible(
        timeout=MILLISECONDS
    )
    (one,) = kept(hub)
    assert (one["by"], one["why"]) == ("ada", "requested inside the server")
    after = standing(hub, "ada")
    assert after is not None
    assert after["ends_at"] > session["ends_at"]
    # What is over is not shown any longer; and that the page was open did not keep the session.
    expect(page.get_by_role("alert").filter(has_text="is not in use")).to_have_count(
        0, timeout=MILLISECONDS
    )
    expect(toast).to_contain_text("ends at", timeout=MILLISECONDS)
    with page.context.expect_page() as made:
        toast.get_by_role("button", name="My GPU sessions").click()
    expect(made.value.locator("section[data-server]")).to_contain_text(
        "Not in use", timeout=MILLISECONDS
    )
    hub.until(lambda: hub.cli("leases") == [], 600)
    (end,) = ends(hub, "ada")
    assert end["rule"] == "idle"
    made.value.reload()
    expect(made.value.get_by_text("nothing has used it since")).to_be_visible(timeout=MILLISECONDS)
    page.context.close()


def test_work_in_the_notebook_takes_the_notice_away(browser: Browser, hub: Hub) -> None:
    page = opened(browser, hub, "grace")
    shorten(page, hub, 2.0)
    toast = page.get_by_role("alert").filter(has_text="is not in use and ends at")
    expect(toast).to_be_visible(timeout=3 * MILLISECONDS)
    page.locator(".jp-Notebook .cm-content").first.click()
    page.keyboard.type("import time; time.sleep(3000)")
    page.keyboard.press("Shift+Enter")
    expect(toast).to_have_count(0, timeout=MILLISECONDS)
    assert ends(hub, "grace") == []
    page.context.close()
