"""Bodies about notices."""

from __future__ import annotations

from jupyterhub_migspawner.service.api.models.base import Body
from jupyterhub_migspawner.service.api.models.fields import OptionalFlag


class NewNoticeChoices(Body):
    """Which notices to get; topics that are left out stay as they are."""

    requests: OptionalFlag = None
    """Decisions on one's requests, and ends of grants."""
    offers: OptionalFlag = None
    """One's turn in the waiting list."""
    sessions: OptionalFlag = None
    """Ends of one's sessions, and failures of their GPUs."""
