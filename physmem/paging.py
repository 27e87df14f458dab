# SPDX-License-Identifier: GPL-2.0-only
"""x86-64 page tables in physical memory: walking them, one step at a time or many pages at once.

Four levels (five with LA57) of tables of 512 entries.  An entry holds the physical address of
the next table, or at the lower levels that of a page of 1 GiB, 2 MiB or 4 KiB.  Facts: Intel
SDM vol. 3, 4.5; the names of the levels are Linux's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from physmem.errors import AbsentError, AddressError, CorruptionError
from physmem.memory import UNMAPPED, PhysicalMemory

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
else:
    from physmem.later import np

__all__ = ["ENTRY_FLAGS", "PTE_ADDRESS", "Step", "Walk", "chunks", "is_canonical", "runs", "steps", "walk"]

PRESENT = 1 << 0
LARGE = 1 << 7
#: Bits 12 to 51 of an entry: the physical address.
PTE_ADDRESS = 0x000F_FFFF_FFFF_F000

#: Bit number and name of each flag of an entry, as the kernel abbreviates _PAGE_*.
ENTRY_FLAGS = (
    (0, "PRESENT"),
    (1, "RW"),
    (2, "USER"),
    (3, "PWT"),
    (4, "PCD"),
    (5, "ACCESSED"),
    (6, "DIRTY"),
    (7, "PSE"),
    (8, "GLOBAL"),
    (63, "NX"),
)

_LEVELS = {
    4: (("PGD", 39), ("PUD", 30), ("PMD", 21), ("PTE", 12)),
    5: (("PGD", 48), ("P4D", 39), ("PUD", 30), ("PMD", 21), ("PTE", 12)),
}


@dataclass(frozen=True)
class Step:
    """One level of a walk: which entry was read, and what it said.

    :ivar level: ``PGD``, ``P4D``, ``PUD``, ``PMD`` or ``PTE``
    :ivar table: physical address of the table
    :ivar index: which of its 512 entries
    :ivar entry: the entry's value
    :ivar shift: log2 of the bytes that one entry of this level maps
    """

    level: str
    table: int
    index: int
    entry: int
    shift: int

    @property
    def at(self) -> int:
        """Physical address of the entry."""
        return self.table + 8 * self.index

    @property
    def flags(self) -> list[str]:
        """Names of the flags that are set in the entry."""
        return [name for bit, name in ENTRY_FLAGS if self.entry >> bit & 1]

    @property
    def is_leaf(self) -> bool:
        """Whether the entry maps a page, rather than leading to a further table."""
        return self.level == "PTE" or bool(self.entry & LARGE and self.level in ("PUD", "PMD"))

    @property
    def is_present(self) -> bool:
        """Whether the entry leads anywhere."""
        return bool(self.entry & PRESENT)

    def physical(self, va: int) -> int:
        """The physical address of ``va``, given that this entry maps the page that it is in."""
        size = 1 << self.shift
        return (self.entry & PTE_ADDRESS & -size) | (va & (size - 1))


@dataclass(frozen=True)
class Walk:
    """A finished walk: the steps taken, and where they led.

    :ivar phys: physical address, or None if some entry is not present
    :ivar page_size: bytes of the page that maps the address (4096, 2 MiB or 1 GiB), 0 if none does
    """

    va: int
    steps: tuple[Step, ...]
    phys: int | None
    page_size: int


def is_canonical(va: int, levels: int = 4) -> bool:
    """Whether the bits above the ones that are translated repeat the uppermost of those."""
    top = va >> (9 * levels + 11)
    return va >> 64 == 0 and top in (0, (1 << (53 - 9 * levels)) - 1)


def steps(memory: PhysicalMemory, pgd: int, va: int, levels: int = 4) -> Iterator[Step]:
    """Translate ``va`` by the tables whose top is at physical ``pgd``, one level at a time; raises as :func:`walk`.

    The last step's entry is not present, or maps the address.
    """
    if levels not in _LEVELS:
        raise AddressError(va, f"page tables of {levels} levels")
    if not is_canonical(va, levels):
        raise AddressError(va, f"not canonical: bits 63 to {9 * levels + 11} are not all equal")
    table = pgd
    for level, shift in _LEVELS[levels]:
        index = va >> shift & 511
        step = Step(level, table, index, memory.u64(table + 8 * index), shift)
        yield step
        if not step.is_present or step.is_leaf:
            return
        table = step.entry & PTE_ADDRESS


def walk(memory: PhysicalMemory, pgd: int, va: int, levels: int = 4) -> Walk:
    """Translate ``va`` by the tables whose top is at physical ``pgd``.

    :raises AddressError: the address is not canonical, or there are not 4 or 5 levels
    :raises AbsentError: a table is not in the image
    """
    taken = tuple(steps(memory, pgd, va, levels))
    last = taken[-1]
    return Walk(va, taken, last.physical(va), 1 << last.shift) if last.is_present else Walk(va, taken, None, 0)


def chunks(
    memory: PhysicalMemory, pgd: int, start: int, end: int, levels: int = 4
) -> tuple[npt.NDArray[np.uint64], int]:
    """Physical addresses behind the virtual range [start, end), one for each 2 MiB (or 4 KiB) piece.

    Where a piece is not mapped, or its table is absent, the entry is UNMAPPED.

    :param start: a multiple of 2 MiB
    :raises CorruptionError: a table maps two parts of the range
    :returns: the addresses, and log2 of the piece: 21, or 12 if small pages occur in the range
    """
    count = -(-(end - start) // (1 << 21))
    large = np.full(count, UNMAPPED, np.uint64)
    small: dict[int, npt.NDArray[np.uint64]] = {}
    met: set[int] = set()
    position = 0
    while position < count:
        va = start + (position << 21)
        # All entries of one PMD table at once: up to 512 pieces.
        first = va >> 21 & 511
        here = min(512 - first, count - position)
        entries, shift = _pmd_entries(memory, pgd, va, levels)
        if shift == 30:
            base = np.uint64(int(entries[0]) & PTE_ADDRESS & -(1 << 30))
            large[position : position + here] = base + (
                np.arange(first, first + here, dtype=np.uint64) << np.uint64(21)
            )
        else:
            values = entries[first : first + here]
            present = (values & np.uint64(PRESENT)) != 0
            is_large = present & ((values & np.uint64(LARGE)) != 0)
            block = large[position : position + here]
            block[is_large] = values[is_large] & np.uint64(PTE_ADDRESS & -(1 << 21))
            for i in np.flatnonzero(present & ~is_large):
                small[position + int(i)] = _pte_entries(memory, int(values[i]) & PTE_ADDRESS, met)
        position += here
    if not small:
        return large, 21
    pieces = np.repeat(large, 512)
    mapped = pieces != np.uint64(UNMAPPED)
    pieces[mapped] += np.tile(np.arange(512, dtype=np.uint64) << np.uint64(12), count)[mapped]
    for index, entries in small.items():
        pieces[index * 512 : index * 512 + 512] = entries
    return pieces, 12


def runs(memory: PhysicalMemory, pgd: int, start: int, end: int, levels: int = 4) -> Iterator[tuple[int, int, int]]:
    """What of the virtual range [start, end) is mapped to contiguous memory: (start, end, physical address), ascending.

    What is not mapped, or its table absent, is left out.

    :param start: a multiple of 2 MiB; so far ``end`` is rounded up
    :raises CorruptionError: a table maps two parts of the range
    """
    begin = upto = at = 0
    for va, size, phys in _mapped(memory, pgd, start, end, levels):
        if upto != va or at + upto - begin != phys:
            if begin < upto:
                yield begin, upto, at
            begin, at = va, phys
        upto = va + size
    if begin < upto:
        yield begin, upto, at


def _mapped(memory: PhysicalMemory, pgd: int, start: int, end: int, levels: int) -> Iterator[tuple[int, int, int]]:
    """The pages that map a range, or the parts of them that do: address, bytes, physical address."""
    count = -(-(end - start) // (1 << 21))
    position = 0
    met: set[int] = set()
    while position < count:
        va = start + (position << 21)
        first = va >> 21 & 511
        here = min(512 - first, count - position)
        entry, table = _pmd_table(memory, pgd, va, levels)
        if entry:
            yield va, here << 21, (entry & PTE_ADDRESS & -(1 << 30)) + (first << 21)
        for number, value in enumerate(table[first : first + here]):
            if value & PRESENT:
                at = va + (number << 21)
                if value & LARGE:
                    yield at, 1 << 21, value & PTE_ADDRESS & -(1 << 21)
                else:
                    entries = _words(memory, value & PTE_ADDRESS)
                    _meet(met, value & PTE_ADDRESS, any(entries))
                    small = enumerate(entries)
                    yield from ((at + (i << 12), 1 << 12, each & PTE_ADDRESS) for i, each in small if each & PRESENT)
        position += here


def _meet(met: set[int], table: int, used: bool) -> None:
    """Each table of small pages that has entries is met once: no more are told of than the image has.

    :raises CorruptionError: it was met before
    """
    if used and table in met:
        raise CorruptionError("page_table", f"the table at {table:#x} maps two parts of one range")
    met.add(table)


def _pmd_table(memory: PhysicalMemory, pgd: int, va: int, levels: int) -> tuple[int, memoryview]:
    """The entry of 1 GiB that maps ``va``, or 0 and the PMD table for it; neither if there is none."""
    table = pgd
    for level, shift in _LEVELS[levels][:-2]:
        try:
            entry = memory.u64(table + 8 * (va >> shift & 511))
        except AbsentError:
            return 0, memoryview(b"")
        if not entry & PRESENT:
            return 0, memoryview(b"")
        if level == "PUD" and entry & LARGE:
            return entry, memoryview(b"")
        table = entry & PTE_ADDRESS
    return 0, _words(memory, table)


def _words(memory: PhysicalMemory, table: int) -> memoryview:
    """The entries of a table; none if it is absent."""
    try:
        return memoryview(memory.read(table, 4096)).cast("Q")
    except (AbsentError, AddressError):
        return memoryview(b"")


def _pmd_entries(memory: PhysicalMemory, pgd: int, va: int, levels: int) -> tuple[npt.NDArray[np.uint64], int]:
    """The PMD table for ``va`` (and 21), or the single 1 GiB entry (and 30); zeros if there is none."""
    table = pgd
    for level, shift in _LEVELS[levels][:-2]:
        try:
            entry = memory.u64(table + 8 * (va >> shift & 511))
        except AbsentError:
            return np.zeros(512, np.uint64), 21
        if not entry & PRESENT:
            return np.zeros(512, np.uint64), 21
        if level == "PUD" and entry & LARGE:
            return np.array([entry], np.uint64), 30
        table = entry & PTE_ADDRESS
    return _table(memory, table), 21


def _pte_entries(memory: PhysicalMemory, table: int, met: set[int]) -> npt.NDArray[np.uint64]:
    """Physical addresses of the 512 small pages of a table; UNMAPPED where there is none."""
    entries = _table(memory, table)
    _meet(met, table, bool(entries.any()))
    mapped: npt.NDArray[np.uint64] = np.where(
        (entries & np.uint64(PRESENT)) != 0, entries & np.uint64(PTE_ADDRESS), np.uint64(UNMAPPED)
    )
    return mapped


def _table(memory: PhysicalMemory, table: int) -> npt.NDArray[np.uint64]:
    """The 512 entries of a table; zeros (nothing present) if it is absent."""
    try:
        return memory.array(table, np.uint64, 512)
    except (AbsentError, AddressError):
        return np.zeros(512, np.uint64)
