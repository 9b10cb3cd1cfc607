"""What of a form, query or REST body is ours, and what is left to the base spawner."""

from __future__ import annotations

import difflib
import itertools
from typing import Any

#: Before the names of the fields with which the form asks for a tier, or waits for it.
PREFIX = "migspawner-"


def split_form(form_data: dict[str, list[Any]]) -> tuple[dict[str, Any], dict[str, list[Any]]]:
    """Return our field as it was sent, and the other fields.

    A field sent twice stays a list, which the check of the options refuses with a sentence.
    """
    rest = {
        name: values
        for name, values in form_data.items()
        if name != "tier" and not name.startswith(PREFIX)
    }
    values = form_data.get("tier")
    if not values:
        return {}, rest
    return {"tier": values[0] if len(values) == 1 else values}, rest


def request_fields(form_data: dict[str, list[Any]], tier: Any) -> dict[str, str]:
    """Return what was filled in beside a tier that cannot start now.

    That is ``reason`` and ``hours`` of a request, ``wait``, ``start`` and ``upward`` of a ticket.
    """
    found = {}
    for field in ("reason", "hours", "wait", "start", "upward"):
        values = form_data.get(f"{PREFIX}{field}-{tier}")
        if values and isinstance(values[-1], str):
            found[field] = values[-1]
    return found


def own_options(user_options: Any) -> Any:
    """Return what of a server's options is ours to judge.

    The hub stores whatever was sent, form fields of its own and of the base spawner among it, and
    leaves them to the code that knows them. But a misspelt ``tier`` is ours: passed over, it would
    silently mean the default one.
    """
    if not isinstance(user_options, dict):
        return user_options
    own = {key: user_options[key] for key in ("tier",) if key in user_options}
    # A few keys are looked at closely, not a megabyte of them: this runs on the event loop.
    for key in itertools.islice(user_options, 100):
        short = len(str(key)) <= 8
        if short and difflib.get_close_matches(str(key).lower(), ["tier"], n=1, cutoff=0.75):
            own[key] = user_options[key]
    return own
