"""``migspawner layout``: the plan, what it does, and how it ends."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from jupyterhub_migspawner.broker.layouts import Layouts
from jupyterhub_migspawner.cli.main import main
from jupyterhub_migspawner.config import MigBroker
from jupyterhub_migspawner.config.file import load_config_file
from jupyterhub_migspawner.errors import Refusal
from jupyterhub_migspawner.gpu import simulator
from jupyterhub_migspawner.model.codes import Code
from jupyterhub_migspawner.policy.people import Person

EXAMPLE = Path(__file__).parents[2] / "data" / "mig-parted-example.yaml"

CONFIG = """
c = get_config()  # noqa
c.MigBroker.nvml = "sim:machine.json"
c.MigBroker.node = "n1"
c.MigBroker.tiers = [
    {"name": "small", "profile": "1g.5gb"},
    {"name": "large", "profile": "3g.20gb"},
]
"""


class Shell:
    """A folder with a configuration and a simulated machine, and the program in it."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.machine = folder / "machine.json"
        self.config = folder / "jupyterhub_config.py"
        self.config.write_text(CONFIG)
        self._capsys = capsys
        self.errors = ""

    def run(self, *words: str, status: int = 0) -> str:
        self._capsys.readouterr()
        found = main([*words[:2], "--config", str(self.config), *words[2:]])
        out, self.errors = self._capsys.readouterr()
        assert found == status, self.errors
        return str(out)

    def json(self, *words: str, status: int = 0) -> Any:
        return json.loads(self.run(*words, "--json", status=status))

    def inventory(self) -> Any:
        return MigBroker(config=load_config_file(self.config)).open_nvml().inventory()

    def broker(self) -> Any:
        return MigBroker(config=load_config_file(self.config)).open_broker()


