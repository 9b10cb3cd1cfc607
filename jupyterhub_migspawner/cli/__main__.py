"""``python -m jupyterhub_migspawner.cli``: the same as ``migspawner``."""

from __future__ import annotations

import sys

from jupyterhub_migspawner.cli.main import main

sys.exit(main())
