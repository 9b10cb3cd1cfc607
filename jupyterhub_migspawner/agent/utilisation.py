"""How much the slices of sessions are used: NVML where it can tell, else DCGM where it is set up.

Promises that a figure that ought to be there and is not is reported as missing: then nobody knows
whether the session is in use. Where neither can tell, there is no such source, and the processes'
CPU time is what counts.
"""

from __future__ import annotations

import logging

from jupyterhub_migspawner.broker import Broker
from jupyterhub_migspawner.broker.readings import Answer
from jupyterhub_migspawner.errors import GpuError
from jupyterhub_migspawner.gpu.dcgm import METRIC, Exporter, Figures
from jupyterhub_migspawner.gpu.nvml import Nvml
from jupyterhub_migspawner.gpu.utilisation import UNMEASURED
from jupyterhub_migspawner.model.codes import Code
from jupyterhub_migspawner.model.leases import LeaseRow
from jupyterhub_migspawner.policy.reclaim import USE

log = logging.getLogger("migspawner.agent")

IN_USE = 1.0
"""Per cent of the time in which a slice's engine works, from which on it is in use. An idle one
has 0, whatever memory is held on it."""


class Meter:
    """The meter of one node's slices: :meth:`begin` a round, then ask for each lease."""

    def __init__(self, broker: Broker, nvml: Nvml, *, node: str) -> None:
        self._broker = broker
        self._nvml = nvml
        self._node = node
        url = broker.settings.dcgm_url
        self._exporter = Exporter(url) if url else None
        self._figures: Figures | None = None
        self._problem = ""
        self._gi_ids: dict[str, int | None] = {}
        self._absent: set[int] = set()
        self._hidden = False

    def begin(self) -> None:
        """Take what DCGM said last.

        Raises :exc:`.DatabaseError`.
        """
        if self._exporter is None:
            return
        self._figures, self._problem = None, ""
        try:
            self._figures = self._exporter.look()
        except GpuError as error:
            self._problem = str(error)
        rows = [status.row for status in self._broker.slices.find(self._node)]
        self._gi_ids = {row.uuid: row.gi_id for row in rows if row.uuid is not None}

    def answer(self, lease: LeaseRow, counts: bool, *, foreign: bool = False) -> Answer | None:
        """Return how much the lease's slice is used; None where this round has nothing to report.

        ``counts`` says whether use of the slice is use by this session. While a process of another
        system user is there (``foreign``), nobody can tell, and it is not.
        """
        if lease.slice_uuid is None:
            return None
        try:
            percent = self._percent(lease, lease.slice_uuid)
        except GpuError as error:
            if error.code == Code.NOT_FOUND:
                return None  # the search for its processes says what that means
            if error.code in UNMEASURED:
                return self._no_source(lease, error)
            return Answer(lease.id, USE, problem=str(error))
        if percent is None:
            return None
        self._absent.discard(lease.id)
        busy = counts and not foreign and percent >= IN_USE
        said = f"its engine works {percent:.0f} % of the time"
        if foreign:
            said += ", which does not count while a process of another user is on it"
        return Answer(lease.id, USE, busy=busy, said=said)

    def _percent(self, lease: LeaseRow, slice_uuid: str) -> float | None:
        """Return how much of the time the slice's engine works, in percent; None without an answer.

        Raises :exc:`.GpuError`.
        """
        try:
            return self._nvml.utilisation(slice_uuid)
        except GpuError as error:
            if error.code not in UNMEASURED or self._exporter is None:
                raise
        if self._problem:
            raise GpuError(self._problem)
        return self._of_exporter(lease, slice_uuid, self._exporter.url)

    def _of_exporter(self, lease: LeaseRow, slice_uuid: str, url: str) -> float | None:
        if self._figures is None:
            return None
        if slice_uuid not in self._gi_ids and slice_uuid != lease.card_uuid:
            raise GpuError(f"It is not known which GPU instance slice {slice_uuid} is.")
        gi_id = self._gi_ids.get(slice_uuid)
        percent = self._figures.get((lease.card_uuid, gi_id))
        if percent is None:
            what = "it" if gi_id is None else f"GPU instance {gi_id}"
            raise GpuError(
                f"The dcgm-exporter at {url} does not report how much {what} of card "
                f"{lease.card_uuid} is used; configure it to export {METRIC} for every GPU "
                "instance."
            )
        return percent

    def _no_source(self, lease: LeaseRow, error: GpuError) -> Answer | None:
        """Report once that nothing measures this slice.

        Something did when the agent last ran, perhaps, and would be missed.
        """
        if error.code == Code.NO_PERMISSION and not self._hidden:
            self._hidden = True
            log.warning("The use of slices is not measured: %s", error)
        if lease.id in self._absent:
            return None
        self._absent.add(lease.id)
        return Answer(lease.id, USE, absent=True)
