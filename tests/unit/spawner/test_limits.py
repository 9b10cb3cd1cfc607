"""A tier's limits of CPU and main memory: for one launch, beside those of the configuration."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from jupyterhub.objects import Hub
from jupyterhub.spawner import Spawner

from jupyterhub_migspawner.config import MigBroker
from jupyterhub_migspawner.hub.context import KEY, HubContext
from jupyterhub_migspawner.policy.tiers import Tier, parse_tiers
from jupyterhub_migspawner.spawner.launchers.local import MigLocalSpawner
from jupyterhub_migspawner.spawner.limits import Limits


class Server(Limits, Spawner):  # type: ignore[misc]
    """A server of a spawner that enforces limits, and nothing else of the mixin."""

    async def start(self) -> Any: ...
    async def stop(self, now: bool = False) -> None: ...
    async def poll(self) -> int | None: ...


class Unlimited(Server):
    """A server of a spawner that does not."""

    _mig_enforces_limits = MigLocalSpawner._mig_enforces_limits


def a_server(kind: type[Server], context: HubContext | None = None, **limits: Any) -> Server:
    hub = context or HubContext(MigBroker())
    server = kind(hub=Hub(), **limits)
    server.user = SimpleNamespace(name="ada", url="/user/ada", settings={KEY: hub})
    server.api_token = server.oauth_client_id = ""
    return server


def a_tier(**limits: float) -> Tier:
    (tier,) = parse_tiers([{"name": "small", "profile": "1g.5gb", **limits}])
    return tier


def limits_of(server: Server) -> tuple[str | None, str | None]:
    env = server.get_env()
    return env.get("CPU_LIMIT"), env.get("MEM_LIMIT")


def test_the_tiers_limits_hold_for_its_launch_and_are_in_the_environment() -> None:
    server = a_server(Server)
    with server._mig_limited(a_tier(cpus=0.5, memory_gib=1.5)):
        assert (server.cpu_limit, server.mem_limit) == (0.5, 3 << 29)
        assert limits_of(server) == ("0.5", str(3 << 29))
    assert (server.cpu_limit, server.mem_limit) == (None, None)
    assert limits_of(server) == (None, None)


def test_the_configurations_limits_hold_for_what_a_tier_does_not_limit() -> None:
    server = a_server(Server, cpu_limit=4, mem_limit="8G")
    with server._mig_limited(a_tier(cpus=16)):
        assert limits_of(server) == ("16.0", str(8 << 30))
    with server._mig_limited(a_tier()):
        assert limits_of(server) == ("4.0", str(8 << 30))


def test_a_failed_launch_leaves_no_limits_behind() -> None:
    server = a_server(Server, cpu_limit=4)
    with pytest.raises(RuntimeError), server._mig_limited(a_tier(cpus=16, memory_gib=1)):
        raise RuntimeError
    assert (server.cpu_limit, server.mem_limit) == (4, None)


def test_limits_that_nothing_enforces_are_logged_once_for_a_hub(
    caplog: pytest.LogCaptureFixture,
) -> None:
    hub = HubContext(MigBroker())
    servers = [a_server(Unlimited, hub), a_server(Unlimited, hub)]
    for server in servers:
        server.log.propagate = True
        with server._mig_limited(a_tier()):
            pass
    assert not caplog.messages
    for server in servers:
        with server._mig_limited(a_tier(cpus=0.5, memory_gib=8)):
            assert limits_of(server) == ("0.5", str(8 << 30))
    (warning,) = caplog.messages
    assert "limits each server to 0.5 CPUs and 8 GiB of main memory" in warning
    assert "Unlimited does not enforce that" in warning


def test_limits_that_are_enforced_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    server = a_server(Server)
    server.log.propagate = True
    with server._mig_limited(a_tier(cpus=2)):
        pass
    assert not caplog.messages
