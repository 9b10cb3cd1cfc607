"""Times in the reader's zone: one zone on a page, and what is typed is meant in it."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

SCRIPT = Path(__file__).parents[2] / "jupyterhub_migspawner/service/pages/static/times.js"

PAGE = """
<p id="since"><time datetime="2026-11-23T12:00:00Z">Mon 23 Nov 2026 12:00 UTC</time></p>
<p id="end">It ends at Mon 23 Nov 2026 23:30 UTC, or else at Tue 24 Nov 2026 01:00 UTC.</p>
<p id="typed" class="migspawner-typed">until Mon 23 Nov 2026 23:30 UTC, please</p>
<p id="else">The card is from Monday, 23 Nov, UTC.</p>
<form>
  <label for="at">From, in <span data-zone-of="at">UTC</span></label>
  <input id="at" name="starts_at" type="datetime-local" data-utc value="2026-11-23T12:00">
  <textarea id="reason">Mon 23 Nov 2026 23:30 UTC</textarea>
</form>
"""


@pytest.fixture(params=["Europe/Berlin", "America/New_York", "Asia/Kolkata", "UTC"])
def page(browser: Browser, request: pytest.FixtureRequest) -> Page:
    context = browser.new_context(timezone_id=request.param, locale="en-GB")
    made = context.new_page()
    made.set_content(PAGE)
    made.add_script_tag(content=SCRIPT.read_text(encoding="utf-8"))
    made.zone = request.param  # type: ignore[attr-defined]
    return made


HOURS = {
    "Europe/Berlin": ("13:00", "00:30", "2026-11-23T13:00"),
    "America/New_York": ("07:00", "18:30", "2026-11-23T07:00"),
    "Asia/Kolkata": ("17:30", "05:00", "2026-11-23T17:30"),
    "UTC": ("12:00", "23:30", "2026-11-23T12:00"),
}


def sent(page: Page) -> str:
    said = page.evaluate("new URLSearchParams(new FormData(document.forms[0])).toString()")
    return str(said).replace("%3A", ":")


def test_one_zone_is_on_the_page_and_it_is_named(page: Page) -> None:
    since, end, field = HOURS[page.zone]  # type: ignore[attr-defined]
    assert since in page.inner_text("#since")
    said = page.inner_text("#end")
    assert said.startswith("It ends at ")
    assert end in said
    zone = page.zone  # type: ignore[attr-defined]
    assert ("UTC" in said) is (zone == "UTC")
    assert page.inner_text("#typed") == "until Mon 23 Nov 2026 23:30 UTC, please"
    assert page.input_value("#reason") == "Mon 23 Nov 2026 23:30 UTC"
    assert page.inner_text("#else") == "The card is from Monday, 23 Nov, UTC."
    assert page.input_value("#at") == field
    assert len(page.inner_text("[data-zone-of=at]")) >= 3


def test_what_is_typed_is_sent_in_utc(page: Page) -> None:
    assert "starts_at=2026-11-23T12:00" in sent(page), "as it was, when nobody changes it"
    page.fill("#at", HOURS[page.zone][2])  # type: ignore[attr-defined]
    assert sent(page).count("starts_at=") == 1
    assert "starts_at=2026-11-23T12:00" in sent(page)
    page.fill("#at", "")
    assert "starts_at=&" in f"{sent(page)}&", "as soon as it is approved"
    # Summer time where there is one: the zone of that day counts.
    page.fill("#at", "2026-07-01T12:00")
    wanted = {"Europe/Berlin": "10:00", "America/New_York": "16:00", "Asia/Kolkata": "06:30"}
    zone = page.zone  # type: ignore[attr-defined]
    assert f"starts_at=2026-07-01T{wanted.get(zone, '12:00')}" in sent(page)
