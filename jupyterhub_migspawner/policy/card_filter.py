"""Which cards a tier means: by the name of their model, or by their memory.

Pure. Promises that every way to write a model's name is read alike, here and wherever else a model
is named, and that a value which could be meant as a memory size and is none is refused rather than
taken for a name.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from jupyterhub_migspawner.model.cards import CardKind, Kinds

EXPECTED = (
    "a model's name as `migspawner cards` shows it, with * and ? for what may differ, such as "
    "'A100*', or a memory size such as '80GB', '>=40GB' or '<=24GB'; without the field a tier "
    "means any card"
)
"""What the field ``card`` of a tier may be."""

LIMIT = 100
"""Most characters of a model's name."""

_VENDOR = ("nvidia", "tesla")

# As manufacturers write sizes. A card shows the driver less than that: error correction in GDDR
# memory takes a sixteenth, and firmware a little more.
_SOLD_GB = (2, 4, 6, 8, 10, 11, 12, 16, 20, 24, 32, 40, 48, 64, 80, 94, 96, 128, 141, 180)
_SHOWN = 0.92
"""The least part of a card's memory that the driver shows (A10G: 22731 MiB of 24 GB)."""

_MEMORY = re.compile(r"(>=|<=|)\s*([1-9][0-9]{0,3})\s*GB", re.IGNORECASE)
_LIKE_MEMORY = re.compile(
    r"[<>=].*|[-+.,\s]*[0-9][0-9.,\s]*([KMGT](i?B)?)?([^A-Z0-9].*)?", re.IGNORECASE
)
_MODEL = re.compile(r"[A-Za-z0-9*?._()/+ -]*[A-Za-z0-9][A-Za-z0-9*?._()/+ -]*")
_COMPARE: dict[str, Callable[[int, int], bool]] = {
    "": operator.eq,
    ">=": operator.ge,
    "<=": operator.le,
}


@dataclass(frozen=True)
class CardFilter:
    """The cards that a tier means.

    ``text`` is what the admin wrote. Either ``gigabytes`` is set, to be compared with a card's
    nominal memory as ``comparison`` says (``""`` for exactly), or ``models`` are the ways to read
    the text as a pattern of model names.
    """

    text: str
    models: tuple[str, ...] = ()
    comparison: str = ""
    gigabytes: int | None = None

    def matches(self, kind: CardKind) -> bool:
        """Tell whether cards of a kind are meant; one whose memory is not known has no size."""
        if self.gigabytes is not None:
            size = nominal_gigabytes(kind.memory_mib)
            return size is not None and _COMPARE[self.comparison](size, self.gigabytes)
        return any(
            fnmatchcase(name, pattern) for name in _forms(kind.model) for pattern in self.models
        )

    def among(self, kinds: Iterable[CardKind]) -> Kinds:
        """Return those of some kinds that are meant."""
        return frozenset(kind for kind in kinds if self.matches(kind))

    @property
    def words(self) -> str:
        """What follows "card" in a sentence: ``of model A100*``, ``with at least 40 GB``."""
        if self.gigabytes is None:
            return f"of model {self.text}"
        how = {"": "", ">=": "at least ", "<=": "at most "}[self.comparison]
        return f"with {how}{self.gigabytes} GB"


def parse_card_filter(text: object) -> CardFilter | None:
    """Return what an admin wrote as a tier's ``card``; None when it says nothing about cards."""
    if not isinstance(text, str) or len(text) > LIMIT:
        return None
    text = text.strip()
    memory = _MEMORY.fullmatch(text)
    if memory is not None:
        return CardFilter(text, comparison=memory[1], gigabytes=int(memory[2]))
    if _LIKE_MEMORY.fullmatch(text) or not _MODEL.fullmatch(text):
        return None
    return CardFilter(text, models=_forms(text))


def normalized(model: str) -> str:
    """Return a model's name to compare: lower case, one space between words, without the vendor."""
    return _forms(model)[-1]


def nominal_gigabytes(memory_mib: int) -> int | None:
    """Return the memory a card is sold with, in GB, from what its driver shows, in MiB; None for 0.

    Where no card is sold with a little more than it shows, the next whole number: 40960 and 81559
    are 40 and 80, 15360 and 46068 are 16 and 48, 73415 is 72.
    """
    if memory_mib <= 0:
        return None
    shown = memory_mib / 1024
    for size in _SOLD_GB:
        if size * _SHOWN <= shown <= size:
            return size
    return -(-memory_mib // 1024)


def _forms(text: str) -> tuple[str, ...]:
    """Return the text as words, and the same without the vendor.

    Drivers name some cards with it, some without it.
    """
    words = re.sub(r"[^a-z0-9*?]+", " ", text.lower()).split()
    forms = [" ".join(words)]
    while len(words) > 1 and words[0] in _VENDOR:
        words = words[1:]
        forms.append(" ".join(words))
    return tuple(forms)
