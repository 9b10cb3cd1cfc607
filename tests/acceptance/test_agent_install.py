"""A node as it is installed: the extra ``agent``, without JupyterHub, against PostgreSQL."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from jupyterhub_migspawner.db import migrations
from jupyterhub_migspawner.gpu.simulator import create_state
from tests.broker.conftest import postgres  # noqa: F401
from tests.broker.postgres import Cluster

CHECKOUT = Path(__file__).parents[2]

ABSENT = ("jupyterhub", "jupyter_server", "jupyterlab", "apprise", "cryptography")


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with this package and its extra ``agent``, nothing else."""
    folder = tmp_path_factory.mktemp("node")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    subprocess.run(
        [folder / "bin/python", "-m", "pip", "install", "--quiet", f"{CHECKOUT}[agent]"], check=True
    )
    return folder


def test_the_agent_works_where_no_hub_is_installed(
    environment: Path,
    postgres: Cluster,  # noqa: F811
    tmp_path: Path,
) -> None:
    url = postgres.new_database()
    migrations.upgrade(url)
    create_state(tmp_path / "cards.json", cards=1, layouts=[["3g.20gb", "2g.10gb"]])
    (tmp_path / "jupyterhub_config.py").write_text(
        f"c.MigBroker.database_url = {url!r}\n"
        "c.MigBroker.node = 'n7'\n"
        "c.MigBroker.nvml = 'sim:cards.json'\n"
    )
    for module in ABSENT:
        found = subprocess.run(
            [environment / "bin/python", "-c", f"import {module}"], capture_output=True
        )
        assert found.returncode != 0, f"{module} is installed: this proves nothing"

    def migspawner(*words: str) -> str:
        done = subprocess.run(
            [environment / "bin/migspawner", *words],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": ""},
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    migspawner("agent", "--once")
    (node,) = json.loads(migspawner("nodes", "--json"))
    assert (node["name"], node["cards"]) == ("n7", 1)
    profiles = [each["profile"] for each in json.loads(migspawner("slices", "--json"))]
    assert sorted(profiles) == ["2g.10gb", "3g.20gb"]
    for listing in ("leases", "queue", "events", "cards", "sessions", "requests"):
        json.loads(migspawner(listing, "--json"))
    checked = json.loads(migspawner("doctor", "--json"))
    assert {"jupyterhub", "configuration", "database", "agent"} <= {e["check"] for e in checked}
    postgres.drop(url)
