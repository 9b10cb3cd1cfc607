"""Whatever is killed while people work: slices stay theirs alone, and everything converges.

``MIGSPAWNER_CHAOS_SEED`` gives a day's seed back, ``MIGSPAWNER_CHAOS_MINUTES`` makes it longer, and
``MIGSPAWNER_CHAOS_BLOWS`` names the only kinds of blow that fall (of :mod:`tests.chaos.plan`,
separated by semicolons).
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import pytest

from tests.broker.postgres import Cluster
from tests.chaos.day import Day
from tests.chaos.plan import make_plan


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_no_kill_costs_anybody_a_slice_or_a_server(
    kind: str,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
) -> None:
    seed = int(os.environ.get("MIGSPAWNER_CHAOS_SEED") or secrets.randbelow(10**9))
    minutes = float(os.environ.get("MIGSPAWNER_CHAOS_MINUTES") or 0.7)
    only = [each for each in os.environ.get("MIGSPAWNER_CHAOS_BLOWS", "").split(";") if each]
    cluster: Cluster | None = None
    database = f"sqlite:///{tmp_path}/leases.sqlite"
    if kind == "postgresql":
        cluster = request.getfixturevalue("postgres")
        database = cluster.new_database()
    plan = make_plan(seed, 60 * minutes, 5, server=cluster is not None, only=only)
    title = f"A day of {60 * minutes:.0f} s on {kind}, MIGSPAWNER_CHAOS_SEED={seed}"
    # Where several workers run the tests, nobody sees what they print, but what failed is shown.
    request.node.add_report_section("call", "chaos", title)
    with capsys.disabled():
        print(f"\n{title}")
    day = Day(plan, tmp_path, database, cluster)
    try:
        day.live()
        servers = day.reports()
        story = f"MIGSPAWNER_CHAOS_SEED={seed}\n{day.story()}\n{day.hub.log()[-20_000:]}"
        assert not day.broken, story
        # Days on which next to nothing happened prove next to nothing.
        assert day.enough, story
    finally:
        day.end()
    with capsys.disabled():
        print(f"{day.blows} blows, {len(servers)} servers, {day.started} starts answered.")
        losses = day.losses
        print(
            f"The database was replaced {losses.times} times; {losses.quarantined} slices were "
            f"quarantined for it, {losses.adopted} servers adopted."
        )
