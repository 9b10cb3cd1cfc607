"""Bodies about requests and grants."""

from __future__ import annotations

from jupyterhub_migspawner.service.api.models.base import Body
from jupyterhub_migspawner.service.api.models.fields import (
    Hours,
    Minutes,
    Name,
    OptionalHours,
    OptionalMoment,
    Text,
)


class NewRequest(Body):
    """A request for a tier that needs approval."""

    tier: Name
    hours: Hours
    reason: Text
    starts_at: OptionalMoment = None
    """Start time, with its zone (optional; default: as soon as approved)."""


class Approval(Body):
    """How a request is approved."""

    reason: Text = ""
    hours: OptionalHours = None
    """Fewer hours than requested (optional; default: as many)."""


class Revocation(Body):
    """How a grant is revoked that is in use."""

    reason: Text
    warning_minutes: Minutes = 15
    """Minutes between the warning and the end of what runs on it."""
