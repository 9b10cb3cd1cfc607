"""Every listing fits 80 columns, whatever names, reasons and UUIDs are in it, and cuts nothing."""

from __future__ import annotations

import unicodedata
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from jupyterhub_migspawner.cli.output import Display, show_as
from jupyterhub_migspawner.cli.table import Column
from jupyterhub_migspawner.policy.people import Person
from jupyterhub_migspawner.policy.wording import printable
from tests.unit.cli.conftest import Install
from tests.unit.cli.tables import table_lines
from tests.unit.cli.test_words import ALL, takes

LONG = "a-researcher-with-an-unusually-long-name@some.institute.of.a.university.example"
SERVER = "the-server-of-the-long-running-experiment-number-twelve"
REASON = (
    "a long training for the paper, whose reviewers want a second run with all ablations before "
    "the deadline; see https://example.org/a/very/long/address/without/any/blank/in/it/at/all/ok"
)
LISTINGS = [" ".join(words) for command, words in ALL if takes(command, "--wide")]

#: What some listings need besides their name.
MORE = {
    "requests drafts": f"requests drafts --user {LONG}",
    "notices test": "notices test --to admins",
}


@pytest.fixture(params=["names of usual length", "long names"])
def crowded(install: Install, request: pytest.FixtureRequest) -> Install:
    """Something to show in every listing."""
    long = request.param == "long names"
    name, server = (LONG, SERVER) if long else ("researcher-7", "experiment")
    with install.config.open("a") as file:
        file.write(
            'c.MigBroker.quotas = {"default": {"live": 5, "gpu_hours_per_week": 40.5}}\n'
            'c.MigBroker.notices = {"admins": ["json://127.0.0.1:1/a/long/path/to/somewhere/else"]}'
            f"\nc.MigBroker.node = {('n' * 70 if long else 'n1')!r}\n"
        )
    install.edit(
        '"profile": "1g.5gb",',
        f'"profile": "1g.5gb", "card": "NVIDIA A100-SXM4-40GB*", "description": {REASON!r},',
    )
    node = "n" * 70 if long else "n1"
    install.report(node=node)
    broker = install.broker
    person = Person(name, frozenset({"vision"}))
    now = broker.now()
    for number in range(2):
        broker.leases.acquire(person, f"{server}-{number}", "small", f"attempt-{number}")
        broker.leases.activate(f"attempt-{number}")
    first = broker.leases.find()[0]
    broker.leases.acquire(Person("grace"), "", "small", "attempt-3")
    broker.leases.activate("attempt-3")
    broker.leases.release(broker.leases.find()[-1].id, REASON, "admin")
    request_ = broker.requests.create(person, "card", 4, REASON)
    broker.requests.decide(request_.id, Person("admin", admin=True), False, reason=REASON)
    broker.drafts.save(person, tier="card", hours="4", starts_at="", reason=REASON)
    if not long:
        broker.drafts.save(Person(LONG), tier="card", hours="4", starts_at="", reason=REASON)
    admin = Person("admin", admin=True)
    until = now + timedelta(days=7)
    broker.quotas.grant_exception(name, "live", 9, until, REASON, admin)
    broker.sessions.protect(first.id, admin, until, REASON)
    broker.cards.drain(broker.cards.find()[1].uuid, REASON, "admin")
    broker.queue.join(person, "large")
    return install


def test_there_are_listings() -> None:
    assert len(LISTINGS) >= 15


@pytest.mark.parametrize("flags", ["", "--all"])
def test_every_listing_fits_80_columns(
    crowded: Install, flags: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for words in LISTINGS:
        if flags and words not in ("leases", "quotas"):
            continue
        answer = crowded.run(*MORE.get(words, words).split(), *flags.split())
        too_long = [
            line
            for line in answer.out.splitlines()
            # The doctor's commands and paths are there to be copied: a word is not broken.
            if cell_len(line) > 80
            and (words != "doctor" or (" " in line.strip() and "Mend: chmod" not in line))
        ]
        assert not too_long, (words, too_long)
        assert "…" not in answer.out, words
        assert answer.out.count("\n") > 1 or words == "leases adopt", (words, answer.out)


@pytest.mark.parametrize("words", ["requests", "events --limit 1000", "quotas", "leases --all"])
def test_a_reason_is_shown_in_full(crowded: Install, words: str) -> None:
    shown = "".join(crowded.run(*words.split()).out.split())
    assert "".join(REASON.split()) in shown
    assert REASON in crowded.run(*words.split(), "--wide").out


def test_wide_shows_all_columns_on_one_line_each(crowded: Install) -> None:
    rows = crowded.run("leases", "--all", "--json").json
    wide = crowded.run("leases", "--all", "--wide").out.splitlines()
    assert all(row["slice_uuid"] in line for row, line in zip(rows, wide[1:], strict=False))
    assert "MIG-" not in crowded.run("leases", "--all").out


def test_a_wider_terminal_is_used(crowded: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    lines = crowded.run("requests").out.splitlines()
    assert 80 < max(map(len, lines)) <= 200


WORDS = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zs", "Zl", "Zp", "Cf")), min_size=1)


@given(st.lists(WORDS, min_size=1), st.integers(10, 90))
def test_a_long_text_fits_and_loses_no_character(words: list[str], width: int) -> None:
    text = " ".join(words)
    show_as(Display(width))
    try:
        lines = table_lines([Column("why", "why")], [{"why": text}])[1:]
    finally:
        show_as(Display())
    assert all(cell_len(line) <= width for line in lines)
    assert "".join(lines).replace(" ", "") == printable(text).replace(" ", "")


@given(
    st.lists(st.tuples(WORDS, WORDS, st.integers(0, 10**19), WORDS, WORDS, WORDS), max_size=4),
    st.integers(80, 120),
)
def test_every_table_fits(rows: list[tuple[str, str, int, str, str, str]], width: int) -> None:
    keys = ("a", "b", "number", "c", "d", "e")
    columns = [Column(f"the {key}", key, number=key == "number", below=key == "e") for key in keys]
    columns.insert(2, Column("since", "since", time=True))
    table = [dict(zip(keys, row, strict=True), since="2026-11-22T17:53:16Z") for row in rows]
    show_as(Display(width))
    try:
        lines = table_lines(columns, table)
    finally:
        show_as(Display())
    assert all(cell_len(line) <= width for line in lines)
    shown = sum(len(unicodedata.normalize("NFC", line).strip()) for line in lines)
    assert shown or not rows
