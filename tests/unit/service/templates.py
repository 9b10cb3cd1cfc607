"""Templates that the services of a test process share once they are compiled."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from unittest.mock import patch

from jinja2 import BytecodeCache, Environment
from jinja2.bccache import Bucket

from jupyterhub_migspawner.service.pages import theme


class Kept(BytecodeCache):
    """Compiled templates by name and file; one whose text has changed is compiled again."""

    def __init__(self) -> None:
        self._kept: dict[str, bytes] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        if bucket.key in self._kept:
            bucket.bytecode_from_string(self._kept[bucket.key])

    def dump_bytecode(self, bucket: Bucket) -> None:
        self._kept[bucket.key] = bucket.bytecode_to_string()


@contextmanager
def shared() -> Iterator[None]:
    """In this block, a new service compiles no page that another one has compiled."""
    with patch.object(theme, "Environment", partial(Environment, bytecode_cache=Kept())):
        yield
