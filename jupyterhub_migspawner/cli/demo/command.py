"""``migspawner demo``: a hub with simulated cards, ready to log in to.

Relies on the simulator, on JupyterHub and its proxy, and on nothing outside this machine. Promises
that the hub listens on 127.0.0.1 alone, that nobody signs in without what the demo prints, that no
notebook server is root's, and that nothing it started is left when the demo ends.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from jupyterhub_migspawner.cli.command import Command, answers
from jupyterhub_migspawner.cli.demo import cards as demo_cards
from jupyterhub_migspawner.cli.demo import files
from jupyterhub_migspawner.cli.demo.accounts import USERS, Accounts
from jupyterhub_migspawner.cli.demo.confinement import check_root
from jupyterhub_migspawner.cli.demo.credentials import (
    KEY,
    LINK_PATH,
    LINK_SECONDS,
    Links,
    make_password,
)
from jupyterhub_migspawner.cli.demo.hub import Hub, Stopped, free_ports
from jupyterhub_migspawner.cli.demo.processes import Signals, tagged
from jupyterhub_migspawner.cli.demo.tools import own_name, search_path
from jupyterhub_migspawner.cli.demo.tour import Tour
from jupyterhub_migspawner.cli.invocation import DONE, REFUSED, Invocation
from jupyterhub_migspawner.cli.options import COUNT, Number
from jupyterhub_migspawner.cli.output import complain, print_json
from jupyterhub_migspawner.config.file import load_config_file
from jupyterhub_migspawner.errors import Refusal
from jupyterhub_migspawner.gpu.arrange import Want
from jupyterhub_migspawner.gpu.simulator import create_state, find_model, profiles_of
from jupyterhub_migspawner.hub.ports import is_safe
from jupyterhub_migspawner.model.inventory import Profile

_MODEL = "A100-SXM4-40GB"


@click.command(cls=Command)
@click.option(
    "--port",
    type=Number(int, 1, "a port between 1 and 65535", 65535),
    default=8000,
    metavar="N",
    help="the hub's port (default: 8000)",
)
@click.option(
    "--dir",
    "folder",
    default="demo",
    metavar="D",
    help="folder for all files (default: demo)",
)
@click.option("--cards", type=COUNT, metavar="N", help="how many cards (default: 2)")
@click.option("--model", metavar="M", help=f"model of the cards (default: {_MODEL})")
@click.option(
    "--layout",
    metavar="L",
    help="layout: 'mixed' (default), 'balanced', 'all-PROFILE' such as all-1g.5gb, or profiles "
    "with commas between slices and slashes between cards",
)
@answers()
def demo(
    invocation: Invocation,
    port: int,
    folder: str,
    cards: int | None,
    model: str | None,
    layout: str | None,
) -> int:
    """Run a JupyterHub with simulated cards on 127.0.0.1 until Ctrl-C.

    Users admin, ada, grace and linus sign in with one-time links, or with the demo's password; both
    are printed at the start. All files are in the folder --dir, which other users cannot read; it
    also has the hub's configuration, jupyterhub_config.py. Servers run as the user who starts the
    demo, or, if that is root, as a separate unprivileged user for each person.
    """
    directory = Path(os.path.expanduser(folder)).resolve()
    os.umask(0o077)
    # Now: the demo's configuration, once it is read here, puts its own folders on PATH.
    name = own_name()
    path = search_path()
    with files.claim(directory):
        _warn_of_others(directory)
        _refuse_leftovers(directory)
        ports = free_ports(port)
        asked = {"cards": cards, "model": model, "layout": layout}
        made = _make_cards(directory, asked)
        config = files.write_config(
            directory, ports, path, demo_cards.tiers_for(made.profiles, made.cut)
        )
        check_root(directory, path)
        with Signals() as signals:
            hub = Hub(directory, config, ports, path)
            return _Demo(invocation, hub, config, made, name).serve(signals)


@dataclass(frozen=True)
class _Cards:
    """The demo's cards: what they were made of, their profiles and how they are cut."""

    record: files.Record
    profiles: Sequence[Profile]
    cut: Sequence[Sequence[Want]]


def _make_cards(directory: Path, asked: dict[str, Any]) -> _Cards:
    """Return the cards: those of an earlier start, or new ones as asked."""
    if asked["model"] is not None:
        asked["model"] = find_model(asked["model"]).key
    record = files.read_record(directory)
    if record is not None and (directory / files.CARDS).exists():
        for name, value in asked.items():
            kept = getattr(record, name)
            if value is not None and value != kept:
                raise Refusal(
                    f"{directory} already holds a demo with --{name} {kept}; use another "
                    f"--dir for --{name} {value}, or remove the folder.",
                    reason="conflict",
                )
    else:
        layout = asked["layout"] or demo_cards.MIXED
        record = files.Record(
            cards=demo_cards.number_of_cards(layout, asked["cards"]),
            model=asked["model"] or _MODEL,
            layout=layout,
        )
    profiles = profiles_of(find_model(record.model))
    cut = demo_cards.cut(profiles, record.layout, record.cards)
    if not (directory / files.CARDS).exists():
        create_state(
            directory / files.CARDS,
            cards=record.cards,
            model=record.model,
            layouts=[[name for name, _ in card] for card in cut],
        )
        (directory / files.CARDS).chmod(0o600)
        files.write_record(directory, record)
    return _Cards(record, profiles, cut)


