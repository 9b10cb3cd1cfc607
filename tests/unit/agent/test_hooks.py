"""Commands around a cut: in order, in time, and with a report when they fail."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from jupyterhub_migspawner.agent.hooks import Hooks, run
from jupyterhub_migspawner.errors import ConfigError
from jupyterhub_migspawner.gpu import simulator
from jupyterhub_migspawner.model.codes import Code
from jupyterhub_migspawner.policy.commands import parse_commands
from tests.unit.agent.conftest import BALANCED, SMALL, Node, NodeMaker


def say(file: Path, word: str, status: int = 0) -> tuple[str, ...]:
    """A command that writes a word and its card into a file."""
    code = (
        "import os, sys; open(sys.argv[1], 'a').write(sys.argv[2] + ' ' "
        "+ os.environ['MIGSPAWNER_CARD_INDEX'] + '\\n'); print('because of', sys.argv[2]); "
        f"sys.exit({status})"
    )
    return (sys.executable, "-S", "-c", code, str(file), word)


def with_hooks(node: Node, *before: tuple[str, ...], after: tuple[tuple[str, ...], ...]) -> None:
    node.tick()
    node.hooks = Hooks(before, after)
    node.restart()


def test_commands_run_around_a_cut_and_only_then(make_node: NodeMaker, tmp_path: Path) -> None:
    node, log = make_node(SMALL), tmp_path / "log"
    with_hooks(node, say(log, "stop"), say(log, "wait"), after=(say(log, "start"),))
    node.tick(2)
    assert not log.exists()
    node.set_layout(*BALANCED)
    node.tick(2)
    assert log.read_text() == "stop 0\nwait 0\nstart 0\n"
    assert set(node.actual()) == set(node.card().layout)


def test_a_command_that_fails_stops_the_cut(
    make_node: NodeMaker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    node, log = make_node(SMALL), tmp_path / "log"
    with_hooks(node, say(log, "stop", 3), say(log, "never"), after=(say(log, "start"),))
    uuids = simulator.slice_uuids(node.path)
    node.set_layout(*BALANCED)
    node.tick()
    assert simulator.slice_uuids(node.path) == uuids
    # What was stopped is started again, though nothing was cut.
    assert log.read_text() == "stop 0\nstart 0\n"
    (failed,) = [e.detail for e in node.broker.events.find() if e.kind == "card.step-failed"]
    assert "failed with exit status 3." in failed["error"]
    assert "because of stop" in failed["error"]
    assert "MigBroker.before_cut" in caplog.text
    node.hooks = Hooks()
    node.restart()
    node.tick()
    assert set(node.actual()) == set(node.card().layout)


def test_a_failing_cut_is_tried_again_at_longer_and_longer_intervals(
    make_node: NodeMaker, tmp_path: Path
) -> None:
    node, log = make_node(SMALL), tmp_path / "log"
    with_hooks(node, say(log, "stop", 1), after=())
    node.set_layout(*BALANCED)
    node.tick(30)
    tries = len(log.read_text().splitlines())
    assert 3 <= tries <= 8


def test_commands_for_afterwards_run_when_a_step_fails(
    make_node: NodeMaker, tmp_path: Path
) -> None:
    node, log = make_node(SMALL), tmp_path / "log"
    with_hooks(node, say(log, "stop"), after=(say(log, "broken", 1), say(log, "start")))
    simulator.fail_call(node.path, "nvmlGpuInstanceDestroy", Code.UNKNOWN)
    node.set_layout(*BALANCED)
    node.tick()
    assert log.read_text() == "stop 0\nbroken 0\nstart 0\n"


def test_one_for_afterwards_that_fails_is_told_in_a_sentence_and_stops_nothing(
    tmp_path: Path,
) -> None:
    log, said, reported = tmp_path / "log", [], []
    hooks = Hooks((say(log, "stop"),), (say(log, "broken", 1), say(log, "start")))
    about = {"MIGSPAWNER_CARD_INDEX": "0,1"}
    with hooks.around(about, lambda command, problem: reported.append(problem), said.append):
        pass
    assert log.read_text() == "stop 0,1\nbroken 0,1\nstart 0,1\n"
    (sentence,) = said
    assert "failed with exit status 1. It said: 'because of broken'." in sentence
    assert "MigBroker.after_cut" in sentence
    assert [bool(problem) for problem in reported] == [False, True, False]


def test_a_command_that_takes_too_long_is_killed_with_what_it_started(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    code = (
        "import os, subprocess, sys, time; child = subprocess.Popen([sys.executable, '-S', '-c', "
        f"'import time; time.sleep(600)']); open({str(file)!r}, 'w').write(str(child.pid)); "
        "print('still at it', flush=True); time.sleep(600)"
    )
    problem = run((sys.executable, "-S", "-c", code), 1.5, {})
    assert "did not end within 1.5 seconds and was killed." in problem
    if file.exists() and file.read_text():
        pid = int(file.read_text())
        deadline = time.monotonic() + 20
        with suppress(FileNotFoundError, ProcessLookupError):  # gone in the middle of a look
            while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
                assert time.monotonic() < deadline


def test_a_command_that_does_not_exist_says_so() -> None:
    assert run(("/no/such/program",), 1, {}) == "cannot be run: No such file or directory."
    ends_itself = (sys.executable, "-S", "-c", "import os; os.kill(os.getpid(), 15)")
    assert run(ends_itself, 60, {}) == "failed with signal 15."


@pytest.mark.parametrize(
    ("raw", "parsed"),
    [
        ([], ()),
        (["systemctl stop nvidia-dcgm"], (("systemctl", "stop", "nvidia-dcgm"),)),
        ([["a", "b c"], "d 'e f'"], (("a", "b c"), ("d", "e f"))),
    ],
)
def test_commands_are_texts_or_lists_of_words(raw: Any, parsed: Any) -> None:
    assert parse_commands("before_cut", raw) == parsed


@pytest.mark.parametrize("raw", ["systemctl", [""], [[]], [["a", 1]], [3], ["a 'b"], [["a\0"]]])
def test_anything_else_is_refused_by_setting_and_number(raw: Any) -> None:
    with pytest.raises(ConfigError, match=r"MigBroker\.before_cut"):
        parse_commands("before_cut", raw)
