"""Signing in: what visitors nobody knows can have the service keep, log and ask the hub."""

from __future__ import annotations

import logging
from urllib.parse import parse_qs, urlsplit

import pytest

from jupyterhub_migspawner.logs import OUTSIDERS
from jupyterhub_migspawner.service.http import auth
from jupyterhub_migspawner.service.http.auth import MOST_PATH, MOST_TOKEN, MOST_URL, CheckedHubOAuth
from tests.unit.service.conftest import Site


def oauth() -> CheckedHubOAuth:
    return CheckedHubOAuth(
        api_url="http://127.0.0.1:9/hub/api",
        api_token="x",
        base_url="/",
        oauth_client_id="service-x",
    )


def test_those_who_never_finish_signing_in_take_a_bounded_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(auth, "MOST_STATES", 5)
    made = oauth()
    states = [made.generate_state(f"/{number}") for number in range(20)]
    assert len(made._oauth_states.values) == 5
    assert [made.get_next_url(state) for state in states[-5:]] == [f"/{n}" for n in range(15, 20)]
    assert made.get_next_url(states[0]) == "/"
    assert made.get_next_url(made.generate_state("/" + MOST_URL * "x")) == "/"


async def test_a_token_too_long_to_be_one_is_not_kept(site: Site) -> None:
    token = (MOST_TOKEN + 1) * "x"
    reply = await site.ask("GET", "api/tiers", token=token)
    assert (reply.status, reply.json["reason"]) == (401, "not-signed-in")
    kept = site.application.settings["hub_auth"].cache.values
    assert all(len(str(key)) < MOST_TOKEN for key in kept)


async def test_a_sign_in_that_the_hub_refuses_is_no_problem_of_the_hub(site: Site) -> None:
    page = await site.ask("GET", "requests")
    assert page.status == 302
    state = parse_qs(urlsplit(page.headers["Location"]).query)["state"][0]
    cookies = "; ".join(each.partition(";")[0] for each in page.headers.get_list("Set-Cookie"))
    ended = await site.ask(
        "GET", f"oauth_callback?code=guessed&state={state}", headers={"Cookie": cookies}
    )
    assert ended.status == 400
    assert "The sign-in was not completed" in ended.text


async def test_what_anyone_can_have_logged_is_bounded(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site.world.hub.fail_with = 500
    with caplog.at_level(logging.DEBUG):
        reply = await site.ask("GET", f"sessions/{5000 * 'x'}/extend", token="anything")
    assert reply.status == 503
    ours = [each for each in caplog.records if each.name.startswith("migspawner")]
    assert ours
    for each in ours:
        assert each.name.startswith(OUTSIDERS)
        assert len(each.getMessage()) < 2 * MOST_PATH
