"""What a person's page says about their quota: values in, words out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from jupyterhub_migspawner.broker.statuses import QuotaStatus
from jupyterhub_migspawner.policy.wording import number
from jupyterhub_migspawner.service.pages.status import Moment, moment

_WORDS = {
    "servers": "Servers at a time",
    "live": "Servers with a GPU at a time",
    "whole_cards": "Whole cards at a time",
    "gpu_hours_per_week": "GPU-hours in 7 days",
    "gpu_hours_per_month": "GPU-hours in 30 days",
}


@dataclass(frozen=True)
class Limit:
    """One limit, in words: ``used`` is empty where nobody knows."""

    field: str
    title: str
    used: str
    limit: str
    frees: Moment | None
    lifted_until: Moment | None
    """When the exception ends that lifts it, the last one if there are several."""


def limits_of(quotas: Iterable[QuotaStatus]) -> tuple[Limit, ...]:
    """Return the limits of one person, in the order in which a start is checked."""
    return tuple(
        Limit(
            field=each.field,
            title=_WORDS[each.field],
            used="" if each.used is None else number(each.used),
            limit=number(each.limit or 0),
            frees=moment(each.frees_at) if each.frees_at else None,
            lifted_until=moment(max(row.until for row in each.exceptions))
            if each.exceptions
            else None,
        )
        for each in quotas
    )
