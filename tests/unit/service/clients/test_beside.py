"""What the service passes to the rules about a person's servers, against what a start gets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from jupyterhub_migspawner.broker.statuses import TierStatus
from jupyterhub_migspawner.db import migrations
from jupyterhub_migspawner.errors import Refusal
from jupyterhub_migspawner.policy.people import Person
from jupyterhub_migspawner.service.clients.hub import Beside, HubServer
from tests.broker.lab import Lab

ADA = Person("ada")


@pytest.fixture
def url(tmp_path: Path) -> str:
    found = f"sqlite:///{tmp_path / 'leases.sqlite'}"
    migrations.upgrade(found)
    return found


@pytest.fixture
def lab(url: str, request: pytest.FixtureRequest) -> Iterator[Lab]:
    made = Lab(url, quotas={"default": {"servers": request.param}})
    made.report()
    made.broker.hubs.claim("hub:/etc/hub.py")
    yield made
    made.close()


def server(name: str = "", pending: str = "") -> HubServer:
    return HubServer("ada", name, not pending, pending, None, f"/user/ada/{name}", "")


def small(lab: Lab, beside: Beside) -> TierStatus:
    offers = lab.broker.tiers.of(ADA, **vars(beside))
    return next(each for each in offers if each.tier.name == "small")


@pytest.mark.parametrize("lab", [1], indirect=True)
def test_nothing_runs_beside_the_first_server(lab: Lab) -> None:
    assert Beside.of_next(()) == Beside("", 0)
    assert small(lab, Beside.of_next(())).usable


@pytest.mark.parametrize("lab", [2], indirect=True)
def test_a_default_server_that_is_stopping_counts_once(lab: Lab) -> None:
    lab.start("ada")
    lab.broker.leases.release_server("ada", "", "stopped", "ada")
    stopping = (server(pending="stop"),)
    assert small(lab, Beside.of_next(stopping)).usable
    beside = Beside.of(stopping, "b")
    assert lab.broker.leases.acquire(
        ADA,
        "b",
        "small",
        lab.attempt(),
        other_servers=beside.other_servers,
        stopping=beside.stopping,
    )


@pytest.mark.parametrize("lab", [1], indirect=True)
def test_a_server_that_runs_without_a_gpu_can_wait_to_be_started_again_with_one(lab: Lab) -> None:
    running = (server(),)
    found = small(lab, Beside.of_next(running))
    assert (found.usable, found.may_wait) == (False, True)
    beside = Beside.of_all(running, "")
    ticket = lab.broker.queue.join(
        ADA, "small", other_servers=beside.other_servers, stopping=beside.stopping
    )
    # It makes room when it is its turn.
    served = Beside.of(running, ticket.server)
    offered = lab.broker.offers.make(
        ticket.id, ADA, other_servers=served.other_servers, stopping=served.stopping
    )
    assert offered.lease is not None


@pytest.mark.parametrize("lab", [1], indirect=True)
def test_a_hub_that_says_nothing_leaves_what_the_leases_say(lab: Lab) -> None:
    assert small(lab, Beside()).usable
    lab.start("ada", server="a")
    found = small(lab, Beside())
    assert not found.usable
    with pytest.raises(Refusal) as said:
        lab.start("ada", server="b")
    assert str(said.value) == found.why
