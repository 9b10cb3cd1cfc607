"""Certificates of a hub with ``internal_ssl``: for talking to the hub, and to people's servers.

Relies on the files that JupyterHub makes (``app.py``, ``init_internal_ssl``): a server trusts the
hub and its proxy, and no service. So this service, which is a part of the hub and runs as the hub's
user, shows the hub's own certificate there.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Mapping
from pathlib import Path

from jupyterhub.utils import make_ssl_context
from traitlets.config import Config

log = logging.getLogger("migspawner.service")


def for_the_hub(environ: Mapping[str, str]) -> ssl.SSLContext | None:
    """Return what the hub gave this service to talk to it; None without ``internal_ssl``."""
    names = ("KEYFILE", "CERTFILE", "CLIENT_CA")
    files = [environ.get(f"JUPYTERHUB_SSL_{name}") for name in names]
    if not all(files):
        return None
    key, cert, authority = files
    context: ssl.SSLContext = make_ssl_context(key, cert, cafile=authority)
    return context


def for_servers(config: Config, environ: Mapping[str, str]) -> ssl.SSLContext | None:
    """Return what people's servers let in; None without ``internal_ssl`` or if it is unreadable."""
    if for_the_hub(environ) is None:
        return None
    # A hub's relative paths start where it was started, and so was this process, by the hub.
    folder = Path(str(config.JupyterHub.get("internal_certs_location", "internal-ssl")))
    pair = folder / "hub-internal" / "hub-internal"
    try:
        context: ssl.SSLContext = make_ssl_context(
            f"{pair}.key", f"{pair}.crt", cafile=str(folder / "hub-ca_trust.crt")
        )
    except OSError as error:
        log.warning(
            "The use of sessions will be unknown: with internal_ssl their servers accept only "
            "the hub, and its certificate cannot be read in %s (%s). Run the service as the "
            "user that runs the hub.",
            folder.absolute(),
            error,
        )
        return None
    return context
