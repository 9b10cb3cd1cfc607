"""Sphinx configuration. The reference pages are generated from the code they describe."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import generate

from jupyterhub_migspawner import __version__

project = "jupyterhub_migspawner"
author = "the jupyterhub_migspawner contributors"
release = version = __version__
extensions = ["myst_parser"]
exclude_patterns = ["_build", "reference/generated"]
html_theme = "alabaster"
html_theme_options = {"description": "A slice broker for research teams", "fixed_sidebar": True}
myst_heading_anchors = 3

generate.write(Path(__file__).parent / "reference" / "generated")