@pytest.fixture
def shell(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Shell:
    monkeypatch.delenv("MIGSPAWNER_NVML", raising=False)
    return Shell(tmp_path, capsys)


@pytest.fixture
def two(shell: Shell) -> Shell:
    simulator.create_state(shell.machine, cards=2, layouts=[["1g.5gb"] * 7] * 2, seed="cli")
    return shell


def start(shell: Shell, user: str = "ada", tier: str = "small") -> Any:
    """A lease, taken while an agent reports."""
    options = MigBroker(config=load_config_file(shell.config))
    broker = options.open_broker()
    broker.nodes.record_inventory("n1", options.open_nvml().inventory())
    return broker.leases.acquire(Person(user), "", tier, f"attempt of {user}")


def test_a_dry_run_shows_each_step_and_changes_nothing(two: Shell) -> None:
    before = two.machine.read_text()
    answer = two.json("layout", "apply", str(EXAMPLE), "all-balanced", "--dry-run")
    assert answer["dry_run"]
    for card in answer["cards"]:
        # Two of the seven can stay.
        assert sum(step.startswith("destroy 1g.5gb") for step in card["steps"]) == 5
        assert sum(step.startswith("create") for step in card["steps"]) == 2
        assert sum(step.startswith("read the UUID") for step in card["steps"]) == 2
        assert not card["done"]
    assert json.loads(two.machine.read_text())["cards"] == json.loads(before)["cards"]
    assert two.broker().cards.find() == ()
    assert "Nothing was changed." in two.run(
        "layout", "apply", str(EXAMPLE), "all-balanced", "--dry-run"
    )


def test_apply_cuts_the_cards_and_assert_agrees(two: Shell) -> None:
    assert two.json("layout", "assert", str(EXAMPLE), "all-balanced", status=1)["so"] is False
    answer = two.json("layout", "apply", str(EXAMPLE), "all-balanced")
    assert [card["done"] for card in answer["cards"]] == [True, True]
    assert two.json("layout", "assert", str(EXAMPLE), "all-balanced")["so"] is True
    again = two.json("layout", "apply", str(EXAMPLE), "all-balanced")
    assert [card["steps"] for card in again["cards"]] == [[], []]


def test_export_gives_a_file_that_apply_takes(two: Shell, tmp_path: Path) -> None:
    two.run("layout", "apply", str(EXAMPLE), "all-balanced")
    file = tmp_path / "now.yaml"
    file.write_text(two.run("layout", "export", "--name", "now"))
    assert yaml.safe_load(file.read_text())["version"] == "v1"
    two.run("layout", "apply", str(EXAMPLE), "all-1g.5gb")
    two.run("layout", "assert", str(file), "now", status=1)
    two.run("layout", "apply", str(file), "now")
    two.run("layout", "assert", str(file), "now")
    assert two.json("layout", "export")["mig-configs"]["current"]


def test_what_must_wait_is_named_with_who_has_it(two: Shell) -> None:
    lease = start(two)
    answer = two.json("layout", "apply", str(EXAMPLE), "all-3g.20gb", status=1)
    waiting = [card for card in answer["cards"] if not card["done"]]
    (card,) = waiting
    assert card["card_uuid"] == lease.card_uuid
    assert any(f"leased by ada (lease {lease.id})" in why for why in card["waiting"])
    assert lease.slice_uuid in simulator.slice_uuids(two.machine)
    (status,) = [s for s in two.broker().slices.find() if s.lease is not None]
    assert status.state == "draining"
    two.run("layout", "apply", str(EXAMPLE), "all-3g.20gb", status=1)
    assert f"lease {lease.id}" in two.errors
    two.broker().leases.cancel(lease.attempt, "over")
    two.broker().leases.confirm_empty(lease.id)
    two.run("layout", "apply", str(EXAMPLE), "all-3g.20gb")


def test_slices_that_both_layouts_have_stay_with_their_people(two: Shell) -> None:
    lease = start(two)
    two.run("layout", "apply", str(EXAMPLE), "all-balanced")
    assert lease.slice_uuid in simulator.slice_uuids(two.machine)
    (status,) = [s for s in two.broker().slices.find() if s.lease is not None]
    assert status.state == "leased"


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("none.yaml", "x"), "none.yaml"),
        ((str(EXAMPLE), "all-1g.5g"), "Did you mean 'all-1g.5gb'?"),
        ((str(EXAMPLE), "all-1g.10gb.me"), "has no layout 'all-1g.10gb.me'"),
    ],
)
def test_a_wrong_file_or_name_changes_nothing(
    two: Shell, words: tuple[str, str], named: str
) -> None:
    two.run("layout", "apply", *words, status=1)
    assert named in two.errors
    two.run("layout", "assert", *words, status=1)
    assert named in two.errors
    assert all(card.layout_by == "" for card in two.broker().cards.find())


def test_a_layout_of_another_model_is_refused_with_line_and_card(shell: Shell) -> None:
    simulator.create_state(shell.machine, cards=1, model="A30", layouts=[["2g.12gb"]])
    shell.run("layout", "apply", str(EXAMPLE), "all-1g.5gb", status=1)
    assert "mig-parted-example.yaml, line 16" in shell.errors
    assert "card 0 (NVIDIA A30)" in shell.errors
    assert shell.broker().cards.find()[0].layout == (("2g.12gb", 0),)


def test_without_the_right_to_cut_the_sentence_says_so(two: Shell) -> None:
    simulator.set_switches(two.machine, privileged="nobody")
    two.run("layout", "apply", str(EXAMPLE), "all-balanced", status=1)
    assert "Run it as root" in two.errors
    simulator.set_switches(two.machine, privileged="everyone")
    two.run("layout", "apply", str(EXAMPLE), "all-balanced")


def test_a_problem_with_one_card_does_not_keep_the_other(two: Shell) -> None:
    uuid = simulator.card_uuids(two.machine)[0]
    simulator.fail_call(two.machine, "nvmlGpuInstanceDestroy", Code.UNKNOWN, card_uuid=uuid)
    answer = two.json("layout", "apply", str(EXAMPLE), "all-balanced", status=1)
    assert [card["done"] for card in answer["cards"]] == [False, True]
    assert uuid in answer["cards"][0]["error"]
    two.run("layout", "apply", str(EXAMPLE), "all-balanced")


