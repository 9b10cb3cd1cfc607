"""The role of a node on PostgreSQL: its agent lives with it, and what is not its own is refused."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from jupyterhub_migspawner.broker.marks import environment_of
from jupyterhub_migspawner.db import backups, migrations, roles
from jupyterhub_migspawner.db.identity import Position
from jupyterhub_migspawner.db.store import Store
from jupyterhub_migspawner.db.tables import metadata
from jupyterhub_migspawner.errors import DatabaseError
from jupyterhub_migspawner.gpu import simulator
from jupyterhub_migspawner.model.leases import LeaseRow
from jupyterhub_migspawner.model.orphans import OrphanRow
from jupyterhub_migspawner.policy.people import Person
from tests.broker.lab import Lab, card
from tests.broker.postgres import Cluster, database_with_roles
from tests.unit.agent.conftest import BALANCED, SMALL, Node

PASSWORD = "only-in-this-test"

TIERS = [
    {"name": "small", "profile": "1g.5gb", "idle_minutes": 60},
    {"name": "course", "profile": "1g.5gb", "seats": 2},
    {"name": "card", "profile": "whole", "approval": True, "grant_starts": 1},
]


@pytest.fixture
def database(postgres: Cluster) -> Iterator[str]:
    with database_with_roles(postgres) as made:
        yield made


def log_in(url: str, node: str) -> str:
    """Make the role of a node; return the URL with which it logs in."""
    name = f"{url.rpartition('/')[2]}_{node}"
    roles.make(url, node, name, PASSWORD)
    remember(url, name)
    return url.replace("postgres@", f"{name}@")


def remember(url: str, role: str) -> None:
    """Let libpq find the password on this server; another test's may have the same names."""
    with open(os.environ["PGPASSFILE"], "a") as file:
        file.write(f"*:{urlsplit(url).port}:*:{role}:{PASSWORD}\n")


@pytest.fixture
def as_n1(database: str) -> str:
    return log_in(database, "n1")


@pytest.fixture
def node(database: str, as_n1: str, tmp_path: Path) -> Iterator[Node]:
    """A machine whose agent has the role of node n1; its broker has all rights, as a hub has."""
    made = Node(
        tmp_path / "n1", [SMALL, BALANCED], tiers=TIERS, url=database, agent_url=as_n1, cards=2
    )
    assert made.agent_broker.store.node == "n1"
    yield made
    for folder in made.proc.iterdir():
        end(made, int(folder.name))
    made.close()


def process(node: Node, environ: dict[str, str], slice_uuid: str = "") -> int:
    """A process of the machine, as ``/proc`` shows it, on a slice if that is named."""
    pid = subprocess.Popen(["sleep", "600"]).pid
    folder = node.proc / str(pid)
    folder.mkdir()
    (folder / "environ").write_bytes("".join(f"{k}={v}\0" for k, v in environ.items()).encode())
    started = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    fields = ["S", "1", *["0"] * 17, started, *["0"] * 30]
    (folder / "stat").write_text(f"{pid} (sleep) {' '.join(fields)}")
    if slice_uuid:
        simulator.add_process(node.path, slice_uuid, pid)
    return pid


def end(node: Node, pid: int, slice_uuid: str = "") -> None:
    if slice_uuid:
        simulator.remove_process(node.path, slice_uuid, pid)
    shutil.rmtree(node.proc / str(pid))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def session(node: Node, user: str, tier: str) -> tuple[LeaseRow, int]:
    """A running session with one process on its slice."""
    lease = node.lab.start(user, tier)
    if lease.slice_uuid is None:
        node.tick()
        lease = node.broker.leases.get(lease.id)
    pid = process(node, {"MIGSPAWNER_ATTEMPT": lease.attempt}, str(lease.slice_uuid))
    node.broker.leases.activate(lease.attempt)
    return node.broker.leases.get(lease.id), pid


def state(node: Node, lease: LeaseRow) -> str:
    return node.broker.leases.get(lease.id).state


# -- what the agent does ---------------------------------------------------------------------------


