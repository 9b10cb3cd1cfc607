"""A server that tries to open slices that are not its own, and says what it could do.

Answers any request with 200. The query ``attack`` carries the targets as JSON, and the answer what
came of each attempt: a list of what could be opened. It uses the standard library only.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import socket
import stat
import subprocess
import sys
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

_PTRACE_ATTACH, _PTRACE_DETACH = 16, 17  # sys/ptrace.h
_PIDFD_OPEN, _PIDFD_GETFD = 434, 438  # asm-generic/unistd.h
_libc = ctypes.CDLL(None, use_errno=True)


def reaches(path: str) -> bool:
    """Whether this process may open a device: it can, or only its driver is missing."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK))
    except OSError as error:
        return error.errno in (errno.ENXIO, errno.ENODEV)
    return True


def visible() -> list[str]:
    """All of NVIDIA's devices in ``/dev`` that can be opened."""
    found = [path for path in Path("/dev").rglob("nvidia*") if not path.is_dir()]
    return sorted(str(path) for path in found if reaches(str(path)))


def by_mknod(numbers: list[list[int]], folders: list[str]) -> list[str]:
    """Nodes that could be made and opened."""
    found = []
    for folder in folders:
        for major, minor in numbers:
            path = f"{folder}/made-{os.getpid()}-{minor}"
            with suppress(OSError):
                os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(major, minor))
            if reaches(path):
                found.append(path)
            with suppress(OSError):
                os.unlink(path)
    return found


def by_proc(targets: list[str]) -> list[str]:
    """Ways through other processes: their root folder, their descriptors."""
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        found += [f"{entry}{path}" for path in targets if reaches(f"/proc/{entry}/root{path}")]
        with suppress(OSError):
            for fd in os.listdir(f"/proc/{entry}/fd"):
                with suppress(OSError):
                    os.close(os.open(f"/proc/{entry}/fd/{fd}", os.O_RDONLY | os.O_NONBLOCK))
                    found.append(f"{entry} fd {fd}")
    return found


def by_debugger(pids: list[int]) -> list[str]:
    """Processes that could be taken over, or whose descriptors could be fetched."""
    found = []
    for pid in pids:
        if _libc.ptrace(_PTRACE_ATTACH, pid, None, None) == 0:
            _libc.ptrace(_PTRACE_DETACH, pid, None, None)
            found.append(f"ptrace {pid}")
        handle = _libc.syscall(_PIDFD_OPEN, pid, 0)
        if handle >= 0:
            if _libc.syscall(_PIDFD_GETFD, handle, 77, 0) >= 0:
                found.append(f"descriptor of {pid}")
            os.close(handle)
    return found


def by_namespace(pids: list[int], targets: list[str]) -> list[str]:
    """Namespaces that could be entered or made, in which a target can be opened."""
    check = [sys.executable, "-S", "-E", os.path.abspath(__file__), *targets]
    programs = [
        ["nsenter", "--target", str(pid), *which, "--", *check]
        for pid in pids
        for which in (["--mount"], ["--user", "--preserve-credentials", "--mount"])
    ]
    for undo in (
        "umount /dev",
        "umount -l /dev",
        "mount -t devtmpfs none /dev",
        "mount -o remount,bind,dev /",
        "true",
    ):
        program = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
        programs.append([*program, f'{undo}; exec "$@"', "sh", *check])
    found = []
    for program in programs:
        done = subprocess.run(program, capture_output=True, text=True, timeout=60, check=False)
        if "reached" in done.stdout:
            found.append(" ".join([*program[:6], done.stdout.strip()]))
    return found


def by_socket(paths: list[str]) -> list[str]:
    """Sockets of the user's own services that answer."""
    found = []
    for path in paths:
        with suppress(OSError), socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
            found.append(path)
    return found


def attack(given: dict[str, list]) -> dict[str, list[str]]:
    """Try everything."""
    targets, pids = given["targets"], given["pids"]
    return {
        "visible": visible(),
        "path": [path for path in [*targets, *given["copies"]] if reaches(path)],
        "mknod": by_mknod(given["numbers"], given["folders"]),
        "proc": by_proc(targets),
        "debugger": by_debugger(pids),
        "namespace": by_namespace(pids, [*targets, *given["copies"]]),
        "socket": by_socket(given["sockets"]),
    }


def leave_behind() -> int:
    """Start a process that outlives this server; return its pid."""
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.setsid()
        pid = os.fork()
        if pid:
            os.write(writer, str(pid).encode())
            os._exit(0)
        os.dup2(os.open(__file__, os.O_RDONLY), 77)
        os.execv("/bin/sleep", ["sleep", "600"])
    os.close(writer)
    pid = int(os.read(reader, 20))
    os.close(reader)
    os.wait()
    return pid


class Handler(BaseHTTPRequestHandler):
    """One request."""

    def do_GET(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        answer: object = {}
        if "attack" in query:
            answer = attack(json.loads(query["attack"][0]))
        elif "leave" in query:
            answer = leave_behind()
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("X-JupyterHub-Version", os.environ.get("TINY_VERSION", "0"))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words: object) -> None:
        """Keep silent."""


if __name__ == "__main__":
    if len(sys.argv) > 1 and all(each.startswith("/") for each in sys.argv[1:]):
        print([f"reached {path}" for path in sys.argv[1:] if reaches(path)])
    else:
        host, port = os.environ["JUPYTERHUB_SERVICE_URL"].split("/")[2].rsplit(":", 1)
        HTTPServer((host, int(port)), Handler).serve_forever()
