"""Bodies about drafts of requests."""

from __future__ import annotations

from jupyterhub_migspawner.service.api.models.base import Body
from jupyterhub_migspawner.service.api.models.fields import Name, Text, Typed


class NewDraft(Body):
    """A draft, all of it as it was typed; what is left out is empty."""

    tier: Name = ""
    hours: Typed = ""
    starts_at: Typed = ""
    reason: Text = ""
