"""What the spawners of a hub share, and what hubs do not share."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from traitlets.config import Config

from jupyterhub_migspawner.hub.context import KEY, HubContext
from tests.chaos.spawner import Spawner


def config(folder: Path) -> Config:
    return Config(
        {
            "MigBroker": {
                "directory": str(folder),
                "tiers": [{"name": "cpu", "profile": "none"}],
            }
        }
    )


def spawner(user: str, given: Config, hub: dict[str, Any]) -> Spawner:
    made = Spawner(user, given)
    made.user.settings = hub
    return made


def test_two_spawners_of_a_hub_share_one_lease_database(tmp_path: Path) -> None:
    given, hub = config(tmp_path), dict[str, Any]()
    ada, grace = (spawner(user, given, hub) for user in ("ada", "grace"))
    assert ada.mig_config is grace.mig_config
    assert ada._mig_broker().store is grace._mig_broker().store
    assert ada.mig_hub.claims is grace.mig_hub.claims


def test_another_hub_in_the_same_process_has_another(tmp_path: Path) -> None:
    ada, grace = (spawner(user, config(tmp_path), {}) for user in ("ada", "grace"))
    assert ada._mig_broker().store is not grace._mig_broker().store
    assert ada.mig_hub.claims is not grace.mig_hub.claims


READ_AND_SPAWN = """
import sys
from jupyterhub.app import JupyterHub
from jupyterhub_migspawner.hub.context import KEY
from tests.chaos.spawner import Spawner

app = JupyterHub.instance()
app.config_file = sys.argv[1]
app.load_config_file(app.config_file)
made = Spawner("ada", app.config)
made.user.settings = app.tornado_settings
opened = app.tornado_settings[KEY].mig
assert opened._broker is not None
assert made._mig_broker() is opened._broker
assert app.tornado_settings["theirs"] == "kept"
"""


def test_spawners_use_the_database_that_the_starting_hub_has_opened(tmp_path: Path) -> None:
    file = tmp_path / "jupyterhub_config.py"
    file.write_text(
        "import jupyterhub_migspawner\n"
        "c = get_config()\n"
        "jupyterhub_migspawner.setup(c)\n"
        "c.MigBroker.tiers = [{'name': 'cpu', 'profile': 'none'}]\n"
        "c.MigBroker.service = False\n"
        "c.JupyterHub.tornado_settings = {'theirs': 'kept'}\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", READ_AND_SPAWN, str(file)],
        cwd=Path(__file__).parents[3],
        env={**os.environ, "MIGSPAWNER_NVML": f"sim:{tmp_path}/cards.json"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_context_stays_among_the_settings_of_the_hub(tmp_path: Path) -> None:
    hub: dict[str, Any] = {}
    made = HubContext.of(hub, config(tmp_path))
    assert hub == {KEY: made}
    assert HubContext.of(hub, Config()) is made
