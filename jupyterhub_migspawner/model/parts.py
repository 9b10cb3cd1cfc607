"""Part of a list that may be long: the newest rows, or those before a row that was seen."""

from __future__ import annotations

from dataclasses import dataclass, replace

#: Most rows of one part.
MOST_ROWS = 500


@dataclass(frozen=True)
class Part:
    """The newest rows, at most ``limit``; with ``before``, of those with a smaller id."""

    limit: int
    before: int | None = None

    @property
    def and_one_more(self) -> Part:
        """One row more, which says whether there are others before this part."""
        return replace(self, limit=self.limit + 1)

    @property
    def values(self) -> dict[str, int]:
        """What :func:`jupyterhub_migspawner.db.queries.parts.narrowed` binds."""
        bound = {"part_limit": max(0, self.limit)}
        return bound if self.before is None else {**bound, "part_before": self.before}
