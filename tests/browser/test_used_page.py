"""Work in a notebook whose end has been announced: the notice goes away and the session stays."""

from __future__ import annotations

from playwright.sync_api import Browser, expect

from tests.acceptance.hubs import Hub
from tests.acceptance.idle import ends
from tests.browser.notebooks import SHORT_MINUTES, idle_hub, opened, shorten
from tests.browser.test_requests import MILLISECONDS

__all__ = ["idle_hub"]


def test_work_in_the_notebook_takes_the_notice_away(browser: Browser, idle_hub: Hub) -> None:
    hub = idle_hub
    page = opened(browser, hub, "grace")
    shorten(page, hub, SHORT_MINUTES)
    toast = page.get_by_role("alert").filter(has_text="is not in use and ends at")
    expect(toast).to_be_visible(timeout=MILLISECONDS)
    page.locator(".jp-Notebook .cm-content").first.click()
    page.keyboard.type("import time; time.sleep(3000)")
    page.keyboard.press("Shift+Enter")
    expect(toast).to_have_count(0, timeout=MILLISECONDS)
    assert ends(hub, "grace") == []
    page.context.close()
