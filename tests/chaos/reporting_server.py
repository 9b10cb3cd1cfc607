"""A single-user server that uses its slice and writes down, by itself, what it was given.

It believes its environment alone. One line of JSON each: ``start``, ``end``; ``taken`` when another
process holds the same slice, ``missing`` when the machine has no such slice, ``torn`` when its
environment names two. The kernel is the witness: each slice has a file that each user of it locks
(flock(2)), and the lock lives exactly as long as the processes do. They are reported to the driver
too. Each leaves a process behind that outlives it for a moment; and, whenever it gets SIGUSR1, one
that carries no mark, descends from nobody, listens to nothing and stays on the slice.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import sys
import time
from pathlib import Path

from jupyterhub_migspawner.errors import GpuError
from jupyterhub_migspawner.gpu.simulator import add_process
from jupyterhub_migspawner.gpu.simulator.processes import start_time

ANSWER = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: application/json\r\n"
    b"X-JupyterHub-Version: 0\r\nConnection: close\r\n\r\n{}"
)
REPORTS = Path(os.environ["CHAOS_REPORTS"])
MACHINE = os.environ["CHAOS_MACHINE"]
SLICE = os.environ["CUDA_VISIBLE_DEVICES"]

# Ends by itself, at the latest when nobody looks any more.
HIDDEN = """
import signal, time
for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
time.sleep(300)
"""

# The server's own, also in what it leaves behind: one file for both.
PID = os.getpid()
STARTED = start_time(PID)


def say(event: str) -> None:
    line = {
        "event": event,
        "user": os.environ["JUPYTERHUB_USER"],
        "attempt": os.environ["MIGSPAWNER_ATTEMPT"],
        "slice": SLICE,
        "pid": PID,
        "started": STARTED,
        "at": time.monotonic(),
    }
    with (REPORTS / f"{PID}-{STARTED}.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")


def use_slice() -> None:
    """Be on the slice, as the kernel and the driver see it, from now to the end."""
    named = {os.environ[name] for name in ("NVIDIA_VISIBLE_DEVICES", "MIGSPAWNER_SLICE_UUID")}
    if named != {SLICE}:
        say("torn")
    # Never closed: its end is the end of the last process that has it.
    lock = os.open(REPORTS / f"{SLICE}.lock", os.O_RDWR | os.O_CREAT)
    os.set_inheritable(lock, True)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        say("taken")
    tell_driver()


def tell_driver() -> None:
    try:
        add_process(MACHINE, SLICE, os.getpid(), 1000)
    except GpuError:
        say("missing")


def leave_behind(seconds: float) -> None:
    """A process that runs on after the server, for a while."""
    if os.fork():
        return
    tell_driver()
    while os.getppid() == PID:
        time.sleep(0.05)
    time.sleep(seconds)
    os._exit(0)


def hide(number: int, frame: object) -> None:
    """What a program does that is started by ``env -i setsid`` in the background."""
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    tell_driver()
    os.execve(sys.executable, [sys.executable, "-S", "-E", "-c", HIDDEN], {})


def end(number: int, frame: object) -> None:
    say("end")
    os._exit(0)


def serve() -> None:
    host, port = os.environ["JUPYTERHUB_SERVICE_URL"].split("/")[2].rsplit(":", 1)
    server = socket.socket()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind((host, int(port)))
    server.listen(64)
    while True:
        connection, _ = server.accept()
        with connection:
            connection.settimeout(5)
            try:
                connection.recv(65536)
                connection.sendall(ANSWER)
            except OSError:
                continue  # the client was killed


signal.signal(signal.SIGUSR1, hide)
say("start")
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, end)
use_slice()
leave_behind(1.0)
serve()
