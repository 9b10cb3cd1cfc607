"""Bodies about tickets of the queue."""

from __future__ import annotations

from jupyterhub_migspawner.service.api.models.base import Body
from jupyterhub_migspawner.service.api.models.fields import Flag, Name


class NewTicket(Body):
    """A ticket for a tier; whose it is, the token says."""

    tier: Name
    server: Name = ""
    """The server: a name that is valid at the hub, or empty for the default server."""
    start: Flag = False
    """Have the hub start the server when it is its turn. The token needs the hub's start:servers
    (servers, before JupyterHub 6) for that server."""
    upward: Flag = False
    """Also accept any larger tier that is free first; refused if there is no larger tier."""
