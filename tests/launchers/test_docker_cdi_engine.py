"""CDI with a real engine: the container gets what the specification says, if it is the slice.

Debian 12's Docker has no CDI, and Debian 13's has: on either, a server that must have its slice by
CDI has exactly its slice, or does not start.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.acceptance.hubs import Hub
from tests.launchers.engines import Engine, engine_with_cards, settings
from tests.launchers.test_docker import container_of, lease_of, nodes_of, start, stop
from tests.launchers.test_docker_cdi import device, own, specification


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with engine_with_cards() as engine:
        yield engine


@pytest.fixture(scope="module")
def hub(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    more = {"devices": "cdi", "extra_host_config": {"init": True}}
    hub = Hub(
        tmp_path_factory.mktemp("hub"),
        layouts=[["1g.5gb"] * 3],
        extra=settings(engine, **more) + "\nc.MigBroker.tick_seconds = 0.2\n",
    )
    hub.prefix = [*engine.inside]
    with hub.running():
        yield hub


def write(hub: Hub, engine: Engine, *, moved: int = 0) -> None:
    """Write the specification as nvidia-ctk does; ``moved`` makes it one from before a cut."""
    rows = sorted((each.row for each in hub.broker().slices.find()), key=lambda row: row.gi_id or 0)
    devices = [
        device(f"0:{index}", own(0, (row.gi_id or 0) - moved)) for index, row in enumerate(rows)
    ]
    text = yaml.safe_dump(specification(*devices))
    # The engine must not read half of it.
    (engine.specifications / "new").write_text(text)
    (engine.specifications / "new").rename(engine.specifications / "nvidia.yaml")


def test_a_server_gets_the_device_that_is_its_slice(hub: Hub, engine: Engine) -> None:
    write(hub, engine)
    status, answer = start(hub, "ada")
    if not engine.knows_cdi():
        assert status == 503, answer
        assert "The container engine does not support CDI" in hub.log()
        hub.until(lambda: not hub.rows())
        return
    assert status == 201, hub.log()
    container = container_of(engine, "ada")
    (request,) = container.attrs["HostConfig"]["DeviceRequests"]
    assert request["Driver"] == "cdi"
    assert not container.attrs["HostConfig"]["Devices"]
    inside = Path(f"/proc/{container.attrs['State']['Pid']}/root")
    found = {f"/{path.relative_to(inside)}" for path in (inside / "dev").rglob("nvidia*")}
    common = {"/dev/nvidia-modeset", "/dev/nvidia-caps"}
    assert found - common == {*nodes_of(hub, lease_of(hub, "ada"))}
    stop(hub, "ada")


def test_a_specification_from_before_a_cut_starts_nothing(hub: Hub, engine: Engine) -> None:
    write(hub, engine, moved=4)
    assert start(hub, "grace")[0] == 503
    hub.until(lambda: not hub.rows())
    assert not engine.containers()
    if engine.knows_cdi():
        said = hub.log()
        file = engine.specifications / "nvidia.yaml"
        assert "The CDI specification does not have the slice as it is now" in said
        assert f"{file} lists nvidia.com/gpu=0:" in said
        assert f"nvidia-ctk cdi generate --output={file}" in said
