"""A hub's configuration with simulated cards, and the program run on it in this process."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from jupyterhub_migspawner.broker import Broker
from jupyterhub_migspawner.cli.main import main
from jupyterhub_migspawner.config import MigBroker
from jupyterhub_migspawner.config.file import load_config_file
from jupyterhub_migspawner.db.store import Store
from jupyterhub_migspawner.gpu.simulator import create_state

CONFIG = """
import jupyterhub_migspawner
c = get_config()
jupyterhub_migspawner.setup(c)
print("a config file that talks")
c.MigBroker.nvml = "sim:cards.json"
c.MigBroker.node = "n1"
c.MigBroker.tiers = [
    {"name": "cpu", "profile": "none"},
    {"name": "small", "profile": "1g.5gb", "default": True},
    {"name": "large", "profile": "3g.20gb", "groups": ["vision"]},
    {"name": "hers", "profile": "2g.10gb", "users": ["grace"]},
    {"name": "card", "profile": "whole", "approval": True, "max_hours": 48},
]
c.MigBroker.approvers = ["group:pi"]
c.JupyterHub.load_groups = {"pi": {"users": ["grace"]}, "vision": ["ada"]}
c.JupyterHub.cleanup_servers = False
c.Authenticator.admin_users = {"admin"}
c.Authenticator.allowed_users = {"eve", "linus"}
"""


class Answer:
    """How the program ended and what it said."""

    def __init__(self, status: int, out: str, err: str) -> None:
        self.status = status
        self.out = out
        self.err = err

    @property
    def json(self) -> Any:
        """Standard output, which must be JSON and nothing else."""
        return json.loads(self.out)


class Install:
    """A configuration, its lease database and its cards."""

    def __init__(self, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.directory = directory
        self.config = directory / "jupyterhub_config.py"
        self.config.write_text(CONFIG)
        self._capsys = capsys
        create_state(
            directory / "cards.json",
            cards=2,
            layouts=[["1g.5gb"] * 7, ["3g.20gb", "2g.10gb", "1g.5gb", "1g.5gb"]],
        )

    @property
    def mig(self) -> MigBroker:
        return MigBroker(config=load_config_file(self.config))

    @property
    def broker(self) -> Broker:
        return self.mig.open_broker()

    def report(self, *, minutes_ago: float = 0, node: str = "n1") -> None:
        """What an agent does: write its inventory to the lease database."""
        at = datetime.now(timezone.utc) - timedelta(minutes=minutes_ago)
        store = Store.open(self.mig.resolved_database_url(), create=True)
        Broker(store, self.mig.settings(), clock=lambda: at).nodes.record_inventory(
            node, self.mig.open_nvml().inventory()
        )
        store.close()

    def edit(self, old: str, new: str) -> None:
        text = self.config.read_text()
        assert old in text
        self.config.write_text(text.replace(old, new))

    def run(self, *words: str, config: bool = True) -> Answer:
        self._capsys.readouterr()
        flags = ["-f", str(self.config)] if config else []
        status = main([*words, *flags])
        captured = self._capsys.readouterr()
        assert "Traceback" not in captured.err
        return Answer(status, captured.out, captured.err)


@pytest.fixture
def install(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Install:
    monkeypatch.delenv("MIGSPAWNER_NVML", raising=False)
    monkeypatch.chdir("/")
    made = Install(tmp_path, capsys)
    made.report()
    return made
