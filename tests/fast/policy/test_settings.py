"""What the broker's decisions depend on, and commands of the admin: which values are refused."""

from __future__ import annotations

from typing import Any

import pytest

from jupyterhub_migspawner.errors import ConfigError
from jupyterhub_migspawner.policy.commands import parse_commands
from jupyterhub_migspawner.policy.settings import Settings
from jupyterhub_migspawner.policy.tiers import parse_tiers

TIERS = parse_tiers([{"name": "small", "profile": "1g.5gb"}, {"name": "cpu", "profile": "none"}])
NUMBERS = (
    *("pending_seconds", "heartbeat_seconds", "request_days", "offer_minutes", "remind_hours"),
    *("grant_warning_minutes", "warn_minutes", "unknown_minutes", "unproven_hours"),
)


def settings(**values: Any) -> Settings:
    return Settings(TIERS, **values)


@pytest.mark.parametrize("name", NUMBERS)
def test_times_are_whole_numbers_above_nothing(name: str) -> None:
    assert getattr(settings(**{name: 1}), name) == 1
    for wrong in (0, -1, True, 1.5, "5", None):
        with pytest.raises(ConfigError, match=f"MigBroker.{name} is .*whole number above 0"):
            settings(**{name: wrong})


def test_actions_may_be_without_a_limit() -> None:
    assert settings().actions_per_minute == 0
    assert settings(actions_per_minute=1).actions_per_minute == 1
    for wrong in (-1, True, 1.5, "5", None):
        with pytest.raises(ConfigError, match=r"actions_per_minute is .*0 for no limit"):
            settings(actions_per_minute=wrong)


@pytest.mark.parametrize(
    "url",
    ["", "http://localhost:9400/metrics", "https://node/metrics", "http://[::1]:1/"],
)
def test_an_exporter_has_a_web_address(url: str) -> None:
    assert settings(dcgm_url=url).dcgm_url == url


@pytest.mark.parametrize(
    "url",
    [
        "localhost:9400",
        "ftp://localhost/",
        "http:///metrics",
        "http://localhost:0/",
        "http://localhost:99999/",
        "http://[::1/",
        "http://user:s3cret@localhost/",
        "http://local host/",
        "http://localhost/\n",
        "s3cret@nowhere",
    ],
)
def test_any_other_address_of_an_exporter_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ConfigError, match=r"MigBroker.dcgm_url is .*expected a URL") as caught:
        settings(dcgm_url=url)
    assert "s3cret" not in str(caught.value)
    assert ("***@" in str(caught.value)) == ("@" in url)


@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("h", True),
        ("x" * 255, True),
        ("x" * 256, False),
        ("", False),
        ("  ", False),
        ("a\n", False),
    ],
)
def test_a_hub_has_a_name(name: str, right: bool) -> None:
    if right:
        assert settings(hub=name).hub == name
    else:
        with pytest.raises(ConfigError, match=r"MigBroker\.hub is"):
            settings(hub=name)


def test_a_tier_is_found_by_its_name() -> None:
    assert settings().tier("cpu") == TIERS[1]
    assert settings().tier("large") is None


@pytest.mark.parametrize("container", [list, tuple])
def test_commands_are_texts_or_words(container: Any) -> None:
    raw = container(["systemctl stop 'my unit'", container(["a", "b c"])])
    assert parse_commands("before", raw) == (("systemctl", "stop", "my unit"), ("a", "b c"))
    assert parse_commands("before", container()) == ()


@pytest.mark.parametrize(
    ("raw", "sentence"),
    [
        ("a b", "MigBroker.before is 'a b'; expected a list of commands"),
        (None, "MigBroker.before is None"),
        (["a", "b 'c"], "command number 2 is .*quotation"),
        ([""], "command number 1 is ''; expected a command"),
        ([[]], r"command number 1 is \[\]"),
        ([7], "command number 1 is 7"),
        ([{"a": 1}], "command number 1 is {'a': 1}"),
        ([["a", 7]], r"command number 1 is \['a', 7\]"),
        ([["a", ""]], r"command number 1 is \['a', ''\]"),
        ([["a", "b\0"]], "command number 1 is"),
    ],
)
def test_a_wrong_command_is_named(raw: Any, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        parse_commands("before", raw)
