"""Values that the floors share; one file a noun.

Frozen dataclasses, most of them one a table of the lease database. Every time is an aware datetime
in UTC; memory is in MiB; ``compute_slices`` counts compute slices of the card (7 on an A100).
"""
