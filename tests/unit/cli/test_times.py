"""Times are shown in local time, or in UTC with ``--utc``, with the zone named, and read so too."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyterhub_migspawner.cli.output import Display, show_as
from jupyterhub_migspawner.cli.table import Column
from jupyterhub_migspawner.policy.people import Person
from jupyterhub_migspawner.policy.times import localised
from jupyterhub_migspawner.policy.wording import moment
from tests.unit.cli.conftest import Install
from tests.unit.cli.tables import table_lines

UTC = timezone.utc
SUMMER, WINTER = "2026-07-01T10:00:00Z", "2026-12-01T10:00:00Z"


@pytest.fixture(autouse=True)
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    show_as(Display())
    yield
    show_as(Display())
    monkeypatch.undo()
    time.tzset()


def table(*times: str | None) -> list[str]:
    return table_lines([Column("since", "at", time=True)], [{"at": at} for at in times])


def test_one_zone_is_named_in_the_heading() -> None:
    assert table(WINTER, None) == ["SINCE (CET)", "2026-12-01 11:00", "-"]
    show_as(Display(zone=UTC))
    assert table(WINTER, SUMMER)[:2] == ["SINCE (UTC)", "2026-12-01 10:00"]


def test_two_zones_are_named_at_each_time() -> None:
    assert table(WINTER, SUMMER) == ["SINCE", "2026-12-01 11:00 CET", "2026-07-01 12:00 CEST"]


@pytest.mark.parametrize(
    "sentence",
    ["Until Tue 01 Dec 2026 10:00 UTC.", "Until 2026-12-01 10:00 UTC.", f"Until {WINTER}."],
)
def test_times_in_sentences_are_local(sentence: str) -> None:
    said = localised(sentence, None)
    assert "11:00" in said
    assert "CET" in said
    assert "UTC" not in said


@given(st.datetimes(datetime(1990, 1, 1), datetime(2090, 1, 1)))
def test_every_moment_of_the_broker_is_found_in_its_sentence(at: datetime) -> None:
    at = at.replace(tzinfo=UTC)
    assert localised(f"It ends at {moment(at)}.", UTC) == f"It ends at {moment(at)}."
    assert " UTC" not in localised(f"It ends at {moment(at)}.", None)


def test_listings_are_local_and_json_is_utc(install: Install) -> None:
    install.broker.leases.acquire(Person("ada"), "", "small", "attempt-1")
    (row,) = install.run("leases", "--json").json
    assert row["since"].endswith("Z")
    since = datetime.strptime(row["since"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    local = install.run("leases").out
    assert f"{since.astimezone():%Y-%m-%d %H:%M}" in local
    assert "SINCE (CE" in local
    utc = install.run("leases", "--utc").out
    assert f"{since:%Y-%m-%d %H:%M}" in utc
    assert "SINCE (UTC)" in utc
    assert install.run("leases", "--json", "--utc").json == [row]


@pytest.mark.parametrize("flags", [[], ["--utc"]])
def test_times_are_read_in_the_zone_in_which_they_are_shown(
    install: Install, flags: list[str]
) -> None:
    typed = (datetime.now() + timedelta(days=30)).replace(hour=18, minute=0)
    meant = typed.replace(tzinfo=UTC) if flags else typed.astimezone(UTC)
    made = install.run(
        *("quotas", "lift", "--user", "ada", "--field", "live", "--limit", "3", "--by", "admin"),
        *("--reason", "x", "--until", f"{typed:%Y-%m-%dT%H:%M}", "--json", *flags),
    )
    assert made.json["until"] == f"{meant:%Y-%m-%dT%H:%M}:00Z"
    assert f"{typed:%Y-%m-%d} 18:00" in install.run("quotas", *flags).out


def test_the_start_of_a_draft_is_read_so_too(install: Install) -> None:
    words = ("requests", "drafts", "save", "--user", "ada", "--json", "--from")
    assert install.run(*words, "2026-12-01T18:00").json["starts_at"] == "2026-12-01T17:00:00Z"
    kept = install.run(*words, "2026-12-01T18:00", "--utc").json
    assert kept["starts_at"] == "2026-12-01T18:00:00Z"
    assert install.run(*words, "next week").json["starts_at"] == "next week"
    assert "2026-12-01 18:00:00 CET" in install.run("requests", "drafts", "--user", "ada").out


def test_an_instant_with_its_zone_is_that_instant(install: Install) -> None:
    at = (datetime.now(UTC) + timedelta(days=3)).replace(microsecond=0)
    made = install.run(
        *("requests", "create", "--user", "ada", "--tier", "card", "--hours", "1", "--reason", "x"),
        *("--from", f"{at:%Y-%m-%dT%H:%M:%S}Z", "--json"),
    )
    assert made.json["starts_at"] == f"{at:%Y-%m-%dT%H:%M:%S}Z"


def test_sentences_of_changes_name_the_local_zone(install: Install) -> None:
    words = "requests create --user ada --tier card --hours 2 --reason x"
    install.run(*words.split())
    assert " CE" in install.run("requests", "approve", "1", "--by", "grace").out
    install.run(*words.split())
    assert " UTC" in install.run("requests", "approve", "2", "--by", "grace", "--utc").out