def test_sessions_live_and_end_on_proof(node: Node) -> None:
    node.tick()
    assert len(node.broker.slices.find()) == 11
    for tier in ("small", "course", "course"):
        lease, pid = session(node, "ada", tier)
        node.tick(3)
        assert state(node, lease) == "active"
        said = {each.source for each in node.broker.sessions.standings()[0].readings}
        assert "processes" in said
        node.stop(lease)
        node.tick()
        assert state(node, lease) == "releasing"
        end(node, pid, str(lease.slice_uuid))
        node.tick()
        assert state(node, lease) == "released"
    assert not [each for each in node.states().values() if each != "free"]


def test_cards_are_cut_given_whole_and_drained(node: Node) -> None:
    node.tick()
    node.set_layout("3g.20gb", "3g.20gb")
    node.tick(3)
    assert [profile for profile, _ in node.actual()] == ["3g.20gb", "3g.20gb"]
    grant = node.lab.grant()
    lease, pid = session(node, "ada", "card")
    assert lease.slice_uuid is not None
    node.stop(lease)
    end(node, pid, lease.slice_uuid)
    node.tick(3)
    assert state(node, lease) == "released"
    assert [profile for profile, _ in node.actual()] == ["3g.20gb", "3g.20gb"]
    # The agent knows no tiers: the hub's service ends the grant.
    assert node.broker.requests.get(grant.id).state == "approved"
    node.broker.leases.end_used_up()
    assert node.broker.requests.get(grant.id).state == "used"
    simulator.report_xid(node.path, node.card(1).uuid, 48)
    node.tick()
    assert node.card(1).state == "draining"
    simulator.set_recovery_action(node.path, node.card(0).uuid, 2)
    node.tick()
    assert node.card(0).state == "draining"


def test_lost_cards_and_restarts_are_reported(node: Node) -> None:
    node.tick()
    lease, pid = session(node, "ada", "small")
    simulator.lose_card(node.path, lease.card_uuid)
    node.tick()
    assert state(node, lease) == "lost"
    end(node, pid)
    simulator.reboot(node.path)
    node.restart()
    node.tick(4)
    assert {each.state for each in node.broker.cards.find()} == {"ok"}
    assert {"card.lost", "card.back", "lease.lost", "slice.missing"} <= set(node.kinds())


def test_strays_and_servers_without_a_lease_keep_slices_back(node: Node) -> None:
    node.tick()
    lease = node.lab.start("ada", "small")
    (first, second, *_) = [each for each in node.broker.slices.find() if not each.leases]
    stray = process(node, {}, str(first.row.uuid))
    forged = OrphanRow("old", "n1", second.row.card_uuid, second.row.profile, second.row.start)
    named = environment_of(lease, Position("another", 1)) | {
        "MIGSPAWNER_ATTEMPT": forged.attempt,
        "MIGSPAWNER_SLICE_UUID": str(second.row.uuid),
        "MIGSPAWNER_CARD_UUID": second.row.card_uuid,
        "MIGSPAWNER_PROFILE": second.row.profile,
        "MIGSPAWNER_START": str(second.row.start),
    }
    server = process(node, named)
    node.tick(2)
    shut = [each.row.uuid for each in node.broker.slices.find() if each.row.quarantined]
    assert shut == [first.row.uuid, second.row.uuid]
    end(node, stray, str(first.row.uuid))
    end(node, server)
    node.tick(2)
    assert not [each for each in node.broker.slices.find() if each.row.quarantined]


def test_what_a_node_does_is_signed_by_it(node: Node) -> None:
    node.tick()
    node.agent_broker.cards.drain(node.card().uuid, "a fan", "command line (root)")
    actors = {each.actor for each in node.broker.events.find()}
    assert actors == {"n1", "n1: command line (root)"}


