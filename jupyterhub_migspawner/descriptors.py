"""How many descriptors a process may have open."""

from __future__ import annotations

import resource

MOST_FILES = 65536
"""Descriptors beyond which the soft limit is not raised."""


def raise_file_limit() -> int:
    """Raise the soft limit of open files to the hard one; return how many may be open now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        return most
    return MOST_FILES if soft == resource.RLIM_INFINITY else soft
