"""What researchers read where a start is refused, on the hub's pages and in its answers."""

from __future__ import annotations

import logging

import pytest
from jupyterhub.utils import format_exception
from tornado import web

from jupyterhub_migspawner.errors import (
    ConfigError,
    DatabaseError,
    EngineError,
    GpuError,
    LaunchError,
    Refusal,
)
from jupyterhub_migspawner.spawner.refusals import spawn_exception

SENTENCE = "All 7 slices of <Small> are in use, 100% of them."


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Refusal(SENTENCE, reason="capacity"), Refusal.STATUS["capacity"]),
        (DatabaseError(SENTENCE), 503),
        (ConfigError(SENTENCE), 500),
        (GpuError(SENTENCE), 503),
        (LaunchError(SENTENCE), 503),
        (EngineError(SENTENCE), 503),
    ],
)
def test_a_refusal_is_shown_as_its_sentence_alone(error: Exception, status: int) -> None:
    shown = spawn_exception(logging.getLogger("test"), error)
    assert isinstance(shown, web.HTTPError)
    assert shown.status_code == status
    # The form, the pending page and the progress; the page of a server that has failed.
    for text, html in (format_exception(shown), format_exception(shown, only_jupyterhub=True)):
        assert text == str(shown)
        # The page escapes the text; this has nothing more to add to it.
        assert html is None
    for said in (str(shown), shown.jupyterhub_message):
        assert type(error).__name__ not in said
        assert "SpawnException" not in said
        assert "reason" not in said
        assert not said.startswith(("4", "5", "HTTP"))
    # A refusal is meant for its reader; what is wrong with the hub is for its admins.
    assert (SENTENCE in str(shown)) is isinstance(error, Refusal)
