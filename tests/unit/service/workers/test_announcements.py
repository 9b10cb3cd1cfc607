"""Notices inside servers, and answers to extension requests."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from jupyterhub_migspawner.db import queries
from jupyterhub_migspawner.service.clients import notebooks
from jupyterhub_migspawner.service.workers.sessions import Examiner
from tests.broker.lab import inventory
from tests.unit.service.conftest import World
from tests.unit.service.notebook_servers import Notebook, lend, pass_by


def events(world: World, kind: str) -> list[Any]:
    return [event for event in world.broker.events.find() if event.kind == kind]


async def idle(world: World, examiner: Examiner, notebook: Notebook) -> Any:
    """A session whose person has just been warned of its end."""
    lease = lend(world, notebook)
    await examiner.round()
    await pass_by(world, examiner, lease, 46)
    return lease


async def test_the_server_is_told_when_its_person_is(
    world: World, examiner: Examiner, notebook: Notebook
) -> None:
    lease = lend(world, notebook)
    await examiner.round()
    await pass_by(world, examiner, lease, 44)
    assert notebook.words == 0, "there is nothing to tell"
    await pass_by(world, examiner, lease, 2)
    (ending,) = events(world, "lease.ending")
    assert notebook.told["notice"] == {
        "rule": "idle",
        "why": "",
        "ends_at": ending.detail["until"],
        "extendable": True,
        "page": world.parts.prefix,
        "holds_seconds": 180.0,
    }
    # Used again: nothing ends, and nothing is shown any longer.
    notebook.kernels[0]["last_activity"] = "2026-11-23T13:00:00Z"
    await pass_by(world, examiner, lease, 1)
    assert notebook.told == {"notice": None}
    words = notebook.words
    await pass_by(world, examiner, lease, 1)
    assert notebook.words == words


async def test_who_has_brought_an_end_forward_is_told_with_it(
    world: World, examiner: Examiner, notebook: Notebook
) -> None:
    lease = lend(world, notebook)
    await examiner.round()
    assert notebook.words == 0
    why = "its grant was revoked by root: a fire " + "!" * 2000
    with world.broker.store.transaction() as tx:
        queries.leases.shorten(tx, lease.id, world.now + timedelta(minutes=10), why)
    await pass_by(world, examiner, lease, 1)
    notice = notebook.told["notice"]
    assert notice["rule"] == "time"
    assert notice["why"].startswith("its grant was revoked by root: a fire")
    assert len(notice["why"]) <= 300


async def test_a_server_that_lost_its_card_is_told_until_it_is_over(
    world: World, examiner: Examiner, notebook: Notebook
) -> None:
    lease = lend(world, notebook)
    await examiner.round()
    assert notebook.words == 0
    world.broker.nodes.record_inventory("node1", inventory())
    await examiner.round()
    notice = notebook.told["notice"]
    assert (notice["rule"], notice["extendable"]) == ("lost", False)
    assert notice["why"].startswith("Your session has lost its GPU")
    # In each round: the notice holds for three of them only.
    for words in (2, 3):
        await examiner.round()
        assert notebook.words == words
    notebook.how = "hangs"
    world.broker.leases.note_stopped(lease.id)
    await examiner.round()
    assert notebook.words == 3


async def test_a_wish_is_granted_as_on_the_page_and_answered(
    world: World, examiner: Examiner, notebook: Notebook
) -> None:
    lease = await idle(world, examiner, notebook)
    notebook.wish = "w1"
    await pass_by(world, examiner, lease, 1)
    (extended,) = events(world, "lease.extended")
    assert extended.actor == "ada"
    assert extended.detail["why"] == "requested inside the server"
    answer = notebook.told["answer"]
    assert (answer["wish"], answer["refusal"]) == ("w1", "")
    assert answer["kept_until"] == extended.detail["until"]
    assert notebook.told["notice"] is None
    await pass_by(world, examiner, lease, 1)
    assert len(events(world, "lease.extended")) == 1


async def test_a_wish_beyond_the_ceiling_is_refused_in_words(
    world: World, examiner: Examiner, notebook: Notebook
) -> None:
    lease = await idle(world, examiner, notebook)
    for number in range(20):
        notebook.wish = f"w{number}"
        await pass_by(world, examiner, lease, 46 if number else 1)
        if notebook.told.get("answer", {}).get("refusal"):
            break
    assert "cannot be extended beyond" in notebook.told["answer"]["refusal"]
    assert notebook.wish == "", "it is answered, too"


async def test_a_wish_of_the_last_second_keeps_the_session(
    world: World, examiner: Examiner, notebook: Notebook
) -> None:
    lease = await idle(world, examiner, notebook)
    world.pass_by(minutes=15)
    notebook.wish = "w1"
    await pass_by(world, examiner, lease, 1)
    assert world.live() == {lease.id: "active"}
    assert world.hub.stopped == []
    assert len(events(world, "lease.extended")) == 1


@pytest.mark.parametrize("wish", [1, None, ["w"], "w" * 101])
async def test_a_wish_that_is_none_is_not_heard(
    world: World, examiner: Examiner, notebook: Notebook, wish: Any
) -> None:
    lease = await idle(world, examiner, notebook)
    notebook.wish = wish
    await pass_by(world, examiner, lease, 1)
    assert events(world, "lease.extended") == []


async def test_a_server_without_the_extension_is_left_alone(
    world: World, examiner: Examiner, notebook: Notebook
) -> None:
    notebook.installed = False
    lease = await idle(world, examiner, notebook)
    await pass_by(world, examiner, lease, 15.1)
    assert world.live() == {lease.id: "releasing"}


async def test_who_cannot_be_told_does_not_keep_the_others_from_it(
    world: World, examiner: Examiner, notebook: Notebook, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = await idle(world, examiner, notebook)
    monkeypatch.setattr(notebooks, "PATIENCE", 0.05)
    notebook.how = "hangs"
    await pass_by(world, examiner, lease, 1)
    await pass_by(world, examiner, lease, 60)
    assert world.live() == {lease.id: "active"}, "it is unknown now"


async def test_a_hard_end_is_told_too_and_cannot_be_put_off(
    world: World, examiner: Examiner, notebook: Notebook
) -> None:
    lease = lend(world, notebook, tier="timed")
    for _ in range(4):
        await pass_by(world, examiner, lease, 10)
    assert notebook.words == 0
    await pass_by(world, examiner, lease, 6)
    notice = notebook.told["notice"]
    assert (notice["rule"], notice["extendable"]) == ("time", False)
