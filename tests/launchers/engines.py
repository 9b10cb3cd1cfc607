"""A container engine for tests: a Docker daemon of its own, and a /dev with device nodes of cards.

Both are in a mount namespace that the test makes, and so is the hub: the machine's own /dev stays
as it is. The nodes have major numbers without a driver, so that opening one that is allowed fails
with ENXIO and one that is not with EPERM.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import docker
from docker.models.containers import Container

ROOT = Path(__file__).parents[2]
IMAGE = "migspawner-test:1"
NOBODY = "65534:65534"

#: No driver of the kernel has these.
CARDS, CAPABILITIES, MEMORY = 195, 511, 510

#: Seconds; it only ends a test that has failed.
PATIENCE = 120.0

_DEV = """
set -e
mkdir {dev}
mount -t tmpfs -o mode=755 dev {dev}
cp -a /dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty /dev/ptmx {dev}/
ln -s /proc/self/fd {dev}/fd
mkdir {dev}/pts {dev}/shm {dev}/nvidia-caps
mount --rbind /dev/pts {dev}/pts
mount --rbind /dev/shm {dev}/shm
mount --move {dev} /dev
exec {python} -c '{nodes}' {ready}
"""
_NODES = """
import os, signal, stat, sys
def node(path, major, minor, mode):
    os.mknod(path, stat.S_IFCHR, os.makedev(major, minor))
    os.chmod(path, mode)
node("/dev/nvidiactl", 195, 255, 0o666)
node("/dev/nvidia-modeset", 195, 254, 0o666)
node("/dev/nvidia-uvm", 510, 0, 0o666)
node("/dev/nvidia-uvm-tools", 510, 1, 0o666)
for card in range(2):
    node("/dev/nvidia%d" % card, 195, card, 0o666)
for number in range(1, 273):
    node("/dev/nvidia-caps/nvidia-cap%d" % number, 511, number, 0o444)
open(sys.argv[1], "w").close()
signal.pause()
"""


class Engine:
    """A Docker daemon with the image of the tests."""

    def __init__(self, folder: Path, inside: tuple[str, ...]) -> None:
        self.folder = folder
        #: What a program is started with to see the same /dev as the daemon.
        self.inside = inside
        self.url = f"unix://{folder}/docker.sock"
        #: Where it looks for CDI specifications, if it does.
        self.specifications = folder / "cdi"
        self.specifications.mkdir()
        self.process: subprocess.Popen[bytes] | None = None
        self.client = docker.DockerClient.__new__(docker.DockerClient)

    def start(self) -> None:
        """Start the daemon, and wait until it answers."""
        settings = self.folder / "daemon.json"
        settings.write_text(json.dumps(self._settings()))
        with (self.folder / "dockerd.log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *self.inside,
                    "dockerd",
                    *("--config-file", str(settings)),
                    *("--data-root", str(self.folder / "data")),
                    *("--exec-root", str(self.folder / "exec")),
                    *("--pidfile", str(self.folder / "docker.pid")),
                    *("--host", self.url),
                    *("--storage-driver", "vfs", "--bridge", "none"),
                    *("--iptables=false", "--ip6tables=false", "--ip-forward=false"),
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        give_up = time.monotonic() + PATIENCE
        while True:
            assert self.process.poll() is None, self.log()
            assert time.monotonic() < give_up, self.log()
            try:
                self.client = docker.DockerClient(base_url=self.url, timeout=60)
                self.client.ping()
                return
            except (docker.errors.DockerException, OSError):
                time.sleep(0.1)

    def _settings(self) -> dict[str, Any]:
        if not self.knows_cdi():
            return {}
        return {"features": {"cdi": True}, "cdi-spec-dirs": [str(self.specifications)]}

    def knows_cdi(self) -> bool:
        """Whether this machine's Docker has CDI: from 25 on, which Debian 12's is not."""
        said = subprocess.run(
            [*self.inside, "dockerd", "--version"], capture_output=True, text=True, check=True
        ).stdout
        return int(said.partition("version ")[2].partition(".")[0]) >= 25

    def stop(self) -> None:
        """End the daemon; its containers end with it."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(PATIENCE)

    def log(self) -> str:
        return (self.folder / "dockerd.log").read_text(errors="replace")[-4000:]

    def load_image(self) -> None:
        """Make an image without a network: a frame into which the machine's /usr is mounted."""
        frame = io.BytesIO()
        with tarfile.open(fileobj=frame, mode="w") as tar:
            for name in ("etc", "proc", "sys", "dev", "usr", "tmp", "sbin"):
                entry = tarfile.TarInfo(name)
                entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
                tar.addfile(entry)
            for name in ("bin", "lib", "lib64"):
                if os.path.islink(f"/{name}"):
                    entry = tarfile.TarInfo(name)
                    entry.type, entry.linkname = tarfile.SYMTYPE, os.readlink(f"/{name}")
                    tar.addfile(entry)
            passwd = b"root:x:0:0::/tmp:/bin/sh\nnobody:x:65534:65534::/tmp:/bin/sh\n"
            entry = tarfile.TarInfo("etc/passwd")
            entry.size = len(passwd)
            tar.addfile(entry, io.BytesIO(passwd))
        repository, tag = IMAGE.split(":")
        self.client.api.import_image_from_data(frame.getvalue(), repository=repository, tag=tag)

    def containers(self) -> list[Container]:
        """The containers there are, those that have ended as well."""
        return self.client.containers.list(all=True, ignore_removed=True)

    def remove_all(self) -> None:
        for each in self.containers():
            try:
                each.remove(force=True, v=True)
            except docker.errors.APIError:
                continue  # it removes itself

    def run_in(self, container: Container, *command: str, user: str = "0") -> tuple[int, str]:
        """Run a command in a container, as root unless said otherwise: status and output."""
        done = container.exec_run(list(command), user=user)
        return done.exit_code, done.output.decode(errors="replace")


