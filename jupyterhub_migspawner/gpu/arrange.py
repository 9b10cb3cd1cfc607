"""Where profiles go on a card: legal placements for a list of names, near to what is there already.

Pure search over the placements the driver listed; nothing is assumed about a model. A layout is
legal when every instance starts where its profile may, no memory slot and no media engine is used
twice, no profile exceeds its number of instances, and the graphics instances (``+gfx``) together do
not exceed theirs. Sources: the MIG User Guide, "Partitioning" and "Supported MIG Profiles"; the
engines are counted as in NVIDIA's Kubernetes DRA driver, as counters beside the memory slots. The
guide also says that a driver left to choose placements by itself can corner itself.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest

from jupyterhub_migspawner.errors import GpuError
from jupyterhub_migspawner.gpu.cards import engines_of_card
from jupyterhub_migspawner.model.inventory import Engines, Placement, Profile

Want = tuple[str, int]
"""A profile's name and the memory slot it starts at."""

_SIZE = re.compile(r"([1-9][0-9]{0,3})g\.(0|[1-9][0-9]{0,5})gb(.*)")


def arrange(
    profiles: Sequence[Profile],
    names: Sequence[str],
    *,
    have: Collection[Want] = (),
    keep: Collection[Want] = (),
    avoid: Collection[Want] = (),
) -> tuple[Want, ...]:
    """Place all of ``names`` on one card; return the places in order of start.

    Of all legal ways the one that leaves most of ``keep`` where they are; then the one in which
    fewest have to wait for a slice of ``avoid``, which is there, is in use, and need not be
    desired; then the one that leaves most of ``have`` where they are. Between equals ones and
    threes go high, so that the low half stays free for a four.

    Raises :exc:`.GpuError` when the card has no such profile, or the names do not fit on it
    together; the sentence names the nearest layout that does.
    """
    counts = Counter(names)
    by_name = _known(profiles, counts)
    best: tuple[tuple[int, int, int, int], tuple[Want, ...]] | None = None
    kept, had = frozenset(keep), frozenset(have)
    # A profile the card does not have takes no slots of it.
    held = {each: _mask(by_name, each) for each in avoid if each[0] in by_name}
    for layout in _layouts(by_name, counts):
        rank = (
            sum(each in kept for each in layout),
            -_waiting(by_name, layout, held),
            sum(each in had for each in layout),
            sum(_preference(by_name[name], start) for name, start in layout),
        )
        if best is None or rank > best[0]:
            best = (rank, layout)
    if best is None:
        raise GpuError(_impossible(profiles, names))
    return tuple(sorted(best[1], key=lambda each: each[1]))


def is_legal(profiles: Sequence[Profile], layout: Sequence[Want]) -> str:
    """Return ``""`` if the placed layout can exist on such a card, else why it cannot.

    The reason is a sentence.
    """
    by_name = {each.name: each for each in profiles}
    taken: dict[str, Placement] = {}
    for name, start in layout:
        profile = by_name.get(name)
        if profile is None:
            return _unknown(name, profiles)
        place = next((each for each in profile.placements if each.start == start), None)
        if place is None:
            allowed = ", ".join(str(each.start) for each in profile.placements)
            return f"{name} cannot start at {start}; it may start at {allowed}."
        for other, there in taken.items():
            if place.overlaps(there):
                return f"{name} at {start} and {other} want the same memory slots."
        taken[f"{name} at {start}"] = place
    counts = Counter(name for name, _ in layout)
    return _Limits(profiles).excess(counts)


def legal_layouts(profiles: Sequence[Profile]) -> Iterator[tuple[Want, ...]]:
    """Yield every placed layout such a card can have, the empty one included, each once."""
    yield from _grow(
        sorted(_places(profiles), key=lambda each: each[1].start),
        _Limits(profiles),
        (),
        0,
        Counter(),
    )


def nearest(profiles: Sequence[Profile], names: Sequence[str]) -> tuple[str, ...]:
    """Return the profiles of the legal layout closest to ``names``, which may be of another model.

    What both have counts for nothing; the rest is compared size by size, the largest first, by the
    compute slices that the profiles' names tell; then fewest are new, then by their memory.
    """
    wanted = Counter(names)
    slices = {each.name: each.compute_slices for each in profiles}

    def distance(found: tuple[str, ...]) -> tuple[int, int, int, int, tuple[str, ...]]:
        lost = _sizes((wanted - Counter(found)).elements())
        added = _sizes((Counter(found) - wanted).elements())
        pairs = list(zip_longest(lost, added, fillvalue=(0, 0, "")))
        return (
            sum(abs(one[0] - other[0]) for one, other in pairs),
            len(added),
            sum(abs(one[1] - other[1]) for one, other in pairs),
            sum(one[2] != other[2] for one, other in pairs),
            found,
        )

    possible = {tuple(sorted(name for name, _ in each)) for each in legal_layouts(profiles)}
    closest = min(possible, key=distance)
    return tuple(sorted(closest, key=lambda name: (-slices[name], name)))


