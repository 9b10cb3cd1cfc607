"""The listings and what changes something, on a real lease database and simulated cards."""

from __future__ import annotations

import re
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from jupyterhub_migspawner.cli.invocation import Invocation
from jupyterhub_migspawner.cli.main import main
from jupyterhub_migspawner.cli.tiers import shared
from jupyterhub_migspawner.model.cards import CardKind
from jupyterhub_migspawner.model.inventory import Inventory
from jupyterhub_migspawner.policy.people import Person
from jupyterhub_migspawner.policy.tiers import parse_tiers
from tests.unit.cli.conftest import Install


def test_slices_say_where_they_are_and_who_holds_them(install: Install) -> None:
    install.broker.leases.acquire(Person("ada"), "", "small", "attempt-1")
    slices = install.run("slices", "--json").json
    assert len(slices) == 11
    for entry in slices:
        assert set(entry) >= {
            "uuid", "node", "card_uuid", "card_index", "profile", "start", "size", "memory_mib",
            "state", "lease",
        }  # fmt: skip
    leased = [entry for entry in slices if entry["state"] == "leased"]
    assert len(leased) == 1
    assert leased[0]["lease"]["user"] == "ada"
    assert leased[0]["lease"]["tier"] == "small"
    assert {entry["state"] for entry in slices} == {"leased", "free"}
    assert "ada" in install.run("slices").out
    assert len(install.run("slices", "--json", "--node", "n1").json) == 11


def test_nodes_and_cards(install: Install) -> None:
    assert [(n["name"], n["cards"]) for n in install.run("nodes", "--json").json] == [("n1", 2)]
    cards = install.run("cards", "--json").json
    assert [(card["index"], card["state"], card["target"]) for card in cards] == [
        (0, "ok", None),
        (1, "ok", None),
    ]
    assert "3g.20gb, 2g.10gb, 2 x 1g.5gb" in install.run("cards").out


def test_before_the_agent_has_reported_the_listings_say_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fresh = Install(tmp_path, capsys)
    for word in ("slices", "nodes", "cards"):
        assert "No card is known yet" in fresh.run(word).out
        assert fresh.run(word, "--json").json == []


def test_tiers_show_what_is_free_of_each(install: Install) -> None:
    install.broker.leases.acquire(Person("ada"), "", "small", "attempt-1")
    tiers = {tier["name"]: tier for tier in install.run("tiers", "--json").json}
    assert list(tiers) == ["cpu", "small", "large", "hers", "card"]
    assert (tiers["small"]["free"], tiers["small"]["total"]) == (8, 9)
    assert tiers["card"]["approval"] is True
    assert [tier["name"] for tier in install.run("tiers", "--json", "--user", "ada").json] == [
        "cpu", "small", "large", "card",
    ]  # fmt: skip
    assert [tier["name"] for tier in install.run("tiers", "--json", "--user", "eve").json] == [
        "cpu", "small", "card",
    ]  # fmt: skip


def test_a_server_that_lost_its_card_stays_in_the_lists(install: Install) -> None:
    lease = install.broker.leases.acquire(Person("ada"), "", "small", "a1")
    assert lease is not None
    install.broker.leases.activate("a1")
    install.broker.nodes.record_inventory("n1", Inventory("", ""))
    for words in (("leases",), ("sessions",), ("leases", "--user", "ada")):
        shown = install.run(*words).out
        assert "ada" in shown, words
        assert "GPU lost" in shown, words
    assert [each["state"] for each in install.run("leases", "--json").json] == ["lost"]
    (session,) = install.run("sessions", "--json").json
    assert session["doubt"]["kind"] == "lost"
    install.broker.leases.release_server("ada", "", "the server stopped", "hub")
    assert "ada" not in install.run("leases").out
    assert install.run("sessions", "--json").json == []


