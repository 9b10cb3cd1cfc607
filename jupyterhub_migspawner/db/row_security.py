"""Row level security: which rows of the lease database the role of one node may see and change.

PostgreSQL only (https://www.postgresql.org/docs/current/ddl-rowsecurity.html). The table
``node_roles`` says which login role is whose; the function ``migspawner_node`` reads it for the
role that has logged in, which the session cannot change. For every other role, such as the hub's,
the function returns null and all rows are there; the owner of the tables is never affected.

Promises that a node's role changes rows about its own node only: leases that are live, and only as
such; events that are signed by the node, about its own cards and leases.
"""

from __future__ import annotations

import sqlalchemy as sa

from jupyterhub_migspawner.db.tables import node_roles

FUNCTION = "migspawner_node"

#: Kinds of events that happen on a node.
KINDS = (
    "node.seen",
    "node.booted",
    "node.taken-over",
    "card.seen",
    "card.back",
    "card.changed",
    "card.lost",
    "card.drained",
    "card.resumed",
    "card.layout",
    "card.target",
    "card.step",
    "card.step-failed",
    "card.cut",
    "card.xid",
    "slice.seen",
    "slice.missing",
    "slice.claimed",
    "slice.quarantined",
    "slice.unquarantined",
    "slice.xid",
    "lease.released",
    "lease.lost",
    "lease.waiting",
    "lease.foreign",
    "lease.xid",
)

# In a subquery of its own, the function is called once for a statement and not for every row.
_ME = f"(SELECT {FUNCTION}())"

_OWN_LEASE = (
    "EXISTS (SELECT FROM leases AS mine WHERE mine.id = {table}.lease_id AND mine.node = {me})"
)
_OWN_CARD = (
    "EXISTS (SELECT FROM cards AS mine WHERE mine.uuid = {table}.card_uuid AND mine.node = {me})"
)

_OWN_EVENT = f"""
    (actor IN ({_ME}, 'migspawner') OR starts_with(actor, {_ME} || ': '))
    AND kind IN ({", ".join(f"'{kind}'" for kind in KINDS)})
    AND request_id IS NOT DISTINCT FROM
        (SELECT mine.request_id FROM leases AS mine WHERE mine.id = events.lease_id)
    AND (card_uuid IS NULL OR {_OWN_CARD.format(table="events", me=_ME)})
    AND username =
        CASE WHEN lease_id IS NULL THEN '' ELSE (
            SELECT mine.username FROM leases AS mine
            WHERE mine.id = events.lease_id AND mine.node = {_ME}
        ) END
"""

#: Of each table, what a row has to be so that a node may see it, add it, change it and delete it:
#: the row as it is, and as it is afterwards. None where no node may do that.
_Rules = tuple[str | None, str | None, tuple[str, str] | None, str | None]


def _rules() -> dict[str, _Rules]:
    by_lease = {
        table: _OWN_LEASE.format(table=table, me=_ME) for table in ("processes", "readings")
    }
    own = f"node = {_ME}"
    card = _OWN_CARD.format(table="slices", me=_ME)
    live = "state IN ('pending', 'active', 'releasing')"
    return {
        "nodes": (f"name = {_ME}", f"name = {_ME}", (f"name = {_ME}", f"name = {_ME}"), None),
        # Also those of other nodes: a card that was moved is recognised by its UUID.
        "cards": ("true", own, (own, own), None),
        "slices": (card, card, (card, card), None),
        "leases": (own, None, (f"{own} AND {live}", own), None),
        # Their hub alone confirms them, and saves how they are reached.
        "orphans": (
            own,
            f"{own} AND NOT vouched AND url = '' AND sealed = ''",
            (own, own),
            own,
        ),
        **{table: (rule, rule, (rule, rule), rule) for table, rule in by_lease.items()},
        # Of events, nodes see no more than their numbers.
        "events": ("true", _OWN_EVENT, None, None),
    }


#: The tables that are secured.
TABLES = tuple(_rules())


def statements(schema: str) -> list[str]:
    """Return the SQL that secures the tables of a schema; it may be run again."""
    found = [
        f"""
        CREATE OR REPLACE FUNCTION {FUNCTION}() RETURNS text
        LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
        AS $$ SELECT node FROM {schema}.{node_roles.name} WHERE role = session_user $$
        """
    ]
    for table, (see, add, change, delete) in _rules().items():
        found.append(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        policies = {
            "others": f"FOR ALL USING ({_ME} IS NULL)",
            "see": see and f"FOR SELECT USING ({_ME} IS NOT NULL AND {see})",
            "add": add and f"FOR INSERT WITH CHECK ({_ME} IS NOT NULL AND {add})",
            "change": change and f"FOR UPDATE USING ({change[0]}) WITH CHECK ({change[1]})",
            "delete": delete and f"FOR DELETE USING ({delete})",
        }
        for name, policy in policies.items():
            found.append(f"DROP POLICY IF EXISTS migspawner_{name} ON {table}")
            if policy:
                found.append(f"CREATE POLICY migspawner_{name} ON {table} {policy}")
    return found


def secure(connection: sa.Connection) -> None:
    """Set function and policies in an open transaction of their owner; SQLite has no roles."""
    if connection.dialect.name != "postgresql":
        return
    schema = connection.execute(sa.text("SELECT quote_ident(current_schema())")).scalar()
    for statement in statements(str(schema)):
        connection.exec_driver_sql(statement)
