# SPDX-License-Identifier: GPL-2.0-only
"""A 64-bit word taken apart into fields of bits, and the two words that are: an address, and ``page->flags``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from physmem import paging
from physmem.structs.layout import Layout

__all__ = ["BitField", "address_fields", "flags_fields"]

#: log2 of the bytes that an entry of each level maps, from the top; the first is there with five levels only.
_LEVELS = (("PGD", 48), ("P4D", 39), ("PUD", 30), ("PMD", 21), ("PTE", 12))


@dataclass(frozen=True)
class BitField:
    """Bits ``high`` to ``low`` (inclusive) of a word.

    :ivar value: the bits, as a number
    :ivar meaning: what they say here, in words
    """

    name: str
    high: int
    low: int
    value: int
    meaning: str = ""

    @property
    def width(self) -> int:
        """How many bits."""
        return self.high - self.low + 1

    @property
    def binary(self) -> str:
        """The bits as digits."""
        return f"{self.value:0{self.width}b}"

    def to_json(self) -> dict[str, object]:
        """As JSON has it."""
        return {
            "name": self.name,
            "high": self.high,
            "low": self.low,
            "bits": self.binary,
            "value": self.value,
            "meaning": self.meaning,
        }


def _field(word: int, name: str, high: int, low: int, meaning: str = "") -> BitField:
    return BitField(name, high, low, word >> low & (1 << (high - low + 1)) - 1, meaning)


def address_fields(va: int, levels: int, steps: Sequence[paging.Step] = ()) -> tuple[BitField, ...]:
    """A virtual address as the processor takes it apart: sign extension, an index for each level, and the offset.

    :param levels: of the page tables, 4 or 5
    :param steps: the walk; the offset is as wide as the page that it ends at
    """
    top = 9 * levels + 11
    ends = steps[-1].shift if steps and steps[-1].is_present and steps[-1].is_leaf else 12
    fields = [
        _field(va, "sign", 63, top + 1, f"{'' if paging.is_canonical(va, levels) else 'not '}all copies of bit {top}")
    ]
    for level, shift in _LEVELS[-levels:] if levels == 5 else (("PGD", 39), *_LEVELS[2:]):
        if shift >= ends:
            fields.append(_field(va, level, shift + 8, shift, f"entry {va >> shift & 511} of 512"))
    fields.append(_field(va, "offset", ends - 1, 0, f"byte {va & (1 << ends) - 1:#x} of the page"))
    return tuple(fields)


def flags_fields(layout: Layout, flags: int) -> tuple[BitField, ...]:
    """``page->flags``: what is packed above the flags (include/linux/page-flags-layout.h).

    From the top: the section (if the page array is not virtually contiguous), node, zone, the CPU and process that
    used the page last (if NUMA balancing is configured), and then the flags.

    :raises LayoutError: the layout tells neither the places nor what they follow from
    """
    places = _places(layout)
    found = []
    above = 63
    for name, low, width in places:
        if width:
            if low + width - 1 < above:
                found.append(_field(flags, "unused", above, low + width))
            found.append(_field(flags, name, low + width - 1, low))
            above = low - 1
    flag_bits = layout.constant("NR_PAGEFLAGS")
    if above >= flag_bits:
        # Without the number of CPUs, the width of last_cpupid cannot be told from the unused bits below it.
        rest = "unused" if layout.constants.get("LAST_CPUPID_WIDTH") is not None or above - flag_bits < 4 else "other"
        found.append(_field(flags, rest, above, flag_bits))
    found.append(_field(flags, "flags", flag_bits - 1, 0))
    return tuple(found)


def _places(layout: Layout) -> list[tuple[str, int, int]]:
    """Name, lowest bit and width of each field, from the top."""
    macros = {"section": "SECTIONS", "node": "NODES", "zone": "ZONES", "last_cpupid": "LAST_CPUPID"}
    constants = layout.constants
    # Every page has a zone: if its place is unknown, so are the others'.
    layout.constant("ZONES_PGSHIFT")
    return [
        (name, constants.get(f"{macro}_PGSHIFT", 0), constants.get(f"{macro}_WIDTH", 0))
        for name, macro in macros.items()
    ]
