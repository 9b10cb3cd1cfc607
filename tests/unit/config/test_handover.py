"""A hub's settings go to its user and root, to nobody else, and are gone with the hub."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
from contextlib import AbstractContextManager

import pytest

from jupyterhub_migspawner.config.handover import Outcome, ask_running, read_file, sealed_file
from tests.handovers import offering
from tests.unit.strangers import needs_root

NOBODY = 65534


def hub(home: str, uid: int = 0) -> AbstractContextManager[subprocess.Popen[bytes]]:
    return offering(home, b"settings of a hub", uid)


@pytest.fixture
def home() -> str:
    return f"machine:/{secrets.token_hex(8)}/jupyterhub_config.py"


def test_the_settings_are_found_by_the_home_of_the_hub(home: str) -> None:
    with hub(home) as process, hub(f"{home}.other"):
        (answer,) = ask_running(home, {os.geteuid()})
    assert answer.outcome is Outcome.GIVEN
    assert answer.document == b"settings of a hub"
    assert (answer.pid, answer.uid) == (process.pid, os.geteuid())


def test_they_are_gone_when_the_hub_is_killed(home: str) -> None:
    with hub(home) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert list(ask_running(home, {os.geteuid()})) == []


def test_a_stopped_hub_keeps_nobody_waiting(home: str) -> None:
    with hub(home) as process:
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
        (answer,) = ask_running(home, {os.geteuid()}, patience=0.2)
    assert answer.outcome is Outcome.SILENT


@needs_root
def test_another_user_is_refused(home: str) -> None:
    with hub(home):
        os.seteuid(NOBODY)
        try:
            (answer,) = ask_running(home, {0, NOBODY})
        finally:
            os.seteuid(0)
    assert answer.outcome is Outcome.REFUSED


@needs_root
def test_nothing_is_read_of_a_process_of_another_user(home: str) -> None:
    with hub(home, NOBODY):
        (answer,) = ask_running(home, {0})
        assert (answer.outcome, answer.document, answer.uid) == (Outcome.STRANGE, b"", NOBODY)
        (answer,) = ask_running(home, {0, NOBODY})
        assert answer.outcome is Outcome.GIVEN


def test_nobody_can_change_what_was_given() -> None:
    descriptor = sealed_file(b"settings")
    try:
        for change in (
            lambda: os.pwrite(descriptor, b"x", 0),
            lambda: os.ftruncate(descriptor, 0),
            lambda: os.ftruncate(descriptor, 100),
        ):
            with pytest.raises(PermissionError):
                change()
        assert read_file(descriptor) == read_file(descriptor) == b"settings"
        assert os.fstat(descriptor).st_mode & 0o777 == 0o600
    finally:
        os.close(descriptor)