def test_profiles_that_are_told_only_with_mig_on_are_no_hindrance(shell: Shell) -> None:
    simulator.create_state(shell.machine, cards=2)
    simulator.set_switches(shell.machine, profiles_need_mig=True)
    shell.run("layout", "apply", str(EXAMPLE), "all-balanced")
    shell.run("layout", "assert", str(EXAMPLE), "all-balanced")


def test_a_card_is_drained_and_resumed(two: Shell) -> None:
    start(two)
    uuid = simulator.card_uuids(two.machine)[0]
    card = two.json("cards", "drain", uuid, "--reason", "a fan is loud")
    assert (card["uuid"], card["state"]) == (uuid, "draining")
    row = next(s.row for s in two.broker().slices.find() if s.row.card_uuid == uuid)
    two.broker().slices.quarantine(row.id, "XID 95", "n1")
    assert two.json("cards", "resume", uuid)["state"] == "ok"
    assert {s.state for s in two.broker().slices.find()} <= {"free", "leased"}
    two.run("cards", "drain", "GPU-none", status=1)
    assert "no card 'GPU-none'" in two.errors


def test_a_dead_card_does_not_keep_the_others(two: Shell) -> None:
    start(two)
    uuid = simulator.card_uuids(two.machine)[0]
    simulator.lose_card(two.machine, uuid)
    answer = two.json("layout", "apply", str(EXAMPLE), "all-balanced", status=1)
    assert [card["done"] for card in answer["cards"]] == [False, True]
    assert uuid in answer["cards"][0]["error"]


def test_a_card_that_somebody_has_whole_waits_for_them(shell: Shell) -> None:
    simulator.create_state(shell.machine, cards=1, layouts=[["7g.40gb"]])
    shell.config.write_text(CONFIG.replace("3g.20gb", "whole"))
    lease = start(shell, tier="large")
    uuids = simulator.slice_uuids(shell.machine)
    answer = shell.json("layout", "apply", str(EXAMPLE), "all-balanced", status=1)
    assert f"leased by ada (lease {lease.id})" in answer["cards"][0]["waiting"][0]
    assert simulator.slice_uuids(shell.machine) == uuids
    shell.broker().leases.cancel(lease.attempt, "over")
    shell.broker().leases.confirm_empty(lease.id)
    shell.run("layout", "apply", str(EXAMPLE), "all-balanced")
    shell.run("layout", "assert", str(EXAMPLE), "all-balanced")


def test_a_dead_card_is_told_also_when_mig_is_to_be_off(two: Shell) -> None:
    """A process that never saw the card alive knows nothing of it but its index."""
    start(two)
    uuid = simulator.card_uuids(two.machine)[1]
    two.broker().leases.cancel(two.broker().leases.find()[0].attempt, "over")
    two.broker().leases.confirm_empty(two.broker().leases.find()[0].id)
    simulator.lose_card(two.machine, uuid)
    said = two.run("layout", "apply", str(EXAMPLE), "all-disabled", status=1)
    assert "1 of 2 cards matches the layout all-disabled" in said
    assert uuid in two.errors
    assert "off the bus" in two.errors
    said = two.run("layout", "assert", str(EXAMPLE), "all-disabled", status=1)
    assert said.startswith("card 1: cannot be read: the card has fallen off the bus")
    assert said.count("ard 1") == 1


def test_a_layout_for_none_of_the_cards_is_refused(two: Shell) -> None:
    file = two.folder / "other.yaml"
    file.write_text(
        "version: v1\n"
        "mig-configs:\n"
        "  hopper:\n"
        "    - device-filter: '0x233010DE'\n"
        "      devices: all\n"
        "      mig-enabled: false\n"
    )
    two.run("layout", "apply", str(EXAMPLE), "all-1g.5gb")
    stored = two.json("cards")
    for verb in ("apply", "assert"):
        two.run("layout", verb, str(file), "hopper", status=1)
        assert "other.yaml, line 4" in two.errors
        assert "0x20B010DE" in two.errors
    assert two.json("cards") == stored


