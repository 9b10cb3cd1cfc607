"""The waiting list in the browser: a full tier, a place for it, and the start when it is free."""

from __future__ import annotations

from playwright.sync_api import Browser, expect

from tests.acceptance.demos import Demo
from tests.browser.test_requests import logged_in, pick, press


def test_a_full_tier_is_waited_for_and_started(browser: Browser, demo: Demo) -> None:
    ada = logged_in(browser, demo, "ada")
    pick(ada, "medium")
    press(ada, "Start")
    ada.wait_for_url("**/user/ada/lab**")

    grace = logged_in(browser, demo, "grace")
    pick(grace, "medium")
    expect(grace.get_by_label("Start my server when it is my turn")).to_be_checked()
    press(grace, "Start")
    grace.wait_for_url("**/services/migspawner/queue?joined=*")
    expect(grace.get_by_role("status")).to_contain_text("You are on the waiting list")
    expect(grace.locator("[data-state=waiting]")).to_contain_text("You are next.")
    (ticket,) = demo.cli("queue")
    assert (ticket["user"], ticket["place"], ticket["start"]) == ("grace", 1, True)

    # A second one who only wants to hear of it, and gives up.
    linus = logged_in(browser, demo, "linus")
    pick(linus, "medium")
    linus.get_by_label("Start my server when it is my turn").uncheck()
    press(linus, "Start")
    linus.wait_for_url("**/queue?joined=*")
    expect(linus.locator("[data-state=waiting]")).to_contain_text("You are number 2.")
    press(linus, "Leave the waiting list( for Medium)?")
    linus.wait_for_url("**/queue?left=*")

    ada.goto(f"{demo.url}hub/home")
    ada.click("#stop")
    ada.wait_for_selector("#start:visible:has-text('Start')")
    # Nobody does anything now: the broker hands the slice on, and the hub starts the server.
    demo.until(lambda: [(one["user"], one["state"]) for one in demo.cli("leases")] == HERS)
    grace.goto(f"{demo.url}services/migspawner/queue")
    expect(grace.locator("li[data-ticket]")).to_contain_text("Medium: taken")
    grace.goto(f"{demo.url}services/migspawner/")
    expect(grace.locator("section[data-server]")).to_contain_text("Medium")
    for page in (ada, grace, linus):
        page.context.close()


HERS = [("grace", "active")]
