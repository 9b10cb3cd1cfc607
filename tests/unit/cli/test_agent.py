"""``migspawner agent``: a node's agent in the foreground, without a hub."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from tests.unit.cli.conftest import Install


def test_one_round_reports_the_cards(install: Install) -> None:
    assert install.run("agent", "--once").status == 0
    (node,) = install.run("nodes", "--json").json
    assert (node["name"], node["cards"]) == ("n1", 2)
    assert len(install.run("slices", "--json").json) == 11


def test_a_round_without_cards_fails(install: Install) -> None:
    (install.directory / "cards.json").unlink()
    before = install.run("nodes", "--json").json
    assert install.run("agent", "--once").status == 1
    assert install.run("nodes", "--json").json == before, "that is no heartbeat"


def test_it_needs_no_tiers_and_goes_by_none(install: Install) -> None:
    install.config.write_text(
        "c.MigBroker.node = 'n1'\nc.MigBroker.nvml = 'sim:cards.json'\nc.MigBroker.tiers = []\n"
    )
    assert install.run("agent", "--once").status == 0


def test_a_node_creates_no_lease_database(install: Install) -> None:
    database = install.directory / "migspawner.sqlite"
    database.unlink()
    answer = install.run("agent", "--once")
    assert answer.status == 1
    assert "There is no lease database" in answer.err
    assert "c.MigBroker.database_url" in answer.err
    assert not database.exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly(install: Install, number: signal.Signals) -> None:
    command = [
        sys.executable,
        "-m",
        "jupyterhub_migspawner.cli",
        "agent",
        "-f",
        str(install.config),
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as agent:
        assert agent.stderr is not None
        while "The agent of node n1 runs" not in (line := agent.stderr.readline()):
            assert line, "it ended"
        agent.send_signal(number)
        _, log = agent.communicate(timeout=60)
    assert agent.returncode == 0
    assert "Traceback" not in log


def test_what_a_node_lacks_is_named(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "apprise", None)
    with install.config.open("a") as file:
        file.write("c.MigBroker.notices = {'admins': ['json://localhost']}\n")
    answer = install.run("notices")
    assert answer.status == 1
    assert "This needs apprise" in answer.err
    assert "its extra 'hub'" in answer.err
