"""Bodies about exceptions from quotas."""

from __future__ import annotations

from typing import Annotated

from jupyterhub_migspawner.broker.views.json import one_of
from jupyterhub_migspawner.policy.quotas import FIELDS
from jupyterhub_migspawner.service.api.models.base import Body
from jupyterhub_migspawner.service.api.models.fields import Amount, Moment, Name, Text


class NewException(Body):
    """An exception from one field of a user's quota; who makes it, the token says."""

    user: Name
    field: Annotated[Name, one_of(*FIELDS)]
    limit: Amount
    """Null for no limit."""
    until: Moment
    reason: Text
