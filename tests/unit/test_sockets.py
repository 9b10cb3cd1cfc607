"""Whose a socket is, by real sockets of several users."""

from __future__ import annotations

import ipaddress
import os
import socket
from pathlib import Path

import pytest

from jupyterhub_migspawner import sockets
from tests.unit.strangers import STRANGER, as_stranger, needs_root

CONNECT = """
import socket, sys
peer = socket.create_connection((sys.argv[1], int(sys.argv[2])))
print("connected", flush=True)
sys.stdin.read()
"""

LISTEN = """
import socket, sys
listening = socket.create_server((sys.argv[1], 0))
print(listening.getsockname()[1], flush=True)
sys.stdin.read()
"""


def inode(of: socket.socket) -> int:
    return os.fstat(of.fileno()).st_ino


@pytest.fixture(params=["kernel", "proc"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to know it: asking the kernel, and where that is forbidden its lists."""
    if request.param == "proc":

        def forbidden(*_: object) -> None:
            raise PermissionError

        monkeypatch.setattr(sockets, "_ask_kernel", forbidden)
    return str(request.param)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.0.1", "::1"])
def test_both_ends_of_a_connection_are_known(way: str, host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as listening:
        port = listening.getsockname()[1]
        with socket.create_connection((host, port)) as near:
            # Not accepted yet: it is the listener's.
            waiting = sockets.peer_of(near)
            assert waiting == sockets.Owner(os.geteuid(), inode(listening), listens=True)
            far, _ = listening.accept()
            with far:
                assert sockets.peer_of(near) == sockets.Owner(os.geteuid(), inode(far))
                assert sockets.peer_of(far) == sockets.Owner(os.geteuid(), inode(near))
        assert sockets.holders(inode(listening)) == {os.getpid()}


def test_a_socket_for_both_families_is_found_by_ipv4(way: str) -> None:
    with (
        socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as listening,
        socket.create_connection(("127.0.0.1", listening.getsockname()[1])) as near,
    ):
        far, _ = listening.accept()
        with far:
            assert sockets.peer_of(near) == sockets.Owner(os.geteuid(), inode(far))
            assert sockets.peer_of(far) == sockets.Owner(os.geteuid(), inode(near))


def test_where_nobody_listens_there_is_no_owner(way: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        assert sockets.listener_of("127.0.0.1", port) is not None
        # It listens at this address and no other.
        assert sockets.listener_of("127.0.0.2", port) is None
    assert sockets.listener_of("127.0.0.1", port) is None


@needs_root
def test_another_users_client_and_server_are_told_apart(way: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        with as_stranger(CONNECT, "127.0.0.1", str(port)) as stranger:
            assert stranger.stdout is not None
            stranger.stdout.readline()
            far, _ = listening.accept()
            with far:
                owner = sockets.peer_of(far)
                assert owner is not None
                assert owner.uid == STRANGER
                assert sockets.holders(owner.inode) == {stranger.pid}
    with as_stranger(LISTEN, "127.0.0.1") as stranger:
        assert stranger.stdout is not None
        port = int(stranger.stdout.readline())
        found = sockets.listener_of("127.0.0.1", port)
        assert found is not None
        assert (found.uid, found.listens) == (STRANGER, True)
        with socket.create_connection(("127.0.0.1", port)) as near:
            peer = sockets.peer_of(near)
            assert peer is not None
            assert peer.uid == STRANGER


def test_this_machines_addresses_are_known() -> None:
    here = ["127.0.0.1", "127.3.2.1", "::1"]
    assert all(sockets.is_here(ipaddress.ip_address(each)) for each in here)
    # TEST-NET-1 and documentation addresses belong to no machine (RFC 5737, RFC 3849).
    elsewhere = ["192.0.2.1", "2001:db8::1", "0.0.0.0"]
    assert not any(sockets.is_here(ipaddress.ip_address(each)) for each in elsewhere)


def test_a_process_with_very_many_files_makes_no_search_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked, readlink = [], os.readlink

    def count(path: str) -> str:
        looked.append(path)
        return readlink(path)

    monkeypatch.setattr(os, "readlink", count)
    monkeypatch.setattr(sockets, "MOST_FILES", 5)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        copies = [os.dup(listening.fileno()) for _ in range(20)]
        assert sockets.holders(0, [os.getpid()]) == frozenset()
        assert len(looked) == 5
        for each in copies:
            os.close(each)


def test_holders_are_looked_for_among_the_named_processes_only(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        assert sockets.holders(inode(listening), [os.getpid()]) == {os.getpid()}
        assert sockets.holders(inode(listening), []) == frozenset()
