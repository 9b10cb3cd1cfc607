"""Nodes and cards as JSON."""

from __future__ import annotations

from collections.abc import Iterable

from typing_extensions import TypedDict

from jupyterhub_migspawner.broker.statuses import SliceStatus
from jupyterhub_migspawner.broker.views.json import Timestamp, timestamp_of
from jupyterhub_migspawner.broker.views.leases import Unproven, unproven_view
from jupyterhub_migspawner.model.cards import CardRow, Want
from jupyterhub_migspawner.model.nodes import NodeRow
from jupyterhub_migspawner.policy.layouts import desired


class Agent(TypedDict):
    """The process that reports for a node."""

    host: str
    pid: int


class Node(TypedDict):
    """A machine with cards; ``clock_ahead`` is in seconds, against the database server's clock."""

    name: str
    heartbeat_at: Timestamp
    driver_version: str
    agent: Agent | None
    clock_ahead: float | None


class Placement(TypedDict):
    """A profile and the memory slot at which it starts."""

    profile: str
    start: int


class Card(TypedDict):
    """A physical GPU."""

    uuid: str
    node: str
    index: int
    model: str
    memory_mib: int
    mig_enabled: bool
    state: str
    drained: str
    problem: str
    present: list[Placement]
    """How it is cut now."""
    desired: list[Placement] | None
    """How it should be cut; null where it is left as it is."""
    desired_mig: bool | None
    layout: list[Placement]
    target: list[Placement] | None
    unproven: list[Unproven]
    """The leases on it whose session has ended."""


def node_view(node: NodeRow) -> Node:
    """Return a node."""
    return {
        "name": node.name,
        "heartbeat_at": timestamp_of(node.heartbeat_at),
        "driver_version": node.driver_version,
        "agent": None
        if node.agent is None or node.agent_at is None
        else {"host": node.agent.host, "pid": node.agent.pid},
        "clock_ahead": node.clock_ahead,
    }


def card_view(card: CardRow, slices: Iterable[SliceStatus] = ()) -> Card:
    """Return a card for admins; ``slices`` are those of its node."""
    here = [status for status in slices if status.row.card_uuid == card.uuid]
    present = sorted(
        ((each.row.profile, each.row.start) for each in here if each.row.present and each.row.uuid),
        key=lambda want: want[1],
    )
    if not card.mig_enabled:
        present = []
    whole = any(lease.whole for status in here for lease in status.leases)
    goal = desired(card, given_whole=whole)
    return {
        "uuid": card.uuid,
        "node": card.node,
        "index": card.index,
        "model": card.model,
        "memory_mib": card.memory_mib,
        "mig_enabled": card.mig_enabled,
        "state": "problem" if card.problem and card.state == "ok" else card.state,
        "drained": card.drained,
        "problem": card.problem,
        "present": _placements(present),
        "desired": None if goal is None else _placements(goal.wants),
        "desired_mig": None if goal is None else goal.mig,
        "layout": _placements(card.layout),
        "target": None if card.target is None else _placements(card.target),
        "unproven": [
            unproven_view(lease, status.row.quarantined)
            for status in here
            for lease in status.leases
            if lease.ending and lease.card_uuid == card.uuid
        ],
    }


def _placements(wants: Iterable[Want]) -> list[Placement]:
    return [{"profile": profile, "start": start} for profile, start in wants]
