"""What measures slices: NVML, or a real exporter's page; and that what is missing is missed."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from jupyterhub_migspawner.agent.usage import Usage
from jupyterhub_migspawner.agent.utilisation import Meter
from jupyterhub_migspawner.errors import GpuError
from jupyterhub_migspawner.gpu import simulator
from jupyterhub_migspawner.model.codes import Code
from jupyterhub_migspawner.model.leases import LeaseRow
from jupyterhub_migspawner.model.sessions import ReadingRow
from jupyterhub_migspawner.policy.reclaim import USE
from tests.exporters import HEAD, Site, line, page
from tests.unit.agent.conftest import Node, NodeMaker

TIERS = [
    {"name": "hopper", "profile": "1g.10gb", "idle_minutes": 60},
    {"name": "ampere", "profile": "1g.5gb", "idle_minutes": 60},
    {"name": "shared", "profile": "3g.40gb", "idle_minutes": 60, "seats": 2},
]


@pytest.fixture
def site() -> Iterator[Site]:
    made = Site()
    yield made
    made.close()


class Watch:
    """A session on a node, looked at again and again."""

    def __init__(self, node: Node, tier: str, user: str = "ada") -> None:
        self.node = node
        lease = node.broker.leases.activate(node.lab.start(user, tier).attempt)
        assert lease is not None
        self.lease: LeaseRow = lease
        self.usage = self.begin()

    def begin(self) -> Usage:
        node = self.node
        return Usage(
            node.broker, node.nvml, node="n1", proc=node.proc, monotonic=lambda: node.seconds
        )

    def use(self, per_cent: float) -> None:
        uuid = str(self.lease.slice_uuid)
        simulator.add_process(self.node.path, uuid, os.getpid(), 300, used=per_cent)

    def look(self) -> ReadingRow | None:
        """A look some seconds later; what is then written down of the slice's use."""
        self.node.seconds += 10
        self.node.lab.clock.pass_time(seconds=10)
        self.usage.look()
        return self.reading()

    def reading(self) -> ReadingRow | None:
        (found,) = (e for e in self.node.broker.sessions.standings() if e.lease.id == self.lease.id)
        return next((row for row in found.readings if row.source == USE), None)

    def unknown(self) -> bool:
        (found,) = (e for e in self.node.broker.sessions.standings() if e.lease.id == self.lease.id)
        return USE in found.verdict.unknown


@pytest.fixture
def hopper(make_node: NodeMaker) -> Watch:
    node = make_node(["1g.10gb"], model="H100", tiers=TIERS)
    node.tick()
    made = Watch(node, "hopper")
    assert made.look() is None, "nothing to compare with yet"
    made.look()
    return made


def test_work_on_the_slice_counts_however_quiet_its_processes(hopper: Watch) -> None:
    quiet = hopper.look()
    assert quiet is not None
    assert quiet.active_at != quiet.seen_at
    assert quiet.said == "its engine works 0 % of the time"
    hopper.use(80)
    for _ in range(2):
        found = hopper.look()
    assert found is not None
    assert found.active_at == found.seen_at
    assert found.said == "its engine works 80 % of the time"


def test_memory_that_is_held_is_no_work(hopper: Watch) -> None:
    hopper.use(0)
    for _ in range(3):
        found = hopper.look()
        assert found is not None
        assert found.active_at != found.seen_at


def test_a_figure_that_fails_is_missed(hopper: Watch) -> None:
    before = hopper.look()
    assert before is not None
    simulator.fail_call(hopper.node.path, "nvmlGpmMigSampleGet", Code.UNKNOWN, times=100)
    for _ in range(20):
        found = hopper.look()
    assert found is not None
    assert found.problem
    assert found.seen_at == before.seen_at
    assert hopper.unknown(), "a user of the slice without CPU time would not be seen"


def test_where_nothing_measures_there_is_no_such_source(hopper: Watch) -> None:
    """As after a new driver, or as another user: what was measured before is not missed."""
    simulator.fail_call(hopper.node.path, "nvmlGpmMigSampleGet", Code.NO_PERMISSION, times=1000)
    assert hopper.look() is None
    for _ in range(30):
        hopper.look()
    assert not hopper.unknown()


def test_an_agent_that_starts_takes_back_what_an_earlier_one_measured(
    make_node: NodeMaker,
) -> None:
    node = make_node(["1g.10gb"], model="H100", tiers=TIERS)
    node.tick()
    watch = Watch(node, "hopper")
    watch.look()
    assert watch.look() is not None
    watch.usage = watch.begin()
    simulator.fail_call(node.path, "nvmlGpmQueryDeviceSupport", Code.FUNCTION_NOT_FOUND, times=9)
    assert watch.look() is None
    assert not watch.unknown()


