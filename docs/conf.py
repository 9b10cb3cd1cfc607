"""Sphinx configuration.

The pages are plain Markdown, so that they can be read on a code host as well: the order of the
pages, which Sphinx wants as a directive, comes from the lists in ``index.md``. ``docs/generate.py``
writes the pages of the reference that come from the code.
"""

from __future__ import annotations

import re
from typing import Any

from jupyterhub_migspawner import __version__

project = "jupyterhub_migspawner"
author = "the jupyterhub_migspawner contributors"
release = version = __version__
extensions = ["myst_parser"]
exclude_patterns = ["_build"]
html_theme = "alabaster"
html_theme_options = {"description": "A slice broker for research teams", "fixed_sidebar": True}
myst_heading_anchors = 4


def _with_contents(app: Any, page: str, source: list[str]) -> None:
    """Turn the lists of pages in the index into Sphinx's tables of contents."""
    if page != "index":
        return
    for section in re.findall(r"^## .*(?:\n(?!## ).*)*", source[0], re.MULTILINE):
        caption, *_ = section.splitlines()
        pages = "\n".join(re.findall(r"^- \[[^]]*\]\((.*)\.md\)$", section, re.MULTILINE))
        source[0] += f"\n```{{toctree}}\n:hidden:\n:caption: {caption[3:]}\n\n{pages}\n```\n"


def setup(app: Any) -> None:
    """Have the contents built; called by Sphinx."""
    app.connect("source-read", _with_contents)
