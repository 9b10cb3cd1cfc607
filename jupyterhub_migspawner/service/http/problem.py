"""What a failed request is answered with: one status, one word, one sentence.

Relies on the named errors; promises that REST answers and pages say the same thing, that every
JSON error has the same three keys, and that nothing unexpected leaks its text to a visitor.
"""

from __future__ import annotations

from dataclasses import dataclass
from http.client import responses

from tornado.web import HTTPError
from typing_extensions import TypedDict

from jupyterhub_migspawner.errors import ConfigError, DatabaseError, GpuError, Refusal
from jupyterhub_migspawner.service.clients.hub import HubError


class Problem(HTTPError):
    """A request that cannot be served as it stands; carries the word and the sentence."""

    def __init__(self, status: int, word: str, sentence: str) -> None:
        super().__init__(status)
        self.word = word
        self.sentence = sentence


class Error(TypedDict):
    """What is answered instead where a request is refused or fails."""

    status: int
    reason: str
    """One of a few stable words, such as quota, capacity, not-allowed, not-found, conflict,
    options, too-many."""
    message: str
    """A sentence for people: what happened and what to do."""


@dataclass(frozen=True)
class Answer:
    """The body of an error: ``reason`` is a stable word, ``message`` a sentence for people."""

    status: int
    reason: str
    message: str
    retry_after: int | None = None
    """Seconds after which the same may be asked again; a header carries them."""

    def as_json(self) -> Error:
        """Return the three keys of every JSON error."""
        return {"status": self.status, "reason": self.reason, "message": self.message}


_BY_STATUS = {
    400: ("options", "This request is invalid."),
    401: ("not-signed-in", "You are not signed in; sign in, or send a token of the hub."),
    403: ("not-allowed", "This is not allowed."),
    404: ("not-found", "There is nothing at this address."),
    405: ("method", "This address does not support that method."),
    413: ("too-large", "This request is too large."),
    500: (
        "internal",
        "This request failed because of an unexpected error. "
        "The details are in the log of the service; please tell the hub's admins.",
    ),
}


def answer_for(error: BaseException | None, status: int = 500) -> Answer:
    """Return the answer to a request that ended in ``error``.

    ``status`` counts when the error has none.
    """
    if isinstance(error, Problem):
        return Answer(error.status_code, error.word, error.sentence)
    if isinstance(error, Refusal):
        return Answer(error.status, error.reason, str(error), error.retry_after)
    if isinstance(error, DatabaseError):
        return Answer(
            503,
            "database",
            "The lease database is not responding right now, so nothing was changed. Running "
            "sessions are not affected. Try again in a minute.",
        )
    if isinstance(error, HubError):
        return Answer(
            503,
            "hub",
            "The hub is not responding properly right now, so nothing was changed. "
            "Try again in a minute.",
        )
    if isinstance(error, GpuError):
        return Answer(503, "cards", str(error))
    if isinstance(error, ConfigError):
        return Answer(503, "configuration", "The hub's admins have to fix the configuration.")
    if isinstance(error, HTTPError):
        status = error.status_code
    word, sentence = _BY_STATUS.get(
        status, ("http", f"This request failed: {responses.get(status, 'unknown status')}.")
    )
    return Answer(status, word, sentence)


def is_expected(error: BaseException | None) -> bool:
    """Return whether a sentence in the log is enough; otherwise a traceback is needed."""
    return isinstance(error, (Refusal, DatabaseError, HubError, GpuError, HTTPError))
