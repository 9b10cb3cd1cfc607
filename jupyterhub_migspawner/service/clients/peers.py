"""Who answers, before a token is sent: the server or hub that it belongs to, and no one else.

Relies on :mod:`...sockets` to know whose the other end of a connection is, on the fingerprint that
a session's processes carry, and on certificates where a server is on another machine. Promises that
a connection is opened first and nothing is sent on it until its other end is known: another user's
process that took a port, at whatever moment, gets no token.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import pwd
import socket
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jupyterhub_migspawner.agent.processes import Unreadable, start_time
from jupyterhub_migspawner.agent.snapshot import belongs_to
from jupyterhub_migspawner.clients import Check, WrongPeer
from jupyterhub_migspawner.sockets import Owner, holders, is_here, peer_of

log = logging.getLogger("migspawner.service")

MOST_KNOWN = 5000
"""Servers whose process is remembered."""

# -- the hub --------------------------------------------------------------------------------------


def check_hub(connection: socket.socket) -> None:
    """Raise :exc:`WrongPeer` when another local user has the hub's port.

    A hub on another machine is known by its certificate alone, where there is one.
    """
    host = connection.getpeername()[0]
    if connection.family != socket.AF_UNIX and is_here(ipaddress.ip_address(_plain(host))):
        _refuse_strangers(peer_of(connection), "the hub", _own_uids())


def _refuse_strangers(owner: Owner | None, whose: str, uids: frozenset[int]) -> None:
    if owner is None:
        raise WrongPeer(f"the connection to {whose} was closed immediately")
    if owner.uid not in uids:
        raise WrongPeer(
            f"the port of {whose} is taken by a process of {user_name(owner.uid)}",
            owner.uid,
            holders(owner.inode) if owner.inode else frozenset(),
        )


def _own_uids() -> frozenset[int]:
    return frozenset({0, os.geteuid()})


# -- people's servers -----------------------------------------------------------------------------


@dataclass
class ServerCheck:
    """Checks connections to sessions' servers; remembers which process is whose server."""

    _known: dict[str, tuple[int, int | None]] = field(default_factory=dict)

    def of(self, user: str, attempt: str) -> Check:
        """Return the check of a connection to the server of this user's session."""

        def check(connection: socket.socket) -> None:
            self._check(connection, user, attempt)

        return check

    def _check(self, connection: socket.socket, user: str, attempt: str) -> None:
        if isinstance(connection, ssl.SSLSocket):
            _check_name(connection, user)
        host = ipaddress.ip_address(_plain(connection.getpeername()[0]))
        if not is_here(host):
            if not isinstance(connection, ssl.SSLSocket):
                raise WrongPeer(
                    "its server is on another machine, where its identity cannot be checked "
                    "without internal_ssl, so its token is not sent"
                )
            return
        owner = peer_of(connection)
        if owner is None:
            raise WrongPeer("the connection to its server was closed immediately")
        if self._is_known(owner, attempt):
            return
        pids = holders(owner.inode) if owner.inode else frozenset()
        found = {pid: _carried_by(pid) for pid in pids}
        for pid, carried in found.items():
            if carried and carried == attempt:
                if len(self._known) >= MOST_KNOWN:
                    self._known.clear()
                self._known[attempt] = (pid, _start_time(pid))
                return
        others = {carried for carried in found.values() if carried}
        if owner.uid in _own_uids() | _uids_of(user):
            if not others:
                return
            raise WrongPeer("a process of another session has the port of its server")
        raise WrongPeer(
            f"the port of its server is taken by a process of {user_name(owner.uid)}",
            owner.uid,
            pids,
        )

    def _is_known(self, owner: Owner, attempt: str) -> bool:
        """Return whether the process that had the server's port before has this socket."""
        pid, started = self._known.get(attempt, (0, None))
        if not pid:
            return False
        if started is not None and _start_time(pid) == started:
            return bool(holders(owner.inode, [pid]))
        del self._known[attempt]
        return False


def _check_name(connection: ssl.SSLSocket, user: str) -> None:
    """Raise :exc:`WrongPeer` unless the certificate is one of this user's servers.

    With ``internal_ssl`` each user's servers have a certificate of their own.
    The hub gives it the name ``user-NAME`` (``jupyterhub.spawner``, ``create_certs``), and the
    addresses of every server of this machine.
    """
    found: Any = connection.getpeercert() or {}
    names = {
        value for part in found.get("subject", ()) for name, value in part if name == "commonName"
    }
    if user and f"user-{user}" not in names:
        raise WrongPeer("the answer comes with another server's certificate")


def _carried_by(pid: int) -> str:
    """Return the attempt that a process belongs to; empty if it has none, or hides it."""
    try:
        return belongs_to(pid)
    except Unreadable:
        return ""


def _start_time(pid: int) -> int | None:
    try:
        return start_time(Path(f"/proc/{pid}"))
    except Unreadable:
        return None


def _uids_of(user: str) -> frozenset[int]:
    try:
        return frozenset({pwd.getpwnam(user).pw_uid})
    except (KeyError, ValueError):
        return frozenset()


def user_name(uid: int) -> str:
    """Return a local user, as they stand in a sentence."""
    try:
        return f"user {pwd.getpwuid(uid).pw_name!r} (uid {uid})"
    except (KeyError, OverflowError):
        return f"uid {uid}"


def _plain(host: str) -> str:
    """Return an address without the zone that IPv6 may have."""
    return host.partition("%")[0]
