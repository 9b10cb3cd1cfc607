"""Sending to the admin's channels, through Apprise.

Relies on Apprise (https://github.com/caronc/apprise) for what mail, Slack, Mattermost, webhooks and
the rest want. Promises that a sending ends, with what went wrong in a sentence and never an
exception, and that no password or token of a channel stands in one, nor in any log.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from jupyterhub_migspawner.errors import ConfigError
from jupyterhub_migspawner.policy.notices import Channel

if TYPE_CHECKING:
    from apprise import AppriseAsset, NotifyBase

MOST_SAID = 300
"""Characters of what Apprise says about a failure."""

HIDDEN = "…"

_PASSWORD = re.compile(r"[^/@:]*:([^/@]+)@")

_HOST = re.compile(
    r"localhost|[0-9]{1,3}(\.[0-9]{1,3}){3}|(?:[a-z0-9-]+\.)+[a-z]{2,6}", re.IGNORECASE
)


def check(channels: Sequence[Channel]) -> None:
    """Raise an error for the first channel that Apprise does not know. Sends nothing.

    Raises :class:`~jupyterhub_migspawner.errors.ConfigError`.
    """
    for channel in channels:
        problem = problem_with(channel)
        if problem:
            raise ConfigError(f"MigBroker.notices: {problem}")


def problem_with(channel: Channel) -> str:
    """Explain what keeps Apprise from using a channel, and the way out; empty for nothing."""
    url = channel.url_for("user", "user@example.org")
    if url is None:
        return ""
    plugin, said = _open(url)
    if plugin is not None:
        return ""
    reason = f" ({said})" if said else ""
    return (
        f"{channel.name} is not a URL that Apprise can use{reason}; expected one as described in "
        "Apprise's documentation of that service (https://github.com/caronc/apprise/wiki), with "
        "special characters in passwords written as %2C and the like."
    )


def send(channel: Channel, title: str, body: str, user: str = "", address: str = "") -> str:
    """Send a text to a channel; return what went wrong, or empty.

    Blocks for as long as the other side lets it.
    ``user`` and ``address`` fill in a user's channel.
    """
    url = channel.url_for(user, address)
    if url is None:
        return f"{user!r} has no name or address to send it to"
    plugin, problem = _open(url)
    if plugin is None:
        return "Apprise cannot use its URL" + (f": {problem}" if problem else "")
    from apprise import Apprise, NotifyFormat

    sender = Apprise(asset=_asset())
    sender.add(plugin)
    _keep_quiet()
    title = " ".join(title.split())  # one line: in a mail it is a header
    try:
        result = sender.notify(title=title, body=body, body_format=NotifyFormat.TEXT)
        said = [entry.message for entry in result.logs()]
    except Exception as error:
        # Plugins are many and of many hands.
        return f"{type(error).__name__}: {_redacted(str(error), url)}"
    if result:
        return ""
    return _redacted(said[-1], url) if said else "Apprise could not send it and did not say why"


def _open(url: str) -> tuple[NotifyBase | None, str]:
    # Loaded only where there is something to send: it brings more than a hundred services along.
    from apprise import Apprise

    _keep_quiet()
    try:
        return Apprise.instantiate(url, asset=_asset(), suppress_exceptions=False), ""
    except Exception as error:
        return None, f"{type(error).__name__}: {_redacted(str(error), url)}"


def _keep_quiet() -> None:
    """Send nowhere what Apprise logs: there may be a token in it."""
    logging.getLogger("apprise").propagate = False


def _asset() -> AppriseAsset:
    """Return what notices are signed with; no picture is asked for from elsewhere."""
    from apprise import AppriseAsset

    quiet: dict[str, Any] = {"app_url": "", "image_url_mask": "", "async_mode": False}
    return AppriseAsset(app_id="GPU sessions", app_desc="JupyterHub", **quiet)


def _redacted(text: str, url: str) -> str:
    """Return ``text`` on one line, without anything that stands in the URL behind its scheme.

    Not even its host stays, unless it is one that can only be a host: many services are named by
    the scheme, and a token stands where others have their host.
    """
    behind = url.partition("://")[2]
    words = {word for raw in re.split(r"[/?&=;,:@#+]", behind) for word in (raw, unquote(raw))}
    words -= {word for word in words if _HOST.fullmatch(word)}
    words |= {part for word in words for part in word.split(".")}
    words = {word for word in words if len(word) >= 4}
    text = " ".join(text.split())
    for word in sorted(words, key=len, reverse=True):
        text = re.sub(re.escape(word), HIDDEN, text, flags=re.IGNORECASE)
    # A short password would be found inside of other words.
    password = _PASSWORD.match(behind)
    if password is not None and len(password[1]) < 4:
        text = re.sub(rf"\b{re.escape(password[1])}\b", HIDDEN, text)
    return text if len(text) <= MOST_SAID else text[: MOST_SAID - 1] + "…"
