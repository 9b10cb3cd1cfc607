"""Tokens of servers: read by this hub's service alone, and sent nowhere but to their servers."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from jupyterhub_migspawner.db import queries, tables
from jupyterhub_migspawner.keys import ANY_LEASE, Binding
from jupyterhub_migspawner.model.leases import LeaseRow
from jupyterhub_migspawner.service.workers.sessions import Examiner
from tests.unit.service.conftest import World
from tests.unit.service.notebook_servers import (
    TOKEN,
    Notebook,
    lend,
    lend_many,
    pass_by,
    quiet,
    reading,
    serving,
)


def change(world: World, lease: LeaseRow, **values: Any) -> None:
    """What anybody can do who may write to the lease database."""
    world.broker.store.run(lambda tx: queries.sessions.change(tx, lease.id, **values))


def files_of(world: World) -> dict[str, bytes]:
    folder = world.parts.key_file.path.parent
    return {file.name: file.read_bytes() for file in folder.iterdir() if "leases" in file.name}


async def test_no_token_stands_in_the_files_of_the_database(
    world: World, examiner: Examiner, notebook: Notebook
) -> None:
    lease = lend(world, notebook)
    await examiner.round()
    assert notebook.asked
    found = files_of(world)
    assert len(found) == 3
    assert not [name for name, content in found.items() if TOKEN.encode() in content]
    (event_texts,) = [repr(world.broker.events.find(limit=1000))]
    assert TOKEN not in event_texts
    assert TOKEN not in repr(world.broker.sessions.standings())
    assert reading(world, lease).problem == ""


async def test_a_token_is_not_sent_to_an_address_that_was_changed(
    world: World, examiner: Examiner, notebook: Notebook, caplog: pytest.LogCaptureFixture
) -> None:
    lease = lend(world, notebook)
    async with serving() as stranger:
        change(world, lease, url=stranger.url)
        for _ in range(3):
            await examiner.round()
        assert stranger.asked == notebook.asked == []
    assert "does not open" in reading(world, lease).problem
    said = [each for each in caplog.records if "or the lease database was" in each.getMessage()]
    assert len(said) == 1
    world.pass_by(hours=5)
    quiet(world, lease)
    await examiner.round()
    assert world.live() == {lease.id: "active"}
    # The hub gets no report in its name either, least of all with the service's own token.
    assert world.hub.active == []


async def test_an_adopted_server_is_asked_with_the_token_that_its_hub_saved(
    world: World, examiner: Examiner, notebook: Notebook
) -> None:
    lease = lend(world, notebook)
    keys = world.parts.key_file.read()
    saved = keys.seal(TOKEN, Binding(ANY_LEASE, lease.attempt, notebook.url))
    change(world, lease, sealed=saved)
    await examiner.round()
    assert notebook.asked
    assert reading(world, lease).problem == ""
    # Nor is that one of use for another start, or another address.
    async with serving() as stranger:
        eve = lend(world, stranger, "eve")
        change(world, eve, sealed=saved)
        await examiner.round()
        change(world, eve, sealed=keys.seal(TOKEN, Binding(ANY_LEASE, eve.attempt, notebook.url)))
        await examiner.round()
        assert stranger.asked == []
    assert "does not open" in reading(world, eve).problem


async def test_a_token_is_not_sent_for_another_lease(
    world: World, examiner: Examiner, notebook: Notebook
) -> None:
    ada = lend(world, notebook)
    async with serving() as hers:
        eve = lend(world, hers, "eve")
        stay = {each.lease.id: each.stay for each in world.broker.sessions.standings()}
        change(world, eve, sealed=stay[ada.id].sealed)
        await examiner.round()
        assert hers.asked == []
        # With the address as well it would be the token of ada's server, sent to ada's server.
        change(world, eve, sealed=stay[ada.id].sealed, url=stay[ada.id].url)
        before = len(notebook.asked)
        await examiner.round()
        assert hers.asked == []
        assert len(notebook.asked) == 2 * before
    assert "does not open" in reading(world, eve).problem


@pytest.mark.parametrize("what", ["gone", "another", "open", "damaged"])
async def test_without_its_key_nothing_is_known_and_nothing_ends(
    world: World,
    examiner: Examiner,
    notebook: Notebook,
    caplog: pytest.LogCaptureFixture,
    what: str,
) -> None:
    lease = lend(world, notebook)
    await examiner.round()
    asked, path = len(notebook.asked), world.parts.key_file.path
    kept = path.read_bytes()
    lose(path, what)
    with caplog.at_level(logging.ERROR):
        for _ in range(5):
            await pass_by(world, examiner, lease, 30)
    assert world.live() == {lease.id: "active"}
    assert reading(world, lease).problem
    assert "lease.ending" not in [event.kind for event in world.broker.events.find()]
    assert "lease.unknown" in [event.kind for event in world.broker.events.find()]
    assert len(notebook.asked) == asked
    said = [record.getMessage() for record in caplog.records if str(path) in record.getMessage()]
    assert len(said) == 1
    assert "none of them ends for being idle" in said[0]
    assert TOKEN not in caplog.text
    # What starts then is as usual, and what the old key sealed is back with that key.
    if what in ("gone", "another"):
        async with serving() as new:
            (later,) = lend_many(world, new, 1)
            await examiner.round()
            assert new.asked
            assert reading(world, later).problem == ""
    path.write_bytes(kept)
    path.chmod(0o600)
    await examiner.round()
    assert len(notebook.asked) > asked
    assert reading(world, lease).problem == ""


def lose(path: Path, what: str) -> None:
    if what == "gone":
        path.unlink()
    elif what == "another":
        path.write_text("ab" * 32)
    elif what == "open":
        path.chmod(0o644)
    else:
        path.write_text("rubbish")


async def test_a_session_of_before_the_key_is_unknown(
    world: World, examiner: Examiner, notebook: Notebook
) -> None:
    lease = lend(world, notebook)
    change(world, lease, sealed="")
    await examiner.round()
    assert notebook.asked == []
    assert "the address of its server is unknown" in reading(world, lease).problem


async def test_the_hub_is_told_of_use_with_the_server_s_own_token(
    world: World, examiner: Examiner, notebook: Notebook
) -> None:
    lease = lend(world, notebook)
    await examiner.round()
    notebook.kernels[0]["execution_state"] = "busy"
    world.pass_by(minutes=10)
    quiet(world, lease)
    await examiner.round()
    assert {token for _, token, _ in world.hub.active} == {TOKEN}


async def test_a_user_who_is_renamed_stays_known(
    world: World, examiner: Examiner, notebook: Notebook
) -> None:
    lease = lend(world, notebook)
    changes = sa.update(tables.leases).values(username="ada-lovelace")
    world.broker.store.run(lambda tx: tx.change(changes))
    world.pass_by(minutes=1)
    await examiner.round()
    assert notebook.asked
    assert reading(world, lease).problem == ""
