"""``python -m jupyterhub_migspawner.service``: what the hub runs as the managed service."""

from __future__ import annotations

import sys

from jupyterhub_migspawner.service.app import main

if __name__ == "__main__":
    sys.exit(main())
