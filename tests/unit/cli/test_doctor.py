"""What the doctor finds; every finding that is wrong comes with its mend."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pynvml
import pytest

from jupyterhub_migspawner.broker import Broker
from jupyterhub_migspawner.db.clock import Machine, count_seconds
from jupyterhub_migspawner.db.store import Store
from jupyterhub_migspawner.gpu.boot import boot_id
from jupyterhub_migspawner.gpu.simulator import card_uuids, create_state, lose_card, reboot
from jupyterhub_migspawner.policy.clock import Count
from jupyterhub_migspawner.policy.people import Person
from tests.unit.cli.conftest import Answer, Install
from tests.unit.cli.test_commands import newer


@pytest.fixture
def healthy(install: Install, monkeypatch: pytest.MonkeyPatch) -> Install:
    """The proxy is somewhere else on this machine; its check has a test of its own."""
    with install.config.open("a") as file:
        file.write('c.ConfigurableHTTPProxy.command = ["proxy"]\n')
    install.config.chmod(0o600)
    return install


def found(answer: Answer, check: str) -> list[Any]:
    return [finding for finding in answer.json if finding["check"] == check]


def wrong(answer: Answer) -> set[str]:
    assert answer.status == 1
    findings = [finding for finding in answer.json if finding["state"] == "wrong"]
    assert all(finding["mend"] for finding in findings)
    return {finding["check"] for finding in findings}


def test_a_healthy_install(healthy: Install) -> None:
    answer = healthy.run("doctor", "--json")
    assert answer.status == 0
    assert {finding["check"] for finding in answer.json} == {
        "python", "jupyterhub", "configuration", "proxy", "database", "nvml", "card", "tier",
        "agent", "clock", "restart", "notices", "ports", "files", "key", "settings", "isolation",
    }  # fmt: skip
    assert {finding["state"] for finding in answer.json} == {"ok"}
    said = healthy.run("doctor", "--wide").out
    assert said.endswith("No problems found.\n")
    assert "7 x 1g.5gb" in said


def test_without_a_configuration_it_still_looks_at_the_rest(
    healthy: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = healthy.run("doctor", "--json", "-f", "/nonexistent.py", config=False)
    assert "configuration" in wrong(answer)
    assert found(answer, "python")
    assert not found(answer, "database")


def test_a_binding_that_is_older_than_the_driver(
    healthy: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pynvml, "NVML_GPU_INSTANCE_PROFILE_COUNT", 10)
    (finding,) = [
        each
        for each in found(healthy.run("doctor", "--json"), "nvml")
        if each["state"] == "warning"
    ]
    assert "8 kinds of MIG profile that it does not know" in finding["message"]
    assert finding["mend"] == "Update it: pip install --upgrade nvidia-ml-py"


def test_a_mistake_in_a_tier(healthy: Install) -> None:
    healthy.edit('"profile": "3g.20gb"', '"profile": "3g.20g"')
    answer = healthy.run("doctor", "--json")
    assert "configuration" in wrong(answer)
    assert "large" in found(answer, "configuration")[0]["message"]


def test_no_driver(healthy: Install) -> None:
    healthy.edit('c.MigBroker.nvml = "sim:cards.json"\n', 'c.MigBroker.nvml = "sim:gone.json"\n')
    assert "nvml" in wrong(healthy.run("doctor", "--json"))


def test_cards_without_slices(healthy: Install) -> None:
    healthy.edit(
        'c.MigBroker.node = "n1"',
        'c.MigBroker.node = "n1"\nc.MigBroker.database_url = "sqlite:///none.sqlite"',
    )
    reboot(healthy.directory / "cards.json")
    answer = healthy.run("doctor", "--json")
    assert "card" in wrong(answer)
    assert "has no slices" in found(answer, "card")[0]["message"]
    assert "layout apply" in found(answer, "card")[0]["mend"]


def test_cards_that_are_not_yet_as_their_layout_says(healthy: Install) -> None:
    reboot(healthy.directory / "cards.json")
    answer = healthy.run("doctor", "--json")
    first, second = found(answer, "card")
    assert (first["state"], second["state"]) == ("warning", "warning")
    assert "present is no slices, desired is 7 x 1g.5gb" in first["message"]
    assert "The agent cuts it" in first["mend"]


def test_a_card_that_is_held_back_says_why(healthy: Install) -> None:
    found_cards = healthy.mig.open_nvml().inventory()
    why = "Card 0 is back, but process 7 from before it was lost still runs; end it."
    held = replace(found_cards.cards[0], problem=why)
    healthy.broker.nodes.record_inventory(
        "n1", replace(found_cards, cards=(held, found_cards.cards[1]))
    )
    answer = healthy.run("doctor", "--json")
    assert why in found(answer, "card")[0]["message"]
    assert wrong(answer) == {"card"}


def test_a_card_without_mig_as_its_layout_says(healthy: Install) -> None:
    state = healthy.directory / "cards.json"
    healthy.broker.layouts.set(card_uuids(state)[0], (), False, "root")
    (first, _) = found(healthy.run("doctor", "--json"), "card")
    assert "present is 7 x 1g.5gb, desired is MIG off" in first["message"]
    nvml = healthy.mig.open_nvml()
    for instance in nvml.inventory().cards[0].instances:
        nvml.destroy_instance(card_uuids(state)[0], instance.gi_id)
    nvml.set_mig_mode(card_uuids(state)[0], False)
    healthy.report()
    (first, _) = found(healthy.run("doctor", "--json"), "card")
    assert first["state"] == "ok"
    assert "as it should be: MIG off" in first["message"]


def test_a_drained_card_is_no_card_in_order(healthy: Install) -> None:
    card = card_uuids(healthy.directory / "cards.json")[1]
    healthy.broker.cards.drain(card, "a fan is loud.", "root")
    answer = healthy.run("doctor", "--json")
    assert answer.status == 0
    first, second = found(answer, "card")
    assert (first["state"], second["state"]) == ("ok", "warning")
    assert "is drained, and no new leases start on it: a fan is loud." in second["message"]
    assert f"migspawner cards resume {card}" in second["mend"]
    small, large, _ = found(answer, "tier")
    assert "7 slices of 1g.5gb can be given out; 2 more cannot" in small["message"]
    assert "0 slices of 3g.20gb can be given out; 1 more cannot" in large["message"]


def test_no_mend_sends_back_to_its_sentence(healthy: Install) -> None:
    state = healthy.directory / "cards.json"
    lose_card(state, card_uuids(state)[1])
    newer(healthy)
    for finding in healthy.run("doctor", "--json").json:
        assert "sentence" not in finding["mend"]


def test_a_lost_card(healthy: Install) -> None:
    state = healthy.directory / "cards.json"
    lose_card(state, card_uuids(state)[1])
    answer = healthy.run("doctor", "--json")
    assert "card" in wrong(answer)
    assert [finding["state"] for finding in found(answer, "card")] == ["ok", "wrong"]


def test_a_tier_that_no_card_can_give(healthy: Install) -> None:
    healthy.edit('"profile": "3g.20gb"', '"profile": "3g.40gb"')
    answer = healthy.run("doctor", "--json")
    assert wrong(answer) == {"tier"}
    (finding,) = [f for f in found(answer, "tier") if f["state"] == "wrong"]
    assert "large" in finding["message"]
    assert "3g.40gb" in finding["message"]
    assert "3g.20gb" in finding["mend"]


@pytest.mark.parametrize("name", ["small", "large", "card"])
def test_a_tier_that_means_no_card_there_is(healthy: Install, name: str) -> None:
    healthy.edit(f'"name": "{name}",', f'"name": "{name}", "card": "A10",')
    answer = healthy.run("doctor", "--json")
    assert wrong(answer) == {"tier"}
    (finding,) = [f for f in found(answer, "tier") if f["state"] == "wrong"]
    assert finding["message"] == f"Tier {name}: its card 'A10' matches no known card."
    assert "NVIDIA A100-SXM4-40GB (40 GB)" in finding["mend"]


def test_a_tier_that_means_the_cards_there_are(healthy: Install) -> None:
    before = found(healthy.run("doctor", "--json"), "tier")
    healthy.edit('"name": "small",', '"name": "small", "card": "40GB",')
    answer = healthy.run("doctor", "--json")
    assert answer.status == 0
    assert found(answer, "tier") == before


def test_a_tier_with_mig_on_whose_cards_are_without_it_just_now(healthy: Install) -> None:
    healthy.edit('"name": "card",', '"name": "card", "card": "A100*",')
    nvml = healthy.mig.open_nvml()
    for card, uuid in enumerate(card_uuids(healthy.directory / "cards.json")):
        healthy.broker.layouts.set(uuid, (), False, "root")
        for instance in nvml.inventory().cards[card].instances:
            nvml.destroy_instance(uuid, instance.gi_id)
        nvml.set_mig_mode(uuid, False)
    healthy.report()
    answer = healthy.run("doctor", "--json")
    assert not any("matches no card" in each["message"] for each in found(answer, "tier"))


def test_a_tier_whose_cards_have_no_such_profile(healthy: Install) -> None:
    healthy.edit('"profile": "3g.20gb"', '"profile": "3g.40gb", "card": "A100*"')
    answer = healthy.run("doctor", "--json")
    (finding,) = [f for f in found(answer, "tier") if f["state"] == "wrong"]
    assert finding["message"] == "Tier large: no card of model A100* has the profile 3g.40gb."
    assert "Profiles of this machine's cards of that kind: 1g.10gb," in finding["mend"]


def test_a_tier_whose_only_cards_are_lost(healthy: Install) -> None:
    seen = healthy.mig.open_nvml().inventory()
    old = replace(
        seen.cards[0], index=2, uuid="GPU-old", model="Tesla T4", memory_mib=15360, instances=()
    )
    for cards in [(*seen.cards, old), seen.cards]:
        healthy.broker.nodes.record_inventory("n1", replace(seen, cards=cards))
    healthy.edit('"name": "card",', '"name": "card", "card": "T4",')
    answer = healthy.run("doctor", "--json")
    assert wrong(answer) == {"tier"}
    (finding,) = [f for f in found(answer, "tier") if f["state"] == "wrong"]
    assert finding["message"] == "Tier card: its card 'T4' matches only cards that are lost."


def test_a_tier_of_whole_cards_with_mig_on_where_no_card_has_mig(healthy: Install) -> None:
    state = healthy.directory / "cards.json"
    create_state(state, cards=1, model="T4", overwrite=True)
    healthy.report()
    healthy.edit('"name": "card",', '"name": "card", "card": "T4",')
    answer = healthy.run("doctor", "--json")
    (finding,) = [f for f in found(answer, "tier") if "Tier card" in f["message"]]
    assert finding["state"] == "wrong"
    assert finding["message"] == (
        "Tier card: it gives out whole cards with MIG on, but no card of model T4 has MIG on."
    )
    assert 'Write "mig": "off" in the tier' in finding["mend"]
    healthy.edit('"name": "card",', '"name": "card", "mig": "off",')
    answer = healthy.run("doctor", "--json")
    assert not [f for f in found(answer, "tier") if "Tier card" in f["message"]]


def test_a_tier_whose_slices_are_not_cut_is_a_warning(healthy: Install) -> None:
    healthy.edit('"profile": "3g.20gb"', '"profile": "4g.20gb"')
    answer = healthy.run("doctor", "--json")
    assert answer.status == 0
    assert [f["state"] for f in found(answer, "tier")] == ["ok", "warning", "ok"]
    assert healthy.run("doctor").out.endswith("No problems found.\n")


def test_a_silent_agent(healthy: Install) -> None:
    healthy.report(minutes_ago=-0.0)
    healthy.edit(
        'c.MigBroker.node = "n1"',
        'c.MigBroker.node = "n1"\nc.MigBroker.database_url = "sqlite:///silent.sqlite"',
    )
    healthy.report(minutes_ago=10)
    answer = healthy.run("doctor", "--json")
    assert wrong(answer) == {"agent"}
    assert "n1 has been silent for 60" in found(answer, "agent")[0]["message"]


def test_an_agent_that_never_came(healthy: Install) -> None:
    healthy.edit(
        'c.MigBroker.node = "n1"',
        'c.MigBroker.node = "n1"\nc.MigBroker.database_url = "sqlite:///new.sqlite"',
    )
    answer = healthy.run("doctor", "--json")
    assert found(answer, "database")[0]["state"] == "warning"
    assert not (healthy.directory / "new.sqlite").exists()
    assert healthy.run("db", "upgrade").status == 0
    assert wrong(healthy.run("doctor", "--json")) == {"agent"}


def test_a_newer_database(healthy: Install) -> None:
    newer(healthy)
    answer = healthy.run("doctor", "--json")
    assert wrong(answer) == {"database"}
    assert "9999" in found(answer, "database")[0]["message"]


def test_no_proxy_is_found(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setattr("sys.prefix", "/nonexistent")
    answer = install.run("doctor", "--json")
    assert "proxy" in wrong(answer)


def test_servers_that_end_with_the_hub_are_pointed_out(healthy: Install) -> None:
    healthy.edit("c.JupyterHub.cleanup_servers = False\n", "")
    (finding,) = found(healthy.run("doctor", "--json"), "restart")
    assert finding["state"] == "warning"
    assert "KillMode=process" in finding["mend"]


def test_a_hub_whose_name_is_another_s(healthy: Install) -> None:
    healthy.broker.hubs.claim("elsewhere")
    answer = healthy.run("doctor", "--json")
    assert "hub" in wrong(answer)
    assert "'elsewhere'" not in found(answer, "hub")[0]["mend"]
    adopted = healthy.run("db", "adopt", "--json")
    assert adopted.status == 0
    assert adopted.json["hub"] == "hub"
    assert adopted.json["home"].endswith(str(healthy.config))
    assert not found(healthy.run("doctor", "--json"), "hub")


def test_hubs_that_share_a_database(healthy: Install) -> None:
    healthy.broker.hubs.claim(healthy.mig.hub_home)
    with healthy.config.open("a") as file:
        file.write('c.MigBroker.hub = "physics"\nc.MigBroker.hub_home = "elsewhere"\n')
    healthy.broker.hubs.claim("elsewhere")
    answer = healthy.run("doctor", "--json")
    assert answer.status == 0
    assert "shares its lease database with hub" in found(answer, "hub")[0]["message"]


@pytest.mark.parametrize("name", ["", "  ", "x" * 256, "a\\nb"])
def test_a_hub_s_name_that_cannot_be(healthy: Install, name: str) -> None:
    with healthy.config.open("a") as file:
        file.write(f'c.MigBroker.hub = "{name}"\n')
    assert "MigBroker.hub" in found(healthy.run("doctor", "--json"), "configuration")[0]["message"]


def machine(count: Count, wall: datetime) -> Machine:
    return Machine(boot_id(), lambda: count, lambda: wall)


def test_a_clock_that_was_set_is_shown_for_a_week(healthy: Install) -> None:
    now, count = datetime.now(timezone.utc), count_seconds()
    store = Store.open(healthy.mig.resolved_database_url(), create=True)
    settings = healthy.mig.settings()
    # An hour ago by the count, this machine's clock was two days behind.
    before = Count(count.ticks - 3600, count.awake - 3600)
    wall = now - timedelta(hours=1, days=2)
    Broker(store, settings, machine=machine(before, wall)).clock.watch()
    healthy.report()
    answer = healthy.run("doctor", "--json")
    (finding,) = found(answer, "clock")
    assert (answer.status, finding["state"]) == (0, "warning")
    assert "2 days ahead of the time that leases use" in finding["message"]

    Broker(store, settings, machine=Machine(boot_id())).clock.watch()
    store.close()
    (finding,) = found(healthy.run("doctor", "--json"), "clock")
    assert finding["state"] == "warning"
    assert "was set forward by 2 days" in finding["message"]
    assert "chrony" in finding["mend"]


@pytest.mark.parametrize(
    "line", ["c.ConfigurableHTTPProxy.should_start = False", "c.JupyterHub.proxy_class = 'traefik'"]
)
def test_a_proxy_that_needs_a_port_which_others_can_take(healthy: Install, line: str) -> None:
    with healthy.config.open("a") as file:
        file.write(line + "\n")
    (finding,) = found(healthy.run("doctor", "--json"), "ports")
    assert finding["state"] == "warning"
    assert "internal_ssl" in finding["mend"]


def test_no_safe_folder_for_the_services_socket(
    healthy: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.chdir("/tmp")
    healthy.config.parent.chmod(0o777)
    (finding,) = found(healthy.run("doctor", "--json"), "ports")
    assert finding["state"] == "warning"
    assert str(healthy.config.parent) in finding["message"]
    healthy.config.parent.chmod(0o700)


def test_a_slice_that_is_not_proven_empty_is_named_after_a_minute(healthy: Install) -> None:
    store = Store.open(healthy.mig.resolved_database_url(), create=True)
    times = [datetime.now(timezone.utc) - timedelta(seconds=50)]
    broker = Broker(store, healthy.mig.settings(), clock=lambda: times[-1])
    lease = broker.leases.acquire(Person("ada"), "", "small", "attempt-1")
    assert lease is not None
    broker.leases.activate("attempt-1")
    broker.leases.release(lease.id, "its time was over", "migspawner")
    broker.leases.note_waiting(lease.id, "NVML still lists processes on the slice: pid 4711")
    assert found(healthy.run("doctor", "--json"), "lease") == []
    times.append(times[0] - timedelta(minutes=2))
    other = broker.leases.acquire(Person("grace"), "", "small", "attempt-2")
    assert other is not None
    broker.leases.activate("attempt-2")
    broker.leases.release(other.id, "its time was over", "migspawner")
    broker.leases.note_waiting(other.id, "NVML still lists processes on the slice: pid 4712")
    store.close()
    answer = healthy.run("doctor", "--json")
    (finding,) = found(answer, "lease")
    assert (answer.status, finding["state"]) == (1, "wrong")
    assert f"Lease {other.id} of grace already ended at" in finding["message"]
    assert "(its time was over)" in finding["message"]
    assert "kill -9 4712" in finding["mend"]


def test_limits_that_the_spawner_does_not_enforce(healthy: Install) -> None:
    assert not found(healthy.run("doctor", "--json"), "limits")
    healthy.edit('"profile": "1g.5gb"', '"profile": "1g.5gb", "cpus": 2')
    (finding,) = found(healthy.run("doctor", "--json"), "limits")
    assert finding["state"] == "warning"
    assert (
        "MigLocalSpawner does not enforce 'cpus' and 'memory_gib', which small sets"
        in (finding["message"])
    )