def test_a_lease_is_released_by_its_number(install: Install) -> None:
    assert "Nobody holds a slice" in install.run("leases").out
    install.broker.leases.acquire(Person("ada"), "", "small", "attempt-1")
    install.broker.leases.acquire(Person("grace"), "lab", "small", "attempt-2")
    install.broker.leases.activate("attempt-1")
    leases = install.run("leases", "--json").json
    assert [(lease["user"], lease["server"], lease["state"]) for lease in leases] == [
        ("ada", "", "active"),
        ("grace", "lab", "pending"),
    ]
    assert [x["user"] for x in install.run("leases", "--json", "--user", "grace").json] == ["grace"]

    number = str(leases[0]["id"])
    done = install.run("leases", "release", number, "--reason", "card needs care", "--json")
    assert done.status == 0
    assert (done.json["id"], done.json["state"]) == (leases[0]["id"], "releasing")
    assert done.json["end_reason"] == "card needs care"
    assert "command line" in install.run("events", "--json").json[-1]["actor"]

    install.broker.leases.confirm_empty(leases[0]["id"])
    assert [x["user"] for x in install.run("leases", "--json").json] == ["grace"]
    assert [x["user"] for x in install.run("leases", "--json", "--all").json] == ["ada", "grace"]
    again = install.run("leases", "release", number)
    assert again.status == 1
    assert number in again.err
    nothing = install.run("leases", "release", "4711")
    assert nothing.status == 1
    assert "4711" in nothing.err


def test_a_request_goes_from_asking_to_a_grant(install: Install) -> None:
    assert "There are no requests yet" in install.run("requests").out
    asked = install.run(
        "requests", "create", "--user", "ada", "--tier", "card", "--hours", "4",
        "--reason", "<b>benchmark</b>", "--json",
    )  # fmt: skip
    assert asked.status == 0
    number = str(asked.json["id"])
    assert (asked.json["state"], asked.json["hours"]) == ("pending", 4.0)

    for name, sentence in (
        ("ada", "your own request"),
        ("linus", "admins and the approvers can decide"),
    ):
        refused = install.run("requests", "approve", number, "--by", name)
        assert refused.status == 1
        assert sentence in refused.err
        assert refused.out == ""
    assert install.run("requests", "--json").json[0]["state"] == "pending"

    granted = install.run("requests", "approve", number, "--by", "grace", "--hours", "2", "--json")
    assert granted.status == 0
    assert (granted.json["state"], granted.json["decided_by"]) == ("approved", "grace")
    assert granted.json["valid_until"].endswith("Z")
    (listed,) = install.run("requests", "--json").json
    assert set(listed) >= {
        "id", "user", "tier", "hours", "reason", "state", "decided_by", "valid_until",
    }  # fmt: skip
    assert install.run("requests", "approve", number, "--by", "admin").status == 1


def test_a_request_is_denied_or_taken_back(install: Install) -> None:
    def ask() -> str:
        words = "requests create --user ada --tier card --hours 4 --reason x --json"
        return str(install.run(*words.split()).json["id"])

    denied = install.run("requests", "deny", ask(), "--by", "admin", "--reason", "no", "--json")
    assert (denied.json["state"], denied.json["decision_reason"]) == ("denied", "no")
    number = ask()
    assert install.run("requests", "cancel", number, "--by", "linus").status == 1
    assert install.run("requests", "cancel", number, "--by", "ada", "--json").json["state"] == (
        "cancelled"
    )
    assert install.run("requests", "deny", "99", "--by", "admin").status == 1
    assert len(install.run("requests", "--json", "--user", "ada").json) == 2
    assert install.run("requests", "--json", "--user", "eve").json == []


@pytest.mark.parametrize(
    ("tier", "named"), [("cpu", "cpu"), ("nosuch", "nosuch"), ("large", "large")]
)
def test_a_request_that_makes_no_sense_is_refused(install: Install, tier: str, named: str) -> None:
    words = f"requests create --user eve --tier {tier} --hours 4 --reason x".split()
    refused = install.run(*words)
    assert refused.status == 1
    assert named in refused.err
    assert install.run("requests", "--json").json == []


def test_events_are_the_last_ones_or_those_after_a_number(install: Install) -> None:
    everything = install.run("events", "--json").json
    assert len(everything) > 10
    assert [e["id"] for e in everything] == sorted(e["id"] for e in everything)
    assert install.run("events", "--json", "--limit", "2").json == everything[-2:]
    after = str(everything[2]["id"])
    assert install.run("events", "--json", "--after", after, "--limit", "2").json == everything[3:5]
    assert "slice.seen" in install.run("events").out


