"""What an admin may give containers beside their slice, and what would open others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import docker
import pytest

from jupyterhub_migspawner.errors import LaunchError
from jupyterhub_migspawner.spawner.launchers.host_config import demand_confined, without

CLIENT = docker.APIClient.__new__(docker.APIClient)
CLIENT._version = "1.41"


def made(**extra: Any) -> dict[str, Any]:
    """A host config as dockerspawner has docker make it."""
    config: dict[str, Any] = CLIENT.create_host_config(**extra)
    return config


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ({"privileged": True}, "Privileged = True: a privileged container"),
        ({"devices": ["/dev/nvidia1:/dev/nvidia1:rwm"]}, "Devices = "),
        (
            {"device_requests": [docker.types.DeviceRequest(count=-1, capabilities=[["gpu"]])]},
            "DeviceRequests = ",
        ),
        ({"device_cgroup_rules": ["c 195:* rwm"]}, "DeviceCgroupRules = ['c 195:* rwm']"),
        ({"volumes_from": ["other"]}, "VolumesFrom"),
        ({"pid_mode": "host"}, "PidMode = 'host'"),
        ({"restart_policy": {"Name": "always"}}, "RestartPolicy = 'always'"),
        ({"runtime": "nvidia"}, "Runtime = 'nvidia'"),
        ({"cap_add": ["SYS_ADMIN"]}, "CapAdd = ['SYS_ADMIN']"),
        ({"cap_add": ["cap_mknod", "CHOWN"]}, "CapAdd = ['cap_mknod']"),
        ({"cap_add": ["ALL"]}, "CapAdd"),
        ({"binds": ["/:/host:ro"]}, "/ in Binds"),
        ({"binds": ["/dev:/dev"]}, "/dev in Binds"),
        ({"binds": ["/dev/../dev/nvidia1:/x"]}, "in Binds"),
        ({"binds": {"/sys/fs/cgroup": {"bind": "/sys/fs/cgroup"}}}, "/sys/fs/cgroup in Binds"),
        ({"binds": ["/var/run/docker.sock:/var/run/docker.sock"]}, "docker.sock in Binds"),
        ({"mounts": [docker.types.Mount("/x", "/proc/1", type="bind")]}, "/proc/1 in Mounts"),
    ],
)
def test_what_opens_other_slices_is_refused_by_its_name(extra: dict[str, Any], said: str) -> None:
    with pytest.raises(LaunchError) as caught:
        demand_confined(made(**extra))
    assert said in str(caught.value)
    assert "extra_host_config" in str(caught.value)


def test_what_opens_nothing_is_allowed(tmp_path: Path) -> None:
    demand_confined(
        made(
            binds=["home-ada:/home/ada", f"{tmp_path}:/data", "/dev/shm:/dev/shm"],
            mounts=[docker.types.Mount("/x", "/data/sets", type="bind", read_only=True)],
            mem_limit="2g",
            cap_add=["IPC_LOCK"],
            cap_drop=["NET_RAW"],
            restart_policy={"Name": "no"},
            ulimits=[docker.types.Ulimit(name="memlock", soft=-1)],
            init=True,
            runtime="runc",
        )
    )


def test_the_engines_own_socket_is_refused_wherever_it_is(tmp_path: Path) -> None:
    (tmp_path / "docker.sock").touch()
    (tmp_path / "link").symlink_to(tmp_path)
    for bind in (f"{tmp_path}/docker.sock:/s", f"{tmp_path}:/s", f"{tmp_path}/link:/s"):
        with pytest.raises(LaunchError, match="start containers with any device"):
            demand_confined(made(binds=[bind]), engine=f"{tmp_path}/docker.sock")


@pytest.mark.parametrize("name", ["MaskedPaths", "ReadonlyPaths"])
def test_the_kernels_settings_stay_closed(name: str) -> None:
    # As in extra_create_kwargs = {"host_config": {...}}: docker has no argument for it.
    demand_confined({name: None})
    with pytest.raises(LaunchError, match=f"{name} = "):
        demand_confined({name: []})


def test_a_runtime_beside_the_host_config_is_refused_as_well() -> None:
    with pytest.raises(LaunchError, match="Runtime = 'nvidia'"):
        demand_confined({}, runtime="nvidia")


def test_a_capability_is_dropped_once() -> None:
    assert without("MKNOD", None) == ["MKNOD"]
    assert without("MKNOD", ["NET_RAW"]) == ["NET_RAW", "MKNOD"]
    for dropped in (["MKNOD"], ["cap_mknod"], ["ALL"]):
        assert without("MKNOD", dropped) == dropped
