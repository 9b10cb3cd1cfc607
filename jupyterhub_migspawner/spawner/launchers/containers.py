"""A server's container: its name, whether it runs, where it answers, and its end.

What dockerspawner has of this is changed where a slice depends on it. Two servers never have one
name, not even at two hubs on one engine. A container that is not the server's is never taken for
it. An engine that does not answer makes no server count as ended, and an ended container is gone
before its name is used again.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

from traitlets import default, observe

from jupyterhub_migspawner.errors import EngineError, LaunchError
from jupyterhub_migspawner.outages import Outage

try:
    from docker.errors import DockerException, NotFound
    from dockerspawner import DockerSpawner
    from requests.exceptions import RequestException
except ImportError as error:
    raise ImportError(
        "MigDockerSpawner needs the package dockerspawner, which this package's extra 'docker' "
        "installs."
    ) from error

ENGINE_ERRORS = (DockerException, RequestException)
"""What is raised when the engine does not answer, or refuses."""
NOT_THERE = NotFound
"""The one of them that is raised when the engine knows no such container."""

LABELS = {
    "hub": "io.github.migspawner.hub",
    "user": "io.github.migspawner.user",
    "server": "io.github.migspawner.server",
    "attempt": "io.github.migspawner.attempt",
}
"""Labels of a container: whose it is, and which start made it."""

DEFAULT_ENGINE = "unix:///var/run/docker.sock"

#: Seconds that the engine may take for a poll: the hub waits for some of them before it is up.
POLL_SECONDS = 5.0
#: Seconds until a container that was removed is gone, and one that was started shows its program.
PATIENCE = 15.0
_LONGEST_NAME = 63  # of a host name, as which internal_ssl uses it

_engine_outage = Outage()


class OwnContainer(DockerSpawner):  # type: ignore[misc] # it has no types
    """Gives each server a container that is its own, and found again without any memory."""

    #: Returns what tells this hub's containers from those of other hubs on the engine.
    _mig_hub_id: Callable[[], tuple[str, str]]

    _mig_threads: ThreadPoolExecutor | None = None
    # The engine's last task for this server.
    _mig_asking: Future[Any] | None = None

    def _mig_labels(self) -> dict[str, str]:
        """Return the labels of this server's container."""
        return {
            LABELS["hub"]: " ".join(self._mig_hub_id()),
            LABELS["user"]: self.user.name,
            LABELS["server"]: self.name,
        }

    @default("use_internal_ip")
    def _default_use_ip(self) -> bool:
        # In the machine's own network the engine has no ports to publish.
        return bool(self.network_name != "bridge")

    @property
    def executor(self) -> ThreadPoolExecutor:
        """Threads for calls of the engine: the stop of one server must not delay all others."""
        cls = OwnContainer
        if cls._mig_threads is None:
            cls._mig_threads = ThreadPoolExecutor(8, thread_name_prefix="migspawner-docker")
        return cls._mig_threads

    def docker(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Call the engine in a thread, which goes on when the awaiting start is cancelled."""
        asking = self._mig_asking = self.executor.submit(self._docker, method, *args, **kwargs)
        return asyncio.wrap_future(asking)

    def _mig_call_off(self, attempt: str) -> None:
        """Remove the container of a cancelled start, behind what its thread still does."""
        asking, name = self._mig_asking, self.object_name

        def remove() -> None:
            try:
                found = self._docker("inspect_container", name)
                # By its id: the server's next start may have a container of that name by now.
                if labels_of(found).get(LABELS["attempt"]) == attempt:
                    self._docker("remove_container", found["Id"], v=True, force=True)
            except NOT_THERE:
                return
            except Exception:
                self.log.exception("The container %s of a cancelled start is left.", name)

        if asking is not None:
            asking.add_done_callback(lambda _: self.executor.submit(remove))

    # -- names -----------------------------------------------------------------------------------

    @default("name_template")
    def _default_name_template(self) -> str:
        return "{prefix}-{username}--{servername}-{id}" if self.name else "{prefix}-{username}-{id}"

    def template_namespace(self) -> dict[str, str]:
        """Return what templates can name, with ``{id}``, which no other server has.

        The base spawner writes the names of servers in lower case, so that two of them may be one.
        """
        names: dict[str, str] = super().template_namespace()
        whose = "\0".join((*self._mig_hub_id(), self.user.name, self.name))
        names["id"] = hashlib.sha256(whose.encode()).hexdigest()[:10]
        names["servername"] = self.escape(self.name)
        return names

    @default("object_name")
    def _object_name_default(self) -> str:
        name: str = super()._object_name_default()
        end = f"-{self.template_namespace()['id']}"
        if len(name) > _LONGEST_NAME and name.endswith(end):
            return name[: _LONGEST_NAME - len(end)] + end
        return name

    @observe("image")
    def _image_changed(self, change: Any) -> None:
        # While it is made from its configuration alone, as by doctor, there is no name to be made.
        if self.user is not None:
            self.object_name = self._object_name_default()

    # -- whether it runs -------------------------------------------------------------------------

    async def get_object(self) -> dict[str, Any] | None:
        """Return this server's container; None when the engine says that there is none.

        Raises :exc:`.LaunchError` when a container that is not this server's has its name, and what
        docker raises when the engine does not say.
        """
        try:
            found: dict[str, Any] = await self.docker("inspect_container", self.object_name)
        except NOT_THERE:
            self.object_id = ""
            return None
        if found["Id"] != self.object_id and not self._mig_is_ours(found):
            raise LaunchError(
                f"The container {self.object_name} has the name of {self._log_name}'s server and "
                "is not this hub's. Remove or rename it, or set another 'prefix'."
            )
        self.object_id = found["Id"]
        return found

    def _mig_is_ours(self, found: Mapping[str, Any]) -> bool:
        labels, ours = labels_of(found), self._mig_labels()
        return all(
            labels.get(LABELS[name]) == ours[LABELS[name]] for name in ("hub", "user", "server")
        )

    async def poll(self) -> Any:
        """Return None while the server runs, and while the engine does not say that it does not."""
        try:
            status = await asyncio.wait_for(super().poll(), POLL_SECONDS)
        except LaunchError as error:
            self.log.warning("%s", error)
            return 0  # whatever has its name, this server's container is not there any more
        except Exception as error:
            said = str(error) or type(error).__name__
            if _engine_outage.failed(said):
                self.log.warning(
                    "The container engine does not say whether the server of %s runs, so it counts "
                    "as running: %s",
                    self._log_name,
                    said[:500],
                )
            return None
        _engine_outage.worked()
        return status

    async def stop(self, now: bool = False) -> None:
        """Stop the container with all its processes, and remove it."""
        try:
            found = await self.get_object()
        except LaunchError as error:
            self.log.warning("%s", error)
            found = None
        if found is None:
            self.clear_state()
            return
        await super().stop(now)
        await self._mig_wait_until_gone()

    async def _mig_wait_until_gone(self) -> None:
        """Wait until the engine has removed the container: until then nobody can have its name."""
        give_up = time.monotonic() + PATIENCE
        while await self.get_object() is not None:
            if time.monotonic() > give_up:
                raise EngineError(
                    f"The container {self.object_name} was to be removed {PATIENCE:.0f} seconds "
                    f"ago and is still there; see 'docker inspect {self.object_name}'."
                )
            await asyncio.sleep(0.05)

    # -- where it answers ------------------------------------------------------------------------

    async def get_ip_and_port(self) -> tuple[str, int]:
        """Return where the server answers; in the machine's own network, where it was told to."""
        if self.network_name == "host":
            told = environment_of(await self.get_object()).get("JUPYTERHUB_SERVICE_URL", "")
            address = urlsplit(told)
            return address.hostname or self.host_ip, address.port or self.port
        found: tuple[str, int] = await super().get_ip_and_port()
        return found

    async def get_url(self) -> str:
        """Return where the server answers, as a hub that has just started asks.

        The hub before may have ended in the middle of the start, and then it stored no address.
        """
        stored: str = await super().get_url()
        try:
            found = await asyncio.wait_for(self._mig_address(), POLL_SECONDS)
        except Exception as error:
            self.log.warning("The address of %s stays %s: %r", self._log_name, stored, error)
            return stored
        return found or stored

    async def _mig_address(self) -> str:
        if await self.get_object() is None:
            return ""
        ip, port = await self.get_ip_and_port()
        host = f"[{ip}]" if ":" in ip else ip
        proto = "https" if self.internal_ssl else "http"
        return f"{proto}://{host}:{port}{self.server.base_url}"


def engine_address(client_kwargs: Mapping[str, Any]) -> str:
    """Return where the engine is, as dockerspawner finds it."""
    return str(
        client_kwargs.get("base_url") or os.environ.get("DOCKER_HOST") or DEFAULT_ENGINE
    ).replace("http+unix://", "unix://")


def environment_of(found: Mapping[str, Any] | None) -> dict[str, str]:
    """Return the variables of a container as the engine describes it."""
    lines = ((found or {}).get("Config") or {}).get("Env") or ()
    return dict(str(line).partition("=")[::2] for line in lines)


def labels_of(found: Mapping[str, Any]) -> dict[str, str]:
    """Return the labels of a container as the engine describes it."""
    return (found.get("Config") or {}).get("Labels") or {}
