"""Roles of nodes on PostgreSQL: login roles with the rights of one node's agent, and no more.

Relies on :mod:`.row_security` for the rows, and on being the owner of the tables. Promises that
making a role again mends its rights, that nothing is half done, and that no password is in a
statement: the server gets a SCRAM verifier of it.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc

from jupyterhub_migspawner.db import migrations, row_security, urls
from jupyterhub_migspawner.db.engine import WRITING, database_error, make_engine
from jupyterhub_migspawner.db.migrations import VERSION_TABLE
from jupyterhub_migspawner.db.tables import cards, metadata, node_roles, nodes, orphans, slices
from jupyterhub_migspawner.errors import DatabaseError
from jupyterhub_migspawner.policy.wording import listed, quoted

PREFIX = "migspawner_"
"""The name of a node's role begins with it, unless it is given."""

LONGEST = 63
"""Bytes of a name in PostgreSQL."""

_NAME = re.compile(f"[A-Za-z0-9_.-]{{1,{LONGEST}}}")


def _but(table: sa.Table, *left_out: str) -> tuple[str, ...]:
    return tuple(name for name in table.c.keys() if name not in left_out)  # noqa: SIM118


#: Rights by table: what may be done, and with which columns; none are all of them.
RIGHTS: dict[str, dict[str, tuple[str, ...]]] = {
    nodes.name: {"SELECT": (), "INSERT": (), "UPDATE": _but(nodes, "name")},
    cards.name: {
        "SELECT": (),
        "INSERT": _but(cards, "reserved_for", "reserved_until"),
        "UPDATE": _but(cards, "uuid", "node", "reserved_for", "reserved_until"),
    },
    slices.name: {
        "SELECT": (),
        "INSERT": _but(slices, "shared_by"),
        "UPDATE": _but(slices, "id", "card_uuid", "profile", "start"),
    },
    "leases": {
        "SELECT": (),
        "UPDATE": (
            "state",
            "ended_at",
            "releasing_at",
            "deadline",
            "end_reason",
            "waiting_for",
            "slice_uuid",
        ),
    },
    "processes": {"SELECT": (), "INSERT": (), "UPDATE": (), "DELETE": ()},
    "readings": {"SELECT": (), "INSERT": (), "UPDATE": (), "DELETE": ()},
    orphans.name: {
        "SELECT": _but(orphans, "url", "sealed"),
        "INSERT": (),
        "UPDATE": ("pids",),
        "DELETE": (),
    },
    "events": {"SELECT": ("id",), "INSERT": ()},
    "hubs": {"SELECT": ()},
    "clocks": {"SELECT": ()},
    "database_identity": {"SELECT": ()},
    VERSION_TABLE: {"SELECT": ()},
}

SEQUENCES = {"events_id_seq": ("SELECT", "USAGE"), "slices_id_seq": ("USAGE",)}


@dataclass(frozen=True)
class NodeRole:
    """A role of a node; ``problems`` say what is wrong with it, each in a sentence part."""

    node: str
    role: str
    problems: tuple[str, ...] = ()


def default_name(node: str) -> str:
    """Return the name of a node's role."""
    return PREFIX + re.sub(r"[^A-Za-z0-9_.-]", "_", node)


def statements(node: str, role: str, database: str, schema: str) -> list[str]:
    """Return the SQL that makes the role, or mends its rights. Raises :exc:`.DatabaseError`."""
    _demand_name(role)
    name, text = _identifier(role), _literal(role)
    tables = [*metadata.tables, VERSION_TABLE]
    found = [
        f"DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = {text}) THEN "
        f"CREATE ROLE {name} LOGIN; END IF; END $$",
        f"GRANT CONNECT ON DATABASE {_identifier(database)} TO {name}",
        f"GRANT USAGE ON SCHEMA {_identifier(schema)} TO {name}",
        # Rights of earlier versions, and what was granted by hand.
        f"REVOKE ALL ON {', '.join(tables)} FROM {name}",
    ]
    for table, rights in RIGHTS.items():
        parts = [
            right + (f" ({', '.join(map(_identifier, columns))})" if columns else "")
            for right, columns in rights.items()
        ]
        found.append(f"GRANT {', '.join(parts)} ON {table} TO {name}")
    for sequence, usage in SEQUENCES.items():
        found.append(f"GRANT {', '.join(usage)} ON SEQUENCE {sequence} TO {name}")
    found.append(
        f"INSERT INTO {node_roles.name} (role, node) VALUES ({text}, {_literal(node)}) "
        "ON CONFLICT (role) DO NOTHING"
    )
    return found