def test_a_position_that_a_node_cannot_see_is_no_older_copy(node: Node, database: str) -> None:
    """Its newest lease is seen by it no more when that moves to another node."""
    node.tick()
    lease = node.lab.start("ada", "small")
    node.tick()
    with psycopg.connect(database, autocommit=True) as owner:
        owner.execute("INSERT INTO nodes VALUES ('n2', now(), '', null)")
        owner.execute("UPDATE leases SET node = 'n2' WHERE id = %s", [lease.id])
    node.tick(2)


def test_a_card_of_another_node_is_left_out_until_it_is_moved(
    node: Node, database: str, caplog: pytest.LogCaptureFixture
) -> None:
    node.tick()
    lease = node.lab.start("ada", "small")
    with psycopg.connect(database, autocommit=True) as owner:
        # As if the machine had had another name.
        owner.execute("INSERT INTO nodes SELECT 'n0', heartbeat_at, '', null FROM nodes")
        owner.execute("UPDATE cards SET node = 'n0'")
        owner.execute("UPDATE leases SET node = 'n0'")
    node.tick(2)
    assert {each.node for each in node.broker.cards.find()} == {"n0"}
    assert f"migspawner cards move {lease.card_uuid} n1" in caplog.text
    node.lab.clock.pass_time(minutes=5)
    node.broker.nodes.note_alive("n1")
    moved = node.broker.cards.move(lease.card_uuid, "n1", "root")
    assert moved.node == "n1"
    node.tick(2)
    assert node.broker.leases.get(lease.id).node == "n1"
    assert len(node.broker.cards.find(node="n1")) == 1


def test_a_card_that_its_agent_reports_is_not_moved(node: Node) -> None:
    node.tick()
    node.lab.report(card(7), node="n2")
    with pytest.raises(Exception, match="The agent of node n1 reports card"):
        node.broker.cards.move(node.card().uuid, "n2", "root")


# -- what it cannot do -----------------------------------------------------------------------------


@pytest.fixture
def two_nodes(database: str, as_n1: str) -> Iterator[Lab]:
    """A lab with a live lease on each of the nodes n1 and n2."""
    lab = Lab(database)
    lab.report(card(0), node="n1")
    lab.report(card(1), node="n2")
    for user, name in (("ada", "n1"), ("grace", "n2")):
        lease = lab.start(user, node=name)
        lab.broker.leases.activate(lease.attempt)
        lab.broker.readings.reach(lease.attempt, "http://127.0.0.1:1/", "v1:sealed")
    lab.broker.orphans.vouch(
        [OrphanRow("o2", "n2", "GPU-1", "1g.5gb", 6, hub="hub", user="linus", sealed="v1:sealed")]
    )
    yield lab
    lab.close()


