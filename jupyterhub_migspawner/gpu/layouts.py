"""Layouts: the profiles of cards, by name, as admins write them for nvidia-mig-parted.

A configuration (here a layout) says for some cards of a node whether MIG is on and how many slices
of which profile they get. It says nothing of placements: :meth:`Layout.places` chooses them so
that most slices stay where they are. Reading the files is :mod:`.layout_reader`'s part.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import yaml

from jupyterhub_migspawner.errors import ConfigError, GpuError
from jupyterhub_migspawner.gpu.arrange import Want, arrange, describe
from jupyterhub_migspawner.model.inventory import Card

VERSION = "v1"


@dataclass(frozen=True)
class PciFilter:
    """A ``device-filter``: device and vendor of the chip, and of the board where it is given."""

    device: int
    subsystem: int | None = None

    def __str__(self) -> str:
        """Return the filter as files write it."""
        board = "" if self.subsystem is None else f":{_pci(self.subsystem)}"
        return f"{_pci(self.device)}{board}"

    def matches(self, card: Card) -> bool:
        """Tell whether the filter is about that card."""
        board = self.subsystem is None or self.subsystem == card.pci_subsystem_id
        return board and self.device == card.pci_device_id


@dataclass(frozen=True)
class LayoutEntry:
    """What one entry of a configuration says. ``devices`` None means all cards.

    ``names`` are the profiles, each as often as it is listed, and ``lines`` the line of each;
    without ``filters`` the entry is for cards of any kind.
    """

    line: int
    devices: tuple[int, ...] | None
    filters: tuple[PciFilter, ...]
    mig_enabled: bool
    names: tuple[str, ...]
    lines: tuple[int, ...]

    def matches(self, card: Card) -> bool:
        """Tell whether the entry is about that card.

        A card that fell off the bus before it told its PCI id may be of any model. Where all cards
        are to have MIG on, those without MIG, such as one that drives a display, are passed over.
        """
        if self.devices is None:
            if self.mig_enabled and not card.mig_capable and not card.problem:
                return False
        elif card.index not in self.devices:
            return False
        if not self.filters or _unidentified(card):
            return True
        return any(each.matches(card) for each in self.filters)


@dataclass(frozen=True)
class CardLayout:
    """What a configuration wants of one card."""

    line: int
    mig_enabled: bool
    names: tuple[str, ...]

    def differs(self, card: Card) -> str:
        """Return ``""`` if the card is so already, wherever its slices lie, else what is different.

        The words continue a line that has named the card. A card with a problem is not known to be
        so, whatever else was read of it.
        """
        if card.problem:
            head = rf"card {card.index}( \({re.escape(card.uuid)}\))?: "
            return re.sub(f"^{head}", "", card.problem, flags=re.IGNORECASE)
        if card.mig_enabled != self.mig_enabled:
            return f"MIG is {_on(card.mig_enabled)}, desired is {_on(self.mig_enabled)}"
        found = [each.profile for each in card.instances if each.uuid is not None]
        if len(found) < len(card.instances):
            return "it has a GPU instance without its full compute instance"
        if Counter(found) != Counter(self.names):
            return f"it is cut into {describe(found)}, desired is {describe(self.names)}"
        return ""


@dataclass(frozen=True)
class Layout:
    """One named configuration of a file."""

    name: str
    source: str
    line: int
    entries: tuple[LayoutEntry, ...]

    def for_cards(self, cards: Sequence[Card]) -> dict[int, CardLayout]:
        """Return what the configuration wants of each of a node's cards, by their index.

        Cards that no entry names are left out: they stay as they are. Of several entries that name
        one card the last counts, as with nvidia-mig-parted. A card with a problem is there, but
        whether it can be cut so is not judged: its problem is the caller's to report.

        Raises :exc:`.ConfigError` when no entry names a card that the node has, or a card cannot be
        cut so; the sentence gives file and line, and for profiles that the card does not have, or
        that do not fit together, the nearest layout that it can have.
        """
        wanted: dict[int, CardLayout] = {}
        for card in cards:
            entries = self._entries_of(card)
            if not entries:
                continue
            entry = entries[-1]
            self._check_card(entry, card)
            wanted[card.index] = CardLayout(entry.line, entry.mig_enabled, entry.names)
        if not wanted:
            raise ConfigError(self._matches_none(cards))
        return wanted

    def notices(self, cards: Sequence[Card]) -> tuple[str, ...]:
        """Return what an admin should know before the layout is applied to these cards.

        One sentence for each entry that names cards the node does not have, and for each card that
        several entries name.
        """
        present = {each.index for each in cards}
        found = []
        for entry in self.entries:
            absent = [str(each) for each in entry.devices or () if each not in present]
            if absent:
                found.append(
                    f"{self.source}, line {entry.line}: {self.name} names card"
                    f"{'s' if len(absent) > 1 else ''} {', '.join(absent)}, but this node has"
                    f" {_counted(cards)}."
                )
        for card in cards:
            entries = self._entries_of(card)
            if len(entries) > 1:
                others = ", ".join(str(each.line) for each in entries[:-1])
                found.append(
                    f"{self.source}, line {entries[-1].line}: {self.name} names card {card.index}"
                    f" again, after line {others}; the last entry counts."
                )
        return tuple(found)

    def _entries_of(self, card: Card) -> list[LayoutEntry]:
        """Return the entries about a card; of a card of unknown model those that surely mean it.

        If none surely does, one of those that may. Which of several filters means such a card
        cannot be known; one is enough to have its problem reported.
        """
        found = [each for each in self.entries if each.matches(card)]
        sure = [each for each in found if not (each.filters and _unidentified(card))]
        return sure or found[:1]

    def places(
        self,
        card: Card,
        wanted: CardLayout,
        keep: frozenset[Want] = frozenset(),
        avoid: frozenset[Want] = frozenset(),
    ) -> tuple[Want, ...]:
        """Return where the desired slices go on the card.

        As many as possible stay, ``keep`` before all. Then as few as possible lie on ``avoid``:
        slices in use, desired or not.
        """
        have = [(each.profile, each.start) for each in card.instances]
        return arrange(card.profiles, wanted.names, have=have, keep=keep, avoid=avoid)

    def _matches_none(self, cards: Sequence[Card]) -> str:
        filtered = [each for each in self.entries if each.filters and each.devices != ()]
        line = next((each.line for each in (*filtered, *self.entries)), self.line)
        where = f"{self.source}, line {line}: {self.name}"
        if not self.entries:
            return f"{where} has no entries, so it is for no card; give it one with devices: all."
        if not cards:
            return f"{where} is for no card, because this node has no cards."
        if not any(each.mig_capable or each.problem for each in cards):
            return f"{where} is for no card, because none of this node's cards supports MIG."
        if not filtered:
            absent = self.notices(cards)
            return (
                absent[0] if absent else f"{where} names no card; write devices: all, or numbers."
            )
        wanted = dict.fromkeys(str(each) for entry in filtered for each in entry.filters)
        there: dict[str, list[str]] = {}
        for card in cards:
            number = "an unknown id"
            if not _unidentified(card):
                number = str(PciFilter(card.pci_device_id, card.pci_subsystem_id))
            there.setdefault(number, []).append(str(card.index))
        has = [
            f"{number} (card{'s' if len(found) > 1 else ''} {', '.join(found)})"
            for number, found in there.items()
        ]
        return (
            f"{where} matches no card by its device-filter {', '.join(wanted)}; this node has"
            f" {', '.join(has)}."
        )

    def _check_card(self, entry: LayoutEntry, card: Card) -> None:
        if card.problem:
            return
        name = f"card {card.index} ({card.model})"
        if entry.mig_enabled and not card.mig_capable:
            raise ConfigError(
                f"{self.source}, line {entry.line}: {name} cannot be cut; leave it out with devices"
                " or device-filter."
            )
        if not card.profiles:
            return  # with MIG off some drivers tell no profiles; they are checked once it is on
        try:
            arrange(card.profiles, entry.names)
        except GpuError as error:
            line = _offending_line(entry, card)
            raise ConfigError(f"{self.source}, line {line}: {name}: {error}") from error


@dataclass(frozen=True)
class LayoutFile:
    """All configurations of a file, in its order."""

    source: str
    layouts: Mapping[str, Layout]

    def layout(self, name: str) -> Layout:
        """Return the configuration of that name.

        Raises :exc:`.ConfigError` when there is none; the sentence names those there are.
        """
        found = self.layouts.get(name)
        if found is None:
            near = difflib.get_close_matches(name, self.layouts, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            known = ", ".join(self.layouts)
            raise ConfigError(f"{self.source} has no layout {name[:60]!r}; it has {known}.{hint}")
        return found


def export_layout(cards: Sequence[Card], name: str = "current") -> str:
    """Write the cards as they are now, as the text of a file with one configuration.

    Cards that are cut alike share an entry; cards that cannot be cut are left out. Raises
    :exc:`.GpuError` when a card has a problem, so nobody knows how it is cut.
    """
    alike: dict[tuple[bool, tuple[tuple[str, int], ...]], list[int]] = {}
    for card in cards:
        if card.problem:
            raise GpuError(card.problem)
        if not card.mig_capable:
            continue
        counts = Counter(each.profile for each in card.instances)
        order = {each.name: position for position, each in enumerate(card.profiles)}
        names = tuple(sorted(counts.items(), key=lambda pair: order.get(pair[0], 0)))
        alike.setdefault((card.mig_enabled, names), []).append(card.index)
    entries = []
    everywhere = len(alike) == 1 and all(each.mig_capable for each in cards)
    for (enabled, names), indices in alike.items():
        entry: dict[str, object] = {"devices": "all" if everywhere else indices}
        entry["mig-enabled"] = enabled
        if enabled:
            entry["mig-devices"] = dict(names)
        entries.append(entry)
    content = {"version": VERSION, "mig-configs": {name: entries}}
    return yaml.safe_dump(content, sort_keys=False, default_flow_style=None)


def _offending_line(entry: LayoutEntry, card: Card) -> int:
    """Return the line of the first profile the card lacks, or else that finds no room."""
    for name, line in zip(entry.names, entry.lines, strict=True):
        if card.profile(name) is None:
            return line
    for count, line in enumerate(entry.lines, start=1):
        try:
            arrange(card.profiles, entry.names[:count])
        except GpuError:
            return line
    return entry.line


def _unidentified(card: Card) -> bool:
    return bool(card.problem) and card.pci_device_id == 0


def _pci(number: int) -> str:
    """Return a PCI id as files write it."""
    return f"0x{number:08X}"


def _counted(cards: Sequence[Card]) -> str:
    if len(cards) < 2:
        return "only card 0" if cards else "no cards"
    return f"{len(cards)} cards, counted from 0"


def _on(enabled: bool) -> str:
    return "on" if enabled else "off"
