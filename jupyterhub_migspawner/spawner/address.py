"""Where a server answers, as the hub reads it."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit


def server_address(url: Any, *, base_url: str, internal_ssl: bool) -> str:
    """Return where a server answers itself, from what its start returned.

    ``url`` is a URL, or address and port, as the hub reads it (``jupyterhub.user.User.spawn``).
    Empty when that says nothing.
    """
    if isinstance(url, (tuple, list)) and len(url) == 2:
        host, port = url
        host = f"[{host}]" if ":" in str(host) else host or "127.0.0.1"
        url = f"{'https' if internal_ssl else 'http'}://{host}:{port}"
    parsed = urlsplit(url) if isinstance(url, str) else None
    if parsed is None or not parsed.hostname:
        return ""
    return f"{parsed.scheme}://{parsed.netloc}{base_url}"
