"""A whole card from request to start, in the browser: asked for, shortened and approved, used.

With the keyboard alone, and with scripts switched off where the pages are ours.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone

from playwright.sync_api import Browser, Page, expect

from tests.acceptance.demos import PATIENCE, Demo
from tests.acceptance.hubs import Hub

MILLISECONDS = PATIENCE * 1000


def signed_in(browser: Browser, hub: Demo | Hub, name: str, to: str) -> Page:
    """A page of this person, led to an address that looks like ``to`` after the login."""
    # Another zone than the hub's: people read and type their own time.
    context = browser.new_context(
        viewport={"width": 1000, "height": 900}, timezone_id="Asia/Kolkata"
    )
    context.set_default_timeout(MILLISECONDS)
    page = context.new_page()
    page.goto(hub.url)
    page.fill("input[name=username]", name)
    page.fill("input[name=password]", hub.password)
    page.click("#login_submit")
    page.wait_for_url(to)
    return page


def logged_in(browser: Browser, demo: Demo, name: str) -> Page:
    return signed_in(browser, demo, name, "**/hub/spawn")


def press(page: Page, name: str) -> None:
    """Go to a button or link with the Tab key and press Enter on it."""
    for _ in range(60):
        page.keyboard.press("Tab")
        focused = page.evaluate(
            "document.activeElement.innerText || document.activeElement.value || ''"
        )
        if re.fullmatch(name, " ".join(focused.split())):
            page.keyboard.press("Enter")
            return
    raise AssertionError(f"the Tab key does not lead to {name!r}: {page.inner_text('body')}")


def pick(page: Page, tier: str) -> None:
    """Go to the tiers with the Tab key and to one of them with the arrow keys."""
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.name") == "tier":
            break
    for _ in range(20):
        if page.evaluate("document.activeElement.value") == tier:
            return
        page.keyboard.press("ArrowDown")
    raise AssertionError(f"the keyboard does not lead to {tier!r}: {page.inner_text('body')}")


def type_into(page: Page, label: str, text: str) -> None:
    """Go to a field with the Tab key and type."""
    field = page.get_by_role("textbox", name=label)
    for _ in range(60):
        page.keyboard.press("Tab")
        if field.evaluate("element => element === document.activeElement"):
            page.keyboard.press("Control+A")
            page.keyboard.type(text)
            return
    raise AssertionError(f"the Tab key does not lead to {label!r}")


def test_a_whole_card_from_wish_to_start(browser: Browser, demo: Demo) -> None:
    ada = logged_in(browser, demo, "ada")
    pick(ada, "card")
    type_into(ada, "Hours, counted from the approval", "five")
    type_into(ada, "Reason", "a training run\nof the large model")
    press(ada, "Start")
    # What was typed is not lost over a mistake.
    expect(ada.locator(".spawn-error-msg")).to_contain_text("The hours are 'five'")
    expect(ada.get_by_role("textbox", name="Reason")).to_have_value(re.compile("large model"))
    type_into(ada, "Hours, counted from the approval", "5")
    press(ada, "Start")
    ada.wait_for_url("**/services/migspawner/requests?asked=*")
    expect(ada.get_by_role("status")).to_contain_text("is submitted")
    expect(ada.locator("[data-state=pending]")).to_contain_text("of the large model")

    admin = logged_in(browser, demo, "admin")
    admin.goto(f"{demo.url}services/migspawner/")
    press(admin, "Requests to decide")
    admin.wait_for_url("**/decisions")
    expect(admin.locator("[data-request]")).to_contain_text("ada asks for Whole card for 5 hours")
    type_into(admin, "Hours", "2")
    type_into(admin, "Message to ada", "two are enough")
    press(admin, r"Approve( request \d+)?")
    admin.wait_for_url("**/decisions?approved=*")
    expect(admin.get_by_role("status")).to_contain_text("is approved")

    ada.reload()
    expect(ada.locator("[data-state=approved]")).to_contain_text("two are enough")
    (request,) = [each for each in demo.cli("requests") if each["user"] == "ada"]
    assert (request["hours"], request["decided_by"]) == (2, "admin")
    press(ada, "Start a server with it")
    ada.wait_for_url("**/hub/spawn**")
    ada.check("input[name=tier][value=card]")
    ada.click("#spawn_form [type=submit]")
    ada.wait_for_url("**/user/ada/lab**")
    (lease,) = demo.cli("leases")
    assert (lease["user"], lease["tier"], lease["request_id"]) == ("ada", "card", request["id"])
    for page in (ada, admin):
        page.context.close()


def test_a_draft_a_coming_time_and_what_one_is_told(browser: Browser, demo: Demo) -> None:
    grace = logged_in(browser, demo, "grace")
    grace.goto(f"{demo.url}services/migspawner/")
    press(grace, "My requests")
    grace.wait_for_url("**/requests")
    type_into(grace, "For how many hours", "3")
    type_into(grace, "Reason (the approvers will see it)", "a course next week")
    press(grace, "Save it as a draft")
    grace.wait_for_url("**/requests?kept=*")
    expect(grace.locator("[data-draft]")).to_contain_text("a course next week")
    press(grace, r"Continue( with draft \d+)?")
    grace.wait_for_url("**/requests?draft=*")
    expect(grace.get_by_label("For how many hours")).to_have_value("3")
    wanted = datetime.now(timezone.utc) + timedelta(days=7)
    here = wanted.astimezone(timezone(timedelta(hours=5, minutes=30)))
    expect(grace.get_by_label("Start time, in India Standard Time")).to_be_visible()
    grace.get_by_label("Start time").fill(f"{here:%Y-%m-%dT%H:%M}")
    press(grace, "Submit the request")
    grace.wait_for_url("**/requests?asked=*")
    expect(grace.locator("[data-draft]")).to_have_count(0)
    expect(grace.locator("[data-state=pending]")).to_contain_text("Requested start")
    (request,) = [each for each in demo.cli("requests") if each["user"] == "grace"]
    assert request["starts_at"] == f"{wanted:%Y-%m-%dT%H:%M}:00Z"

    grace.goto(f"{demo.url}services/migspawner/")
    press(grace, "Notices")
    grace.wait_for_url("**/notices")
    offers = grace.get_by_label("When it is my turn on the waiting list")
    expect(offers).to_be_checked()
    for _ in range(60):
        grace.keyboard.press("Tab")
        if offers.evaluate("element => element === document.activeElement"):
            grace.keyboard.press("Space")
            break
    press(grace, "Save")
    grace.wait_for_url("**/notices?kept=*")
    expect(grace.get_by_label("When it is my turn on the waiting list")).not_to_be_checked()
    told = demo.cli("notices", "--user", "grace")
    assert told == {"requests": True, "offers": False, "sessions": True}
    grace.context.close()
