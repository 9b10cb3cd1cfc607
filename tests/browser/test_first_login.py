"""The main job as a researcher does it: log in, pick by what is free, start, run a cell."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.acceptance.demos import PATIENCE, Demo

MILLISECONDS = PATIENCE * 1000

CODE = 'import os; os.environ["CUDA_VISIBLE_DEVICES"]'


class Visitor:
    """A user of the demo with a browser window of their own."""

    def __init__(self, browser: Browser, demo: Demo, name: str) -> None:
        self.demo = demo
        self.name = name
        self.context = browser.new_context(viewport={"width": 1200, "height": 900})
        self.context.set_default_timeout(MILLISECONDS)
        self.page: Page = self.context.new_page()

    def log_in(self) -> None:
        self.page.goto(self.demo.url)
        self.page.fill("input[name=username]", self.name)
        self.page.fill("input[name=password]", self.demo.password)
        self.page.click("#login_submit")
        self.page.wait_for_url("**/hub/spawn")

    def tier(self, name: str) -> Locator:
        """The row of a tier in the form."""
        choice = self.page.locator(f"input[name=tier][value={name}]")
        return self.page.locator("li", has=choice)

    def free(self, name: str) -> int:
        """How many slices of a tier the form says are free."""
        match = re.search(r"(\d+) of \d+ free", self.tier(name).inner_text())
        return int(match[1]) if match else 0

    def start(self, tier: str) -> None:
        """Pick a tier, press the button, wait for JupyterLab."""
        self.page.check(f"input[name=tier][value={tier}]")
        self.page.click("#spawn_form [type=submit]")
        self.page.wait_for_url(f"**/user/{self.name}/lab**")

    def open_notebook(self) -> None:
        """A new notebook from the launcher, its kernel idle."""
        self.page.locator(".jp-LauncherCard[data-category=Notebook]").first.click()
        # The status bar: what is run before the kernel has answered, JupyterLab drops.
        self.page.get_by_text("| Idle").wait_for()

    def run_cell(self, code: str) -> str:
        """Type into the first cell, run it, and read what it answers."""
        editor = self.page.locator(".jp-Notebook .jp-InputArea-editor .cm-content").first
        editor.click()
        self.page.keyboard.type(code)
        expect(editor).to_have_text(code)
        self.page.keyboard.press("Shift+Enter")
        answer = self.page.locator(".jp-Notebook .jp-OutputArea-output").first
        # The area is there before what the cell prints.
        expect(answer).to_have_text(re.compile(r"\S"), timeout=MILLISECONDS)
        return answer.inner_text().strip()


@pytest.fixture
def visitors(browser: Browser, demo: Demo) -> Iterator[dict[str, Visitor]]:
    found = {name: Visitor(browser, demo, name) for name in ("ada", "grace", "linus")}
    yield found
    for visitor in found.values():
        # Shown by pytest when the test failed.
        print(f"{visitor.name} is at {visitor.page.url}: {visitor.page.inner_text('body')[:500]}")
        visitor.context.close()
    print(demo.log()[-8000:])


def test_two_researchers_each_see_their_own_slice(demo: Demo, visitors: dict[str, Visitor]) -> None:
    ada, grace, linus = visitors["ada"], visitors["grace"], visitors["linus"]
    ada.log_in()
    free = {tier: ada.free(tier) for tier in ("small", "medium", "large", "card")}
    assert free == {"small": 9, "medium": 1, "large": 1, "card": 2}
    assert "approval" in ada.tier("card").inner_text()
    reason = ada.page.locator("[name=migspawner-reason-card]")
    expect(reason).to_be_hidden()
    ada.page.check("input[name=tier][value=card]")
    expect(reason).to_be_visible()
    most = max(("small", "medium", "large"), key=lambda tier: free[tier])

    ada.start(most)
    grace.log_in()
    assert grace.free(most) == free[most] - 1
    grace.start(most)

    seen = {}
    for visitor in (ada, grace):
        visitor.open_notebook()
        seen[visitor.name] = visitor.run_cell(CODE).strip("'")
    leases = {lease["user"]: lease["slice_uuid"] for lease in demo.cli("leases")}
    assert seen == leases
    assert all(re.fullmatch(r"MIG-[0-9a-f-]{36}", uuid) for uuid in seen.values())
    assert seen["ada"] != seen["grace"]

    # What is taken is shown as taken to the next user.
    linus.log_in()
    assert linus.free(most) == free[most] - 2


def test_a_researcher_without_gpu_sees_none(demo: Demo, visitors: dict[str, Visitor]) -> None:
    linus = visitors["linus"]
    linus.log_in()
    linus.start("cpu")
    linus.open_notebook()
    assert linus.run_cell(CODE) == "''"
    assert "linus" not in {lease["user"] for lease in demo.cli("leases")}


def test_a_login_link_signs_in_once(demo: Demo, visitors: dict[str, Visitor]) -> None:
    ada, grace = visitors["ada"], visitors["grace"]
    link = demo.link("ada")
    ada.page.goto(link)
    # To the spawn page, or to the server that an earlier test left running.
    ada.page.wait_for_url(lambda url: "login" not in url)
    assert "key=" not in ada.page.url
    ada.page.goto(f"{demo.url}hub/home")
    expect(ada.page.locator("body")).to_contain_text("ada")
    grace.page.goto(link)
    expect(grace.page.get_by_text("This login link was already used")).to_be_visible()
