"""Times in messages: in the zone that the admin names, by the name that holds on that day."""

from __future__ import annotations

import logging
import sys
import time
import zoneinfo
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from traitlets.config import Config

from jupyterhub_migspawner.config import MigBroker
from jupyterhub_migspawner.errors import ConfigError
from jupyterhub_migspawner.policy.messages import KINDS, Happening, message_of
from jupyterhub_migspawner.policy.times import localised, read_zone
from jupyterhub_migspawner.policy.wording import moment

BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")
AT = datetime(2026, 11, 30, 13, 0, tzinfo=timezone.utc)
TIERS = [{"name": "small", "profile": "1g.5gb"}]


def broker(zone: str) -> MigBroker:
    return MigBroker(config=Config({"MigBroker": {"tiers": TIERS, "time_zone": zone}}))


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_message_gives_its_times_in_the_zone(kind: str) -> None:
    stamp, said = "2026-11-30T13:00:00Z", moment(AT)
    detail: dict[str, Any] = {
        **dict.fromkeys(("until", "wanted", "from"), stamp),
        **{"tier": "Card", "hours": 8.0, "offered": "Card", "mend": f"See since {said}."},
        "why": f"its time is over at {said}, since 2026-11-30 13:00 UTC",
    }
    for shown in (detail, {**detail, "until": None}):
        message = message_of(Happening(kind, AT, "eve", "ada", 7, 12, "GPU-1", shown), BERLIN)
        if message is None:
            continue
        text = f"{message.title}\n{message.body}"
        assert "UTC" not in text
        assert "13:00" not in text
        assert "Mon 30 Nov 2026 14:00 CET" in text or "14:00" not in text


def test_each_time_has_the_name_that_holds_on_its_day() -> None:
    night = datetime(2026, 10, 25, 0, 30, tzinfo=timezone.utc)
    said = localised(f"{moment(night)}, {moment(night + timedelta(hours=1))}", BERLIN)
    assert said == "Sun 25 Oct 2026 02:30 CEST, Sun 25 Oct 2026 02:30 CET"
    spring = datetime(2027, 3, 28, 0, 59, tzinfo=timezone.utc)
    said = localised(f"{moment(spring)}, {moment(spring + timedelta(minutes=1))}", BERLIN)
    assert said == "Sun 28 Mar 2027 01:59 CET, Sun 28 Mar 2027 03:00 CEST"


def test_a_zone_without_a_name_is_named_by_its_distance() -> None:
    assert localised(moment(AT), read_zone("America/Sao_Paulo")).endswith("10:00 UTC-03")


@pytest.fixture
def machine_in_berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("machine_in_berlin")
def test_without_a_setting_it_is_the_zone_of_the_machine() -> None:
    assert localised(moment(AT), broker("").settings().zone) == "Mon 30 Nov 2026 14:00 CET"
    assert localised(moment(AT), broker("UTC").settings().zone) == moment(AT)
    kolkata = broker("Asia/Kolkata").settings().zone
    assert localised(moment(AT), kolkata) == "Mon 30 Nov 2026 18:30 IST"


@pytest.mark.parametrize("name", ["Europe/Berln", "../etc/passwd", "/etc", "Europe", "x" * 300])
def test_a_zone_that_there_is_not_is_refused_by_its_name(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        broker(name).settings()
    said = str(caught.value)
    assert said.startswith(f"MigBroker.time_zone is '{name[:20]}")
    assert "'Europe/Berlin'" in said
    assert ("did you mean 'Europe/Berlin'?" in said) is (name == "Europe/Berln")


def test_without_a_zone_database_the_machines_zone_is_used_and_the_log_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("tzdata", "tzdata.zoneinfo", "tzdata.zoneinfo.Europe"):
        monkeypatch.setitem(sys.modules, name, None)
    zoneinfo.reset_tzpath(to=[])
    zoneinfo.ZoneInfo.clear_cache()
    try:
        admin = broker("Europe/Berlin")
        admin.log = logging.getLogger("of.the.test")
        with caplog.at_level("WARNING"):
            assert admin.settings().zone is None
            assert broker("UTC").settings().zone is timezone.utc
    finally:
        zoneinfo.reset_tzpath()
        zoneinfo.ZoneInfo.clear_cache()
    assert "no time zone database" in caplog.text
    assert "tzdata" in caplog.text


@pytest.mark.parametrize("offset", ["+2", "-5", " +2", "\N{MINUS SIGN}3", "+05:30"])
@pytest.mark.parametrize(
    "stamp", ["2026-11-30 13:00", "2026-11-30 13:00:05", "Mon 30 Nov 2026 13:00"]
)
def test_a_time_that_somebody_typed_with_an_offset_stays(stamp: str, offset: str) -> None:
    text = f"until {stamp} UTC{offset}, please"
    assert localised(text, BERLIN) == text
    assert localised(f"until {stamp} UTC", BERLIN) != f"until {stamp} UTC"
