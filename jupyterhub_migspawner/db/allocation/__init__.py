"""Allocation of slices, seats and cards: find what can be given out, give it to one lease.

Imported as the package, like the queries: ``allocation.slices.offers(...)``.
"""

from jupyterhub_migspawner.db.allocation import cards, seats, slices

__all__ = [
    "cards",
    "seats",
    "slices",
]