def describe(names: Sequence[str]) -> str:
    """Write a layout in words: ``3g.20gb, 2 x 1g.5gb``."""
    counts = Counter(names)
    if not counts:
        return "nothing"
    return ", ".join(name if count == 1 else f"{count} x {name}" for name, count in counts.items())


def _layouts(by_name: dict[str, Profile], counts: Counter[str]) -> Iterator[tuple[Want, ...]]:
    """Yield every way to place exactly these counts, largest profiles first, equal ones once."""
    order = sorted(counts, key=lambda name: (-by_name[name].size, name))
    if _Limits(tuple(by_name.values())).excess(counts):
        return

    def place(
        position: int, left: int, after: int, taken: int, layout: tuple[Want, ...]
    ) -> Iterator[tuple[Want, ...]]:
        if left == 0:
            position, after = position + 1, -1
            if position >= len(order):
                yield layout
                return
            left = counts[order[position]]
        name = order[position]
        for each in by_name[name].placements:
            if each.start > after and not taken & each.mask:
                yield from place(
                    position, left - 1, each.start, taken | each.mask, (*layout, (name, each.start))
                )

    yield from place(-1, 0, -1, 0, ())


def _grow(
    places: list[tuple[Profile, Placement]],
    limits: _Limits,
    layout: tuple[Want, ...],
    free_from: int,
    counts: Counter[str],
) -> Iterator[tuple[Want, ...]]:
    yield layout
    for profile, place in places:
        if place.start < free_from:
            continue
        more = counts + Counter([profile.name])
        if not limits.excess(more):
            yield from _grow(
                places,
                limits,
                (*layout, (profile.name, place.start)),
                place.start + place.size,
                more,
            )


class _Limits:
    """How many of each profile one card can hold, wherever they lie."""

    def __init__(self, profiles: Sequence[Profile]) -> None:
        self._by_name = {each.name: each for each in profiles}
        self._engines = engines_of_card(tuple(profiles))
        self._graphics = {each.name for each in profiles if "+gfx" in each.attributes}
        self._most_graphics = max(
            (self._by_name[name].max_instances for name in self._graphics), default=0
        )

    def excess(self, counts: Mapping[str, int]) -> str:
        """Return ``""`` if the card can hold them all, else a sentence that says why not."""
        taken = Engines()
        graphics = 0
        for name, count in counts.items():
            profile = self._by_name[name]
            if count > profile.max_instances:
                return f"A card holds at most {profile.max_instances} of {name}, not {count}."
            taken += profile.engines * count
            graphics += count * (name in self._graphics)
        if graphics > self._most_graphics:
            return (
                f"A card holds at most {self._most_graphics} instances with graphics (+gfx), "
                f"not {graphics}."
            )
        scarce = taken.beyond(self._engines)
        if scarce:
            together = describe([name for name, count in counts.items() for _ in range(count)])
            return (
                f"{together} together need more {scarce} than the card has; choose profiles with "
                "fewer media engines."
            )
        return ""


def _places(profiles: Sequence[Profile]) -> list[tuple[Profile, Placement]]:
    return [(profile, place) for profile in profiles for place in profile.placements]


def _known(profiles: Sequence[Profile], counts: Counter[str]) -> dict[str, Profile]:
    by_name = {each.name: each for each in profiles}
    for name in counts:
        if name not in by_name:
            why = _unknown(name, profiles)
            if profiles:
                closest = describe(nearest(profiles, list(counts.elements())))
                why += f" The nearest layout it can have is {closest}."
            raise GpuError(why)
    return by_name


def _mask(by_name: dict[str, Profile], want: Want) -> int:
    name, start = want
    return Placement(start, by_name[name].size).mask


def _waiting(by_name: dict[str, Profile], layout: tuple[Want, ...], held: dict[Want, int]) -> int:
    """Return how many places of the layout lie on something held that the layout does not have."""
    taken = 0
    for want, mask in held.items():
        if want not in layout:
            taken |= mask
    return sum(_mask(by_name, each) & taken != 0 for each in layout)


def _sizes(names: Iterable[str]) -> list[tuple[int, int, str]]:
    """Return compute slices, gigabytes and the rest as the names tell, the largest first.

    A name that tells nothing counts as the smallest slice.
    """
    found = [_SIZE.fullmatch(each) for each in names]
    sizes = [(int(each[1]), int(each[2]), each[3]) if each else (1, 0, "") for each in found]
    return sorted(sizes, reverse=True)


def _unknown(name: str, profiles: Sequence[Profile]) -> str:
    if not profiles:
        return "The card lists no MIG profiles: it cannot be cut, or MIG must be turned on first."
    known = ", ".join(each.name for each in profiles)
    return f"The card has no profile {name[:60]!r}; it has {known}."


def _impossible(profiles: Sequence[Profile], names: Sequence[str]) -> str:
    why = _Limits(profiles).excess(Counter(names))
    why = why or f"{describe(names)} do not fit together on one card."
    return f"{why} The nearest layout that fits is {describe(nearest(profiles, names))}."


def _preference(profile: Profile, start: int) -> int:
    """Rate a start of a profile, higher is better: one or three compute slices high, others low."""
    height = start * profile.size
    return height if profile.compute_slices in (1, 3) else -height
