"""Layouts: what cards shall be cut into, by name, as admins write them for nvidia-mig-parted.

A configuration (here a layout) says for some cards of a node whether MIG is on and how many slices
of which profile they get. It says nothing of placements: :meth:`Layout.places` chooses them so
that most slices stay where they are. Reading the files is :mod:`.layout_reader`'s part.
"""

from __future__ import annotations

import difflib
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

    ``names`` are the profiles, each as often as it is wanted; ``filters`` PCI ids, none for any.
    """

    line: int
    devices: tuple[int, ...] | None
    filters: tuple[int, ...]
    mig_enabled: bool
    names: tuple[str, ...]

    def matches(self, card: Card) -> bool:
        """Whether the entry is about that card."""
        named = self.devices is None or card.index in self.devices
        return named and (not self.filters or card.pci_device_id in self.filters)


@dataclass(frozen=True)
class CardLayout:
    """What a configuration wants of one card."""

    line: int
    mig_enabled: bool
    names: tuple[str, ...]

    def differs(self, card: Card) -> str:
        """``""`` if the card is so already, wherever its slices lie, else what is different."""
        if card.mig_enabled != self.mig_enabled:
            return f"MIG is {_on(card.mig_enabled)}, wanted is {_on(self.mig_enabled)}"
        if card.problem:
            return card.problem
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

    def for_cards(self, cards: Sequence[Card]) -> dict[str, CardLayout]:
        """What the configuration wants of each of a node's cards, by UUID.

        Cards that no entry names are left out: they stay as they are.

        Raises:
            ConfigError: two entries name one card, an entry names a card the node does not have, or
                a card cannot be cut so; the sentence gives file and line, and for profiles that
                do not fit together the nearest layout that does.
        """
        wanted: dict[str, CardLayout] = {}
        for entry in self.entries:
            self._check_devices(entry, cards)
            for card in cards:
                if not entry.matches(card):
                    continue
                if card.uuid in wanted:
                    raise ConfigError(
                        f"{self.source}, line {entry.line}: {self.name} names card {card.index}"
                        f" twice, here and in line {wanted[card.uuid].line}; leave it in one."
                    )
                self._check_card(entry, card)
                wanted[card.uuid] = CardLayout(entry.line, entry.mig_enabled, entry.names)
        return wanted

    def places(
        self, card: Card, wanted: CardLayout, keep: frozenset[Want] = frozenset()
    ) -> tuple[Want, ...]:
        """Where the wanted slices go on the card: as many as possible stay, ``keep`` before all."""
        have = [(each.profile, each.start) for each in card.instances]
        return arrange(card.profiles, wanted.names, have=have, keep=keep)

    def _check_devices(self, entry: LayoutEntry, cards: Sequence[Card]) -> None:
        present = {each.index for each in cards}
        missing = [each for each in entry.devices or () if each not in present]
        if missing:
            raise ConfigError(
                f"{self.source}, line {entry.line}: {self.name} names card {missing[0]}, but this"
                f" node has {len(cards)} cards, counted from 0."
            )

    def _check_card(self, entry: LayoutEntry, card: Card) -> None:
        where = f"{self.source}, line {entry.line}: card {card.index} ({card.model})"
        if entry.mig_enabled and not card.mig_capable:
            raise ConfigError(f"{where} cannot be cut; leave it out with devices or device-filter.")
        if not card.profiles:
            return  # with MIG off some drivers tell no profiles; they are checked once it is on
        try:
            arrange(card.profiles, entry.names)
        except GpuError as error:
            raise ConfigError(f"{where}: {error}") from error


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


def _on(enabled: bool) -> str:
    return "on" if enabled else "off"