FORBIDDEN = {
    "tokens of servers": "SELECT sealed FROM stays",
    "tokens of servers without a lease": "SELECT sealed FROM orphans",
    "all of them": "SELECT * FROM orphans",
    "requests": "SELECT id FROM requests",
    "drafts": "SELECT id FROM drafts",
    "choices of notices": "SELECT * FROM notice_choices",
    "the waiting list": "SELECT id FROM tickets",
    "what happened": "SELECT detail FROM events",
    "whose role is whose": "SELECT * FROM node_roles",
    "another's role": "INSERT INTO node_roles VALUES (session_user, 'n2')",
    "another node": "INSERT INTO nodes VALUES ('n3', now(), '', null)",
    "a lease": "INSERT INTO leases SELECT * FROM leases",
    "a grant": "INSERT INTO requests (id) VALUES (1)",
    "a lease's user": "UPDATE leases SET username = 'eve'",
    "a lease's node": "UPDATE leases SET node = 'n2'",
    "a card's node": "UPDATE cards SET node = 'n2'",
    "a reservation": "UPDATE cards SET reserved_for = 1",
    "no lease any more": "DELETE FROM leases",
    "a card in another node": (
        "INSERT INTO cards SELECT 'GPU-9', 'n2', card_index, model FROM cards LIMIT 1"
    ),
    "a slice of another card": (
        "INSERT INTO slices (card_uuid, profile, start, size, compute_slices, memory_mib, whole, "
        "present, quarantined, held) VALUES ('GPU-1', '7g', 9, 1, 1, 1, false, true, '', 0)"
    ),
    "a confirmed server without a lease": (
        "INSERT INTO orphans (attempt, node, card_uuid, profile, slice_uuid, identity, generation, "
        "hub, username, server, tier, vouched, pids, found_at) VALUES "
        "('x', 'n1', 'GPU-0', '1g.5gb', '', '', 1, 'hub', 'eve', '', 'small', true, '[]', now())"
    ),
    "a reading of another's session": (
        "INSERT INTO readings (lease_id, source, fingerprint, said, problem) "
        "VALUES (2, 'processes', '', '', '')"
    ),
    "processes of another's session": (
        "INSERT INTO processes (lease_id, boot_id, known, reported) VALUES (2, '', '[]', '[]')"
    ),
    "an event of an admin": (
        "INSERT INTO events (at, actor, kind, username, detail) "
        "VALUES (now(), 'root', 'card.drained', '', '{}')"
    ),
    "an event of another node": (
        "INSERT INTO events (at, actor, kind, username, detail) "
        "VALUES (now(), 'n2', 'card.drained', '', '{}')"
    ),
    "an event about another's card": (
        "INSERT INTO events (at, actor, kind, username, card_uuid, detail) "
        "VALUES (now(), 'n1', 'card.drained', '', 'GPU-1', '{}')"
    ),
    "an event about another's lease": (
        "INSERT INTO events (at, actor, kind, username, lease_id, detail) "
        "VALUES (now(), 'n1', 'lease.lost', 'grace', 2, '{}')"
    ),
    "an approval": (
        "INSERT INTO events (at, actor, kind, username, detail) "
        "VALUES (now(), 'n1', 'request.approved', '', '{}')"
    ),
    "a table": "CREATE TABLE mine (id int)",
    "the function": "CREATE OR REPLACE FUNCTION migspawner_node() RETURNS text LANGUAGE sql AS ''",
    "the owner": "SET ROLE postgres",
    "another session": "SET SESSION AUTHORIZATION postgres",
}


