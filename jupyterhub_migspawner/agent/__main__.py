"""The agent of a hub's own machine: ``python -m jupyterhub_migspawner.agent``.

The service starts it with its standard input open, and it ends when its input ends: so with the
service, however that ends. On machines without a hub, ``migspawner agent`` runs the same agent.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import threading
from collections.abc import Callable, Sequence

from traitlets.config import Config

from jupyterhub_migspawner.agent.daemon import look_once, run_until_signalled
from jupyterhub_migspawner.broker.agents import Superseded
from jupyterhub_migspawner.config import MigBroker
from jupyterhub_migspawner.config.file import load_config_file
from jupyterhub_migspawner.config.handover import read_file
from jupyterhub_migspawner.config.resolved import of_document
from jupyterhub_migspawner.db import queries
from jupyterhub_migspawner.descriptors import raise_file_limit
from jupyterhub_migspawner.errors import MigspawnerError
from jupyterhub_migspawner.logs import set_up_log

log = logging.getLogger("migspawner.agent")


def main(argv: Sequence[str] | None = None) -> int:
    """Run this node's agent until standard input ends, or look once; return 1 if it cannot."""
    queries.load()
    parser = argparse.ArgumentParser(
        prog="python -m jupyterhub_migspawner.agent",
        description="The node's agent. The slice broker's service starts it.",
    )
    parser.add_argument("--config", required=True, help="the hub's configuration file")
    parser.add_argument(
        "--settings",
        type=int,
        metavar="DESCRIPTOR",
        help="the open file with the hub's settings; without it the configuration file is read",
    )
    parser.add_argument(
        "--once",
        action="store_true",
        help=(
            "check once whether the slices that are being released are empty, and exit; used "
            "by a hub that ends"
        ),
    )
    arguments = parser.parse_args(argv)
    set_up_log()
    raise_file_limit()
    try:
        options = MigBroker(config=_config(arguments.config, arguments.settings))
        if arguments.once:
            look_once(options)
        else:
            run_until_signalled(options, _end_with_input)
    except Superseded as error:
        log.critical("The agent of this node ends: %s", error)
        return 1
    except MigspawnerError as error:
        log.critical("The agent of this node cannot start: %s", error)
        return 1
    return 0


def _config(config_file: str, given: int | None) -> Config:
    if given is None:
        return load_config_file(config_file)
    document = read_file(given)
    os.close(given)
    return of_document(document)


def _end_with_input(end: Callable[[], None]) -> None:
    def wait() -> None:
        while os.read(0, 4096):
            continue
        end()

    # A thread: input that is a file, or none, cannot be waited for by an event loop.
    threading.Thread(target=wait, name="migspawner-end", daemon=True).start()


if __name__ == "__main__":
    sys.exit(main())