def test_who_may_not_cut_is_told_so_and_nothing_is_written_down(two: Shell) -> None:
    start(two)
    stored = two.json("cards")
    simulator.set_switches(two.machine, privileged="nobody")
    two.run("layout", "apply", str(EXAMPLE), "all-balanced", status=1)
    assert simulator.card_uuids(two.machine)[0] in two.errors
    assert "root" in two.errors
    assert two.json("cards") == stored


def command(folder: Path, word: str, status: int = 0) -> list[str]:
    """A command that notes which cards it is run for."""
    code = (
        "import os, sys; open(sys.argv[1], 'a').write(sys.argv[2] + ' ' "
        "+ os.environ['MIGSPAWNER_CARD_INDEX'] + '\\n'); print('for', sys.argv[2]); "
        f"sys.exit({status})"
    )
    return [sys.executable, "-S", "-c", code, str(folder / "log"), word]


def with_commands(shell: Shell, before: list[str], after: list[str]) -> Path:
    with shell.config.open("a") as file:
        file.write(f"c.MigBroker.before_cut = [{before!r}]\n")
        file.write(f"c.MigBroker.after_cut = [{after!r}]\n")
    return shell.folder / "log"


def test_commands_run_once_around_all_cards_and_only_when_there_is_something_to_cut(
    two: Shell,
) -> None:
    log = with_commands(two, command(two.folder, "stop"), command(two.folder, "start"))
    two.run("layout", "apply", str(EXAMPLE), "all-balanced", "--dry-run")
    assert not log.exists()
    two.run("layout", "apply", str(EXAMPLE), "all-1g.5gb")
    before = log.read_text() if log.exists() else ""
    two.run("layout", "apply", str(EXAMPLE), "all-1g.5gb")
    assert (log.read_text() if log.exists() else "") == before
    two.run("layout", "apply", str(EXAMPLE), "all-3g.20gb")
    assert log.read_text() == before + "stop 0,1\nstart 0,1\n"


def test_a_command_that_fails_beforehand_leaves_everything_as_it_was(two: Shell) -> None:
    two.run("layout", "apply", str(EXAMPLE), "all-1g.5gb")
    log = with_commands(two, command(two.folder, "stop", 3), command(two.folder, "start"))
    stored, uuids = two.json("cards"), simulator.slice_uuids(two.machine)
    two.run("layout", "apply", str(EXAMPLE), "all-3g.20gb", status=1)
    assert "failed with exit status 3" in two.errors
    assert "'for stop'" in two.errors
    assert simulator.slice_uuids(two.machine) == uuids
    assert two.json("cards") == stored
    assert log.read_text() == "stop 0,1\nstart 0,1\n"


def test_a_command_that_fails_afterwards_is_told_and_is_no_success(two: Shell) -> None:
    two.run("layout", "apply", str(EXAMPLE), "all-1g.5gb")
    with_commands(two, command(two.folder, "stop"), command(two.folder, "start", 4))
    said = two.run("layout", "apply", str(EXAMPLE), "all-3g.20gb", status=1)
    assert "2 of 2 cards match the layout all-3g.20gb" in said
    assert "failed with exit status 4" in two.errors
    failed = [e for e in two.broker().events.find(limit=10_000) if e.kind == "card.step-failed"]
    assert {e.card_uuid for e in failed} == set(simulator.card_uuids(two.machine))


