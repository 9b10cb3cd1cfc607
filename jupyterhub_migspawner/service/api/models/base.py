"""The base of all bodies, and the bodies that several nouns share."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from jupyterhub_migspawner.service.api.models.fields import Text


class Body(BaseModel):
    """Base of all bodies: known fields only, strict types, descriptions out of docstrings."""

    model_config = ConfigDict(
        strict=True,
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )


class Nothing(Body):
    """An object without fields; it may be left out."""


class Reason(Body):
    """Why something is done."""

    reason: Text = ""
