"""What all launchers of this machine have in common."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any

import pytest

from jupyterhub_migspawner.spawner import MigSpawnerMixin

LAUNCHERS = [
    entry
    for entry in entry_points(group="jupyterhub.spawners")
    if entry.value.startswith("jupyterhub_migspawner.")
]


def test_these_are_all() -> None:
    assert sorted(entry.name for entry in LAUNCHERS) == [
        "mig-docker",
        "mig-local",
        "mig-simple",
        "mig-systemd",
    ]


@pytest.fixture(params=LAUNCHERS, ids=lambda entry: entry.name)
def launcher(request: pytest.FixtureRequest) -> Any:
    return request.param.load()


def test_its_servers_get_slices_of_this_machine_only(launcher: Any) -> None:
    assert launcher.mig_starts_here


@pytest.mark.parametrize("hook", ["_mig_server_process", "_mig_choose_isolation", "_mig_launch"])
def test_what_it_knows_of_its_servers_comes_before_what_the_mixin_assumes(
    launcher: Any, hook: str
) -> None:
    own = launcher.__mro__[: launcher.__mro__.index(MigSpawnerMixin)]
    assert any(hook in vars(each) for each in own)
