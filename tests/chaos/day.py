"""A day of chaos: a real hub with proxy, service and servers; people who click; one who kills.

Relies on nothing that the broker wrote down to say what went wrong: servers report what they were
given (:mod:`.reporting_server`), the kernel says which of them live, and the hub says which it
runs. A server counts as running from when the hub calls it ready until its owner asks to stop it;
its process must live for all that time.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

from jupyterhub_migspawner.errors import DatabaseError, Refusal
from jupyterhub_migspawner.policy.people import Person as Somebody
from tests.broker.postgres import Cluster
from tests.chaos.hub import ChaosHub
from tests.chaos.losses import Losses
from tests.chaos.plan import Plan, Step
from tests.chaos.reports import Process, Report, read_reports
from tests.chaos.strangers import Strangers

#: Seconds in which everything must be in order once nothing is killed any more. It only ends a
#: day that has failed.
CALM = 240

#: A day goes on, without blows, until enough has happened; at most for so many times its length.
#: What a slow machine gets done in a given time is not what is tested.
LONGEST = 6

#: Starts, and blows, without which a day proves next to nothing.
ENOUGH_STARTS, ENOUGH_BLOWS = 5, 2

#: In the place of an HTTP status: the hub may still be at it.
NO_ANSWER = -1


@dataclass
class Person:
    """``running`` is the server that nobody may end but this person."""

    name: str
    steps: tuple[Step, ...]
    running: Process | None = None
    # Until then (monotonic), a stop whose answer never came may still be carried out.
    unsure_until: float = 0.0


class Day:
    """Everything that runs; ``broken`` collects what must not happen, as sentences."""

    def __init__(
        self, plan: Plan, directory: Path, database: str, cluster: Cluster | None = None
    ) -> None:
        self.plan = plan
        self.hub = ChaosHub(directory, database)
        self.broken: list[str] = []
        self.started = self.blows = 0
        self._cluster = cluster
        self._people = [Person(name, steps) for name, steps in plan.people.items()]
        self._log = directory / "day.log"
        self._strangers = Strangers()
        self.losses = Losses(self.hub, self._say)
        self._begun = time.monotonic()
        self._over = threading.Event()
        self._guard = threading.Lock()

    def live(self) -> None:
        """The whole plan, then calm until all is in order."""
        self.hub.start()
        for person in self._people:
            assert self.hub.api("POST", f"users/{person.name}")[0] == 201
        self.losses.back_up()
        self._begun = time.monotonic()
        with ThreadPoolExecutor(len(self._people) + 2) as pool:
            doings = [pool.submit(self._strike)]
            doings += [pool.submit(self._click, person) for person in self._people]
            watch = pool.submit(self._watch)
            try:
                for each in doings:
                    each.result()
                self._settle()
            finally:
                self._over.set()
            watch.result()
        self._judge()

    def reports(self) -> list[Report]:
        """What every server of the day wrote down."""
        return read_reports(self.hub.reports)

    def story(self) -> str:
        """What happened when, in seconds since the day began."""
        return self._log.read_text() if self._log.exists() else ""

    def end(self) -> None:
        """Nothing of the day is left running."""
        self._over.set()
        self._strangers.leave()
        if self.hub.process is not None:
            self.hub.stop()
            self.hub.end_everything()
        for report in self.reports():
            if report.process.lives:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(report.process.pid, signal.SIGKILL)
        self.hub.close()

    def _say(self, text: str) -> None:
        with self._log.open("a") as file:
            file.write(f"{time.monotonic() - self._begun:7.2f} {text}\n")

    def _break(self, text: str) -> None:
        self._say(f"BROKEN: {text}")
        self.broken.append(text)

    @property
    def enough(self) -> bool:
        """Whether so much has happened that the day proves something."""
        if self.started < ENOUGH_STARTS or self.blows < ENOUGH_BLOWS:
            return False
        return max(Counter(each.slice for each in self.reports()).values(), default=0) >= 2

    def _evening(self) -> bool:
        past = time.monotonic() - self._begun
        if past < self.plan.seconds:
            return False
        return past >= LONGEST * self.plan.seconds or self.enough

    # -- people ----------------------------------------------------------------------------------

    def _click(self, person: Person) -> None:
        path = f"users/{person.name}/server"
        for step in person.steps:
            if self._over.wait(step.pause) or self._evening():
                return
            self._look(person)
            if step.what in ("stop", "hasty") or step.later > 0.5:
                self._stop(person)
            if step.what == "hasty":
                # Starts, and goes away before the page has loaded; then stops it after all.
                self._ask(person, "POST", path, {"tier": "small"}, seconds=0.3)
                self._over.wait(2 * step.later)
                self._stop(person)
            elif step.what == "wait":
                self._wait_in_line(person)
            elif step.what != "stop":
                self.started += self._ask(person, "POST", path, {"tier": step.what}) == 201

    def _wait_in_line(self, person: Person) -> None:
        """Join the waiting list; when it is their turn the hub starts their server."""
        try:
            ticket = self.hub.broker().queue.join(Somebody(person.name), "small", start=True)
        except (Refusal, DatabaseError) as error:
            self._say(f"{person.name} takes no place: {error}")
        else:
            self._say(f"{person.name} waits with ticket {ticket.id}")

    def _nobody_waits(self) -> None:
        """Evening: everybody who still waits goes home."""
        with contextlib.suppress(Refusal, DatabaseError):
            for ticket in self.hub.broker().queue.tickets():
                self.hub.broker().queue.leave(ticket.id, Somebody(ticket.user))

    def _stop(self, person: Person) -> None:
        with self._guard:
            person.running = None
        if self._ask(person, "DELETE", f"users/{person.name}/server") == NO_ANSWER:
            person.unsure_until = time.monotonic() + 20

    def _look(self, person: Person) -> None:
        """Note the person's server once the hub calls it ready."""
        process = self._known(person)
        if process is None or time.monotonic() < person.unsure_until:
            return
        with self._guard:
            if person.running is None:
                self._say(f"{person.name} runs as {process.pid}")
            elif person.running != process:
                self._break(f"{person.name} has another server than before, unasked: {process}")
            person.running = process

    def _known(self, person: Person) -> Process | None:
        """The process of this person's server, if the hub calls it ready."""
        model = self._fetch("GET", f"users/{person.name}")[1]
        return _ready_process((model or {}).get("servers", {}).get("") or {})

    def _ask(
        self, person: Person, method: str, path: str, body: Any = None, seconds: float = 60
    ) -> int:
        status = self._fetch(method, path, body, seconds)[0]
        self._say(f"{person.name} {method} {body or ''} -> {status}")
        return status

    def _fetch(
        self, method: str, path: str, body: Any = None, seconds: float = 60
    ) -> tuple[int, Any]:
        """Status and JSON of a call of the hub; for one that failed 0 or :data:`NO_ANSWER`."""
        request = urllib.request.Request(
            f"{self.hub.url}hub/api/{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"token {self.hub.token}"},
        )
        try:
            with urllib.request.urlopen(request, timeout=seconds) as response:
                text = response.read()
                return response.status, json.loads(text) if text else None
        except urllib.error.HTTPError as error:
            error.close()
            return error.code, None
        except TimeoutError:
            return NO_ANSWER, None
        except (OSError, ValueError, HTTPException):
            return 0, None

    # -- blows -----------------------------------------------------------------------------------

    def _strike(self) -> None:
        for step in self.plan.blows:
            if self._past_plan() and self.blows >= ENOUGH_BLOWS:
                break
            # Now and then one hits a hub that is just starting; most hit people at work.
            while step.later > 0.2 and self._fetch("GET", "users")[0] != 200:
                self._wait_with_hub(0.2)
                if self._over.is_set() or self._evening():
                    return
            self._wait_with_hub(step.pause)
            if self._over.is_set() or self._evening():
                return
            self._say(f"blow: {step.what}")
            self.blows += 1
            if "descriptors" in step.what:
                self._strangers.half_send(self.hub.service_port())
            if "port" in step.what:
                self._strangers.wait_for(self.hub.service_port())
            if step.what == "mark":
                self._hide_processes()
            if "clock" in step.what:
                # Between ten days too slow and ten too fast, and never nearly right.
                self.hub.set_clock(20 * step.later - (9 if step.later > 0.5 else 11))
            # While people work, as a timer would: a loss may bring this moment back.
            self.losses.back_up()
            if "database" in step.what and "server" not in step.what:
                self._replace_database(step)
                continue
            if "service" in step.what:
                self.hub.kill_service()
            if "hub" in step.what:
                self.hub.kill()
            if "server of the database" in step.what:
                assert self._cluster is not None
                self._cluster.stop(at_once="at once" in step.what)
                self._over.wait(2 * step.later)
                self._cluster.start()

        while not self._over.is_set() and not self._evening():
            self._wait_with_hub(0.2)

    def _replace_database(self, step: Step) -> None:
        """Lose the database or bring an older one back, start hub and service, and adopt."""
        # Without a server that runs there is little to lose.
        for _ in range(100):
            if len(self._living()) >= 2 or self._over.is_set() or self._evening():
                break
            self._wait_with_hub(0.2)
        if "hub" in step.what:
            self.hub.kill()
            self.hub.kill_service()
        if "restored" in step.what:
            self.losses.restore(step.later)
        elif "swapped" in step.what:
            self.losses.swap(step.later)
        else:
            self.losses.lose()
        self._say("the database is another one")
        if "hub" not in step.what:
            # People go on clicking at a hub whose database is not the one that it knows.
            self._wait_with_hub(5 * step.later)
            self.hub.kill()
            self.hub.kill_service()
        self.hub.forget()
        if self._await_hub():
            for wrong in self.losses.offered(self._living):
                self._break(wrong)
            # Now and then the admin comes late.
            self._wait_with_hub(10 * step.later**2)
            self._adopt()

    def _await_hub(self) -> bool:
        """Wait until the hub answers and its service has reported the cards; False in the evening
        of a day on which that never was."""
        while not self._over.is_set():
            self._wait_with_hub(0.2)
            with contextlib.suppress(DatabaseError):
                if self._fetch("GET", "users")[0] == 200 and self.hub.broker().slices.find():
                    return True
        return False

    def _adopt(self) -> None:
        self.losses.adopt(self._living, self._hub_runs)

    def _living(self) -> list[Report]:
        return [report for report in self.reports() if report.process.lives]

    def _hub_runs(self, report: Report) -> bool:
        """Whether this process is a server of the hub's, or may be: it does not say otherwise."""
        status, model = self._fetch("GET", f"users/{report.user}")
        server = ((model or {}).get("servers") or {}).get("")
        if status != 200 or server is None:
            return status != 200
        if server["pending"]:
            return True
        return _ready_process(server) == report.process

    def _hide_processes(self) -> None:
        """Each server leaves a process that drops its environment and stays on the slice."""
        for report in self.reports():
            if report.process.lives and "start" in report.events:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(report.process.pid, signal.SIGUSR1)

    def _past_plan(self) -> bool:
        return time.monotonic() >= self._begun + self.plan.seconds

    def _wait_with_hub(self, seconds: float) -> None:
        """Wait; meanwhile a hub that has ended is started again, as the system's manager would."""
        until = time.monotonic() + seconds
        while True:
            if self.hub.process is None or self.hub.process.poll() is not None:
                self._say("the hub is started")
                self.hub.launch()
            left = until - time.monotonic()
            if left <= 0 or self._over.wait(min(0.2, left)):
                return

    # -- what must hold --------------------------------------------------------------------------

    def _watch(self) -> None:
        """All day long: nobody's running server ends."""
        while not self._over.wait(0.1):
            with self._guard:
                for person in self._people:
                    if person.running is not None and not person.running.lives:
                        self._break(f"{person.name}'s server {person.running} ended, unasked")
                        person.running = None

    def _settle(self) -> None:
        """Wait until nothing is left to converge."""
        self._say("calm")
        until = time.monotonic() + CALM
        refreshed = False
        while why := self._unsettled():
            self._nobody_waits()
            self._wait_with_hub(0.5)
            # What could not be adopted at first may be now.
            if self.losses.times and self.hub.broker().orphans.find():
                self._adopt()
            if self.losses.times:
                self.losses.end_hidden()
            if self.plan.seconds < 120 and not refreshed and self._fetch("GET", "users")[0] == 200:
                # A short day does not wait for the deadlines of starts that nobody finished: the
                # next start of the same server replaces them.
                for person in self._people:
                    self._ask(person, "POST", f"users/{person.name}/server", {"tier": "small"})
                refreshed = True
            if time.monotonic() >= until:
                self._break(f"after {CALM} seconds of calm: {why}")
                return
        self._say("settled")

    def _unsettled(self) -> str:
        """What is not in order yet, or nothing; a look from every side."""
        living = {report.user: report for report in self.reports() if report.process.lives}
        for person in self._people:
            status, model = self._fetch("GET", f"users/{person.name}")
            if status != 200:
                return f"the hub answers {status}"
            if any(each["pending"] or not each["ready"] for each in model["servers"].values()):
                return f"the server of {person.name} is under way: {model['servers']}"
            self._look(person)
            report = living.get(person.name)
            if self._known(person) != (report and report.process):
                return f"the hub knows {self._known(person)}, and there is {report}"
        if not self.hub.service_pids():
            return "the hub runs no service"
        if waiting := self.hub.broker().queue.tickets():
            return f"tickets are open: {waiting}"
        leases = {lease.user: lease for lease in self.hub.rows()}
        for user in leases.keys() | living.keys():
            lease, report = leases.get(user), living.get(user)
            if lease is None or report is None or lease.state != "active":
                return f"{user} has {report} and {lease}"
            if (report.slice, report.attempt) != (lease.slice_uuid, lease.attempt):
                return f"the server says {report}, the lease is {lease}"
        odd = [
            each for each in self.hub.broker().slices.find() if each.state not in ("free", "leased")
        ]
        return f"slices neither free nor leased: {odd}" if odd else ""

    def _judge(self) -> None:
        """No slice was given twice, nor one that was not there, by what the servers say."""
        reports = self.reports()
        for report in reports:
            for event in sorted({"taken", "missing", "torn"}.intersection(report.events)):
                others = [r for r in reports if r.slice == report.slice and r != report]
                self._break(f"{event}: {report}; on that slice besides: {others}")
        for heard in self._strangers.heard():
            self._break(f"an unknown client at the service's port heard {heard!r}")


def _ready_process(server: dict[str, Any]) -> Process | None:
    """The process of a server by the hub's model of it, if the hub calls it ready."""
    state = server.get("state") or {}
    if not server.get("ready") or "pid_started" not in state:
        return None
    return Process(int(state["pid"]), int(state["pid_started"]))
