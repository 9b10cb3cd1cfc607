"""Layouts: what cards shall be cut into, by name, as admins write them for nvidia-mig-parted.

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
from jupyterhub_migspawner.gpu.cards import Card

VERSION = "v1"


@dataclass(frozen=True)
class LayoutEntry:
    """What one entry of a configuration says. ``devices`` None means all cards.

    ``names`` are the profiles, each as often as it is wanted, and ``lines`` the line of each;
    ``filters`` PCI ids, none for any.
    """

    line: int
    devices: tuple[int, ...] | None
    filters: tuple[int, ...]
    mig_enabled: bool
    names: tuple[str, ...]
    lines: tuple[int, ...]

    def matches(self, card: Card) -> bool:
        """Whether the entry is about that card.

        A card that fell off the bus before it told its PCI id may be of any model.
        """
        named = self.devices is None or card.index in self.devices
        if not self.filters or _unidentified(card):
            return named
        return named and card.pci_device_id in self.filters


@dataclass(frozen=True)
class CardLayout:
    """What a configuration wants of one card."""

    line: int
    mig_enabled: bool
    names: tuple[str, ...]

    def differs(self, card: Card) -> str:
        """``""`` if the card is so already, wherever its slices lie, else what is different.

        The words continue a line that has named the card. A card with a problem is not known to be
        so, whatever else was read of it.
        """
        if card.problem:
            head = rf"card {card.index}( \({re.escape(card.uuid)}\))?: "
            return re.sub(f"^{head}", "", card.problem, flags=re.IGNORECASE)
        if card.mig_enabled != self.mig_enabled:
            return f"MIG is {_on(card.mig_enabled)}, wanted is {_on(self.mig_enabled)}"
        found = [each.profile for each in card.instances if each.uuid is not None]
        if len(found) < len(card.instances):
            return "it has a GPU instance without its full compute instance"
        if Counter(found) != Counter(self.names):
            return f"it is cut into {describe(found)}, wanted is {describe(self.names)}"
        return ""


@dataclass(frozen=True)
class Layout:
    """One named configuration of a file."""

    name: str
    source: str
    line: int
    entries: tuple[LayoutEntry, ...]

    def for_cards(self, cards: Sequence[Card]) -> dict[int, CardLayout]:
        """What the configuration wants of each of a node's cards, by their index.

        Cards that no entry names are left out: they stay as they are. A card with a problem is
        there, but whether it can be cut so is not judged: its problem is the caller's to report.

        Raises:
            ConfigError: two entries name one card, an entry names a card the node does not have,
                none names any that it has, or a card cannot be cut so; the sentence gives file and
                line, and for profiles that the card does not have, or that do not fit together,
                the nearest layout that it can have.
        """
        wanted: dict[int, CardLayout] = {}
        guessed: set[int] = set()
        for entry in self.entries:
            self._check_devices(entry, cards)
            for card in cards:
                if not entry.matches(card):
                    continue
                guess = bool(entry.filters) and _unidentified(card)
                if guess and card.index in wanted:
                    continue  # one entry is enough to have its problem reported
                if card.index in wanted and card.index not in guessed:
                    raise ConfigError(
                        f"{self.source}, line {entry.line}: {self.name} names card {card.index}"
                        f" twice, here and in line {wanted[card.index].line}; leave it in one."
                    )
                if guess:
                    guessed.add(card.index)
                else:
                    guessed.discard(card.index)
                self._check_card(entry, card)
                wanted[card.index] = CardLayout(entry.line, entry.mig_enabled, entry.names)
        if not wanted:
            raise ConfigError(self._matches_none(cards))
        return wanted

    def places(
        self,
        card: Card,
        wanted: CardLayout,
        keep: frozenset[Want] = frozenset(),
        avoid: frozenset[Want] = frozenset(),
    ) -> tuple[Want, ...]:
        """Where the wanted slices go on the card: as many as possible stay, ``keep`` before all.

        Then as few as possible lie on ``avoid``: slices somebody has, wanted or not.
        """
        have = [(each.profile, each.start) for each in card.instances]
        return arrange(card.profiles, wanted.names, have=have, keep=keep, avoid=avoid)

    def _check_devices(self, entry: LayoutEntry, cards: Sequence[Card]) -> None:
        present = {each.index for each in cards}
        missing = [each for each in entry.devices or () if each not in present]
        if missing:
            there = {0: "no cards", 1: "only card 0"}.get(
                len(cards), f"{len(cards)} cards, counted from 0"
            )
            raise ConfigError(
                f"{self.source}, line {entry.line}: {self.name} names card {missing[0]}, but this"
                f" node has {there}."
            )

    def _matches_none(self, cards: Sequence[Card]) -> str:
        filtered = [each for each in self.entries if each.filters and each.devices != ()]
        line = next((each.line for each in (*filtered, *self.entries)), self.line)
        where = f"{self.source}, line {line}: {self.name}"
        if not self.entries:
            return f"{where} has no entries, so it is for no card; give it one with devices: all."
        if not cards:
            return f"{where} is for no card, because this node has no cards."
        if not filtered:
            return f"{where} names no card; write devices: all, or their numbers."
        wanted = dict.fromkeys(_pci(number) for each in filtered for number in each.filters)
        there: dict[str, list[str]] = {}
        for card in cards:
            number = "an unknown id" if _unidentified(card) else _pci(card.pci_device_id)
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
        """The configuration of that name.

        Raises:
            ConfigError: there is none; the sentence names those there are.
        """
        found = self.layouts.get(name)
        if found is None:
            near = difflib.get_close_matches(name, self.layouts, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            known = ", ".join(self.layouts)
            raise ConfigError(f"{self.source} has no layout {name[:60]!r}; it has {known}.{hint}")
        return found


def export_layout(cards: Sequence[Card], name: str = "current") -> str:
    """The cards as they are now, as the text of a file with one configuration.

    Cards that are cut alike share an entry; cards that cannot be cut are left out.

    Raises:
        GpuError: a card has a problem, so nobody knows how it is cut.
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
    """The line of the first profile the card lacks, or else of the first that finds no room."""
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
    """A PCI id as files write it."""
    return f"0x{number:08X}"


def _on(enabled: bool) -> str:
    return "on" if enabled else "off"
