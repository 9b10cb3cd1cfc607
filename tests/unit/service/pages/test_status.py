"""What a person's page says about their servers."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone

from jupyterhub_migspawner.model.leases import LeaseRow
from jupyterhub_migspawner.policy.settings import Settings
from jupyterhub_migspawner.policy.tiers import parse_tiers
from jupyterhub_migspawner.service.clients.hub import HubServer
from jupyterhub_migspawner.service.pages.status import moment, sessions_of

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=timezone.utc)

SETTINGS = Settings(
    tiers=parse_tiers(
        [
            {"name": "small", "title": "Small slice", "profile": "1g.5gb"},
            {"name": "cpu", "title": "No GPU", "profile": "none"},
        ]
    )
)

LEASE = LeaseRow(
    id=1,
    attempt="a1",
    user="ada",
    server="",
    tier="small",
    state="active",
    slice_id=1,
    slice_uuid="MIG-1",
    node="node1",
    card_uuid="GPU-1",
    profile="1g.5gb",
    memory_mib=4864,
    since=NOON,
    deadline=None,
    ends_at=NOON + timedelta(hours=24),
    ended_at=None,
    end_reason="",
    waiting_for="",
    request_id=None,
)

SERVER = HubServer(
    user="ada",
    name="",
    ready=True,
    pending="",
    started=NOON - timedelta(minutes=1),
    url="/user/ada/",
    tier="small",
)


def test_a_server_with_a_lease_is_one_session_with_its_slice() -> None:
    (session,) = sessions_of((SERVER,), (LEASE,), SETTINGS, {"GPU-1": 3})
    assert session.state == "running"
    assert session.tier == "Small slice"
    assert session.card_index == 3
    assert session.memory == "4.8 GiB"
    assert session.since == moment(NOON)
    assert session.ends_at == moment(NOON + timedelta(hours=24))
    assert session.url == "/user/ada/"


def test_a_server_without_a_gpu_says_its_tier_from_the_hub() -> None:
    cpu = replace(SERVER, tier="cpu")
    (session,) = sessions_of((cpu,), (), SETTINGS, {})
    assert (session.tier, session.lease, session.since) == ("No GPU", None, moment(cpu.started))


def test_a_server_whose_options_name_no_tier_has_the_default_one() -> None:
    plain = replace(SERVER, tier="")
    (session,) = sessions_of((plain,), (), SETTINGS, {}, SETTINGS.tier("cpu"))
    assert session.tier == "No GPU"


def test_a_tier_that_was_taken_out_of_the_configuration_keeps_its_name() -> None:
    (session,) = sessions_of((SERVER,), (replace(LEASE, tier="old"),), SETTINGS, {})
    assert session.tier == "old"


def test_states_follow_hub_and_lease() -> None:
    def state(server: HubServer | None, lease: LeaseRow | None, silent: bool = False) -> str:
        servers = None if silent else (() if server is None else (server,))
        leases = () if lease is None else (lease,)
        (session,) = sessions_of(servers, leases, SETTINGS, {})
        return session.state

    pending = replace(LEASE, state="pending")
    starting = replace(SERVER, ready=False, pending="spawn")
    assert state(starting, pending) == "starting"
    assert state(starting, None) == "starting"
    assert state(None, pending) == "starting"
    assert state(replace(SERVER, ready=False, pending="stop"), LEASE) == "stopping"
    assert state(replace(SERVER, ready=False, pending="check"), LEASE) == "running"
    assert state(None, replace(LEASE, state="releasing")) == "stopping"
    assert state(None, LEASE) == "unknown"
    assert state(None, LEASE, silent=True) == "unknown"


def test_a_server_that_stops_and_its_slice_are_one_session() -> None:
    stopping = replace(SERVER, ready=False, pending="stop")
    returning = replace(LEASE, state="releasing", waiting_for="NVML still lists pid 7")
    (session,) = sessions_of((stopping,), (returning,), SETTINGS, {})
    assert (session.state, session.lease) == ("stopping", returning)
    assert "a program is still running on its slice" in session.explanation
    assert "pid 7" not in session.explanation


def test_a_slice_of_the_last_start_stands_beside_the_new_server() -> None:
    returning = replace(LEASE, state="releasing")
    fresh = replace(LEASE, id=2, attempt="a2")
    first, second = sessions_of((SERVER,), (returning, fresh), SETTINGS, {})
    assert (first.lease, first.state) == (fresh, "running")
    assert (second.lease, second.state) == (returning, "stopping")


def test_sessions_come_with_the_default_server_first() -> None:
    named = replace(SERVER, name="b")
    sessions = sessions_of((named, SERVER), (), SETTINGS, {})
    assert [session.server for session in sessions] == ["", "b"]


def test_a_moment_is_exact_in_utc() -> None:
    shown = moment(datetime(2026, 1, 2, 5, 0, tzinfo=timezone(timedelta(hours=2))))
    assert shown.utc == "2026-01-02 03:00:00 UTC"
    assert shown.machine == "2026-01-02T03:00:00Z"


def test_a_server_whose_card_was_lost_says_so_until_it_starts_anew() -> None:
    lost = replace(LEASE, state="lost", end_reason="Card 3 fell off the bus. Start again.")
    (session,) = sessions_of((SERVER,), (lost,), SETTINGS, {})
    assert session.lease is None
    assert session.explanation == "Card 3 fell off the bus. Start again."
    assert session.state == "lost"
    anew = replace(SERVER, started=NOON + timedelta(minutes=5))
    (session,) = sessions_of((anew,), (lost,), SETTINGS, {})
    assert (session.state, session.explanation) == ("running", "")
    assert sessions_of((), (lost,), SETTINGS, {}) == ()


def test_a_session_on_a_card_with_a_problem_says_so() -> None:
    (session,) = sessions_of((SERVER,), (LEASE,), SETTINGS, {"GPU-1": 3}, failing={"GPU-1"})
    assert session.state == "running"
    assert "work on the GPU may fail" in session.explanation
    (session,) = sessions_of((SERVER,), (LEASE,), SETTINGS, {"GPU-1": 3}, failing={"GPU-2"})
    assert session.explanation == ""
    ending = replace(LEASE, state="releasing")
    (session,) = sessions_of((), (ending,), SETTINGS, {}, failing={"GPU-1"})
    assert "being released" in session.explanation
