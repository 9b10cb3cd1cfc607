"""What a program in a server's container tries to get at slices that are not its own.

Run in the container with the paths of all device nodes that there are on the machine; prints as
JSON how each attempt on each node ended: the name of an error, or ``opened``. A node without a
driver that may be opened answers ENXIO.
"""

import ctypes
import errno
import json
import os
import stat
import subprocess
import sys

NUMBERS = {
    path: (int(major), int(minor))
    for path, major, minor in (each.split("=") for each in sys.argv[1:])
}
libc = ctypes.CDLL(None, use_errno=True)


def attempt(path):
    try:
        os.close(os.open(path, os.O_RDWR if "caps" not in path else os.O_RDONLY))
    except OSError as error:
        return errno.errorcode[error.errno]
    return "opened"


def made(path, numbers, folder):
    where = os.path.join(folder, os.path.basename(path) + "-made")
    try:
        os.mknod(where, stat.S_IFCHR | 0o666, os.makedev(*numbers))
    except OSError as error:
        return errno.errorcode[error.errno]
    return attempt(where)


def through_processes(path):
    """Every root directory and descriptor that /proc shows, of every process that can be seen."""
    found = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        found.add(attempt(f"/proc/{pid}/root{path}"))
        try:
            descriptors = os.listdir(f"/proc/{pid}/fd")
        except OSError:
            continue
        for number in descriptors:
            link = f"/proc/{pid}/fd/{number}"
            try:
                if os.stat(link).st_rdev == os.makedev(*NUMBERS[path]):
                    found.add(attempt(link))
            except OSError:
                continue
    return sorted(found)


def others(*command):
    """What this program finds out in other namespaces, or why it does not get there."""
    arguments = [f"{path}={major}={minor}" for path, (major, minor) in NUMBERS.items()]
    done = subprocess.run(
        [*command, sys.executable, "-S", "-E", __file__, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "INNER": "1"},
    )
    if done.returncode:
        return f"failed: {done.stderr.strip().splitlines()[-1][:200] if done.stderr else ''}"
    return json.loads(done.stdout)


def main():
    found = {
        "by path": {path: attempt(path) for path in NUMBERS},
        "by mknod": {path: made(path, numbers, "/tmp") for path, numbers in NUMBERS.items()},
        "by mknod in /dev": {
            path: made(path, numbers, "/dev") for path, numbers in NUMBERS.items()
        },
        "through /proc": {path: through_processes(path) for path in NUMBERS},
    }
    if not os.environ.get("INNER"):
        found["unshare"] = others(
            "unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork"
        )
        found["unshare as root"] = others("unshare", "--mount", "--pid", "--fork")
        found["nsenter"] = others("nsenter", "--target", "1", "--mount", "--pid")
        found["sys_admin"] = libc.mount(b"none", b"/tmp", b"tmpfs", 0, None)
        found["pids"] = sorted(map(int, filter(str.isdigit, os.listdir("/proc"))))
    print(json.dumps(found))


main()
