"""All text on our pages and in the spawn form can be read, in light and in dark mode."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from tests.acceptance.hubs import Hub
from tests.browser.test_requests import MILLISECONDS

LOOK = (Path(__file__).parent / "contrast.js").read_text(encoding="utf-8")

EXTRA = """
import asyncio
async def never(spawner):
    if spawner.user.name == "slow":
        await asyncio.Event().wait()
c.Spawner.pre_spawn_hook = never
c.JupyterHub.tornado_settings = {"slow_spawn_timeout": 0}
c.MigBroker.quotas = {"default": {"live": 2, "gpu_hours_per_week": 40}}
c.MigBroker.approvers = ["user:noether"]
c.MigBroker.tiers = [
    *c.MigBroker.tiers,
    {"name": "course", "profile": "1g.5gb", "seats": 4, "max_hours": 2, "description": "Taught."},
    {"name": "secret", "profile": "3g.20gb", "groups": ["vision"], "seen_by": "everybody"},
]
"""
#: A start is refused to the last two, once each: the hub takes a moment to be done with it.
PEOPLE = ("ada", "grace", "linus", "noether", "slow", "light", "dark")


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    hub = Hub(tmp_path_factory.mktemp("contrast"), layouts=[["1g.5gb"]], extra=EXTRA)
    with hub.running():
        for name in PEOPLE:
            hub.api("POST", f"users/{name}")
        fill(hub)
        yield hub


def fill(hub: Hub) -> None:
    """Requests, tickets and sessions in every state that a page shows."""
    tokens = {name: hub.token_of(name) for name in PEOPLE}
    hub.api("POST", "users/ada/server", {"tier": "small"})
    hub.until(lambda: [each["state"] for each in hub.cli("leases")] == ["active"])
    # Nothing is left: they wait.
    for name in ("grace", "linus"):
        status, said = hub.service("POST", "queue", {"tier": "small"}, tokens[name])
        assert status == 201, said
    ask = {"tier": "card", "hours": 4, "reason": "A run that needs the whole card."}
    for name, decision in (("ada", "deny"), ("ada", "cancel"), ("grace", "approve"), ("ada", "")):
        status, request = hub.service("POST", "requests", ask, tokens[name])
        assert status == 201, request
        if decision:
            by = tokens["ada" if decision == "cancel" else "noether"]
            body = {} if decision == "cancel" else {"reason": "As we said."}
            status, said = hub.service("POST", f"requests/{request['id']}/{decision}", body, by)
            assert status == 200, said
    hub.api("POST", "users/slow/server", {"tier": "cpu"})


@pytest.fixture(scope="module", params=["light", "dark"])
def scheme(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def signed_in(browser: Browser, hub: Hub, name: str, scheme: str) -> Page:
    context = browser.new_context(color_scheme=scheme)  # type: ignore[arg-type]
    context.set_default_timeout(MILLISECONDS)
    page = context.new_page()
    page.goto(f"{hub.url}hub/login?next=/hub/home")
    page.fill("input[name=username]", name)
    page.fill("input[name=password]", hub.password)
    page.click("#login_submit")
    page.wait_for_url("**/hub/home")
    return page


PAGES = {
    "sessions": ("ada", "services/migspawner/", "main"),
    "nothing": ("linus", "services/migspawner/", "main"),
    "requests": ("ada", "services/migspawner/requests", "main"),
    "granted": ("grace", "services/migspawner/requests", "main"),
    "decisions": ("noether", "services/migspawner/decisions", "main"),
    "queue": ("grace", "services/migspawner/queue", "main"),
    "places": ("ada", "services/migspawner/queue?tier=small", "main"),
    "notices": ("ada", "services/migspawner/notices", "main"),
    "problem": ("ada", "services/migspawner/nothing/here", ".error"),
    "form": ("grace", "hub/spawn/grace", "#migspawner-tiers"),
    "refused": ("{scheme}", "hub/spawn/{scheme}?tier=nothing", "#migspawner-tiers, .text-danger"),
    "pending": ("slow", "hub/spawn-pending/slow", "#progress-message, #progress-details"),
}


@pytest.mark.parametrize("name", PAGES)
def test_all_text_can_be_read(browser: Browser, hub: Hub, scheme: str, name: str) -> None:
    person, path, inside = (each.format(scheme=scheme) for each in PAGES[name])
    page = signed_in(browser, hub, person, scheme)
    page.goto(f"{hub.url}{path}")
    page.locator(inside).first.wait_for()
    assert page.evaluate("document.documentElement.dataset.bsTheme") == scheme
    looked_at, faint = 0, []
    for part in page.locator(inside).all():
        number, found = part.evaluate(LOOK)
        looked_at += number
        faint += found
    assert looked_at > 0
    assert not faint, "\n".join(faint)
    page.context.close()