@pytest.mark.parametrize("statement", FORBIDDEN.values(), ids=FORBIDDEN)
def test_the_database_refuses(two_nodes: Lab, as_n1: str, statement: str) -> None:
    before = two_nodes.stored()
    with (
        psycopg.connect(as_n1, autocommit=True) as session,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        session.execute(statement)  # type: ignore[arg-type]
    assert two_nodes.stored() == before


OUT_OF_REACH = {
    "leases": "UPDATE leases SET state = 'released' WHERE node <> 'n1'",
    "cards": "UPDATE cards SET drained = 'no' WHERE node <> 'n1'",
    "slices": "UPDATE slices SET quarantined = 'no' WHERE card_uuid = 'GPU-1'",
    "nodes": "UPDATE nodes SET heartbeat_at = now() WHERE name <> 'n1'",
    "orphans": "UPDATE orphans SET pids = '[7]' WHERE attempt = 'o2'",
    "orphans that go": "DELETE FROM orphans WHERE attempt = 'o2'",
    "readings": "DELETE FROM readings WHERE lease_id = 2",
}


@pytest.mark.parametrize("statement", OUT_OF_REACH.values(), ids=OUT_OF_REACH)
def test_rows_of_other_nodes_are_out_of_reach(two_nodes: Lab, as_n1: str, statement: str) -> None:
    before = two_nodes.stored()
    with psycopg.connect(as_n1, autocommit=True) as session:
        assert session.execute(statement).rowcount == 0  # type: ignore[arg-type]
    assert two_nodes.stored() == before


def test_a_lease_that_ended_is_not_brought_back(two_nodes: Lab, as_n1: str) -> None:
    (ada, grace) = two_nodes.broker.leases.find()
    assert (ada.node, grace.node) == ("n1", "n2")
    two_nodes.stop(ada)
    with psycopg.connect(as_n1, autocommit=True) as session:
        back = session.execute("UPDATE leases SET state = 'active', ended_at = null")
        assert back.rowcount == 0
        seen = session.execute("SELECT id FROM leases").fetchall()
    assert seen == [(ada.id,)]


def test_the_policies_are_what_keeps_them_apart(two_nodes: Lab, database: str, as_n1: str) -> None:
    """Without them, what is out of reach would not be."""
    with psycopg.connect(database, autocommit=True) as owner:
        owner.execute("ALTER TABLE leases DISABLE ROW LEVEL SECURITY")
    with psycopg.connect(as_n1, autocommit=True) as session:
        assert session.execute("SELECT count(*) FROM leases").fetchone() == (2,)
    (found,) = roles.find(database)
    assert "sees all rows of leases: row level security is off there" in found.problems
    migrations.upgrade(database)
    (found,) = roles.find(database)
    assert found.problems == ()


# -- roles over time -------------------------------------------------------------------------------


def test_other_roles_see_everything_whoever_owns_the_tables(
    two_nodes: Lab, postgres: Cluster, database: str
) -> None:
    name = f"{database.rpartition('/')[2]}_hub"
    postgres.command(f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'")
    remember(database, name)
    with psycopg.connect(database, autocommit=True) as owner:
        for kind in ("TABLES", "SEQUENCES"):
            owner.execute(f"GRANT ALL ON ALL {kind} IN SCHEMA public TO {name}")  # type: ignore[arg-type]
    lab = Lab(database.replace("postgres@", f"{name}@"), clock=two_nodes.clock)
    try:
        assert lab.stored() == two_nodes.stored()
        lease = lab.start("eve")
        lab.broker.leases.activate(lease.attempt)
        assert lab.stop(lease).state == "released"
    finally:
        lab.close()
        with psycopg.connect(database, autocommit=True) as owner:
            owner.execute(f"DROP OWNED BY {name}")  # type: ignore[arg-type]
        postgres.command(f"DROP ROLE {name}")


@pytest.mark.parametrize("statement", ["REVOKE SELECT ON leases", "REVOKE ALL ON events"])
def test_a_right_that_is_missing_is_named_and_mended(
    database: str, as_n1: str, statement: str
) -> None:
    (role,) = [each.role for each in roles.find(database)]
    with psycopg.connect(database, autocommit=True) as owner:
        owner.execute(f"{statement} FROM {role}")  # type: ignore[arg-type]
    (found,) = roles.find(database)
    assert any("lacks " in each for each in found.problems)
    with pytest.raises(DatabaseError) as refused:
        Store.open(as_n1)
    assert f"refuses its role {role}: permission denied for table" in str(refused.value)
    assert f"`migspawner db role NODE --name {role}`" in str(refused.value)
    roles.make(database, "n1", role)
    assert roles.find(database)[0].problems == ()
    Store.open(as_n1).close()


def test_a_right_too_many_is_named_and_taken_back(database: str, as_n1: str) -> None:
    (role,) = [each.role for each in roles.find(database)]
    with psycopg.connect(database, autocommit=True) as owner:
        owner.execute(f"GRANT SELECT ON stays TO {role}")  # type: ignore[arg-type]
    assert "has SELECT on stays, which it should not" in roles.find(database)[0].problems
    roles.make(database, "n1", role)
    assert roles.find(database)[0].problems == ()


def test_an_upgrade_sets_policies_and_rights(database: str, as_n1: str) -> None:
    (role,) = [each.role for each in roles.find(database)]
    with psycopg.connect(database, autocommit=True) as owner:
        owner.execute("DROP POLICY migspawner_change ON leases")
        owner.execute(f"REVOKE ALL ON leases FROM {role}")  # type: ignore[arg-type]
        # A column that an upgrade would have added is granted as well.
    migrations.upgrade(database)
    assert roles.find(database)[0].problems == ()


def test_backup_and_restore_keep_the_roles(
    two_nodes: Lab, database: str, as_n1: str, tmp_path: Path
) -> None:
    backups.back_up(database, tmp_path / "copy.sqlite")
    two_nodes.close()
    backups.restore(database, tmp_path / "copy.sqlite")
    assert roles.find(database)[0].problems == ()
    with psycopg.connect(as_n1, autocommit=True) as session:
        assert session.execute("SELECT node FROM leases").fetchall() == [("n1",)]
    with psycopg.connect(database, autocommit=True) as owner:
        (old,) = owner.execute(
            "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'migspawner_replaced%'"
        ).fetchone() or ("",)
    with (
        psycopg.connect(as_n1, autocommit=True) as session,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        session.execute(f"SELECT 1 FROM {old}.leases")  # type: ignore[arg-type]
    with psycopg.connect(database, autocommit=True) as owner:
        owner.execute(f"DROP SCHEMA {old} CASCADE")  # type: ignore[arg-type]


def test_a_role_that_is_removed_has_nothing_left(database: str, as_n1: str) -> None:
    (role,) = [each.role for each in roles.find(database)]
    with psycopg.connect(as_n1, autocommit=True) as session:
        assert roles.remove(database, "n1") == (role,)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            session.execute("SELECT id FROM leases")
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(as_n1)
    with pytest.raises(DatabaseError, match="has no role in this lease database"):
        roles.remove(database, "n1")


def test_the_sql_that_is_printed_does_the_same(database: str) -> None:
    name = f"{database.rpartition('/')[2]}_n1"
    text = roles.as_sql(database, "n1", name)
    assert roles.find(database) == ()
    for _ in range(2):
        with psycopg.connect(database, autocommit=True) as superuser:
            superuser.execute(text)  # type: ignore[arg-type]
    assert roles.find(database) == (roles.NodeRole("n1", name),)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("postgres", "is a superuser"),
        ('"; DROP TABLE leases; --', "cannot be the name of a node's role"),
        ("x" * 64, "cannot be the name of a node's role"),
    ],
)
def test_roles_that_no_node_may_have_are_refused(database: str, name: str, why: str) -> None:
    with pytest.raises(DatabaseError, match=why):
        roles.make(database, "n1", name)
    assert roles.find(database) == ()


def test_a_role_is_that_of_one_node(database: str, as_n1: str) -> None:
    (role,) = [each.role for each in roles.find(database)]
    with pytest.raises(DatabaseError, match="is that of node 'n1'"):
        roles.make(database, "n2", role)


def test_without_the_right_to_create_roles_the_way_is_named(
    database: str, postgres: Cluster
) -> None:
    name = f"{database.rpartition('/')[2]}_owner"
    postgres.command(f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'")
    remember(database, name)
    with psycopg.connect(database, autocommit=True) as owner:
        owner.execute(f"GRANT CREATE ON SCHEMA public TO {name}")  # type: ignore[arg-type]
        for table in (*metadata.tables, migrations.VERSION_TABLE):
            owner.execute(f"ALTER TABLE {table} OWNER TO {name}")  # type: ignore[arg-type]
    hub = database.replace("postgres@", f"{name}@")
    try:
        with pytest.raises(DatabaseError, match="--print"):
            roles.make(hub, "n1", f"{name}_n1")
        assert roles.find(hub) == ()
    finally:
        with psycopg.connect(database, autocommit=True) as owner:
            owner.execute(f"REASSIGN OWNED BY {name} TO postgres")  # type: ignore[arg-type]
            owner.execute(f"DROP OWNED BY {name}")  # type: ignore[arg-type]
        postgres.command(f"DROP ROLE {name}")


def test_a_sqlite_database_has_no_roles(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'leases.sqlite'}"
    migrations.upgrade(url)
    assert roles.find(url) == ()
    with pytest.raises(DatabaseError, match="has no roles"):
        roles.make(url, "n1", "n1")


def test_persons_cannot_borrow_a_role(two_nodes: Lab, as_n1: str) -> None:
    """The broker itself: a start under a node's role is refused by the database."""
    lab = Lab(as_n1, clock=two_nodes.clock)
    try:
        with pytest.raises(DatabaseError, match="refuses its role"):
            lab.broker.leases.acquire(Person("eve"), "", "small", "an attempt")
    finally:
        lab.close()