def test_who_shares_a_slice_and_is_not_on_it_does_not_use_it(make_node: NodeMaker) -> None:
    node = make_node(["3g.40gb"], model="H100", tiers=TIERS)
    node.tick()
    ada, grace = Watch(node, "shared"), Watch(node, "shared", "grace")
    assert ada.lease.slice_id == grace.lease.slice_id
    folder = node.proc / str(os.getpid())
    folder.mkdir()
    (folder / "environ").write_bytes(f"MIGSPAWNER_ATTEMPT={ada.lease.attempt}\0".encode())
    (folder / "stat").write_text(f"{os.getpid()} (x) " + " ".join(["S"] + ["1"] * 49))
    ada.use(50)
    for _ in range(4):
        ada.look()
    hers, his = ada.reading(), grace.reading()
    assert hers is not None
    assert his is not None
    assert hers.active_at == hers.seen_at
    assert his.seen_at == hers.seen_at
    assert his.active_at != his.seen_at


# -- DCGM, of a card that NVML does not measure -----------------------------------------------


def ampere(make_node: NodeMaker, site: Site, **options: Any) -> Watch:
    node = make_node(["1g.5gb", "1g.5gb"], tiers=TIERS, **options)
    node.broker.context.settings = replace(node.broker.settings, dcgm_url=site.url)
    node.tick()
    return Watch(node, "ampere")


def heard(watch: Watch) -> ReadingRow:
    """Looks until the answer to one of them is there, which a real server gives in its own time."""
    deadline = time.monotonic() + 30
    first = watch.reading()
    while time.monotonic() < deadline:
        found = watch.look()
        if found is not None and found != first:
            return found
        time.sleep(0.01)
    raise AssertionError("nothing was heard")


def instance(watch: Watch) -> tuple[str, int]:
    rows = [each.row for each in watch.node.broker.slices.find()]
    (mine,) = (row for row in rows if row.uuid == watch.lease.slice_uuid)
    assert mine.gi_id is not None
    return mine.card_uuid, mine.gi_id


def test_dcgm_tells_of_ampere(make_node: NodeMaker, site: Site) -> None:
    watch = ampere(make_node, site)
    card, gi_id = instance(watch)
    other = str({7: 8}.get(gi_id, 7))
    site.answer = page((HEAD + line("0.37", str(gi_id), card) + line("0", other, card)).encode())
    found = heard(watch)
    assert found.said == "its engine works 37 % of the time"
    assert found.active_at == found.seen_at
    site.answer = page((HEAD + line("0.001", str(gi_id), card) + line("1", other, card)).encode())
    before = found
    deadline = time.monotonic() + 30
    while found.said == before.said and time.monotonic() < deadline:
        before = found
        found = heard(watch)
    assert found.said == "its engine works 0 % of the time"
    assert heard(watch).active_at == found.active_at, "a neighbour's work is none of this session"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (page(b"", 503), "does not answer (status 503)"),
        (page(b"<html>"), "cannot be read"),
        (page(HEAD.encode()), "does not report how much GPU instance"),
    ],
    ids=["away", "another page", "without the figure"],
)
def test_an_exporter_that_is_set_up_and_does_not_tell_is_missed(
    make_node: NodeMaker, site: Site, answer: Any, words: str
) -> None:
    site.answer = answer
    watch = ampere(make_node, site)
    assert words in heard(watch).problem
    assert watch.unknown()


def test_a_slice_that_is_not_known_is_not_taken_for_its_card(
    make_node: NodeMaker, site: Site
) -> None:
    watch = ampere(make_node, site)
    card, _ = instance(watch)
    site.answer = page((HEAD + line("0", None, card)).encode())
    node = watch.node
    measuring = Meter(node.broker, node.nvml, node="n1")
    strange = replace(watch.lease, slice_uuid="MIG-of-nobody")
    measuring._figures = {(card, None): 0.0}
    with pytest.raises(GpuError, match="not known which GPU instance"):
        measuring._of_exporter(strange, "MIG-of-nobody", site.url)


def test_nvml_goes_before_dcgm(make_node: NodeMaker) -> None:
    node = make_node(["1g.10gb"], model="H100", tiers=TIERS)
    node.broker.context.settings = replace(
        node.broker.settings, dcgm_url="http://127.0.0.1:1/metrics"
    )
    node.tick()
    watch = Watch(node, "hopper")
    for _ in range(5):
        found = watch.look()
    assert found is not None
    assert (found.problem, found.said) == ("", "its engine works 0 % of the time")
