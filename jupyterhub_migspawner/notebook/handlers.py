"""What the broker's service asks and says here: what is done, and the notice of an end.

Relies on Jupyter Server to know who may talk to this server. Promises that nothing here is use of
the server, so that an open page that asks does not keep it; and that an extension request stays
until the service has answered it, though that restarts in between.
"""

from __future__ import annotations

import json
import time
import uuid
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from jupyter_server.base.handlers import APIHandler
from jupyter_server.utils import url_path_join
from tornado.web import Application, HTTPError, authenticated

from jupyterhub_migspawner.notebook import ACTIVITY_PATH, KERNELS_PATH, PATH
from jupyterhub_migspawner.notebook.activity import Activity
from jupyterhub_migspawner.notebook.kernels import Kernels

_MOST_BYTES = 16 * 1024
_MOST_CHARACTERS = 1000
_LONGEST = 86400.0  # seconds that a notice may hold
_TEXTS = ("rule", "why", "ends_at", "page")


@dataclass
class NoticeState:
    """The service's last notice, and the extension requests since; of one server."""

    notice: dict[str, Any] | None = None
    holds_until: float = 0.0
    """Seconds on the monotonic clock, until when the notice holds unless it is given again."""
    answer: dict[str, str] = field(default_factory=dict)
    extension_request: str = ""

    def now(self) -> dict[str, Any] | None:
        """Return the notice, while it holds."""
        return self.notice if time.monotonic() < self.holds_until else None


class NoticeHandler(APIHandler):
    """The one address."""

    # A page that asks whether its server ends is no sign that anybody is there.
    _track_activity = False

    def initialize(self, state: NoticeState) -> None:
        """Keep the state; called by tornado for each request."""
        self.state = state

    @authenticated
    def get(self) -> None:
        """Answer JupyterLab with the notice as it stands."""
        state = self.state
        answer = {
            "notice": state.now(),
            "answer": state.answer,
            "wished": bool(state.extension_request),
        }
        self.finish(json.dumps(answer))

    @authenticated
    def put(self) -> None:
        """Store the service's notice; answer whether the person asks for an extension."""
        word = self._word()
        self.state.notice = notice = word.get("notice")
        if notice is not None:
            self.state.holds_until = time.monotonic() + notice["holds_seconds"]
        answered = word.get("answer")
        if answered is not None and answered["wish"] == self.state.extension_request:
            self.state.extension_request, self.state.answer = "", answered
        self.finish(json.dumps({"wish": self.state.extension_request}))

    @authenticated
    def post(self) -> None:
        """File an extension request; the service gets it at its next visit."""
        notice = self.state.now()
        if notice is None or not notice.get("extendable"):
            raise HTTPError(409, "This session has no end that could be postponed.")
        self.state.extension_request = self.state.extension_request or uuid.uuid4().hex
        self.set_status(202)
        self.finish(json.dumps({"wished": True}))

    def _word(self) -> dict[str, Any]:
        if len(self.request.body) > _MOST_BYTES:
            raise HTTPError(413, "The notice is too long.")
        try:
            word = json.loads(self.request.body)
        except (ValueError, RecursionError):
            word = None
        if not isinstance(word, dict) or not (
            _is_notice(word.get("notice")) and _is_answer(word.get("answer"))
        ):
            raise HTTPError(400, "This is not a valid notice.")
        return word


class KernelsHandler(APIHandler):
    """What the kernels are at work on."""

    _track_activity = False

    def initialize(self, kernels: Kernels) -> None:
        """Keep the kernels; called by tornado for each request."""
        self.kernels = kernels

    @authenticated
    def get(self) -> None:
        """Answer the service with each kernel that is watched."""
        self.finish(json.dumps(self.kernels.said()))


class ActivityHandler(APIHandler):
    """What the person has done without a kernel."""

    _track_activity = False

    def initialize(self, activity: Activity) -> None:
        """Keep the activity; called by tornado for each request."""
        self.activity = activity

    @authenticated
    def get(self) -> None:
        """Answer how many acts there have been; the service compares it with what it was."""
        self.finish(json.dumps({"acts": self.activity.acts}))


def _is_notice(value: Any) -> bool:
    if value is None:
        return True
    if not isinstance(value, dict) or not all(_is_text(value.get(name)) for name in _TEXTS):
        return False
    if value["page"] and not value["page"].startswith(("/", "http://", "https://")):
        return False
    try:
        datetime.strptime(value["ends_at"], "%Y-%m-%dT%H:%M:%SZ")
    except ValueError:
        return False
    seconds = value.get("holds_seconds")
    number = isinstance(seconds, (int, float)) and 0 <= seconds <= _LONGEST
    return number and isinstance(value.get("extendable"), bool)


def _is_answer(value: Any) -> bool:
    if value is None:
        return True
    return isinstance(value, dict) and all(
        _is_text(value.get(name)) for name in ("wish", "refusal", "kept_until")
    )


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= _MOST_CHARACTERS


def add_handlers(app: Application, kernels: Kernels, activity: Activity) -> None:
    """Add the handlers to the server."""
    base = app.settings["base_url"]
    app.add_handlers(
        ".*$",
        [
            (url_path_join(base, PATH), NoticeHandler, {"state": NoticeState()}),
            (url_path_join(base, KERNELS_PATH), KernelsHandler, {"kernels": kernels}),
            (url_path_join(base, ACTIVITY_PATH), ActivityHandler, {"activity": activity}),
        ],
    )
