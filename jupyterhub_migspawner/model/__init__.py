"""Values that the floors share; one file a noun.

Frozen dataclasses: one for each table of the lease database, and what NVML reports about a node's
cards (:mod:`.inventory`). Every time is an aware datetime in UTC; memory is in MiB;
``compute_slices`` counts compute slices of the card (7 on an A100).
"""
