"""``migspawner demo``: a hub with simulated cards, ready to log in to.

Relies on the simulator, on JupyterHub and its proxy, and on nothing outside this machine. Promises
that the hub listens on 127.0.0.1 alone and that nothing it started is left when the demo ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jupyterhub_migspawner.cli.command import COUNT, DONE, PORT, REFUSED, Command, argument
from jupyterhub_migspawner.cli.demo import cards as demo_cards
from jupyterhub_migspawner.cli.demo import files
from jupyterhub_migspawner.cli.demo.hub import Hub, Stopped, free_ports
from jupyterhub_migspawner.cli.demo.processes import Signals, marked
from jupyterhub_migspawner.cli.demo.tools import search_path
from jupyterhub_migspawner.cli.output import complain, print_json
from jupyterhub_migspawner.errors import Refusal
from jupyterhub_migspawner.gpu.arrange import Want
from jupyterhub_migspawner.gpu.cards import Profile
from jupyterhub_migspawner.gpu.simulator import create_state, find_model, profiles_of

_MODEL = "A100-SXM4-40GB"


class Demo(Command):
    """A hub with simulated cards."""

    name = "migspawner demo"
    description = (
        "Run a JupyterHub with simulated cards on 127.0.0.1 until Ctrl-C. Users admin, ada, grace\n"
        "and linus log in with the password 'demo'. State is kept in the folder --dir, where the\n"
        "hub's configuration is left as jupyterhub_config.py."
    )
    arguments = (
        argument("--port", type=PORT, metavar="N", help="port to log in at (default: 8000)"),
        argument("--dir", metavar="D", help="folder for everything it keeps (default: demo)"),
        argument("--cards", type=COUNT, metavar="N", help="how many cards (default: 2)"),
        argument("--model", metavar="M", help=f"model of the cards (default: {_MODEL})"),
        argument(
            "--layout",
            metavar="L",
            help="how they are cut: 'mixed' (default), 'balanced', 'all-PROFILE' such as "
            "all-1g.5gb, or profiles with commas between slices and slashes between cards",
        ),
    )

    def run(self) -> int:
        """Make the folder ready, run the hub until a signal comes, stop everything."""
        path = search_path()
        directory = Path(self.option("dir", "demo")).expanduser().resolve()
        with files.claim(directory):
            _refuse_leftovers(directory)
            ports = free_ports(self.option("port", 8000))
            profiles, layout = self._make_cards(directory)
            config = files.write_config(
                directory, ports, path, demo_cards.tiers_for(profiles, layout)
            )
            with Signals() as signals:
                return self._serve(Hub(directory, config, ports, path), config, signals)

    def _serve(self, hub: Hub, config: Path, signals: Signals) -> int:
        status = DONE
        try:
            hub.wait_until_ready(signals)
            self._announce(hub, config)
            hub.wait_until_ended(signals)
        except Stopped:
            pass
        finally:
            left = hub.stop(signals)
        if left:
            pids = ", ".join(f"{process.pid} ({process.command[:60]})" for process in left)
            complain(f"These processes of the demo could not be ended: {pids}.")
            status = REFUSED
        elif not self.as_json:
            print("Stopped; nothing of the demo is left running.", flush=True)
        return status

    def _make_cards(self, directory: Path) -> tuple[Sequence[Profile], Sequence[Sequence[Want]]]:
        """The cards' profiles and layout: those of an earlier start, or new ones as asked."""
        asked = {name: self.option(name) for name in ("cards", "model", "layout")}
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
            files.write_record(directory, record)
        self._cards = (record, cut)
        return profiles, cut

    def _announce(self, hub: Hub, config: Path) -> None:
        record, cut = self._cards
        if self.as_json:
            print_json(
                {
                    "url": hub.url,
                    "users": list(files.USERS),
                    "password": files.PASSWORD,
                    "config": str(config),
                    "log": str(hub.log),
                    "hub_pid": hub.pid,
                }
            )
            return
        lines = [
            "The demo hub is ready.",
            "",
            f"  Log in   {hub.url}",
            f"  Users    admin (may approve), {', '.join(files.USERS[1:])}; "
            f"password: {files.PASSWORD}",
            f"  Cards    {record.cards} simulated {record.model}",
            *(
                f"           card {index}: {demo_cards.described(card)}"
                for index, card in enumerate(cut)
            ),
            f"  Folder   {hub.directory} (the hub's log: {hub.log.name})",
            f"  Look     migspawner slices -f {config}",
            "",
            "Ctrl-C stops it and everything it started.",
        ]
        print("\n".join(lines), flush=True)


def _refuse_leftovers(directory: Path) -> None:
    """Raise :exc:`Refusal` when processes of an earlier run, ended the hard way, still live."""
    left = marked(directory)
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