def make(url: str, node: str, role: str, password: str = "") -> None:
    """Make the role of a node, or mend its rights; set its password unless that is empty.

    Raises :exc:`.DatabaseError`; then nothing has changed.
    """
    with _owner(url) as connection:
        _demand_free(connection, node, role)
        _run(connection, statements(node, role, *_place(connection)), node, role)
        if password:
            bare: Any = connection.connection.driver_connection
            verifier = bare.pgconn.encrypt_password(
                password.encode(), role.encode(), b"scram-sha-256"
            ).decode("ascii")
            set_password = f"ALTER ROLE {_identifier(role)} PASSWORD {_literal(verifier)}"
            _run(connection, [set_password], node, role)


def as_sql(url: str, node: str, role: str) -> str:
    """Return what :func:`make` would run, for psql. Raises :exc:`.DatabaseError`."""
    with _owner(url) as connection:
        _demand_free(connection, node, role)
        lines = [f"{each};" for each in statements(node, role, *_place(connection))]
    return "\n".join(["BEGIN;", *lines, "COMMIT;"])


def remove(url: str, node: str, role: str = "") -> tuple[str, ...]:
    """Drop the roles of a node, or one of them; return their names.

    Raises :exc:`.DatabaseError`; then nothing has changed.
    """
    with _owner(url) as connection:
        there = [each for each in _registered(connection) if each.node == node]
        chosen = [each.role for each in there if not role or each.role == role]
        if not chosen:
            which = f"no role {quoted(role)}" if role else "no role"
            raise DatabaseError(f"Node {quoted(node)} has {which} in this lease database.")
        database, schema = map(_identifier, _place(connection))
        for each in chosen:
            name = _identifier(each)
            connection.execute(sa.delete(node_roles).where(node_roles.c.role == each))
            if not _exists(connection, each):
                continue
            tables = ", ".join([*metadata.tables, VERSION_TABLE])
            steps = [
                f"REVOKE ALL ON {tables} FROM {name}",
                f"REVOKE ALL ON SEQUENCE {', '.join(SEQUENCES)} FROM {name}",
                f"REVOKE ALL ON SCHEMA {schema} FROM {name}",
                f"REVOKE ALL ON DATABASE {database} FROM {name}",
                f"DROP ROLE {name}",
            ]
            _run(connection, steps, node, each, "--remove")
        return tuple(chosen)


def grant_again(connection: sa.Connection) -> None:
    """Give the roles of all nodes their rights, in an open transaction of the tables' owner.

    For tables that were changed or created again. Roles that do not exist on this server are left
    out.
    """
    if connection.dialect.name != "postgresql":
        return
    for each in _registered(connection):
        if _exists(connection, each.role):
            for statement in statements(each.node, each.role, *_place(connection)):
                _execute(connection, statement)


def find(url: str) -> tuple[NodeRole, ...]:
    """Return the roles of nodes, with what is wrong with them; none on SQLite.

    Raises :exc:`.DatabaseError`.
    """
    if urls.file_of(urls.parse(url)) is not None:
        return ()
    with _owner(url, write=False) as connection:
        return tuple(
            NodeRole(each.node, each.role, tuple(_problems(connection, each.role)))
            for each in _registered(connection)
        )


def new_password() -> str:
    """Return a random password."""
    return secrets.token_urlsafe(24)


@contextmanager
def _owner(url: str, *, write: bool = True) -> Iterator[sa.Connection]:
    """Open a transaction in a current lease database on PostgreSQL."""
    parsed = urls.parse(url)
    if urls.file_of(parsed) is not None:
        raise DatabaseError(
            "The lease database is a SQLite file, which has no roles; only on PostgreSQL can each "
            "node have a role."
        )
    migrations.check(url).demand_current()
    engine = make_engine(parsed)
    try:
        with engine.execution_options(**{WRITING: write}).begin() as connection:
            yield connection
    except exc.SQLAlchemyError as error:
        raise database_error(urls.shown(parsed), error, committing=False) from error
    finally:
        engine.dispose()


def _run(
    connection: sa.Connection, steps: list[str], node: str, role: str, option: str = "--print"
) -> None:
    for statement in steps:
        try:
            _execute(connection, statement)
        except exc.ProgrammingError as error:
            if getattr(error.orig, "sqlstate", "") != "42501":
                raise
            raise DatabaseError(
                f"The hub's role of the lease database may not do that: {error.orig}. Give it "
                "CREATEROLE (`ALTER ROLE … CREATEROLE`), or let a superuser do it: "
                + (
                    f"`migspawner db role {node} --name {role} --print | psql …`."
                    if option == "--print"
                    else f"`DROP OWNED BY` and `DROP ROLE {role}` in psql."
                )
            ) from error


def _execute(connection: sa.Connection, statement: str) -> None:
    # The driver would take a per cent sign for a parameter.
    connection.exec_driver_sql(statement.replace("%", "%%"))


def _place(connection: sa.Connection) -> tuple[str, str]:
    database, schema = connection.execute(
        sa.text("SELECT current_database(), current_schema()")
    ).one()
    return str(database), str(schema)