def test_all_cards_are_wanted_before_the_first_is_cut(
    two: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What no layout has any more is lent to nobody while other cards are being cut."""
    two.run("layout", "apply", str(EXAMPLE), "all-1g.5gb")
    broker = two.broker()
    refused: list[str] = []
    claim = Layouts.claim_slice

    def late(self: Any, *args: Any) -> str:
        try:
            broker.leases.acquire(Person("late"), "", "small", f"late-{len(refused)}")
        except Refusal as refusal:
            refused.append(refusal.reason)
        return str(claim(self, *args))

    monkeypatch.setattr(Layouts, "claim_slice", late)
    broker.nodes.record_inventory("n1", two.inventory())
    two.run("layout", "apply", str(EXAMPLE), "all-3g.20gb")
    assert len(refused) == 14
    assert set(refused) == {"capacity"}


def test_new_slices_go_where_nobody_is(two: Shell) -> None:
    lease = start(two)
    file = two.folder / "two.yaml"
    file.write_text(
        "version: v1\n"
        "mig-configs:\n"
        "  twos:\n"
        "    - devices: all\n"
        "      mig-enabled: true\n"
        '      mig-devices: {"2g.10gb": 2}\n'
    )
    answer = two.json("layout", "apply", str(file), "twos", status=1)
    card = next(c for c in answer["cards"] if c["card_uuid"] == lease.card_uuid)
    # The leased slice goes when it is free; both new ones are there already.
    assert len(card["waiting"]) == 1
    assert f"lease {lease.id}" in card["waiting"][0]
    profiles = [
        s.row.profile
        for s in two.broker().slices.find()
        if s.row.present and s.row.card_uuid == lease.card_uuid
    ]
    assert sorted(profiles) == [lease.profile, "2g.10gb", "2g.10gb"]


AGENT = """
import sys, time
from jupyterhub_migspawner.agent.factory import make_agent
from jupyterhub_migspawner.config import MigBroker
from jupyterhub_migspawner.config.file import load_config_file
agent = make_agent(MigBroker(config=load_config_file(sys.argv[1])))
print("ready", flush=True)
while True:
    agent.tick()
    time.sleep(0.1)
"""


@pytest.fixture
def agent_beside(shell: Shell) -> Iterator[Callable[[], None]]:
    """Starts the node's agent as a process of its own, which holds the driver open."""
    running: list[subprocess.Popen[str]] = []

    def begin() -> None:
        process = subprocess.Popen(
            [sys.executable, "-c", AGENT, str(shell.config)], stdout=subprocess.PIPE, text=True
        )
        running.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        # From its first report on it lives, and holds the driver.
        deadline = time.monotonic() + 30
        while not (shell.broker().nodes.live() and shell.broker().slices.find()):
            assert time.monotonic() < deadline
            time.sleep(0.05)

    yield begin
    for process in running:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def test_a_card_is_switched_though_the_agent_holds_the_driver_open(
    two: Shell, agent_beside: Callable[[], None]
) -> None:
    agent_beside()
    two.run("layout", "apply", str(EXAMPLE), "all-disabled")
    two.run("layout", "assert", str(EXAMPLE), "all-disabled")
    two.run("layout", "apply", str(EXAMPLE), "all-balanced")
    two.run("layout", "assert", str(EXAMPLE), "all-balanced")


def test_cards_are_cut_before_the_admin_has_written_any_tier(two: Shell) -> None:
    """What tiers make sense shows only in how the cards are cut."""
    text = two.config.read_text()
    two.config.write_text(text.partition("c.MigBroker.tiers")[0])
    assert "1g.5gb" in two.run("layout", "export")
    assert two.run("layout", "assert", str(EXAMPLE), "all-3g.20gb", status=1)
    assert two.run("layout", "apply", str(EXAMPLE), "all-3g.20gb", "--dry-run")
    applied = two.run("layout", "apply", str(EXAMPLE), "all-3g.20gb")
    assert "2 of 2 cards match the layout all-3g.20gb." in applied
    assert two.run("layout", "assert", str(EXAMPLE), "all-3g.20gb")
    for listing in ("cards", "slices", "nodes"):
        two.run(listing)
    # A hub cannot go without, nor can what is about people.
    two.run("leases", status=1)
    assert "at least one tier" in two.errors


def test_a_wrong_tier_is_still_named_when_cards_are_cut(two: Shell) -> None:
    two.config.write_text(two.config.read_text() + 'c.MigBroker.tiers = [{"name": "small"}]\n')
    two.run("layout", "apply", str(EXAMPLE), "all-3g.20gb", status=1)
    assert "'small'" in two.errors
