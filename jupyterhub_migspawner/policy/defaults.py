"""Which tier a user gets who picks none: one for all, by user and group, or by a function.

Promises that names are checked when the file is read; what a function answers is checked when it
does, and an answer that is no tier of the person's counts as none.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from jupyterhub_migspawner.errors import ConfigError
from jupyterhub_migspawner.policy.fields import by_person, user_or_group
from jupyterhub_migspawner.policy.people import KnownAs, Person, as_written
from jupyterhub_migspawner.policy.tiers import Tier, open_tiers
from jupyterhub_migspawner.policy.wording import listed, nearest, quoted

log = logging.getLogger("migspawner.policy")


@dataclass(frozen=True)
class DefaultTiers:
    """``MigBroker.default_tier``, checked."""

    everybody: str | None = None
    users: Mapping[str, str] = field(default_factory=dict)
    groups: Mapping[str, str] = field(default_factory=dict)
    function: Callable[[Person], object] | None = None

    def of(self, person: Person, tiers: Sequence[Tier]) -> str | None:
        """Return the name that counts for a person: the first of these that they may use, or None.

        Their own, those of their groups in the order of the file, that of everybody.
        """
        mine = {tier.name for tier in open_tiers(tiers, person)}
        if self.function is not None:
            return self._asked(person, mine)
        of_groups = (name for group, name in self.groups.items() if group in person.groups)
        for name in (self.users.get(person.name), *of_groups, self.everybody):
            if name in mine:
                return name
        return None

    def _asked(self, person: Person, mine: set[str]) -> str | None:
        assert self.function is not None
        try:
            name = self.function(person)
        except Exception:
            log.exception("MigBroker.default_tier failed for %r; it is ignored.", person.name)
            return None
        if name is None or (isinstance(name, str) and name in mine):
            return name
        log.warning(
            "MigBroker.default_tier gave %s for %r, which is not one of their tiers; it is "
            "ignored.",
            quoted(name),
            person.name,
        )
        return None


def parse_default_tier(
    raw: object, tiers: Sequence[Tier], known_as: KnownAs = as_written
) -> DefaultTiers:
    """Check ``MigBroker.default_tier``; ``known_as`` gives the hub's names of people.

    Raises :class:`~jupyterhub_migspawner.errors.ConfigError`.
    """
    names = [tier.name for tier in tiers]

    def known(where: str, name: object) -> str:
        if isinstance(name, str) and name in names:
            return name
        raise ConfigError(
            f"MigBroker.default_tier{where} is {quoted(name)}{nearest(name, names)}; expected one "
            f"of the tiers: {listed(names, 'or')}."
        )

    if raw is None or raw == "":
        return DefaultTiers()
    if callable(raw):
        return DefaultTiers(function=raw)
    if not isinstance(raw, Mapping):
        return DefaultTiers(known("", raw))
    users: list[tuple[str, str]] = []
    groups: dict[str, str] = {}
    everybody = None
    for key, value in raw.items():
        kind, name = user_or_group(key)
        where = f"[{quoted(key)}]"
        if key == "default":
            everybody = known(where, value)
        elif kind == "user":
            users.append((name, known(where, value)))
        elif kind == "group":
            groups[name] = known(where, value)
        else:
            raise ConfigError(
                f"MigBroker.default_tier: unknown entry {quoted(key)}{nearest(key, ['default'])}; "
                "expected 'default', 'group:NAME' or 'user:NAME'."
            )
    return DefaultTiers(everybody, by_person("MigBroker.default_tier", users, known_as), groups)
