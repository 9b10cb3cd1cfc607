"""The tier's limits of CPU and main memory, as the limits that JupyterHub gives its spawners.

Relies on the base spawner to enforce ``cpu_limit`` and ``mem_limit``. Promises that a tier's limits
hold for the launch of its server only, so that the next server on a tier without limits gets those
of the admin's configuration, and that the log says so where nothing enforces them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from jupyterhub_migspawner.policy.tiers import Tier
from jupyterhub_migspawner.spawner.options import TierChoice

GIB = 1 << 30
"""Bytes of a GiB."""


class Limits(TierChoice):
    """The part of the spawner that limits the server's CPUs and main memory."""

    cpu_limit: float | None
    mem_limit: int | None

    #: Whether the base spawner limits its servers to ``cpu_limit`` and ``mem_limit``.
    _mig_enforces_limits = True

    @contextmanager
    def _mig_limited(self, tier: Tier) -> Iterator[None]:
        """Have the base spawner launch with the limits of ``tier``.

        The hub's variables ``CPU_LIMIT`` and ``MEM_LIMIT`` follow them.
        """
        before = (self.cpu_limit, self.mem_limit)
        if tier.cpus is not None:
            self.cpu_limit = tier.cpus
        if tier.memory_gib is not None:
            self.mem_limit = int(tier.memory_gib * GIB)
        if tier.resources and not self._mig_enforces_limits:
            self._mig_warn_of_limits(tier)
        try:
            yield
        finally:
            self.cpu_limit, self.mem_limit = before

    def _mig_warn_of_limits(self, tier: Tier) -> None:
        """Log that the limits of a tier are not enforced; once for all servers of the hub."""
        if self.mig_hub.first("limits that are not enforced"):
            self.log.warning(
                "Tier %r limits each server to %s, but %s does not enforce that: servers can use "
                "more.",
                tier.name,
                tier.resources,
                type(self).__name__,
            )
