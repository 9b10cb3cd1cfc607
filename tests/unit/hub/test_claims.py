"""What the hub says of its running servers' leases when the lease database cannot be asked."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

import pytest

from jupyterhub_migspawner.errors import DatabaseError
from jupyterhub_migspawner.hub.claims import RETRY_SECONDS, Claims
from jupyterhub_migspawner.model.orphans import OrphanRow


class Away:
    """A lease database that cannot be asked a few times; notes what is asked of it then."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.named: list[list[str]] = []
        self.asked = threading.Event()

    @property
    def orphans(self) -> Away:
        return self

    def open_broker(self) -> Away:
        if self.errors:
            raise self.errors.pop(0)
        return self

    def vouch(self, named: Sequence[OrphanRow]) -> tuple[OrphanRow, ...]:
        self.named.append([each.user for each in named])
        self.asked.set()
        return ()


def mark(user: str) -> OrphanRow:
    return OrphanRow(attempt=f"attempt of {user}", user=user)


def settle(claims: Claims) -> None:
    """Wait until the look-ups have nothing left to do."""
    if claims._thread is not None:
        claims._thread.join(60)


@pytest.mark.parametrize(
    "error", [DatabaseError("It is away."), OSError(24, "Too many open files")]
)
def test_what_cannot_be_looked_up_is_in_the_log_once_and_tried_again(
    caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    caplog.set_level(logging.INFO)
    away, pauses = Away(error, error, error), list[float]()
    second = threading.Event()

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        assert second.wait(60)

    claims = Claims(away, pause=pause)  # type: ignore[arg-type]
    claims.vouch(mark("ada"), logging.getLogger("hub"))
    # One that comes during the outage is looked up with the first.
    claims.vouch(mark("grace"), logging.getLogger("hub"))
    second.set()
    assert away.asked.wait(60)
    settle(claims)
    assert pauses == [RETRY_SECONDS] * 3
    assert away.named == [["ada", "grace"]]
    assert caplog.text.count("could not be checked whether all running servers have leases") == 1
    assert str(error) in caplog.text
    assert caplog.text.count("have been checked") == 1


def test_each_server_is_looked_up_once() -> None:
    away = Away()
    claims = Claims(away)  # type: ignore[arg-type]
    for user in ("ada", "grace"):
        claims.vouch(mark(user), logging.getLogger("hub"))
        assert away.asked.wait(60)
        settle(claims)
    assert away.named == [["ada"], ["grace"]]
