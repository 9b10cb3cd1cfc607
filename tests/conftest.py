"""What every test relies on."""

import os
import signal
import sys
from collections import Counter
from pathlib import Path

import pytest

#: Files that take longest on an idle machine, the longest first. They begin first, so that a run
#: does not end with one worker at one of them and the others at nothing.
LONGEST = (
    "test_idle_page.py",
    "test_idle.py",
    "test_idle_restart.py",
    "test_database_lost.py",
    "test_demo.py",
    "test_other_culler.py",
    "test_used_page.py",
    "test_layout_moves.py",
    "test_idle_internal_ssl.py",
    "test_hub.py",
    "test_openapi.py",
    "test_two_hubs.py",
    "test_chaos.py",
    "test_layout_properties.py",
)

#: For this process and for what it starts.
STUBS = str(Path(__file__).parent / "stubs")
sys.path.insert(0, STUBS)
os.environ["PYTHONPATH"] = ":".join(filter(None, (STUBS, os.environ.get("PYTHONPATH"))))

# A run in the background of a shell inherits an ignored SIGINT and would hand it on to every
# program it starts: none of them could then be ended as Ctrl-C ends it.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the files for workers that take one after the other: long ones, then large ones."""
    sizes = Counter(item.path for item in items)
    ranks = {name: rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: (ranks.get(item.path.name, len(ranks)), -sizes[item.path]))
