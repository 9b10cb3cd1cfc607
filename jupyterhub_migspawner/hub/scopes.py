"""The service's name and the scopes that a hub gives for it."""

from __future__ import annotations

SERVICE_NAME = "migspawner"

APPROVE_SCOPE = "custom:migspawner:approve"
ADMIN_SCOPE = "custom:migspawner:admin"
SELF_SCOPE = "custom:migspawner:self"
ACCESS_SCOPE = f"access:services!service={SERVICE_NAME}"
