"""A notebook that is left open in a browser: its person is warned there, keeps it once, and loses
it.

A real JupyterLab with a real kernel in a real Chromium.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from tests.acceptance.hubs import Hub
from tests.acceptance.idle import ends, standing
from tests.browser.notebooks import SHORT_MINUTES, idle_hub, opened, shorten
from tests.browser.test_requests import MILLISECONDS

__all__ = ["idle_hub"]


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
def test_who_leaves_a_notebook_open_is_told_there(browser: Browser, idle_hub: Hub) -> None:
    hub = idle_hub
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
