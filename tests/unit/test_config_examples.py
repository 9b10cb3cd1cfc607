"""The files in ``config/`` are ones that a hub and mig-parted can use as they stand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from jupyterhub_migspawner.cli.demo.cards import MIXED, cut, tiers_for
from jupyterhub_migspawner.config import MigBroker
from jupyterhub_migspawner.config.file import load_config_file
from jupyterhub_migspawner.errors import GpuError
from jupyterhub_migspawner.gpu.arrange import arrange, is_legal
from jupyterhub_migspawner.gpu.simulator import MODELS, find_model, profiles_of
from jupyterhub_migspawner.policy.wording import memory

CONFIG = Path(__file__).parents[2] / "config"


def test_the_one_machine_example_is_valid() -> None:
    config = load_config_file(CONFIG / "one-machine" / "jupyterhub_config.py")
    settings = MigBroker(config=config).settings()
    assert [tier.name for tier in settings.tiers] == ["cpu", "small", "large", "card"]
    assert config.JupyterHub.cleanup_servers is False
    assert config.JupyterHub.spawner_class == "mig-local"


def test_sizes_in_the_examples_are_those_that_sessions_show() -> None:
    config = load_config_file(CONFIG / "one-machine" / "jupyterhub_config.py")
    a100 = profiles_of(find_model("A100-SXM4-40GB"))
    demo = tiers_for(a100, cut(a100, MIXED, 2))
    sizes = {profile.name: memory(profile.memory_mib) for profile in a100}
    for tier in (*demo, *config.MigBroker.tiers):
        if tier["profile"] in sizes:
            assert f" {sizes[tier['profile']]}" in tier["description"]


def layouts() -> Iterator[tuple[str, dict[str, Any]]]:
    document = yaml.safe_load((CONFIG / "layouts.yaml").read_text())
    assert document["version"] == "v1"
    for name, entries in document["mig-configs"].items():
        for entry in entries:
            if entry["mig-enabled"]:
                yield name, entry["mig-devices"]


@pytest.mark.parametrize(("name", "devices"), list(layouts()))
def test_every_layout_fits_some_model(name: str, devices: dict[str, int]) -> None:
    names = [profile for profile, count in devices.items() for _ in range(count)]
    fitting = []
    for key, model in MODELS.items():
        profiles = profiles_of(model)
        try:
            layout = arrange(profiles, names)
        except GpuError:
            continue
        assert is_legal(profiles, layout) == ""
        fitting.append(key)
    assert fitting, name
