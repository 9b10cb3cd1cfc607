"""A notebook that is left open in a browser: its person is warned there, keeps it once, and loses
it.

A real JupyterLab with a real kernel in a real Chromium. The limit is short once the page is open.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.acceptance.hubs import Hub
from tests.acceptance.test_idle import EXTRA, LONG_MINUTES, ends, set_limit, standing, write_limit
from tests.browser.test_requests import MILLISECONDS, signed_in

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


@contextmanager
def stopped(pids: list[int]) -> Iterator[None]:
    """These processes do nothing for the length of the block."""
    assert pids
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def known_end(hub: Hub, user: str) -> str:
    """When this person's session ends, as soon as all that has to be asked has answered."""
    found: list[str] = []

    def known() -> bool:
        session = standing(hub, user)
        assert session is not None
        if session["ends_at"]:
            found.append(session["ends_at"])
        return bool(found)

    hub.until(known)
    return found[0]


def kept(hub: Hub) -> list[dict[str, Any]]:
    events = hub.cli("events", "--user", "ada", "--kind", "lease.extended")
    return [{"by": event["actor"], **event["detail"]} for event in events]


# Two limits pass, after the starts of a hub, its service and a JupyterLab.
@pytest.mark.timeout(1800)
def test_who_leaves_a_notebook_open_is_told_there(browser: Browser, hub: Hub) -> None:
    page = opened(browser, hub, "ada")
    shorten(page, hub, SHORT_MINUTES)
    toast = page.get_by_role("alert").filter(has_text="is not in use and ends at")
    expect(toast).to_contain_text("Use it or extend it to keep it.", timeout=MILLISECONDS)
    told = known_end(hub, "ada")
    # The service grants it in its next round, which may come before the page asks about it.
    with stopped(hub.service_pids()):
        toast.get_by_role("button", name="Keep it for longer").click()
        expect(page.get_by_role("alert").filter(has_text="Your request to keep it")).to_be_visible(
            timeout=MILLISECONDS
        )
    expect(page.get_by_role("alert").filter(has_text="Kept. If nobody uses it")).to_be_visible(
        timeout=MILLISECONDS
    )
    # What is over is not shown any longer.
    expect(page.get_by_role("alert").filter(has_text="is not in use")).to_have_count(
        0, timeout=MILLISECONDS
    )
    (one,) = kept(hub)
    assert (one["by"], one["why"]) == ("ada", "requested inside the server")
    assert known_end(hub, "ada") > told
    # That the page was open did not keep the session.
    expect(toast).to_contain_text("ends at", timeout=MILLISECONDS)
    with page.context.expect_page() as made:
        toast.get_by_role("button", name="My GPU sessions").click()
    expect(made.value.locator("section[data-server]")).to_contain_text(
        "Not in use", timeout=MILLISECONDS
    )
    hub.until(lambda: not hub.rows())
    assert hub.cli("leases") == []
    (end,) = ends(hub, "ada")
    assert end["rule"] == "idle"
    made.value.reload()
    expect(made.value.get_by_text("nothing has used it since")).to_be_visible(timeout=MILLISECONDS)
    page.context.close()


def test_work_in_the_notebook_takes_the_notice_away(browser: Browser, hub: Hub) -> None:
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
