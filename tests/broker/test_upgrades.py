"""Upgrades of a lease database that was in use: nothing that it holds is lost or changed."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from jupyterhub_migspawner.broker.readings import Answer
from jupyterhub_migspawner.db import migrations, queries
from jupyterhub_migspawner.errors import Refusal
from jupyterhub_migspawner.policy.people import Person
from tests.broker.lab import START, Lab
from tests.broker.test_store import engine

CARDS = [
    # uuid, mig_enabled, layout, target
    ("GPU-cut", True, [["3g.20gb", 0], ["1g.5gb", 4]], None),
    ("GPU-whole", True, [["1g.5gb", 0]], [["7g.40gb", 0]]),
    ("GPU-off", False, [], None),
    ("GPU-empty", True, [], None),
]
SLICES = [
    # card, profile, start, present, held
    ("GPU-cut", "3g.20gb", 0, True, 1),
    ("GPU-cut", "1g.5gb", 4, True, 0),
    ("GPU-cut", "2g.10gb", 4, False, 0),
    ("GPU-whole", "1g.5gb", 0, True, 0),
    ("GPU-whole", "7g.40gb", 0, False, 1),
]


def at_first_schema(url: str) -> None:
    """A database of the first version, as it stood in the middle of a day."""
    made = engine(url)
    with made.begin() as connection:
        config = Config()
        config.set_main_option("script_location", str(Path(migrations.__file__).parent))
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        tables = sa.MetaData()
        tables.reflect(connection)
        sqlite = connection.dialect.name == "sqlite"
        now = START.isoformat(timespec="microseconds") if sqlite else START

        def put(table: str, **values: object) -> None:
            connection.execute(sa.insert(tables.tables[table]).values(**values))

        put("nodes", name="n1", heartbeat_at=now, driver_version="535")
        for index, (uuid, enabled, layout, target) in enumerate(CARDS):
            put(
                "cards",
                uuid=uuid,
                node="n1",
                card_index=index,
                model="A100",
                memory_mib=40960,
                mig_enabled=enabled,
                problem="",
                lost=False,
                drained="",
                layout=layout,
                # A JSON null would be a target.
                target=sa.null() if target is None else target,
                compute_slices=7,
                whole_profile="7g.40gb",
                whole_start=0,
                whole_size=8,
                whole_memory_mib=40192,
            )
        for number, (card, profile, start, present, held) in enumerate(SLICES, 1):
            put(
                "slices",
                card_uuid=card,
                profile=profile,
                start=start,
                size=1,
                compute_slices=1,
                memory_mib=4864,
                whole=profile == "7g.40gb",
                uuid=f"MIG-{number}" if present else None,
                present=present,
                quarantined="",
                held=held,
            )
            if held:
                put(
                    "leases",
                    attempt=f"attempt {number}",
                    username="ada",
                    server=profile,
                    tier="small",
                    state="active",
                    slice_id=number,
                    seat=0,
                    slice_uuid=f"MIG-{number}" if present else None,
                    node="n1",
                    card_uuid=card,
                    profile=profile,
                    start=start,
                    memory_mib=4864,
                    whole=profile == "7g.40gb",
                    share=0.5,
                    since=now,
                    end_reason="",
                    waiting_for="",
                )
        put("events", at=now, actor="n1", kind="card.seen", username="", detail={"why": "it is"})
    made.dispose()


def upgrade_to(url: str, revision: str) -> None:
    """Upgrade a database as far as an earlier version of the schema."""
    made = engine(url)
    with made.begin() as connection:
        config = Config()
        config.set_main_option("script_location", str(Path(migrations.__file__).parent))
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    made.dispose()


def test_a_database_of_the_first_schema_is_refused_until_it_is_upgraded(empty_url: str) -> None:
    at_first_schema(empty_url)
    assert migrations.check(empty_url).state == "behind"
    assert migrations.upgrade(empty_url).current


def test_an_upgrade_loses_no_lease_and_wants_cards_as_they_are(empty_url: str) -> None:
    at_first_schema(empty_url)
    migrations.upgrade(empty_url)
    lab = Lab(empty_url)
    try:
        leases = {lease.card_uuid: lease for lease in lab.broker.leases.find()}
        assert {card: (each.user, each.state) for card, each in leases.items()} == {
            "GPU-cut": ("ada", "active"),
            "GPU-whole": ("ada", "active"),
        }
        cards = {card.uuid: card for card in lab.broker.cards.find()}
        for uuid, enabled, layout, target in CARDS:
            card = cards[uuid]
            assert json.loads(json.dumps(card.layout)) == layout
            assert json.loads(json.dumps(card.target)) == target
            assert (card.mig_wanted, card.layout_by) == (enabled, "")
            assert card.reserved_for is None
        wanted = {
            (each.row.card_uuid, each.row.profile): each.row.wanted
            for each in lab.broker.slices.find()
        }
        # 2g.10gb is no part of its card's layout and 7g.40gb only of its card's target.
        assert wanted == {
            ("GPU-cut", "3g.20gb"): True,
            ("GPU-cut", "1g.5gb"): True,
            ("GPU-whole", "1g.5gb"): True,
            ("GPU-whole", "7g.40gb"): False,
        }
        assert [event.kind for event in lab.broker.events.find()] == ["card.seen"]
    finally:
        lab.close()


def test_what_the_sources_of_a_session_have_said_stays_known(empty_url: str) -> None:
    at_first_schema(empty_url)
    upgrade_to(empty_url, "0019")
    made = engine(empty_url)
    now = START.isoformat(timespec="microseconds") if made.dialect.name == "sqlite" else START
    with made.begin() as connection:
        lease = connection.execute(sa.text("SELECT min(id) FROM leases")).scalar_one()
        readings = sa.Table("readings", sa.MetaData(), autoload_with=connection)
        seen = {"lease_id": lease, "seen_at": now, "active_at": now}
        for source, mark, said, trouble in (
            ("kernels", "a digest", "1 kernel, 0 busy", ""),
            ("processes", "", "", "they cannot be read"),
        ):
            put = sa.insert(readings).values(source=source, mark=mark, said=said, trouble=trouble)
            connection.execute(put.values(**seen))
    made.dispose()
    migrations.upgrade(empty_url)
    lab = Lab(empty_url)
    try:
        found = lab.store.read(lambda tx: queries.sessions.of_lease(tx, lease))
        assert [(each.source, each.fingerprint, each.said, each.problem) for each in found] == [
            ("kernels", "a digest", "1 kernel, 0 busy", ""),
            ("processes", "", "", "they cannot be read"),
        ]
        assert {each.seen_at for each in found} == {each.active_at for each in found} == {START}
        # The same answer as before the upgrade is no sign of use, another one is.
        lab.clock.now += timedelta(minutes=5)
        for fingerprint, active_at in (("a digest", START), ("another", lab.clock.now)):
            lab.broker.readings.note([Answer(lease, "kernels", fingerprint)])
            first, _ = lab.store.read(lambda tx: queries.sessions.of_lease(tx, lease))
            assert first.active_at == active_at
    finally:
        lab.close()


def test_leases_from_before_hubs_had_names_are_the_first_hub_s(empty_url: str) -> None:
    at_first_schema(empty_url)
    migrations.upgrade(empty_url)
    lab = Lab(empty_url, hub="physics")
    assert {lease.hub for lease in lab.broker.leases.find()} == {"hub"}
    number = len(lab.broker.leases.find())
    assert number > 0
    lab.broker.hubs.claim("here")
    assert len(lab.broker.leases.find(hub="physics")) == number
    lab.close()


def test_who_had_a_slice_before_seats_keeps_it_alone(empty_url: str) -> None:
    at_first_schema(empty_url)
    migrations.upgrade(empty_url)
    tiers = [{"name": "course", "profile": "3g.20gb", "seats": 4}]
    lab = Lab(empty_url, tiers=tiers)
    try:
        (offer,) = lab.broker.tiers.of(Person("grace"))
        assert (offer.free, offer.total) == (0, 4)
        with pytest.raises(Refusal, match=r"No seat on a 3g\.20gb slice is free"):
            lab.start("grace", "course")
        (old,) = [each for each in lab.broker.leases.find() if each.card_uuid == "GPU-cut"]
        lab.stop(old)
        assert [lab.start(user, "course").seat for user in ("grace", "linus")] == [0, 1]
    finally:
        lab.close()