def _registered(connection: sa.Connection) -> list[NodeRole]:
    rows = connection.execute(
        sa.select(node_roles.c.node, node_roles.c.role).order_by(
            node_roles.c.node, node_roles.c.role
        )
    )
    return [NodeRole(node, role) for node, role in rows]


def _exists(connection: sa.Connection, role: str) -> bool:
    found = connection.execute(
        sa.text("SELECT 1 FROM pg_roles WHERE rolname = :role"), {"role": role}
    )
    return found.first() is not None


_POWERS = sa.text(
    """
    SELECT rolsuper, rolbypassrls, rolcreaterole, rolcanlogin,
        EXISTS (
            SELECT FROM pg_class WHERE relowner = pg_roles.oid AND relname = 'leases'
                AND relnamespace = CAST(current_schema() AS regnamespace)
        ) AS owns,
        (SELECT array_agg(CAST(roleid AS regrole)::text) FROM pg_auth_members
            WHERE member = pg_roles.oid) AS member_of
    FROM pg_roles WHERE rolname = :role
    """
)


def _too_much(connection: sa.Connection, role: str) -> list[str]:
    """Return what a role is that no node's may be: rows would not be kept from it."""
    found = connection.execute(_POWERS, {"role": role}).first()
    if found is None:
        return []
    said = {
        "is a superuser": found.rolsuper,
        "bypasses row level security": found.rolbypassrls,
        "may create roles": found.rolcreaterole,
        "owns the tables": found.owns,
        f"has the rights of {listed(found.member_of or [])}": found.member_of,
    }
    return [text for text, so in said.items() if so]


def _demand_free(connection: sa.Connection, node: str, role: str) -> None:
    _demand_name(role)
    if not node.strip():
        raise DatabaseError("The name of the node is empty.")
    for each in _registered(connection):
        if each.role == role and each.node != node:
            raise DatabaseError(
                f"Role {quoted(role)} is that of node {quoted(each.node)}. Choose another name "
                f"with --name, or remove it first: `migspawner db role {each.node} --remove`."
            )
    if found := _too_much(connection, role):
        raise DatabaseError(
            f"Role {quoted(role)} {listed(found)}; it cannot be the role of a node. Choose another "
            "name with --name."
        )


def _demand_name(role: str) -> None:
    if not _NAME.fullmatch(role):
        raise DatabaseError(
            f"{quoted(role)} cannot be the name of a node's role: expected at most {LONGEST} of "
            "the characters A-Z, a-z, 0-9, _, . and -. Choose one with --name."
        )


def _problems(connection: sa.Connection, role: str) -> Iterator[str]:
    if not _exists(connection, role):
        yield "does not exist on this server"
        return
    yield from _too_much(connection, role)
    for table, rights in RIGHTS.items():
        for right in ("SELECT", "INSERT", "UPDATE", "DELETE"):
            lacks, exceeds = _difference(connection, role, table, right, rights.get(right))
            if lacks:
                yield f"lacks {right} on {table} ({', '.join(lacks)})"
            if exceeds:
                yield f"has {right} on {table} ({', '.join(exceeds)}), which it should not"
    for table in sorted(set(metadata.tables) - set(RIGHTS)):
        for right in ("SELECT", "INSERT", "UPDATE", "DELETE"):
            if _difference(connection, role, table, right, None)[1]:
                yield f"has {right} on {table}, which it should not"
    open_tables = connection.execute(
        sa.text("SELECT relname FROM pg_class WHERE relname = ANY(:names) AND NOT relrowsecurity"),
        {"names": list(row_security.TABLES)},
    ).scalars()
    if names := sorted(map(str, open_tables)):
        yield f"sees all rows of {listed(names)}: row level security is off there"


_COLUMNS = sa.text(
    """
    SELECT attname, has_column_privilege(:role, attrelid, attnum, :right)
    FROM pg_attribute WHERE attrelid = CAST(:table AS regclass) AND attnum > 0 AND NOT attisdropped
    """
)
_TABLE = sa.text("SELECT has_table_privilege(:role, :table, :right)")


def _difference(
    connection: sa.Connection, role: str, table: str, right: str, wanted: tuple[str, ...] | None
) -> tuple[list[str], list[str]]:
    """Return the columns for which a role lacks a right, and those for which it has too much."""
    values = {"role": role, "table": table, "right": right}
    if right == "DELETE":
        has = bool(connection.execute(_TABLE, values).scalar())
        return (["rows"] if wanted is not None and not has else []), (
            ["rows"] if has and wanted is None else []
        )
    has_by_column = {str(name): bool(has) for name, has in connection.execute(_COLUMNS, values)}
    should = set() if wanted is None else set(wanted or has_by_column)
    return (
        sorted(name for name in should if not has_by_column.get(name)),
        sorted(name for name, has in has_by_column.items() if has and name not in should),
    )


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
