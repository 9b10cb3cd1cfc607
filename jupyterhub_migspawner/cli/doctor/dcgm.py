"""The doctor's look at this node's dcgm-exporter, where one is set up to report slices."""

from __future__ import annotations

from collections.abc import Iterator

from jupyterhub_migspawner.cli.doctor.findings import OK, WRONG, Finding
from jupyterhub_migspawner.errors import GpuError
from jupyterhub_migspawner.gpu import dcgm
from jupyterhub_migspawner.gpu.nvml import Nvml
from jupyterhub_migspawner.policy.wording import plural

_UNKNOWN = "Without it, the use of sessions is unknown, and no idle session ends."


def check(url: str, nvml: Nvml) -> Iterator[Finding]:
    """Check the exporter; find nothing where none is set up, or there are no cards."""
    if not url:
        return
    try:
        cards = nvml.inventory().cards
    except GpuError:
        return  # already reported
    try:
        figures = dcgm.ask(url)
    except GpuError as error:
        yield Finding(
            "dcgm", WRONG, str(error), f"Start it, or correct c.MigBroker.dcgm_url. {_UNKNOWN}"
        )
        return
    slices = [
        (card.uuid, each.gi_id)
        for card in cards
        for each in card.instances
        if each.uuid and not _measures(nvml, each.uuid)
    ]
    missing = sum(each not in figures for each in slices)
    if missing:
        yield Finding(
            "dcgm",
            WRONG,
            f"The dcgm-exporter at {dcgm.shown(url)} reports nothing about "
            f"{plural(missing, 'slice')} of {len(slices)}.",
            f"Configure it to export {dcgm.METRIC} for every GPU instance. {_UNKNOWN}",
        )
    else:
        status = f"reports {plural(len(slices), 'slice')}" if slices else "is there"
        yield Finding("dcgm", OK, f"The dcgm-exporter at {dcgm.shown(url)} {status}.")


def _measures(nvml: Nvml, uuid: str) -> bool:
    """Return whether NVML itself reports the use of a slice: the exporter is not asked then."""
    try:
        nvml.utilisation(uuid)
    except GpuError:
        return False
    return True
