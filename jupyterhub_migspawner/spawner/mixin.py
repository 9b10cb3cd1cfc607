"""The mixin that binds a server to a slice, over any JupyterHub spawner.

Relies on the broker for every decision and on the hub for the order of calls. Promises that a
lease is committed before anything is launched, that whatever way a start or a stop ends the lease
is released for the node's agent to prove its slice empty (never simply dropped), that nothing here
opens NVML and ``poll()`` does not ask the database either, and that no blocking call runs on the
hub's event loop.

Order of calls in the hub (``jupyterhub.user.User.spawn`` and ``.stop``, 5.4 to 6.1): a start runs
``clear_state``, ``_run_apply_user_options``, ``start``; every end, whether stopped, died, timed out
or failed, runs ``run_post_stop_hook``, but ``stop`` only while the process lives. The lease is
therefore given back in the hook, and found again by user and server name, since ``clear_state``
has wiped the rest by then.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import replace
from datetime import datetime, timezone
from types import MappingProxyType
from typing import Any

from jupyterhub.utils import maybe_future
from traitlets import Bool, Float

from jupyterhub_migspawner.agent.families import first_process
from jupyterhub_migspawner.agent.processes import Process
from jupyterhub_migspawner.broker import Broker
from jupyterhub_migspawner.broker.marks import STATE, mark_in_state, state_of
from jupyterhub_migspawner.db.identity import Position
from jupyterhub_migspawner.errors import DatabaseError, MigspawnerError, Refusal
from jupyterhub_migspawner.keys import ANY_LEASE, Binding
from jupyterhub_migspawner.model.leases import LeaseRow
from jupyterhub_migspawner.model.processes import ProcessesRow
from jupyterhub_migspawner.policy.tiers import Tier
from jupyterhub_migspawner.spawner.address import server_address
from jupyterhub_migspawner.spawner.environment import describe, slice_environment
from jupyterhub_migspawner.spawner.isolation import Isolation
from jupyterhub_migspawner.spawner.limits import Limits
from jupyterhub_migspawner.spawner.options import GONE
from jupyterhub_migspawner.spawner.refusals import spawn_exception

#: Stops have threads of their own: nobody's page waits behind a stop that waits for the database.
_releases = ThreadPoolExecutor(max_workers=2, thread_name_prefix="migspawner-release")


class MigSpawnerMixin(Limits, Isolation):
    """Gives a spawner's servers a slice each. Put it in front of any ``Spawner`` class."""

    acquire_wait_seconds = Float(
        5.0,
        min=0,
        help="""
        Seconds a start waits for a slice that is being released, also by the person's own last
        session. Keep it short: a waiting start counts as one of the hub's concurrent spawns.
        """,
    ).tag(config=True)
    cut_wait_seconds = Float(
        45.0, min=0, help="Seconds a start waits for a card to be cut for it."
    ).tag(config=True)
    announce_slice = Bool(
        True, help="Whether the page of a starting server names the slice it was given."
    ).tag(config=True)

    # Held during one start only; ``clear_state`` runs before each and wipes it.
    _mig_lease: LeaseRow | None = None
    # The database that has it, and what is saved of both.
    _mig_database: Position | None = None
    _mig_saved: Mapping[str, Any] = MappingProxyType({})
    # Where the server answers, and its token as it is saved.
    _mig_reach: tuple[str, str] = ("", "")
    _mig_attempt: str = ""

    # -- start -----------------------------------------------------------------------------------

    async def start(self) -> Any:
        """Take a lease, then start the server in its environment."""
        tier = self._mig_tier or self._mig_choose(self.user_options)
        attempt = self._mig_attempt = uuid.uuid4().hex
        try:
            self._mig_lease = await self._mig_acquire(tier, attempt)
            self._mig_database = self._mig_broker().store.position
            await self._mig_isolate(self._mig_lease, attempt)
        except MigspawnerError as error:
            raise spawn_exception(self.log, error) from None
        with self._mig_limited(tier):
            url = await maybe_future(self._mig_launch())
        if self._mig_lease is not None and not await self._mig_activate(attempt):
            # The hub stops a server whose start failed, so that nobody else's slice is used.
            raise spawn_exception(
                self.log,
                Refusal(
                    "Your slice was released while the server was starting. Please start again.",
                    reason="conflict",
                ),
            )
        if self._mig_lease is not None:
            await self._mig_tell_reach(attempt, url)
        return url

    def _mig_launch(self) -> Any:
        """Launch the server; return its URL, or an awaitable of it, as the base spawner does."""
        return super().start()

    def _mig_server_uid(self) -> int | None:
        """Return the system user that the server will run as; None if that is not known before."""
        return None

    def _mig_server_process(self) -> Process | None:
        """Return the server's own process, if it runs on the hub's machine as a process of it."""
        return None

    async def _mig_tell_reach(self, attempt: str, url: Any) -> None:
        """Store how this server is asked for its kernels; without that it never counts as idle."""
        address = server_address(url, base_url=self.server.base_url, internal_ssl=self.internal_ssl)
        token = self.api_token
        config, lease = self.mig_config, self._mig_lease
        if lease is None or not address or not config.service:
            return
        binding = Binding(lease.id, attempt, address)

        def store(broker: Broker) -> None:
            # Sealed before it comes near a database: other hubs and all nodes read that of leases.
            keys = config.key_file_of_hub().make()
            saved = keys.seal(token, replace(binding, lease_id=ANY_LEASE))
            self._mig_reach = (address, saved)
            broker.readings.reach(attempt, address, keys.seal(token, binding))

        try:
            await self._mig_call(store)
        except MigspawnerError as error:
            self.log.warning("The use of %s will be unknown: %s", self._log_name, error)

    async def _mig_acquire(self, tier: Tier, attempt: str) -> LeaseRow | None:
        """Return one lease for this attempt, or None for a tier without GPU.

        A thread outlives its cancelled coroutine. When this one is cancelled while the broker's
        transaction may still commit, the attempt is called off behind it, on the same pool, so
        that neither order of the two leaves a lease behind.
        """
        person = self._mig_person()
        server = self.name
        others, stopping = self._mig_others()
        deadline = self._mig_pending_seconds()
        started = self._mig_started()

        def acquire(broker: Broker) -> LeaseRow | None:
            lease = broker.leases.acquire(
                person,
                server,
                tier.name,
                attempt,
                pending_seconds=deadline,
                other_servers=others,
                started=started,
                stopping=stopping,
            )
            uid = None if lease is None else self._mig_server_uid()
            if uid is not None:
                # Before anything is launched: whose processes they are is known then, whatever
                # becomes of the start. Without it, they may be anybody's.
                with suppress(DatabaseError):
                    broker.processes.note_server(attempt, ProcessesRow(0, uid))
            return lease

        give_up = time.monotonic() + self.acquire_wait_seconds
        future: Future[LeaseRow | None] | None = None
        waiting = ExitStack()
        woken: asyncio.Event | None = None
        looked_again = False
        try:
            while True:
                future = self._mig_submit(acquire)
                try:
                    lease = await asyncio.wrap_future(future)
                    break
                except Refusal as refusal:
                    future = None  # a refused attempt took nothing: there is nothing to call off
                    if time.monotonic() >= give_up:
                        raise
                    if not refusal.soon and refusal.reason != "capacity":
                        raise
                    # What their own last session still holds is as good as a slice coming back.
                    if not refusal.soon and not await self._mig_call(
                        lambda b: b.leases.being_returned(tier.name)
                    ):
                        if looked_again:
                            raise
                        # It may have come back between the two questions.
                        looked_again = True
                        continue
                    looked_again = False
                    if woken is None:
                        # It may be back by now: one more look, with an ear at the database.
                        woken = waiting.enter_context(self._mig_heard())
                    else:
                        await _either(woken, 1.0)
            if lease is not None and lease.slice_uuid is None:
                lease = await self._mig_wait_for_cut(lease)
            return lease
        except BaseException:
            if future is not None:
                future.add_done_callback(
                    lambda _: self._mig_submit(
                        lambda broker: broker.leases.cancel(attempt, "the start was cancelled")
                    )
                )
            raise
        finally:
            waiting.close()

    async def _mig_wait_for_cut(self, lease: LeaseRow) -> LeaseRow:
        """Wait for the agent to cut the card this lease holds and to read the slice's UUID."""
        give_up = time.monotonic() + self.cut_wait_seconds
        with self._mig_heard() as woken:
            while time.monotonic() < give_up:
                found = await self._mig_call(lambda b: b.leases.of_attempt(lease.attempt))
                if found is None or found.state != "pending":
                    raise Refusal(
                        "The card that was being prepared for you was taken out of use. Please "
                        "try again.",
                        reason="capacity",
                    )
                if found.slice_uuid is not None:
                    return found
                await _either(woken, 1.0)
        raise Refusal(
            f"A card was set aside for you, but cutting it took longer than "
            f"{self.cut_wait_seconds:.0f} seconds. Please try again in a minute; if it happens "
            f"again, ask an admin to look at node {lease.node} with 'migspawner doctor'.",
            reason="capacity",
        )

    def _mig_started(self) -> datetime | None:
        """Return when the hub began this start: it notes that before it asks (``User.spawn``)."""
        begun = self.orm_spawner.started
        # The hub's database keeps times in UTC without saying so.
        return None if begun is None else begun.replace(tzinfo=timezone.utc)

    def _mig_pending_seconds(self) -> int:
        """Return how long a lease may stay pending: as long as this start, and a minute more."""
        patience = self.start_timeout + self.http_timeout
        return max(self.mig_config.pending_seconds, int(patience) + 60)

    async def _mig_activate(self, attempt: str) -> bool:
        """Make the lease active; return False when it has ended meanwhile.

        A database that is away must not cost a running server: the lease stays pending, and the
        service makes it active when it sees the server.
        """
        server = self._mig_server_process()

        def activate(broker: Broker) -> bool:
            # Whose the server's processes are has to be known when they carry no mark any more.
            if server is not None:
                broker.processes.note_server(attempt, first_process(server))
            return broker.leases.activate(attempt) is not None

        try:
            return await self._mig_call(activate)
        except DatabaseError as error:
            self.log.warning("The lease of %s stays pending for now: %s", self._log_name, error)
            return True

    def get_env(self) -> dict[str, str]:
        """Return the base spawner's environment with the slice in it; always set, for no GPU too.

        A variable that is merely absent would leave every card visible, and a value from an
        earlier start or from the admin's ``environment`` would name another user's slice.
        """
        env = super().get_env()
        env.update(slice_environment(self._mig_tier, self._mig_lease, self._mig_database))
        return env

    # -- what the hub remembers ------------------------------------------------------------------

    def get_state(self) -> dict[str, Any]:
        """Return the base spawner's state, and the lease.

        Should the lease's database be lost, the hub knows it.
        Nothing in it is secret, and nothing here needs it to say whether the server runs.
        """
        state = super().get_state()
        if self._mig_lease is not None and self._mig_database is not None:
            self._mig_saved = state_of(self._mig_lease, self._mig_database, *self._mig_reach)
        if self._mig_saved:
            state[STATE] = self._mig_saved
        return state

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore the state; ask the lease database, beside the hub's loop, whether it knows it."""
        super().load_state(state)
        saved = state.get(STATE)
        self._mig_saved = saved if isinstance(saved, dict) else {}
        mark = mark_in_state(self._mig_saved, self.user.name, self.name, self.mig_config.hub)
        if mark is not None:
            self.mig_hub.claims.vouch(mark, self.log)

    async def progress(self) -> AsyncIterator[dict[str, Any]]:
        """Yield which slice this server gets, then what the base spawner has to say."""
        if self._mig_replaced and self._mig_tier is not None:
            instead = f"{GONE}; it starts with {self._mig_tier.title} instead."
            yield {"progress": 5, "message": instead}
        if self.announce_slice:
            tier = self._mig_tier
            if tier is not None and not tier.is_none and self._mig_lease is None:
                yield {"progress": 10, "message": f"Looking for a free slice for tier {tier.title}"}
                # Several pages may watch one start at once: each looks for itself.
                while self._mig_lease is None and self._spawn_pending:  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
            lease = self._mig_lease
            if lease is not None:
                yield {"progress": 30, "message": f"Yours: {describe(lease, tier)}"}
        async for event in super().progress():
            yield event

    # -- end -------------------------------------------------------------------------------------

    def clear_state(self) -> None:
        """Forget the slice: the hub calls this before every start and after every end."""
        super().clear_state()
        self._mig_tier = None
        self._mig_replaced = False
        self._mig_lease = None
        self._mig_database = None
        self._mig_saved = {}
        self._mig_reach = ("", "")

    async def run_post_stop_hook(self) -> None:
        """Run the admin's hook, then release the lease.

        The agent ends it once the slice is empty.
        """
        try:
            await maybe_future(super().run_post_stop_hook())
        finally:
            await self._mig_release()

    async def _mig_release(self) -> None:
        """Release the lease; what fails here the service does later.

        Never raises and never hangs the hub's stop.
        """
        user, server, config = self.user.name, self.name, self.mig_config
        # Should this run late, behind a database that was away, it must not touch the lease of
        # the server's next start.
        ended = config.moment()

        def give_back(broker: Broker) -> None:
            broker.leases.release_server(
                user, server, "the server stopped", actor="hub", taken_before=ended
            )
            broker.orphans.unvouch(user, server)

        try:
            future = self._mig_submit(give_back, pool=_releases)
            await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(future)), timeout=10)
        except asyncio.TimeoutError:
            self.log.warning(
                "Releasing the slice of %s takes long; it continues in the background.",
                self._log_name,
            )
        except MigspawnerError as error:
            self.log.error(
                "The slice of %s could not be released now; the service will do it: %s",
                self._log_name,
                error,
            )
        except Exception:
            # The hub's own clean-up of the server comes after this, and must come.
            self.log.exception(
                "The slice of %s could not be released now; the service will do it.",
                self._log_name,
            )

    async def rename(self, old_name: str, new_name: str) -> None:
        """Rename the lease with its server (JupyterHub 6 on), also one that is still ending."""
        parent = getattr(super(), "rename", None)
        if parent is not None:
            await maybe_future(parent(old_name, new_name))
        user, moment = self.user.name, self.mig_config.moment()
        try:
            await self._mig_call(lambda b: b.users.rename_server(user, old_name, new_name, moment))
        except MigspawnerError as error:
            # The lease ends under the old name as well; the rename must not fail over it.
            self.log.warning("A lease keeps its server's old name: %s", error)


async def _either(woken: asyncio.Event, seconds: float) -> None:
    """Wait until woken, or for that many seconds."""
    with suppress(asyncio.TimeoutError):
        await asyncio.wait_for(woken.wait(), seconds)
    woken.clear()
