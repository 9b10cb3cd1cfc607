"""Bodies about running sessions."""

from __future__ import annotations

from jupyterhub_migspawner.service.api.models.base import Body
from jupyterhub_migspawner.service.api.models.fields import Moment, Text


class Protection(Body):
    """Until when a session is not ended for being idle, and why."""

    until: Moment
    reason: Text
