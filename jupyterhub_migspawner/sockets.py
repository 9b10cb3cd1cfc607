"""Who holds the other end of a TCP connection on this machine, or a port of it.

Relies on Linux: ``sock_diag(7)`` asks the kernel about one socket, whatever number there are;
``/proc/net/tcp`` and ``tcp6`` (proc(5)) where that is not allowed. Both give the socket's uid and
its inode, which is 0 while nobody has accepted the connection. Promises to say None where the
kernel knows of no such socket here: it is on another machine or in another network namespace, or
it is gone.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

# linux/netlink.h, linux/sock_diag.h, linux/inet_diag.h
_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLM_F_REQUEST = 1
_NLMSG_ERROR = 2
_ENOENT = 2
_HEADER = struct.Struct("=IHHII")
_REQUEST = struct.Struct("=BBBxI")
_ANY_COOKIE = b"\xff" * 8
_EVERY_STATE = 0xFFFFFFFF
_TCP_LISTEN = 10
#: In ``struct inet_diag_msg``: after four bytes, the socket's id (48) and three numbers.
_TAIL = struct.Struct("=II")
_TAIL_AT = 4 + 48 + 12

_PROC = Path("/proc")

MOST_FILES = 4096
"""Descriptors of one process that are looked at, lowest first, as the kernel lists them."""


@dataclass(frozen=True)
class Owner:
    """Whose a socket is. ``inode`` is 0 where no process has it (yet)."""

    uid: int
    inode: int
    listens: bool = False


def is_here(address: IPAddress) -> bool:
    """Return whether an address is this machine's own: the kernel lets its sockets bind to it."""
    if address.is_loopback:
        return True
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.bind((str(address), 0))
    except OSError:
        return False
    return not address.is_unspecified


def peer_of(connection: socket.socket) -> Owner | None:
    """Return who has the other end of a connected TCP socket; None if not on this machine.

    A connection that waits to be accepted belongs to the one who listens for it.
    """
    try:
        mine, theirs = connection.getsockname(), connection.getpeername()
    except OSError:
        return None
    found = owner_of(theirs[0], theirs[1], mine[0], mine[1])
    if found is None or found.inode:
        return found
    return listener_of(theirs[0], theirs[1])


def listener_of(host: str, port: int) -> Owner | None:
    """Return who listens on an address of this machine; None when nobody does."""
    found = owner_of(host, port, "::" if ":" in host else "0.0.0.0", 0)  # noqa: S104
    return found if found is not None and found.listens else None


def owner_of(host: str, port: int, far_host: str, far_port: int) -> Owner | None:
    """Return whose TCP socket at ``host:port`` is connected to ``far_host:far_port``.

    Where there is none, it is the one that would accept such a connection.
    """
    here, there = _address(host), _address(far_host)
    if here.version != there.version:
        return None
    try:
        return _ask_kernel(here, port, there, far_port)
    except OSError:
        return _look_up(here, port, there, far_port)


def holders(inode: int, pids: Collection[int] | None = None) -> frozenset[int]:
    """Return the processes that have a socket open, as far as this process may look into them.

    ``pids`` limits the search. Of each process only the first :data:`MOST_FILES` descriptors are
    looked at, so that nobody makes the search long; a server's are among them.
    """
    wanted = f"socket:[{inode}]"
    found = set()
    for pid in _pids() if pids is None else pids:
        try:
            with os.scandir(_PROC / str(pid) / "fd") as descriptors:
                for each in islice(descriptors, MOST_FILES):
                    if os.readlink(each.path) == wanted:
                        found.add(pid)
                        break
        except OSError:
            continue  # it ended, closed the file just now, or is not ours to look into
    return frozenset(found)


def _pids() -> Iterator[int]:
    return (int(name) for name in os.listdir(_PROC) if name.isdigit())


def _address(host: str) -> IPAddress:
    address = ipaddress.ip_address(host.partition("%")[0])
    # What connects to a socket for both families by IPv4 stands in the kernel's IPv4 tables.
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _ask_kernel(here: IPAddress, port: int, there: IPAddress, far_port: int) -> Owner | None:
    """Ask about one socket. Raises :exc:`OSError` where the kernel does not let this process."""
    family = socket.AF_INET if here.version == 4 else socket.AF_INET6
    request = _REQUEST.pack(family, socket.IPPROTO_TCP, 0, _EVERY_STATE)
    request += struct.pack("!HH", port, far_port)
    request += here.packed.ljust(16, b"\0") + there.packed.ljust(16, b"\0")
    request += struct.pack("=I", 0) + _ANY_COOKIE
    message = _HEADER.pack(_HEADER.size + len(request), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as netlink:
        netlink.settimeout(1.0)
        netlink.sendto(message + request, (0, 0))
        answer = netlink.recv(8192)
    _, kind, _, _, _ = _HEADER.unpack_from(answer)
    if kind == _NLMSG_ERROR:
        (code,) = struct.unpack_from("=i", answer, _HEADER.size)
        if -code == _ENOENT:
            return None
        raise OSError(-code, os.strerror(-code))
    uid, inode = _TAIL.unpack_from(answer, _HEADER.size + _TAIL_AT)
    return Owner(uid, inode, answer[_HEADER.size + 1] == _TCP_LISTEN)


def _look_up(here: IPAddress, port: int, there: IPAddress, far_port: int) -> Owner | None:
    """Look in the lists of ``/proc``; slow where there are many sockets."""
    listening = None
    for name in ("tcp", "tcp6"):
        for line in _lines(_PROC / "net" / name):
            fields = line.split()
            local, local_port = _end(fields[1])
            remote, remote_port = _end(fields[2])
            if local_port != port:
                continue
            owner = Owner(int(fields[7]), int(fields[9]), int(fields[3], 16) == _TCP_LISTEN)
            if owner.listens:
                if local == here or local.is_unspecified:
                    listening = owner
            elif (local, remote, remote_port) == (here, there, far_port):
                return owner
    return listening


def _lines(path: Path) -> Iterator[str]:
    """Yield the lines below a list's head: a user may have a hundred thousand sockets."""
    try:
        with path.open() as file:
            next(file, "")
            yield from file
    except OSError:
        return


def _end(text: str) -> tuple[IPAddress, int]:
    """Return address and port of an end such as ``0100007F:1F90``.

    The address is words of four bytes in the machine's order.
    """
    digits, _, port = text.partition(":")
    words = [int(digits[at : at + 8], 16) for at in range(0, len(digits), 8)]
    packed = b"".join(struct.pack("=I", word) for word in words)
    return _address(str(ipaddress.ip_address(packed))), int(port, 16)