@dataclass(frozen=True)
class _Demo:
    """A demo that runs; ``name`` is how its user calls this program."""

    invocation: Invocation
    hub: Hub
    config: Path
    cards: _Cards
    name: str

    def serve(self, signals: Signals) -> int:
        """Run the hub until a signal comes, then stop everything."""
        hub, status = self.hub, DONE
        self._say(f"Starting the hub; its log is {hub.log}.")
        try:
            hub.wait_until_ready(signals, lambda step: self._say(f"  {step}"))
            self._announce()
            hub.wait_until_ended(signals)
        except Stopped:
            pass
        finally:
            left = hub.stop(signals)
        if left:
            pids = ", ".join(f"{process.pid} ({process.command[:60]})" for process in left)
            complain(f"These processes of the demo could not be ended: {pids}.")
            status = REFUSED
        else:
            self._say("Stopped; nothing of the demo is left running.")
        return status

    def _say(self, line: str) -> None:
        if not self.invocation.as_json:
            print(line, flush=True)

    def _announce(self) -> None:
        hub, config = self.hub, self.config
        record, cut = self.cards.record, self.cards.cut
        password = make_password(hub.directory)
        unused = Links(hub.directory)
        links = {user: f"{hub.url}hub{LINK_PATH}?{KEY}={unused.create(user)}" for user in USERS}
        if self.invocation.as_json:
            print_json(
                {
                    "url": hub.url,
                    "login_links": links,
                    "login_link_seconds": LINK_SECONDS,
                    "users": list(USERS),
                    "password": password,
                    "config": str(config),
                    "log": str(hub.log),
                    "hub_pid": hub.pid,
                }
            )
            return
        people = [*USERS[1:], USERS[0]]
        tour = Tour(load_config_file(config))
        steps = tour.steps() or ["a quota, an idle rule and more in a new folder: --dir NAME"]
        lines = [
            "The demo hub is ready. Open a link to sign in; each works once, within "
            f"{LINK_SECONDS / 60:.0f} minutes:",
            "",
            *(f"  {user:<8} {links[user]}" for user in people),
            "",
            f"Later, or as another user, sign in at {hub.url} with this password:",
            "",
            f"  {password}",
            "",
            f"  Users    {tour.people()}",
            f"  Try      {steps[0]}",
            *(f"           {step}" for step in steps[1:]),
            f"  Servers  {self._servers_run_as(hub.directory)}",
            f"  Cards    {record.cards} simulated {record.model}",
            *(
                f"           card {index}: {demo_cards.described(card)}"
                for index, card in enumerate(cut)
            ),
            f"  Folder   {hub.directory}",
            f"  Look     {self.name} slices -f {shlex.quote(str(config))}",
            "",
            "Ctrl-C stops it and everything it started.",
        ]
        print("\n".join(lines), flush=True)

    def _servers_run_as(self, directory: Path) -> str:
        if os.geteuid() == 0:
            return f"run as unprivileged users, with homes in {Accounts(directory).homes}"
        return (
            f"run as you, user {os.geteuid()}:\n"
            "           anyone who has the password or a link can do here what you can do"
        )


def _warn_of_others(directory: Path) -> None:
    """Warn where root's demo runs what another user of the machine can replace."""
    if os.geteuid() == 0 and not is_safe(directory):
        complain(
            f"Another user can replace the folder {directory}, because it is inside one of "
            "theirs, and so make root run anything. Use --dir with a folder inside one of "
            "root's, or start the demo as that user."
        )


def _refuse_leftovers(directory: Path) -> None:
    """Raise :exc:`Refusal` when processes of an earlier run, ended the hard way, still live."""
    left = tagged(directory)
    if not left:
        return
    hubs = [process for process in left if "-m jupyterhub " in f"{process.command} "]
    if hubs:
        pid = hubs[0].pid
        raise Refusal(
            f"The hub of an earlier demo still runs in {directory}, as process {pid}; stop it and "
            f"all it started with `kill {pid}`, or choose another folder with --dir.",
            reason="conflict",
        )
    pids = " ".join(str(process.pid) for process in left)
    raise Refusal(
        f"Processes of an earlier demo in {directory} still run; stop them with `kill {pids}`, or "
        "choose another folder with --dir.",
        reason="conflict",
    )
