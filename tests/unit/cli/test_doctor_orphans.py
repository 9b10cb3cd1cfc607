"""What doctor says of running servers that the lease database does not know."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from jupyterhub_migspawner.agent.orphans import Marks
from jupyterhub_migspawner.cli.doctor import orphans
from jupyterhub_migspawner.cli.doctor.orphans import findings
from jupyterhub_migspawner.db.store import Store
from jupyterhub_migspawner.model.orphans import OrphanRow
from tests.unit.cli.conftest import Install


@pytest.fixture
def server(install: Install, monkeypatch: pytest.MonkeyPatch) -> OrphanRow:
    """A server that runs on this machine, whose lease nobody knows."""
    mig = install.mig
    (card, *_) = mig.open_nvml().inventory().cards
    found = OrphanRow(
        "lost",
        node=mig.node,
        card_uuid=card.uuid,
        profile="1g.5gb",
        start=0,
        hub=mig.hub,
        user="ada",
        pids=(4242,),
    )
    monkeypatch.setattr(orphans, "read_marks", lambda: Marks((found,)))
    return found


def said(install: Install, *, known: bool) -> str:
    return " ".join(each.message for each in findings(install.mig, known=known))


def test_servers_are_named_where_there_is_no_database(install: Install, server: OrphanRow) -> None:
    assert "1 server of this hub run here" in said(install, known=False)


def test_cards_that_cannot_be_read_hide_no_server(install: Install, server: OrphanRow) -> None:
    install.config.write_text(
        install.config.read_text() + "\nc.MigBroker.nvml = 'sim:/nowhere/cards.json'\n"
    )
    assert "1 server of this hub run here" in said(install, known=False)


def test_servers_are_named_where_the_database_is_new_and_knows_no_cards(
    install: Install, server: OrphanRow, tmp_path: Path
) -> None:
    empty = f"sqlite:///{tmp_path / 'empty.sqlite'}"
    Store.open(empty, create=True).close()
    install.config.write_text(
        install.config.read_text() + f"\nc.MigBroker.database_url = {empty!r}\n"
    )
    assert "the default server of 'ada'" in said(install, known=True)


def test_what_is_on_cards_of_elsewhere_is_not_named(
    install: Install, server: OrphanRow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a demo that runs in a notebook of this hub."""
    other = replace(server, card_uuid="GPU-elsewhere")
    monkeypatch.setattr(orphans, "read_marks", lambda: Marks((other,)))
    assert said(install, known=False) == ""
    assert said(install, known=True) == ""
