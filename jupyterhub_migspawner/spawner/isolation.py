"""What keeps a server off other slices: decided, stored and prepared before the launch.

Relies on the launcher, which knows what it can do, and on the broker for the numbers of the slice's
device nodes. Promises that the lease says what is in force before anything runs on it, that no
server runs without isolation unless the log says so, and that the device nodes exist by then: the
driver makes none itself, and ``nvidia-modprobe`` (set-uid) does not work inside a wall.
"""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Sequence
from pathlib import Path

from jupyterhub_migspawner.broker import Broker
from jupyterhub_migspawner.errors import LaunchError, Refusal
from jupyterhub_migspawner.gpu.devices import (
    DeviceNode,
    capabilities_major,
    card_nodes,
    creation_command,
    missing_nodes,
    slice_nodes,
)
from jupyterhub_migspawner.model.leases import LeaseRow
from jupyterhub_migspawner.model.slices import SliceDevice
from jupyterhub_migspawner.policy.isolation import NONE
from jupyterhub_migspawner.spawner.options import TierChoice

#: Seconds that the driver's own tool may take to make a device node.
_CREATION_SECONDS = 10.0

_CARDS_MAJOR = 195


class Isolation(TierChoice):
    """The part of the spawner between the lease and the launch."""

    #: Whether servers run on the hub's machine, so that only its own slices are of use to them.
    mig_starts_here = False

    # Of one start only: ``clear_state`` runs before each.
    _mig_isolation = ""
    # Whether the server gets a /dev of its own, also where that does not isolate it.
    _mig_walled = False
    _mig_nodes: tuple[DeviceNode, ...] = ()

    def _mig_choose_isolation(self) -> str:
        """Return what will keep this server off other slices, one of ``policy.isolation.KINDS``.

        Runs in a thread. A launcher that returns ``none`` logs why. Raises :exc:`.LaunchError` when
        the server must not run without an isolation that is not to be had.
        """
        self.log.warning(
            "The server of %s is not isolated: %s has no means to keep it off other slices.",
            self._log_name,
            type(self).__name__,
        )
        return NONE

    def _mig_isolation_off(self) -> str:
        """Log that the configuration wants no isolation; return ``none``."""
        self.log.warning(
            "The server of %s is not isolated, as %s.isolation is 'none': it can open the slices "
            "of others.",
            self._log_name,
            type(self).__name__,
        )
        return NONE

    def _mig_isolation_missing(self, demanded: str, why: str, mend: str) -> str:
        """Return ``none``, and log why, where there is no isolation and none has to be.

        ``demanded`` is the trait ``isolation``. Raises :exc:`.LaunchError` where it demands one.
        """
        if demanded != "auto":
            raise LaunchError(
                f"{why} {type(self).__name__}.isolation is {demanded!r}, so no server starts "
                f"without it. {mend}"
            )
        self.log.warning(
            "The server of %s is not isolated: it can open the slices of others. %s %s",
            self._log_name,
            why,
            mend,
        )
        return NONE

    async def _mig_isolate(self, lease: LeaseRow | None, attempt: str) -> None:
        """Decide on the isolation of this start, store it, and have the slice's nodes made.

        ``lease`` is None for a server without a GPU. Raises
        :exc:`~jupyterhub_migspawner.errors.MigspawnerError`.
        """
        simulated = self.mig_config.simulated

        def prepare(broker: Broker) -> tuple[str, tuple[DeviceNode, ...]]:
            isolation = self._mig_choose_isolation()
            if lease is None:
                return isolation, ()
            self._mig_demand_own_node(lease)
            device = broker.leases.note_launch(attempt, isolation)
            if isolation == NONE and not self._mig_walled:
                return isolation, ()
            return isolation, nodes_of(device, simulated=simulated)

        self._mig_isolation, self._mig_nodes = await self._mig_call(prepare)

    def _mig_demand_own_node(self, lease: LeaseRow) -> None:
        """Raise an error where this machine's devices are not those of the lease's slice."""
        if self.mig_starts_here and lease.node != self.mig_config.node:
            raise LaunchError(
                f"The slice of {self._log_name} is on node {lease.node}, and its server would run "
                f"on this machine, {self.mig_config.node}. Set c.MigBroker.only_node to the name "
                "of this machine in the lease database."
            )

    def clear_state(self) -> None:
        """Forget the isolation of the last start."""
        super().clear_state()
        self._mig_isolation, self._mig_nodes = "", ()


def nodes_of(
    device: SliceDevice | None, *, simulated: bool = False, root: Path = Path("/")
) -> tuple[DeviceNode, ...]:
    """Return the device nodes of a slice that exist, after making those that did not.

    Simulated cards have only the nodes that a test made. ``root`` is where ``dev`` and ``proc``
    lie.

    Raises :exc:`.Refusal` (``conflict``) while the numbers are not known, and :exc:`.LaunchError`
    when a node cannot be made.
    """
    if device is None:
        raise Refusal(
            "The device files of your slice are not known yet. Please start again in a few "
            "seconds.",
            reason="conflict",
        )
    if device.gi_id is None or device.ci_id is None:
        nodes = card_nodes(device.card_minor)
    else:
        nodes = slice_nodes(device.card_minor, device.gi_id, device.ci_id, root=root)
    if not simulated:
        _make(missing_nodes(nodes, root=root))
        _demand(missing_nodes(nodes, root=root))
        if root == Path("/"):
            _demand_numbers(nodes)
    return tuple(node for node in nodes if (root / node.path.lstrip("/")).exists())


def _demand_numbers(nodes: Sequence[DeviceNode]) -> None:
    """Raise an error where a node is not the device that it is named for.

    The driver's numbers may be others after it was loaded again, and the old files stay.
    """
    capabilities = capabilities_major()
    for node in nodes:
        try:
            found = os.stat(node.path)
        except FileNotFoundError:
            continue  # an optional one
        if not is_device(node, found.st_mode, found.st_rdev, capabilities):
            raise LaunchError(
                f"{node.path} is not the device that it is named for. Remove it, and run "
                f"'{' '.join(creation_command(node))}' as root on this machine."
            )


def is_device(node: DeviceNode, mode: int, device: int, capabilities: int | None) -> bool:
    """Tell whether a file has the type and the numbers that a node's name says.

    ``mode`` and ``device`` are as :func:`os.stat` gives them, ``capabilities`` is the major number
    of capability nodes now, None where it is not known. Cards have major 195 (devices.txt of the
    kernel); the majors of other nodes are the kernel's choice.
    """
    if not stat.S_ISCHR(mode):
        return False
    name = node.path.rpartition("/")[2].removeprefix("nvidia")
    if node.capability is not None:
        known = capabilities is None or os.major(device) == capabilities
        return known and os.minor(device) == int(name.removeprefix("-cap"))
    if name.isdigit():
        return (os.major(device), os.minor(device)) == (_CARDS_MAJOR, int(name))
    return True


def _make(missing: Sequence[DeviceNode]) -> None:
    """Have the driver's tool make device nodes; whether they exist then is another question."""
    for node in missing:
        try:
            subprocess.run(
                creation_command(node),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=_CREATION_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            continue


def _demand(missing: Sequence[DeviceNode]) -> None:
    if missing:
        command = " ".join(creation_command(missing[0]))
        raise LaunchError(
            f"The device file {missing[0].path} does not exist and could not be created, so a "
            f"server cannot use its slice. Run '{command}' as root on this machine; the command "
            "comes with NVIDIA's driver."
        )