def test_the_schema_is_checked_and_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fresh = Install(tmp_path, capsys)
    missing = fresh.run("db", "check")
    assert missing.status == 1
    assert "does not exist yet" in missing.out
    assert not (tmp_path / "migspawner.sqlite").exists()
    assert fresh.run("db", "upgrade").status == 0
    found = fresh.run("db", "check", "--json")
    assert (found.status, found.json["state"]) == (0, "current")


def newer(install: Install) -> None:
    install.broker.leases.find()
    with sqlite3.connect(install.directory / "migspawner.sqlite") as connection:
        connection.execute("UPDATE migspawner_schema SET version_num = '9999'")
    connection.close()


@pytest.mark.parametrize("words", ["db check", "db upgrade", "slices", "leases release 1"])
def test_a_database_of_a_newer_version_is_left_alone(install: Install, words: str) -> None:
    newer(install)
    # Another process would open it now.
    done = subprocess.run(
        [sys.executable, "-m", "jupyterhub_migspawner.cli", *words.split(), "-f", install.config],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "9999" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_without_any_configuration_it_says_where_it_looked(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    nothing = install.run("slices", config=False)
    assert (nothing.status, nothing.out) == (1, "")
    assert str(tmp_path / "empty" / "jupyterhub_config.py") in nothing.err
    assert "/etc/jupyterhub/jupyterhub_config.py" in nothing.err
    monkeypatch.chdir(tmp_path)
    assert install.run("slices", "--json", config=False).status == 0


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ('"profile": "1g.5gb"', '"profil": "1g.5gb"', "small"),
        ('"max_hours": 48', '"max_hours": "long"', "max_hours"),
        ("c.MigBroker.approvers", "c.MigBroker.aprovers", "approvers"),
        ("c = get_config()", "c = get_cofnig()", "get_cofnig"),
        ("c = get_config()", "c = (", "SyntaxError"),
    ],
)
def test_a_mistake_in_the_file_is_a_sentence(
    install: Install, old: str, new: str, named: str
) -> None:
    install.edit(old, new)
    wrong = install.run("slices", "--json")
    assert (wrong.status, wrong.out) == (1, "")
    assert named in wrong.err


def test_a_named_file_that_is_not_there(install: Install) -> None:
    gone = install.run("slices", "-f", "/nonexistent/hub.py", config=False)
    assert gone.status == 1
    assert "/nonexistent/hub.py" in gone.err


def test_a_setting_on_the_command_line_goes_before_the_file(install: Install) -> None:
    other = install.directory / "other.sqlite"
    assert install.run("slices", "--json", f"--MigBroker.database_url=sqlite:///{other}").json == []
    assert other.exists()
    wrong = install.run("slices", "--MigBroker.databse_url=x")
    assert wrong.status == 1
    assert "database_url" in wrong.err


def test_a_password_typed_as_an_argument_is_pointed_out(install: Install) -> None:
    """Everybody can see the arguments of a process; it is not repeated on top of that."""
    url = "postgresql://migspawner:se/cr@et@127.0.0.1:9/none"
    copied = install.run("db", "copy", url)
    assert copied.status == 1
    assert "Every user of this machine can read the password in URL" in copied.err
    assert "cr@et" not in copied.err + copied.out
    silent = install.run("db", "copy", "postgresql://migspawner@127.0.0.1:9/none")
    assert "Every user" not in silent.err