def read_only_volumes() -> dict[str, str]:
    """What a container needs of this machine to run the tests' Python."""
    paths = {
        "/usr",
        sys.prefix,
        sys.base_prefix,
        str(ROOT / "tests"),
        str(ROOT / "jupyterhub_migspawner"),
    }
    paths = {p for p in paths if p == "/usr" or not p.startswith("/usr/")}
    return {path: path for path in sorted(paths)} | {"/etc/ld.so.cache": "/etc/ld.so.cache"}


@contextmanager
def engine_with_cards() -> Iterator[Engine]:
    """A daemon, in a mount namespace whose /dev has the nodes of two cards."""
    folder = Path(tempfile.mkdtemp(prefix="mig-"))  # short: a socket's path has 107 characters
    ready = folder / "ready"
    script = _DEV.format(dev=folder / "dev", python=sys.executable, nodes=_NODES, ready=ready)
    with (folder / "namespace.log").open("wb") as log:
        keeper = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", script],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    engine = Engine(folder, ("nsenter", f"--mount=/proc/{keeper.pid}/ns/mnt", "--wd=.", "--"))
    try:
        give_up = time.monotonic() + PATIENCE
        while not ready.exists():
            assert keeper.poll() is None, (folder / "namespace.log").read_text()
            assert time.monotonic() < give_up
            time.sleep(0.02)
        try:
            engine.start()
            engine.load_image()
            yield engine
            engine.remove_all()
        finally:
            engine.stop()
    finally:
        keeper.kill()
        keeper.wait(PATIENCE)
        shutil.rmtree(folder, ignore_errors=True)


def settings(engine: Engine, **more: Any) -> str:
    """What a hub's file has for servers in containers of this engine."""
    return "\n".join(
        [
            'c.JupyterHub.spawner_class = "mig-docker"',
            *_traits("MigDockerSpawner", engine, more),
            "import jupyterhub_migspawner.spawner.launchers.docker as launcher",
            "launcher.random_port = jupyterhub.spawner.random_port",
        ]
    )


def plain_settings(engine: Engine, **more: Any) -> str:
    """The same for the base spawner, in the machine's own network as its documentation says."""
    return "\n".join([PLAIN, *_traits("Plain", engine, {"remove": True, **more})])


PLAIN = """
from dockerspawner import DockerSpawner
from jupyterhub.utils import random_port

class Plain(DockerSpawner):
    async def start(self):
        self.port = random_port()
        self.ip = "127.0.0.1"
        return await super().start()

    async def get_ip_and_port(self):
        return self.ip, self.port

c.JupyterHub.spawner_class = Plain
c.Plain.use_internal_ip = True
"""


def _traits(name: str, engine: Engine, more: dict[str, Any]) -> list[str]:
    values: dict[str, Any] = {
        "image": IMAGE,
        "pull_policy": "never",
        "network_name": "host",
        "client_kwargs": {"base_url": engine.url},
        "read_only_volumes": read_only_volumes(),
        "extra_create_kwargs": {"user": NOBODY},
        **more,
    }
    return [f"c.{name}.{trait} = {value!r}" for trait, value in values.items()]
