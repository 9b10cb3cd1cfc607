"""Two people of a course on one slice of a real hub: one goes, one stays, a third comes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from jupyterhub_migspawner.gpu import simulator
from jupyterhub_migspawner.model.leases import LeaseRow
from tests.acceptance.hubs import Hub
from tests.processes import marked_processes

TIERS = """
c.MigBroker.tiers = [
    {"name": "cpu", "profile": "none"},
    {"name": "course", "profile": "1g.5gb", "seats": 2, "groups": ["students"]},
    {"name": "small", "profile": "1g.5gb", "default": True},
]
c.JupyterHub.load_groups = {"students": {"users": ["ada", "grace", "linus"]}}
"""


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    hub = Hub(tmp_path, layouts=[["1g.5gb"]], extra=TIERS)
    hub.start()
    yield hub
    hub.stop()
    hub.end_everything()


def lease_of(hub: Hub, user: str) -> LeaseRow:
    (lease,) = [row for row in hub.rows() if row.user == user]
    return lease


def told(pid: int) -> dict[str, str]:
    """What the server knows of its slice, from its own process."""
    variables = Path(f"/proc/{pid}/environ").read_text().split("\0")
    pairs = (variable.partition("=") for variable in variables)
    wanted = ("CUDA_VISIBLE_DEVICES", "MIGSPAWNER_SEATS", "MIGSPAWNER_MEMORY_MIB")
    return {name: value for name, _, value in pairs if name in wanted}


def test_one_of_two_on_a_slice_goes_and_a_third_takes_the_seat(hub: Hub) -> None:
    for name in ("ada", "grace"):
        status, answer = hub.api("POST", f"users/{name}/server", {"tier": "course"})
        assert status == 201, answer
    (slice_,) = hub.cli("slices")
    assert slice_["state"] == "leased"
    assert [(each["user"], each["seat"]) for each in slice_["leases"]] == [("ada", 0), ("grace", 1)]
    pids, every = {}, {}
    for name in ("ada", "grace"):
        # bubblewrap's own process, and the server.
        every[name] = [each.pid for each in marked_processes()[lease_of(hub, name).attempt]]
        pids[name] = every[name][-1]
        assert told(pids[name]) == {
            "CUDA_VISIBLE_DEVICES": slice_["uuid"],
            "MIGSPAWNER_SEATS": "2",
            "MIGSPAWNER_MEMORY_MIB": str(slice_["memory_mib"]),
        }
        # Both compute on it, and so NVML lists both.
        simulator.add_process(hub.directory / "cards.json", slice_["uuid"], pids[name])
    (course,) = [tier for tier in hub.cli("tiers") if tier["name"] == "course"]
    assert (course["seats"], course["free"], course["total"]) == (2, 0, 2)
    status, answer = hub.api("POST", "users/linus/server", {"tier": "course"})
    assert status == 503
    assert (
        "No seat on a 1g.5gb slice is free for tier course: 2 of 2 are in use" in answer["message"]
    )

    left = lease_of(hub, "ada")
    assert hub.api("DELETE", "users/ada/server")[0] in (202, 204)
    hub.until(lambda: [row.user for row in hub.rows()] == ["grace"])
    assert left.attempt not in marked_processes()
    # Who stayed noticed nothing.
    stayed = lease_of(hub, "grace")
    assert (stayed.state, stayed.seat) == ("active", 1)
    assert [each.pid for each in marked_processes()[stayed.attempt]] == every["grace"]
    assert hub.api("GET", "users/grace")[1]["servers"][""]["ready"]

    # The seat is the course's: a tier that wants a slice for itself does not get it.
    hub.api("POST", "users/admin")
    assert hub.api("POST", "users/admin/server", {"tier": "small"})[0] == 503
    status, answer = hub.api("POST", "users/linus/server", {"tier": "course"})
    assert status == 201, answer
    came = lease_of(hub, "linus")
    assert (came.slice_uuid, came.seat) == (left.slice_uuid, left.seat)
    assert lease_of(hub, "grace").id == stayed.id
