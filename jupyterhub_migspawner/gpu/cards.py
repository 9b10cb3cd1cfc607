"""What the profiles of a card say about the card itself, which NVML does not report."""

from __future__ import annotations

from jupyterhub_migspawner.model.inventory import Engines, Profile


def engines_of_card(profiles: tuple[Profile, ...]) -> Engines:
    """Return the engines of a card, by what its profiles may take.

    NVML reports none for the card itself. The profile of the whole card has all of them; and as
    many instances of one profile as the driver allows can exist side by side, so a table in which
    those take more counts as well.
    """
    found = Engines()
    for each in profiles:
        found |= each.engines * each.max_instances
    return found


def whole_profiles(profiles: tuple[Profile, ...]) -> frozenset[int]:
    """Return the ids of the profiles that cover as many memory slots as the largest one."""
    largest = max((each.size for each in profiles), default=0)
    return frozenset(each.id for each in profiles if largest and each.size == largest)
