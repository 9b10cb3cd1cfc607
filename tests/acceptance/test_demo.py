"""The demo, end to end: what it offers, what it keeps, and that it leaves nothing running."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
import requests

from jupyterhub_migspawner.broker.views import slice_view
from tests.acceptance.demos import CLI, PATIENCE, Demo

MakeDemo = Callable[..., Demo]


@pytest.fixture
def make_demo(tmp_path: Path) -> Iterator[MakeDemo]:
    made: list[Demo] = []

    def make(directory: str = "demo") -> Demo:
        made.append(Demo(tmp_path / directory))
        return made[-1]

    yield make
    for demo in made:
        demo.end_everything()


def environ(pid: int) -> dict[str, str]:
    entries = Path(f"/proc/{pid}/environ").read_text().split("\0")
    return dict(entry.split("=", 1) for entry in entries if "=" in entry)


def servers_of(demo: Demo) -> dict[str, dict[str, str]]:
    """The environment of every running notebook server, by user."""
    pids = [int(line.split()[0]) for line in demo.left() if "jupyterhub-singleuser" in line]
    found = [environ(pid) for pid in pids]
    return {each["JUPYTERHUB_USER"]: each for each in found}


def test_a_session_from_login_to_the_end_of_the_demo(make_demo: MakeDemo) -> None:
    demo = make_demo()
    demo.start()
    assert demo.answer["users"] == ["admin", "ada", "grace", "linus"]
    assert re.fullmatch(r"[a-z2-9]{4}(-[a-z2-9]{4}){3}", demo.answer["password"])

    slices = demo.cli("slices")
    by_card = [[s["profile"] for s in slices if s["card_index"] == card] for card in (0, 1)]
    assert [sorted(card) for card in by_card] == [
        ["1g.5gb"] * 7,
        ["1g.5gb", "1g.5gb", "2g.10gb", "3g.20gb"],
    ]
    assert {s["state"] for s in slices} == {"free"}

    ada, grace = demo.log_in("ada"), demo.log_in("grace")
    form = ada.page("hub/spawn")
    for tier in ("cpu", "small", "medium", "large", "card"):
        assert re.search(rf'name="tier"[^>]*value="{tier}"|value="{tier}"[^>]*name="tier"', form)
    ada.start("small")
    grace.start("small")
    ada.start_kernel()

    told = {user: env["CUDA_VISIBLE_DEVICES"] for user, env in servers_of(demo).items()}
    leases = {lease["user"]: lease["slice_uuid"] for lease in demo.cli("leases")}
    assert told == leases
    assert told["ada"] != told["grace"]
    assert all(uuid.startswith("MIG-") for uuid in told.values())
    held = {s["uuid"]: s["lease"]["user"] for s in demo.cli("slices") if s["lease"]}
    assert held == {uuid: user for user, uuid in leases.items()}

    doctor = demo.cli("doctor")
    assert {finding["state"] for finding in doctor} <= {"ok", "warning"}

    assert any("ipykernel" in line for line in demo.left())
    assert demo.stop(signal.SIGTERM) == 0
    assert demo.left() == []


def test_a_second_start_goes_on_where_the_first_one_ended(make_demo: MakeDemo) -> None:
    demo = make_demo()
    demo.start()
    demo.log_in("ada").start("medium")
    before = demo.cli("slices")
    # Edits below the ruler belong to their author.
    text = demo.config.read_text()
    assert '"title": "Medium"' in text.replace("'", '"')
    demo.config.write_text(text.replace("Medium", "Middling"))
    assert demo.stop(signal.SIGINT) == 0
    assert demo.left() == []

    demo.start()
    after = demo.cli("slices")
    assert [s["uuid"] for s in after] == [s["uuid"] for s in before]
    # The last look of a hub that ends may leave one to be proven empty at its next start.
    demo.until(lambda: not demo.broker().leases.find())
    past = demo.cli("leases", "--all")
    assert [(lease["user"], lease["tier"], lease["state"]) for lease in past] == [
        ("ada", "medium", "released")
    ]
    assert "Middling" in demo.log_in("ada").page("hub/spawn")
    demo.log_in("grace").start("medium")
    assert demo.stop(signal.SIGINT) == 0
    assert demo.left() == []
    assert "--layout mixed" in demo.refused("--layout", "balanced")


def test_nothing_is_lent_twice_when_the_demo_is_killed(make_demo: MakeDemo) -> None:
    demo = make_demo()
    demo.start()
    demo.log_in("ada").start("large")
    hub = demo.answer["hub_pid"]
    assert demo.process is not None
    assert f"process {demo.process.pid}" in make_demo().refused()

    assert demo.stop(signal.SIGKILL) == -signal.SIGKILL
    said = demo.refused()
    assert f"process {hub}" in said
    assert f"kill {hub}" in said
    assert "ada" in servers_of(demo)

    os.kill(hub, signal.SIGTERM)
    demo.until(lambda: demo.left() == [])
    demo.start()
    demo.until(lambda: not demo.broker().leases.find())
    demo.log_in("grace").start("large")
    assert {lease["user"] for lease in demo.cli("leases")} == {"grace"}
    assert demo.stop() == 0
    assert demo.left() == []


def test_a_whole_card_is_granted_cut_and_given_back(make_demo: MakeDemo) -> None:
    demo = make_demo()
    demo.start()
    ada = demo.log_in("ada")
    refused = ada.api("POST", "users/ada/server", {"user_options": {"tier": "card"}})
    assert refused.status_code == 403
    assert "approval" in refused.json()["message"]

    asked = "requests create --user ada --tier card --hours 4 --reason benchmark"
    number = str(demo.cli(*asked.split())["id"])
    with pytest.raises(AssertionError, match="your own request"):
        demo.cli("requests", "approve", number, "--by", "ada")
    demo.cli("requests", "approve", number, "--by", "admin")
    before = demo.cli("slices")

    ada.start("card")
    (held,) = [entry for entry in demo.cli("slices") if entry["state"] == "leased"]
    assert held["profile"] == "7g.40gb"
    assert servers_of(demo)["ada"]["CUDA_VISIBLE_DEVICES"] == held["uuid"]

    assert ada.api("DELETE", "users/ada/server").status_code in (202, 204)

    def is_cut_back() -> bool:
        now = [slice_view(status) for status in demo.broker().slices.find()]
        return [places(s) for s in now] == [(*places(s)[:3], "free") for s in before]

    def places(entry: dict[str, Any]) -> tuple[str, str, int, str]:
        return entry["card_uuid"], entry["profile"], entry["start"], entry["state"]

    demo.until(is_cut_back)
    assert [places(s) for s in demo.cli("slices")] == [(*places(s)[:3], "free") for s in before]
    assert demo.stop() == 0
    assert demo.left() == []


def test_a_hub_that_dies_takes_the_demo_and_everything_with_it(make_demo: MakeDemo) -> None:
    demo = make_demo()
    demo.start("--layout", "all-1g.5gb", "--cards", "1")
    demo.log_in("ada").start("small")
    os.kill(demo.answer["hub_pid"], signal.SIGKILL)
    assert demo.process is not None
    _, err = demo.process.communicate(timeout=PATIENCE)
    assert demo.process.returncode == 1
    assert "The hub ended unexpectedly" in err
    assert "Traceback" not in err.splitlines()[0]
    assert demo.left() == []


def test_the_file_it_leaves_starts_a_hub_without_the_demo(
    make_demo: MakeDemo, tmp_path: Path
) -> None:
    demo = make_demo()
    demo.start("--model", "a30", "--cards", "1")
    assert demo.stop() == 0
    begun = datetime.now(timezone.utc)
    hub = subprocess.Popen(
        [sys.executable, "-m", "jupyterhub", "-f", str(demo.config)],
        cwd="/",
        env={"PATH": os.defpath, "HOME": str(tmp_path)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        demo.until(lambda: answers(demo.url))
        # What the demo's own agent has said may be too old by now for new leases.
        demo.until(lambda: any(node.heartbeat_at > begun for node in demo.broker().nodes.find()))
        ada = demo.log_in("ada")
        ada.start("small")
        assert [lease["user"] for lease in demo.cli("leases")] == ["ada"]
        assert {s["profile"] for s in demo.cli("slices")} == {"1g.6gb"}
    finally:
        hub.terminate()
        hub.wait(PATIENCE)
    demo.until(lambda: demo.left() == [])


def answers(url: str) -> bool:
    try:
        return requests.get(f"{url}hub/health", timeout=10).status_code == 200
    except requests.RequestException:
        return False


def test_a_taken_port_is_named(make_demo: MakeDemo) -> None:
    demo = make_demo()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        demo.port = taken.getsockname()[1]
        said = demo.refused()
    assert f"Port {demo.port} on 127.0.0.1 cannot be used" in said
    assert "--port" in said
    assert not demo.config.exists()


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--layout", "3g.20gb,3g.20gb,3g.20gb"], "3g.20gb"),
        (["--layout", "all-5g.5gb"], "'5g.5gb'"),
        (["--model", "Voodoo2"], "'Voodoo2'"),
        (["--model", "T4"], "cannot be cut"),
        (["--cards", "33"], "1 to 32"),
    ],
)
def test_cards_that_cannot_be_are_refused_and_leave_no_state(
    make_demo: MakeDemo, flags: list[str], named: str
) -> None:
    demo = make_demo()
    assert named in demo.refused(*flags)
    assert not demo.config.exists()
    assert demo.left() == []


def test_a_folder_of_somebody_else_is_left_alone(make_demo: MakeDemo) -> None:
    demo = make_demo()
    demo.directory.mkdir()
    demo.config.write_text("c = get_config()\n")
    assert "was not written by the demo" in demo.refused()
    assert demo.config.read_text() == "c = get_config()\n"


def test_what_it_says_to_people(make_demo: MakeDemo) -> None:
    demo = make_demo()
    # As in a shell that has not activated the environment in which the demo is installed.
    own = str(Path(sys.executable).parent)
    folders = [each for each in os.environ["PATH"].split(os.pathsep) if each != own]
    environment = {**os.environ, "PATH": os.pathsep.join(folders)}
    process = subprocess.Popen(
        [*CLI, "demo", "--port", str(demo.port), "--dir", str(demo.directory)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    demo.process = process
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if "Ctrl-C" in line:
            break
    for words in (
        f"http://127.0.0.1:{demo.port}/",
        f"ada      http://127.0.0.1:{demo.port}/hub/demo-login?key=",
        "ada, grace (group pi, may approve), linus (group students), admin (may approve)",
        "Whole card as ada: grace may approve the request",
        (demo.directory / "password").read_text().strip(),
        "card 0: 7 x 1g.5gb",
        str(demo.directory),
    ):
        assert words in said
    (command,) = re.findall(r"^ *Look +(.+)$", said, re.MULTILINE)
    shown = subprocess.run(["sh", "-c", command], env=environment, capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    assert "1g.5gb" in shown.stdout
    process.send_signal(signal.SIGINT)
    assert "nothing of the demo is left running" in process.communicate(timeout=PATIENCE)[0]
    assert process.returncode == 0
    assert demo.left() == []
