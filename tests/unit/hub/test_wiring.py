"""What a starting hub refuses before its proxy runs, said by the hub itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from jupyterhub_migspawner.hub.wiring import TEMPLATES, with_templates

CONFIG = """
import jupyterhub_migspawner
c = get_config()
jupyterhub_migspawner.setup(c)
c.MigBroker.nvml = "sim:cards.json"
c.MigBroker.tiers = [{"name": "small", "profile": "1g.5gb"}]
c.JupyterHub.db_url = "sqlite:///hub.sqlite"
"""

PROFILES = """
c.ProfilesSpawner.profiles = [
    ("On a GPU", "gpu", "jupyterhub_migspawner.spawner.launchers.local.MigLocalSpawner", {}),
]
c.WrapSpawner.child_class = "jupyterhub_migspawner.spawner.launchers.local.MigLocalSpawner"
class Ours(__import__("wrapspawner").ProfilesSpawner):
    pass
c.JupyterHub.spawner_class = %s
"""


@pytest.mark.parametrize(
    ("spawner", "name"),
    [
        ('"wrapspawner.ProfilesSpawner"', "ProfilesSpawner"),
        ('"wrapspawner.WrapSpawner"', "WrapSpawner"),
        ("Ours", "Ours"),
    ],
)
def test_a_hub_whose_spawner_wraps_another_is_refused(
    tmp_path: Path, spawner: str, name: str
) -> None:
    config = tmp_path / "jupyterhub_config.py"
    config.write_text(CONFIG + PROFILES % spawner)
    done = subprocess.run(
        [sys.executable, "-m", "jupyterhub", "-f", str(config)],
        cwd=tmp_path,
        env={**os.environ, "JPY_COOKIE_SECRET": "0" * 64},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    assert f"JupyterHub.spawner_class is {name}, which starts servers with another spawner" in (
        done.stderr
    )
    assert "'mig-local'" in done.stderr
    assert "Traceback" not in done.stderr
    # Before anything was made.
    assert not list(tmp_path.glob("migspawner*"))


@pytest.mark.parametrize("own", ["/data/templates", "/data/templates/", "/data/./templates"])
def test_the_hubs_own_templates_come_last_however_they_are_written(own: str) -> None:
    assert with_templates(["/admin", own], "/data") == ["/admin", str(TEMPLATES), own]
    assert with_templates(["/admin"], "/data") == ["/admin", str(TEMPLATES)]
