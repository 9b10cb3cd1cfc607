"""What the doctor finds; every finding that is wrong comes with its mend."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from jupyterhub_migspawner.gpu.simulator import card_uuids, lose_card, reboot
from tests.unit.cli.conftest import Answer, Install
from tests.unit.cli.test_commands import newer


@pytest.fixture
def healthy(install: Install, monkeypatch: pytest.MonkeyPatch) -> Install:
    """The proxy is somewhere else on this machine; its check has a test of its own."""
    with install.config.open("a") as file:
        file.write('c.ConfigurableHTTPProxy.command = ["proxy"]\n')
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
        "agent", "restart", "notices",
    }  # fmt: skip
    assert {finding["state"] for finding in answer.json} == {"ok"}
    said = healthy.run("doctor").out
    assert said.endswith("Nothing is wrong.\n")
    assert "7 x 1g.5gb" in said


def test_without_a_configuration_it_still_looks_at_the_rest(
    healthy: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = healthy.run("doctor", "--json", "-f", "/nonexistent.py", config=False)
    assert "configuration" in wrong(answer)
    assert found(answer, "python")
    assert not found(answer, "database")


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
    assert "no slices, wanted is 7 x 1g.5gb" in first["message"]
    assert "The agent cuts it" in first["mend"]


def test_a_card_that_is_held_back_says_why(healthy: Install) -> None:
    found_cards = healthy.mig.open_nvml().inventory()
    why = "Card 0 is back, but process 7 of before it was lost still runs; end it."
    held = replace(found_cards.cards[0], problem=why)
    healthy.broker.record_inventory("n1", replace(found_cards, cards=(held, found_cards.cards[1])))
    answer = healthy.run("doctor", "--json")
    assert why in found(answer, "card")[0]["message"]
    assert wrong(answer) == {"card"}


def test_a_card_without_mig_as_its_layout_says(healthy: Install) -> None:
    state = healthy.directory / "cards.json"
    healthy.broker.set_layout(card_uuids(state)[0], (), False, "root")
    (first, _) = found(healthy.run("doctor", "--json"), "card")
    assert "7 x 1g.5gb, wanted is MIG off" in first["message"]
    nvml = healthy.mig.open_nvml()
    for instance in nvml.inventory().cards[0].instances:
        nvml.destroy_instance(card_uuids(state)[0], instance.gi_id)
    nvml.set_mig_mode(card_uuids(state)[0], False)
    healthy.report()
    (first, _) = found(healthy.run("doctor", "--json"), "card")
    assert first["state"] == "ok"
    assert "as it should be: MIG off" in first["message"]


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


def test_a_tier_whose_slices_are_not_cut_is_a_warning(healthy: Install) -> None:
    healthy.edit('"profile": "3g.20gb"', '"profile": "4g.20gb"')
    answer = healthy.run("doctor", "--json")
    assert answer.status == 0
    assert [f["state"] for f in found(answer, "tier")] == ["ok", "warning", "ok"]
    assert healthy.run("doctor").out.endswith("Nothing is wrong.\n")


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
    healthy.broker.claim_hub("elsewhere")
    answer = healthy.run("doctor", "--json")
    assert "hub" in wrong(answer)
    assert "'elsewhere'" not in found(answer, "hub")[0]["mend"]
    adopted = healthy.run("db", "adopt", "--json")
    assert adopted.status == 0
    assert adopted.json["hub"] == "hub"
    assert adopted.json["home"].endswith(str(healthy.config))
    assert not found(healthy.run("doctor", "--json"), "hub")


def test_hubs_that_share_a_database(healthy: Install) -> None:
    healthy.broker.claim_hub(healthy.mig.hub_home)
    with healthy.config.open("a") as file:
        file.write('c.MigBroker.hub = "physics"\nc.MigBroker.hub_home = "elsewhere"\n')
    healthy.broker.claim_hub("elsewhere")
    answer = healthy.run("doctor", "--json")
    assert answer.status == 0
    assert "shares its lease database with hub" in found(answer, "hub")[0]["message"]


@pytest.mark.parametrize("name", ["", "  ", "x" * 256, "a\\nb"])
def test_a_hub_s_name_that_cannot_be(healthy: Install, name: str) -> None:
    with healthy.config.open("a") as file:
        file.write(f'c.MigBroker.hub = "{name}"\n')
    assert "MigBroker.hub" in found(healthy.run("doctor", "--json"), "configuration")[0]["message"]
