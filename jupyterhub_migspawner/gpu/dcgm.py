"""How much slices are used, from NVIDIA's dcgm-exporter on the node, where NVML does not know it.

Relies on its page in Prometheus' text format, on which ``DCGM_FI_PROF_GR_ENGINE_ACTIVE`` is the
share of time in which the engine of a card (label ``UUID``), or of one GPU instance of it
(``GPU_I_ID``), worked. Promises that the caller never waits: a page is fetched beside, in a
bounded time and size, and read when the next one is asked for; and that figures from a port of this
machine which a person's process has taken count for nothing.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

from prometheus_client.parser import text_string_to_metric_families
from tornado.httpclient import HTTPRequest

from jupyterhub_migspawner.clients import WrongPeer, checked_client
from jupyterhub_migspawner.errors import GpuError
from jupyterhub_migspawner.sockets import peer_of

METRIC = "DCGM_FI_PROF_GR_ENGINE_ACTIVE"

PATIENCE = 5.0
"""Seconds for the whole page."""

MOST_BYTES = 16 * 1024 * 1024
"""Bytes of a page that are read; one of eight cards in 56 slices has some 500 KiB."""

MOST_AGE = 60.0
"""Seconds since it was asked for, from which on a page says nothing of now."""

FIRST_PERSON = 1000
"""The first uid of people's accounts; services have smaller ones (login.defs(5), ``UID_MIN``)."""

NOBODY = 65534
"""The uid of ``nobody``, as which exporters are often run."""

Figures = Mapping[tuple[str, int | None], float]
"""Per cent of the time, by the card's UUID and the GPU instance's id; None is the whole card."""


class Exporter:
    """The exporter at a URL, asked again and again from one thread.

    ``monotonic`` gives seconds; it is only ever compared with itself.
    """

    def __init__(self, url: str, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.url = url
        self._monotonic = monotonic
        self._asked_at = 0.0
        self._pool: ThreadPoolExecutor | None = None
        self._asked: Future[Figures] | None = None

    def look(self) -> Figures | None:
        """Return what the exporter said when it was asked last, and ask again.

        None while there is no answer yet, or only one of long ago. Raises :exc:`.GpuError` when it
        did not answer, or in no way that can be read.
        """
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, thread_name_prefix="dcgm-exporter")
        before = self._asked
        if before is not None and not before.done():
            return None
        now = self._monotonic()
        old, self._asked_at = now - self._asked_at > MOST_AGE, now
        self._asked = self._pool.submit(ask, self.url)
        return None if before is None or old else before.result()

    def close(self) -> None:
        """Wait for what is under way, and end the thread."""
        if self._pool is not None:
            self._pool.shutdown()
        self._pool, self._asked = None, None


def ask(url: str) -> Figures:
    """Return what the exporter at a URL says now; wait for it.

    Raises :exc:`.GpuError`.
    """
    try:
        page = asyncio.run(_page(url))
    except GpuError:
        raise
    except WrongPeer as error:
        raise GpuError(f"The dcgm-exporter at {url}: {error}.") from error
    except Exception as error:
        # Whatever an untrusted server does to the client, it counts as absent.
        kind = type(error).__name__
        raise GpuError(f"The dcgm-exporter at {shown(url)} does not answer ({kind}).") from error
    try:
        return read(page)
    except GpuError as error:
        raise GpuError(f"The dcgm-exporter at {shown(url)}: {error}") from error


def shown(url: str) -> str:
    """Return the URL as sentences may show it: a query may hold a token."""
    return url.partition("?")[0]


async def _page(url: str) -> str:
    client = checked_client(_check, max_buffer_size=MOST_BYTES, max_body_size=MOST_BYTES)
    request = HTTPRequest(
        url,
        connect_timeout=PATIENCE,
        request_timeout=PATIENCE,
        follow_redirects=False,
        decompress_response=False,
    )
    try:
        response = await asyncio.wait_for(client.fetch(request, raise_error=False), 2 * PATIENCE)
    finally:
        client.close()
    if response.code != 200:
        cause = response.error if response.code == 599 else f"status {response.code}"
        raise GpuError(f"The dcgm-exporter at {shown(url)} does not answer ({cause}).")
    return response.body.decode("utf-8", "replace")


def _check(connection: socket.socket) -> None:
    """Raise :exc:`.WrongPeer` when a person's process answers; exporters are run by the system.

    An exporter on another machine or in a container of its own address is not known.
    """
    owner = peer_of(connection)
    if owner is None or owner.uid < FIRST_PERSON or owner.uid in (NOBODY, os.geteuid()):
        return
    raise WrongPeer(f"a process of uid {owner.uid} has its port", owner.uid)


def read(page: str) -> Figures:
    """Return the figures on a page; what is none (``NaN``, out of range) is left out.

    Raises :exc:`.GpuError` when the page is not in Prometheus' text format.
    """
    found: dict[tuple[str, int | None], float] = {}
    try:
        for family in text_string_to_metric_families(page):
            for sample in family.samples if family.name == METRIC else ():
                card, part = sample.labels.get("UUID", ""), sample.labels.get("GPU_I_ID", "")
                # Not a number compares with nothing.
                if card and 0.0 <= sample.value <= 1.0 and (not part or part.isdecimal()):
                    where = card, int(part) if part else None
                    # Reported twice, as by two programs on one slice: the one that works counts.
                    found[where] = max(found.get(where, 0.0), 100.0 * sample.value)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise GpuError("its page cannot be read as Prometheus' text format.") from error
    return found
