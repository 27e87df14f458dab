# SPDX-License-Identifier: GPL-2.0-only
"""The bytes of a dump that are kept, and why."""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from physmem import paging
from physmem.dump import Dump
from physmem.errors import PhysmemError
from physmem.ranges import Ranges

__all__ = ["Kept"]

_PAGE = 4096
#: More bytes than any name of the kernel's has.
_MAX_NAME = 64


class Kept:
    """Bytes of a dump's memory, by what they are.

    What is not mapped, or not in the dump, is passed over: what is not there cannot be kept.
    """

    def __init__(self, dump: Dump) -> None:
        self._dump = dump
        self._parts: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
        # Pages that pointers lead to, which in a damaged kernel may be anybody's.
        self._followed: set[int] = set()
        # What the kernel needed while it booted; then it frees these pages (free_initmem).
        symbols = dump.symbols
        ends = ("__init_begin", "__init_end")
        self._freed = range(*(symbols[name] for name in ends)) if all(name in symbols for name in ends) else range(0)

    def phys(self, what: str, phys: int, size: int) -> None:
        """Keep ``size`` bytes at a physical address."""
        if size > 0:
            self._parts[what].append((phys, phys + size))

    def at(self, what: str, va: int, size: int) -> None:
        """Keep ``size`` bytes at a kernel address, and the entries of page tables that lead there."""
        end = va + size
        if va in self._freed:
            return
        while va < end:
            upto = min(end, (va | _PAGE - 1) + 1)
            phys = self._translate(va)
            if phys is not None:
                self.phys(what, phys, upto - va)
                self._followed.add(phys // _PAGE)
            va = upto

    def _translate(self, va: int) -> int | None:
        dump = self._dump
        try:
            phys = dump.regions.linear(va)
            if phys is not None:
                return phys
            phys = None
            for step in dump.steps(va):
                self.phys("page tables", step.at, 8)
                if step.is_present and step.is_leaf:
                    phys = step.physical(va)
        except PhysmemError:
            return None
        return phys

    def text(self, what: str, va: int) -> None:
        """Keep a string of the kernel's, up to its end."""
        for done in range(_MAX_NAME):
            try:
                if not self._dump.read(va + done, 1)[0]:
                    self.at(what, va, done + 1)
                    return
            except PhysmemError:
                break
        # A name without an end is none.

    def bytes(self) -> Ranges:
        """All of them."""
        return Ranges(interval for part in self._parts.values() for interval in part)

    def parts(self) -> dict[str, int]:
        """How many bytes of the dump each kind has."""
        present = self._dump.memory.ranges
        return {
            what: sum(end - start for piece in Ranges(part) for start, end in present.clip(*piece))
            for what, part in self._parts.items()
        }

    def refuse_contents(self) -> tuple[int, ...]:
        """Take back what is in pages of processes and files, where only a stray pointer leads; the pages' numbers."""
        dump = self._dump
        flags = dump.layout.enum("pageflags")
        mask = sum(1 << flags[name] for name in ("PG_lru", "PG_swapbacked", "PG_swapcache") if name in flags)
        refused = []
        for pfn in sorted(self._followed):
            if pfn < dump.max_pfn:
                found, exists = dump.pages(pfn, pfn + 1, ["flags"])
                if exists[0] and int(np.asarray(found["flags"]).reshape(-1)[0]) & mask:
                    refused.append(pfn)
        if refused:
            away = Ranges((pfn * _PAGE, (pfn + 1) * _PAGE) for pfn in refused)
            for what, part in self._parts.items():
                self._parts[what] = list(Ranges(part) - away)
        return tuple(refused)

    def tables(self, table: int, first: int, shift: int, regions: list[tuple[int, int]]) -> None:
        """Keep the page tables that map any of some regions of the upper half: each whole, of the top one that half.

        :param table: physical address of the top table
        :param first: the address that its entry 0 maps
        :param shift: log2 of what one of its entries maps
        """
        self.phys("page tables", table + _PAGE // 2, _PAGE // 2)
        self._below(table, first, shift, regions, {table}, top=True)

    def _below(
        self, table: int, first: int, shift: int, regions: list[tuple[int, int]], seen: set[int], top: bool = False
    ) -> None:
        try:
            entries = self._dump.tables.array(table, np.uint64, 512)
        except PhysmemError:
            return
        wanted = entries & np.uint64(1) != 0
        if top:
            wanted[:256] = False
        for index in np.flatnonzero(wanted).tolist():
            entry = int(entries[index])
            start = first + (index << shift)
            if top:
                # Canonical: the bits above the address repeat its top bit.
                start |= (1 << 64) - (1 << shift + 9)
            inside = any(start < end and begin < start + (1 << shift) for begin, end in regions)
            lower = entry & paging.PTE_ADDRESS
            if not inside or (shift < 39 and entry & paging.LARGE) or lower in seen:
                continue
            seen.add(lower)
            self.phys("page tables", lower, _PAGE)
            if shift > 21:
                self._below(lower, start, shift - 9, regions, seen)
