"""How a demo's simulated cards are cut, and the tiers that fit them.

Relies on what the cards themselves say of their profiles; nothing is known here of any model.
Promises a legal layout for every card, or a sentence that names what cannot be.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Any

from jupyterhub_migspawner.cli.output import cut_into
from jupyterhub_migspawner.errors import GpuError, Refusal
from jupyterhub_migspawner.gpu.arrange import Want, arrange
from jupyterhub_migspawner.model.inventory import Profile
from jupyterhub_migspawner.policy.wording import memory

#: Every second card cut into as many of the smallest as fit, the others balanced.
MIXED = "mixed"
BALANCED = "balanced"
_ALL = "all-"

#: After so many minutes without use a session of the demo's idle tier ends; and while others wait.
IDLE_MINUTES = 10
IDLE_MINUTES_WHEN_WANTED = 4


def number_of_cards(layout: str, asked: int | None) -> int:
    """Return how many cards a demo gets: as asked, else as many as the layout lists, else two."""
    listed = layout.count("/") + 1
    if listed == 1:
        return asked or 2
    if asked is not None and asked != listed:
        raise Refusal(
            f"--layout lists {listed} cards and --cards asks for {asked}; "
            "leave one of them out or make them agree.",
            reason="options",
        )
    return listed


def cut(profiles: Sequence[Profile], layout: str, cards: int) -> tuple[tuple[Want, ...], ...]:
    """Return what every card is cut into. Raises :exc:`Refusal` for a layout that cannot be."""
    if layout == MIXED:
        smallest = _fill(profiles, (), sizes(profiles)["small"])
        balanced = _balanced(profiles)
        return tuple(balanced if index % 2 else smallest for index in range(cards))
    if layout == BALANCED:
        return (_balanced(profiles),) * cards
    if layout.startswith(_ALL):
        profile = _known(profiles, layout[len(_ALL) :])
        return (_fill(profiles, (), profile),) * cards
    lists = [_listed(profiles, part) for part in layout.split("/")]
    return tuple(lists) * cards if len(lists) == 1 else tuple(lists)


def sizes(profiles: Sequence[Profile]) -> dict[str, Profile]:
    """Return the profiles worth a tier of their own: small, medium and large, if they exist."""
    found = {}
    for title, slices in (("small", 1), ("medium", 2), ("large", 3)):
        plain = [
            profile
            for profile in profiles
            if profile.compute_slices == slices and not profile.attributes and not profile.whole
        ]
        if plain:
            found[title] = min(plain, key=lambda profile: profile.memory_mib)
    if "small" not in found:
        raise Refusal("This model cannot be cut into slices.", reason="options")
    return found


def tiers_for(
    profiles: Sequence[Profile], layout: Sequence[Sequence[Want]]
) -> list[dict[str, Any]]:
    """Return the tiers of a demo, as they stand in its configuration file."""
    tiers: list[dict[str, Any]] = [
        {
            "name": "cpu",
            "title": "No GPU",
            "description": "For writing, plotting and everything that needs no card.",
            "profile": "none",
        }
    ]
    named = {profile.name: title for title, profile in sizes(profiles).items()}
    cut_into = {name for card in layout for name, _ in card}
    for profile in sorted(
        profiles, key=lambda p: (p.compute_slices, p.memory_mib, bool(p.attributes), p.name)
    ):
        if profile.whole or not (profile.name in named or profile.name in cut_into):
            continue
        tiers.append(
            {
                "name": named.get(profile.name, profile.name.replace("+", "-")),
                "title": named.get(profile.name, profile.name).capitalize(),
                "description": f"{_share(profile)} of a card's compute, "
                f"{memory(profile.memory_mib)} of its memory.",
                "profile": profile.name,
            }
        )
    tiers[1]["default"] = True
    _idle_rule(tiers)
    tiers.append(_shared(tiers[1:], cut_into, profiles))
    tiers.append(
        {
            "name": "card",
            "title": "Whole card",
            "description": "A card for you alone, for jobs that keep it busy.",
            "profile": "whole",
            "approval": True,
            "max_hours": 48,
        }
    )
    return tiers


def _idle_rule(tiers: Sequence[dict[str, Any]]) -> None:
    """Let sessions of one tier end that nobody uses, soon enough to see it happen."""
    tier = next((each for each in tiers if each["name"] == "medium"), tiers[1])
    tier["idle_minutes"] = IDLE_MINUTES
    tier["idle_minutes_when_wanted"] = IDLE_MINUTES_WHEN_WANTED


def _shared(
    tiers: Sequence[dict[str, Any]], cut_into: Container[str], profiles: Sequence[Profile]
) -> dict[str, Any]:
    """Return a tier whose people share a slice.

    The slice is of the smallest size that the cards are cut into.
    """
    like = next((tier for tier in tiers if tier["profile"] in cut_into), tiers[0])
    profile = next(each for each in profiles if each.name == like["profile"])
    size = memory(profile.memory_mib)
    return {
        "name": "course",
        "title": "Course",
        "description": f"For exercises: several people on a slice with {size}.",
        "profile": profile.name,
        "seats": 4,
    }


def described(card: Sequence[Want]) -> str:
    """Return a card's layout in words."""
    return cut_into(name for name, _ in card)


def _share(profile: Profile) -> str:
    slices = profile.compute_slices
    number = ("No", "One", "Two", "Three", "Four")[slices] if slices <= 4 else str(slices)
    return f"{number} slice{'' if slices == 1 else 's'}"


def _known(profiles: Sequence[Profile], name: str) -> Profile:
    for profile in profiles:
        if profile.name == name:
            return profile
    names = ", ".join(profile.name for profile in profiles)
    raise Refusal(
        f"There is no profile {name[:40]!r} on this model; it has {names}. A layout is "
        f"{BALANCED!r}, 'all-PROFILE', or profiles separated by commas, with a slash between "
        "cards.",
        reason="options",
    )


def _listed(profiles: Sequence[Profile], part: str) -> tuple[Want, ...]:
    names = [_known(profiles, word.strip()).name for word in part.split(",")]
    try:
        return arrange(profiles, names)
    except GpuError as error:
        raise Refusal(str(error), reason="options") from error


def _balanced(profiles: Sequence[Profile]) -> tuple[Want, ...]:
    by_title = sizes(profiles)
    start = tuple(by_title[title].name for title in ("large", "medium") if title in by_title)
    return _fill(profiles, start, by_title["small"])


def _fill(profiles: Sequence[Profile], names: Sequence[str], more: Profile) -> tuple[Want, ...]:
    """Return ``names`` and as many of ``more`` beside them as the card takes."""
    best: tuple[Want, ...] = ()
    for count in range(1, more.max_instances + 1):
        try:
            best = arrange(profiles, [*names, *[more.name] * count])
        except GpuError:
            break
    return best