def test_a_reader_that_has_read_enough_is_no_problem(install: Install) -> None:
    script = f"{sys.executable} -m jupyterhub_migspawner.cli events --json -f {install.config}"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {script} | head -c 1"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "[")
    assert re.sub(r"a config file that talks\n", "", done.stderr) == ""


def test_ctrl_c_is_no_traceback(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(self: Invocation) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(Invocation, "broker", interrupted)
    assert main(["slices"]) == 130


def test_simulated_cards_are_made_used_and_lost(install: Install) -> None:
    file = str(install.directory / "sim.json")
    made = install.run(
        "simulator", "create", file, "--cards", "2", "--model", "a30", "--layout", "balanced",
        "--json",
    )  # fmt: skip
    assert made.status == 0
    assert (len(made.json["cards"]), len(made.json["slices"])) == (2, 6)
    install.edit("sim:cards.json", f"sim:{file}")

    child = subprocess.Popen(["sleep", "600"])
    try:
        used = made.json["slices"][0]
        words = ("simulator", "process", file, "--slice", used, "--pid", str(child.pid))
        assert install.run(*words, "--memory", "512").status == 0
        (process,) = install.mig.open_nvml().processes(used)
        assert (process.pid, process.memory_mib) == (child.pid, 512)
    finally:
        child.kill()
        child.wait()

    assert install.run("simulator", "lose", file, "--card", made.json["cards"][1]).status == 0
    assert [bool(c.problem) for c in install.mig.open_nvml().inventory().cards] == [False, True]
    assert install.run("simulator", "reboot", file).status == 0
    for card in install.mig.open_nvml().inventory().cards:
        assert (card.problem, card.instances) == ("", ())

    again = install.run("simulator", "create", file, "--cards", "1", "--model", "a30")
    assert again.status == 1
    assert file in again.err
    unknown = install.run("simulator", "lose", file, "--card", "GPU-0")
    assert unknown.status == 1
    assert "GPU-0" in unknown.err


def test_cards_show_the_present_layout_and_the_desired_one_where_it_differs(
    install: Install,
) -> None:
    card = install.broker.cards.find()[0]
    said = install.run("cards").out
    assert "desired layout" not in said
    install.broker.layouts.set(card.uuid, (("7g.40gb", 0),), True, "root")
    said = install.run("cards").out
    assert "7 x 1g.5gb" in said
    assert "desired layout: 7g.40gb" in said
    row = install.run("cards", "--json").json[0]
    assert [each["profile"] for each in row["present"]] == ["1g.5gb"] * 7
    assert row["desired"] == [{"profile": "7g.40gb", "start": 0}]
    exported = install.run("layout", "export")
    assert "1g.5gb" in exported.out
    assert "7g.40gb" not in exported.out
    assert "has a different desired layout (7g.40gb); the file has the current one." in exported.err


def test_cards_name_other_places_of_the_same_profiles(install: Install) -> None:
    card = install.broker.cards.find()[1]
    moved = (("3g.20gb", 0), ("2g.10gb", 4), ("1g.5gb", 6), ("1g.5gb", 7))
    install.broker.layouts.set(card.uuid, moved[:3], True, "root")
    assert "desired layout: 3g.20gb, 2g.10gb, 1g.5gb" in install.run("cards").out
    assert "MIG off" not in install.run("cards").out
    install.broker.layouts.set(card.uuid, (), False, "root")
    assert "desired layout: MIG off" in install.run("cards").out


def test_cards_say_why_they_are_drained_and_are_not_ok_with_a_problem(install: Install) -> None:
    cards = install.broker.cards.find()
    install.broker.leases.acquire(Person("ada"), "", "small", "attempt-1")
    card = next(c for c in cards if c.uuid == install.broker.leases.find()[0].card_uuid)
    said = install.run("cards", "drain", card.uuid, "--reason", "a fan is loud").out
    assert "1 lease on it goes on." in said
    assert "drained: a fan is loud" in install.run("cards").out
    found = install.mig.open_nvml().inventory()
    broken = replace(found.cards[0], problem="it is too hot")
    install.broker.nodes.record_inventory("n1", replace(found, cards=(broken, found.cards[1])))
    install.broker.cards.resume(card.uuid, "root")
    states = [row["state"] for row in install.run("cards", "--json").json]
    assert states == ["problem", "ok"]
    assert "problem: it is too hot" in install.run("cards").out


def test_tiers_say_which_of_their_cards_are_out_of_service(install: Install) -> None:
    assert "out of service" not in install.run("tiers").out
    (card, _) = install.broker.cards.find()
    install.run("cards", "drain", card.uuid, "--reason", "a fan is loud")
    said = install.run("tiers").out
    assert "small: 1 of its cards is out of service: a fan is loud." in " ".join(said.split())
    assert "large: " not in said
    row = next(r for r in install.run("tiers", "--json").json if r["name"] == "small")
    assert (row["free"], row["total"]) == (2, 2)
    assert row["outage"] == "1 of its cards is out of service: a fan is loud."


def test_tiers_that_share_slices_say_so(install: Install) -> None:
    assert "share" not in install.run("tiers").out
    install.edit('"name": "large", "profile": "3g.20gb"', '"name": "large", "profile": "1g.5gb"')
    said = install.run("tiers").out
    assert (
        "The tiers small and large share their slices of 1g.5gb, so their numbers overlap."
        in " ".join(said.split())
    )


def test_tiers_say_which_cards_they_mean(install: Install) -> None:
    assert "CARD" not in install.run("tiers").out.splitlines()[0].split()
    assert {row["card"] for row in install.run("tiers", "--json").json} == {None}
    install.edit('"name": "large",', '"name": "large", "card": "A100*40GB",')
    answer = install.run("tiers")
    assert "CARD" in answer.out.splitlines()[0].split()
    assert "A100*40GB" in answer.out
    assert max(map(len, answer.out.splitlines())) <= 80
    cards = {row["name"]: row["card"] for row in install.run("tiers", "--json").json}
    assert cards["large"] == "A100*40GB"
    assert cards["small"] is None
    install.edit('"A100*40GB"', '"H100*"')
    (large,) = [row for row in install.run("tiers", "--json").json if row["name"] == "large"]
    assert (large["free"], large["total"]) == (0, 0)


A100_40 = CardKind("NVIDIA A100-SXM4-40GB", 40960)
A100_80 = CardKind("NVIDIA A100 80GB PCIe", 81920)
H100 = CardKind("NVIDIA H100 80GB HBM3", 81559)


@pytest.mark.parametrize(
    ("cards", "said"),
    [
        ([None, None], ["The tiers t0 and t1 share their slices of 1g.10gb"]),
        (["A100*", "H100*"], []),
        (["80GB", "*80GB*"], ["The tiers t0 and t1 share their slices of 1g.10gb"]),
        (["A100*", "80GB"], ["The tiers t0 and t1 share some of their slices of 1g.10gb"]),
        (["A100*", None], ["The tiers t0 and t1 share some of their slices of 1g.10gb"]),
        # Two that have nothing in common may both share with a third.
        (
            ["A100*", "H100*", ">=40GB"],
            ["The tiers t0, t1 and t2 share some of their slices of 1g.10gb"],
        ),
        (
            ["40GB", "H100*", "A100*40GB", "H100*80GB*"],
            [
                "The tiers t0 and t2 share their slices of 1g.10gb",
                "The tiers t1 and t3 share their slices of 1g.10gb",
            ],
        ),
        (["T4", None], []),
    ],
)
def test_tiers_share_what_is_on_the_same_cards(cards: list[str | None], said: list[str]) -> None:
    tiers = parse_tiers(
        [
            *({"name": f"t{n}", "profile": "1g.10gb", "card": c} for n, c in enumerate(cards)),
            {"name": "whole", "profile": "whole"},
            {"name": "cpu", "profile": "none"},
        ]
    )
    found = list(shared(tiers, frozenset((A100_40, A100_80, H100))))
    assert found == [f"{each}, so their numbers overlap." for each in said]


def test_limits_of_cpu_and_memory_are_listed_where_a_tier_has_any(install: Install) -> None:
    assert "CPUS" not in install.run("tiers").out
    install.edit('"profile": "3g.20gb"', '"profile": "3g.20gb", "cpus": 0.5, "memory_gib": 24')
    listing = install.run("tiers").out
    assert "CPUS" in listing
    assert "24 GiB" in listing
    rows = {row["name"]: row for row in install.run("tiers", "--json").json}
    assert (rows["large"]["cpus"], rows["large"]["memory_gib"]) == (0.5, 24)
    assert (rows["small"]["cpus"], rows["small"]["memory_gib"]) == (None, None)
