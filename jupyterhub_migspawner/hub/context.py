"""What all spawners of one hub share: its settings, its open lease database, and its look-ups."""

from __future__ import annotations

from typing import Any

from traitlets.config import Config

from jupyterhub_migspawner.config import MigBroker
from jupyterhub_migspawner.hub.claims import Claims

KEY = "migspawner_context"
"""The name of the context among the settings of the hub."""


class HubContext:
    """The settings of a hub, with the lease database that they open, and the look-ups of leases.

    JupyterHub makes a spawner object for each server and gives it the hub's configuration, but no
    object of ours. What all of them reach is the dict of the hub's own settings
    (``User.settings``, JupyterHub 5.4 to 6.1). It lives as long as the hub, so it owns the context:
    two spawners of a hub have one lease database, and another hub in the same process has another.
    """

    def __init__(self, mig: MigBroker) -> None:
        """Make the context of spawners that all use the settings ``mig``."""
        self.mig = mig
        self.claims = Claims(mig)
        #: What a launcher has found to work here, and until when it is not tried again, in seconds
        #: of the monotonic clock.
        self.proven: dict[str, float] = {}
        self._met: set[str] = set()

    def first(self, what: str) -> bool:
        """Tell whether this is the first time that any spawner of the hub asks for ``what``.

        For what the log says once and not at each start.
        """
        met = what in self._met
        self._met.add(what)
        return not met

    @classmethod
    def of(cls, settings: dict[str, Any], config: Config) -> HubContext:
        """Return the context among the hub's settings.

        :func:`.wiring.complete_hub` puts it there. In a hub whose file does not call ``setup(c)``
        the first call makes it from ``config``. Raises
        :class:`~jupyterhub_migspawner.errors.ConfigError`.
        """
        found = settings.get(KEY)
        if found is None:
            # Two threads may come here at once; all of them use what the first one has put there.
            found = settings.setdefault(KEY, cls(MigBroker(config=config)))
        assert isinstance(found, cls)
        return found
