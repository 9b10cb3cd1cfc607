"""What the hub does to its accounts reaches the leases once it is committed, whatever fails."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jupyterhub import orm
from sqlalchemy.orm import Session
from traitlets.config import Config

from jupyterhub_migspawner.broker.users import Users
from jupyterhub_migspawner.config import MigBroker
from jupyterhub_migspawner.errors import DatabaseError
from jupyterhub_migspawner.hub.accounts import Accounts
from jupyterhub_migspawner.policy.people import Person


@pytest.fixture
def mig(tmp_path: Path) -> Iterator[MigBroker]:
    config = Config()
    config.MigBroker.directory = str(tmp_path)
    config.MigBroker.tiers = [{"name": "card", "profile": "whole", "approval": True}]
    made = MigBroker(config=config)
    yield made
    made.open_broker().store.close()


@pytest.fixture
def hub_db() -> Iterator[Session]:
    """The hub's own database."""
    session = orm.new_session_factory("sqlite:///:memory:")()
    yield session
    session.close()


@pytest.fixture
def accounts(mig: MigBroker) -> Iterator[Accounts]:
    watching = Accounts(mig, pause=0.001)
    watching.watch()
    yield watching
    if watching._thread.is_alive():
        watching.stop()


def user(db: Session, name: str) -> Any:
    made = orm.User(name=name)
    db.add(made)
    db.commit()
    return made


def asked(mig: MigBroker) -> list[tuple[str, str]]:
    return [(each.user, each.state) for each in mig.open_broker().requests.find()]


def ask(mig: MigBroker, name: str) -> None:
    mig.open_broker().requests.create(Person(name), "card", 1, "x")


def test_a_rename_and_a_deletion_are_passed_on_in_order(
    mig: MigBroker, hub_db: Session, accounts: Accounts
) -> None:
    ada, grace = user(hub_db, "ada"), user(hub_db, "grace")
    ask(mig, "ada")
    ask(mig, "grace")
    ada.name = "lovelace"
    hub_db.commit()
    hub_db.delete(grace)
    hub_db.commit()
    accounts.stop()
    assert asked(mig) == [("lovelace", "pending"), ("grace", "cancelled")]


def test_renamed_and_deleted_at_once(mig: MigBroker, hub_db: Session, accounts: Accounts) -> None:
    ada = user(hub_db, "ada")
    ask(mig, "ada")
    ada.name = "lovelace"
    hub_db.flush()
    hub_db.delete(ada)
    hub_db.commit()
    accounts.stop()
    assert asked(mig) == [("lovelace", "cancelled")]


def test_what_the_hub_undoes_has_not_happened(
    mig: MigBroker, hub_db: Session, accounts: Accounts
) -> None:
    ada = user(hub_db, "ada")
    ask(mig, "ada")
    ada.name = "lovelace"
    hub_db.rollback()
    hub_db.delete(ada)
    hub_db.flush()
    hub_db.rollback()
    # What comes after it is none of the undone.
    user(hub_db, "grace")
    accounts.stop()
    assert asked(mig) == [("ada", "pending")]


def test_whatever_else_the_hub_writes_is_none_of_it(
    mig: MigBroker, hub_db: Session, accounts: Accounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada = user(hub_db, "ada")
    called: list[str] = []
    for name in ("rename", "forget"):
        monkeypatch.setattr(Users, name, lambda *_, name=name: called.append(name))
    ada.admin = True
    ada.name = "ada"
    hub_db.add(orm.Spawner(name="", user=ada))
    hub_db.commit()
    accounts.stop()
    assert called == []


def test_a_database_that_is_away_is_asked_again(
    mig: MigBroker, hub_db: Session, accounts: Accounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename, tries = Users.rename, []

    def away(self: Users, *given: Any) -> int:
        tries.append(given)
        if len(tries) < 4:
            raise DatabaseError("The lease database is away.")
        done = rename(self, *given)
        accounts._stopped.set()
        return done

    monkeypatch.setattr(Users, "rename", away)
    ada = user(hub_db, "ada")
    ask(mig, "ada")
    ada.name = "lovelace"
    hub_db.commit()
    assert accounts._stopped.wait(60)
    accounts.stop()
    assert len(tries) == 4
    assert len(set(tries)) == 1
    assert asked(mig) == [("lovelace", "pending")]


def test_what_cannot_be_noted_does_not_hold_up_the_next(
    mig: MigBroker, hub_db: Session, accounts: Accounts, caplog: pytest.LogCaptureFixture
) -> None:
    ada, grace = user(hub_db, "ada"), user(hub_db, "grace")
    ask(mig, "grace")
    ada.name = "x" * 300
    hub_db.commit()
    grace.name = "hopper"
    hub_db.commit()
    accounts.stop()
    assert "was not recorded" in caplog.text
    assert asked(mig) == [("hopper", "pending")]
