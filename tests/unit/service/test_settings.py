"""The service uses what the hub that started it has read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from jupyterhub_migspawner.config import MigBroker
from jupyterhub_migspawner.config.file import home_of
from jupyterhub_migspawner.config.handover import SETTINGS, Handover
from jupyterhub_migspawner.errors import ConfigError
from jupyterhub_migspawner.service.settings import HubGone, settings
from tests.handovers import offering
from tests.unit.config.test_resolved import TIERS, TheHub


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TheHub:
    monkeypatch.delenv("MIGSPAWNER_NVML", raising=False)
    return TheHub(tmp_path, monkeypatch)


def tier(given: object) -> str:
    return str(MigBroker(config=given.config).settings().tiers[0].name)  # type: ignore[attr-defined]


def test_it_asks_where_it_was_told_to(hub: TheHub) -> None:
    offered = Handover("a home", hub.reads(TIERS).to_bytes())
    offered.serve()
    hub.file.write_text("not Python")
    given = settings(str(hub.file), {SETTINGS: offered.name}, os.getpid())
    assert tier(given) == "small"
    assert given.document


def test_it_takes_them_from_its_own_hub_alone(hub: TheHub) -> None:
    offered = Handover("a home", hub.reads(TIERS).to_bytes())
    offered.serve()
    with pytest.raises(HubGone):
        settings(str(hub.file), {SETTINGS: offered.name}, os.getpid() + 1)


def test_a_hub_that_is_gone_leaves_no_settings(hub: TheHub) -> None:
    hub.reads(TIERS)
    with pytest.raises(HubGone):
        settings(str(hub.file), {SETTINGS: "migspawner-settings-none"}, os.getpid())


def test_a_service_of_the_admins_finds_its_hub(hub: TheHub) -> None:
    read = hub.reads(TIERS)
    hub.file.write_text(TIERS.replace("small", "other"))
    with offering(home_of(hub.file), read.to_bytes()) as process:
        assert tier(settings(str(hub.file), {}, process.pid)) == "small"
        assert tier(settings(str(hub.file), {}, process.pid + 1)) == "other"
    assert tier(settings(str(hub.file), {}, process.pid)) == "other"


def test_a_hub_of_another_version_is_named(hub: TheHub) -> None:
    document = hub.reads(TIERS).to_bytes().replace(b'"format": 1', b'"format": 0')
    offered = Handover("a home", document)
    offered.serve()
    with pytest.raises(ConfigError, match=r"different version.*Restart the hub"):
        settings(str(hub.file), {SETTINGS: offered.name}, os.getpid())
