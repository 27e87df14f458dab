# SPDX-License-Identifier: GPL-2.0-only
"""Page frames counted by their flags, as the kernel's own page-types tool does (tools/mm/page-types.c)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from physmem import engine
from physmem.errors import UsageError
from physmem.inspect.alike import tally
from physmem.inspect.distinct import distinct
from physmem.inspect.kpage import Piece
from physmem.inspect.kpf import KPF

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
else:
    from physmem.later import np

__all__ = ["Filter", "Histogram", "long_flags", "symbolic_flags"]

#: A letter for each flag, in the order of their numbers.
_TABLE = """
    L:LOCKED E:ERROR R:REFERENCED U:UPTODATE D:DIRTY l:LRU A:ACTIVE S:SLAB W:WRITEBACK I:RECLAIM B:BUDDY M:MMAP a:ANON
    s:SWAPCACHE b:SWAPBACKED H:COMPOUND_HEAD T:COMPOUND_TAIL G:HUGE u:UNEVICTABLE X:HWPOISON n:NOPAGE x:KSM t:THP
    o:OFFLINE z:ZERO_PAGE i:IDLE g:PGTABLE r:RESERVED m:MLOCKED d:OWNER_2 P:PRIVATE p:PRIVATE_2 O:OWNER_PRIVATE h:ARCH
    c:UNCACHED f:SOFTDIRTY H:ARCH_2 H:ARCH_3 d:ANON_EXCLUSIVE I:READAHEAD A:SLUB_FROZEN E:SLUB_DEBUG F:FILE w:SWAP
    1:MMAP_EXCLUSIVE
"""
_LETTERS = {word[2:]: word[0] for word in _TABLE.split()}
_NAMES = {"ANON": "anonymous", "OWNER_2": "mappedtodisk", "IDLE": "idle_page"}
_HACKERS = 0xFFFF << 32
_COMPOUND = int(KPF.COMPOUND_HEAD | KPF.COMPOUND_TAIL)
#: Slots of the tool's hash table, by which it orders its lines.
_SLOTS = 8192
#: Room for flags that are counted together: a power of two, and ten times what a machine has.
_TALLY = 512

#: What :class:`Filter` calls each flag.
_BY_NAME = {_NAMES.get(name, name.lower()): int(KPF[name]) for name in _LETTERS}


def symbolic_flags(flags: int) -> str:
    """A letter for each flag that is set, an underscore for each that is not."""
    return "".join(letter if flags & KPF[name] else "_" for name, letter in _LETTERS.items())


def long_flags(flags: int) -> str:
    """The names of the flags that are set, separated by commas."""
    return ",".join(name for name, bit in _BY_NAME.items() if flags & bit)


@dataclass(frozen=True)
class Filter:
    """Which page frames are counted, as the tool's ``--bits`` says it.

    ===================  ==========================================================
    ``anonymous,slab``   any of these flags
    ``lru,~dirty``       any of those without ``~``, none of those with it
    ``lru,mmap=lru``     of the flags before ``=``, those behind it and no others
    ``=buddy``           these flags and no others
    ``pfn:4096-8191``    a range of PFNs, decimal or 0x...
    ===================  ==========================================================

    :ivar mask: flags of which one must be set, or if there is a value, that are compared with it
    :ivar without: flags that must not be set
    :ivar first: first PFN, of which ``last`` is the last; None for all
    """

    mask: int = 0
    value: int | None = None
    without: int = 0
    first: int = 0
    last: int | None = None

    @classmethod
    def parse(cls, text: str) -> Filter:
        """Read one of these forms; raises UsageError."""
        if text.startswith("pfn:"):
            ends = text[4:].split("-")
            try:
                first, last = int(ends[0], 0), int(ends[-1], 0)
            except ValueError:
                raise UsageError(f"{text!r}: expected pfn:FIRST-LAST") from None
            if len(ends) > 2 or not 0 <= first <= last:
                raise UsageError(f"{text!r}: expected pfn:FIRST-LAST")
            return cls(first=first, last=last)
        before, equals, behind = text.partition("=")
        if equals:
            value, _ = _bits(behind)
            mask = _bits(before)[0] | value if before else (1 << 64) - 1
            return cls(mask, value)
        mask, without = _bits(before)
        return cls(mask, None, without)

    def passes(self, start: int, flags: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
        """Which of the page frames from ``start`` on it lets through."""
        found = np.ones(len(flags), bool)
        if self.value is not None:
            found &= (flags & np.uint64(self.mask)) == np.uint64(self.value)
        elif self.mask:
            found &= (flags & np.uint64(self.mask)) != 0
        if self.without:
            found &= (flags & np.uint64(self.without)) == 0
        if self.last is not None:
            pfns = np.arange(start, start + len(flags))
            found &= (pfns >= self.first) & (pfns <= self.last)
        return found


def _bits(text: str) -> tuple[int, int]:
    """Flags by name: those without ``~``, those with it."""
    masks = [0, 0]
    for word in filter(None, text.split(",")):
        name = word.removeprefix("~")
        bit = _BY_NAME.get(name)
        if bit is None:
            raise UsageError(f"{word!r}: no such flag: expected some of {', '.join(_BY_NAME)}, separated by commas")
        masks[word != name] |= bit
    return masks[0], masks[1]


@dataclass
class Histogram:
    """How many page frames have which flags.

    :ivar filters: all of which a page frame must pass
    :ivar raw: whether all flags are told apart, or as the tool does, those that people know
    :ivar pages: page frames by flags
    """

    filters: list[Filter] = field(default_factory=list)
    raw: bool = False
    pages: dict[int, int] = field(default_factory=dict)

    def add(self, piece: Piece) -> None:
        """Count some page frames."""
        if engine.current() == "compiled" and not self.filters:
            self._tally(piece.flag_words)
            return
        flags = piece.flags
        if self.filters:
            passes = np.ones(len(flags), bool)
            for each in self.filters:
                passes &= each.passes(piece.start, flags)
            flags = flags[passes]
        if engine.current() == "compiled":
            self._tally(np.ascontiguousarray(flags).data)
            return
        # Neighbours are often alike.
        first = np.flatnonzero(np.diff(flags, prepend=~flags[:1])) if len(flags) else np.empty(0, np.intp)
        lengths = np.diff(np.append(first, len(flags)))
        values = distinct(flags[first])
        of = np.searchsorted(values, flags[first])
        for value, count in zip(values.tolist(), np.bincount(of, lengths, len(values)).tolist(), strict=True):
            self.pages[value] = self.pages.get(value, 0) + int(count)

    def _tally(self, flags: memoryview) -> None:
        done = 0
        while done < len(flags):
            keys, counts = (memoryview(bytearray(8 * _TALLY)).cast("Q") for _ in range(2))
            done = tally(flags, done, keys, counts)
            for value, count in zip(keys, counts, strict=True):
                if count:
                    self.pages[value] = self.pages.get(value, 0) + count

    def rows(self) -> list[tuple[int, int]]:
        """Flags and pages, in the tool's order."""
        shown: dict[int, int] = {}
        for flags, count in self.pages.items():
            known = _expanded(flags) if self.raw else _well_known(flags)
            shown[known] = shown.get(known, 0) + count
        return sorted(shown.items(), key=lambda row: (row[0] % _SLOTS, row[0]))

    def text(self) -> str:
        """What the tool prints."""
        lines = ["             flags\tpage-count       MB  symbolic-flags\t\t\tlong-symbolic-flags"]
        rows = self.rows()
        lines += [
            f"{flags:#018x}\t{count:10} {count >> 8:8}  {symbolic_flags(flags)}\t{long_flags(flags)}"
            for flags, count in rows
        ]
        total = sum(count for _, count in rows)
        lines.append(f"             total\t{total:10} {total >> 8:8}")
        return "\n".join(lines) + "\n"


def _expanded(flags: int) -> int:
    """With names of their own for flags that mean something else in some pages."""
    moved = []
    if flags & KPF.ANON:
        moved.append((KPF.OWNER_2, KPF.ANON_EXCLUSIVE))
    if flags & KPF.SLAB:
        moved += [(KPF.ACTIVE, KPF.SLUB_FROZEN), (KPF.ERROR, KPF.SLUB_DEBUG)]
    if not flags & KPF.WRITEBACK:
        moved.append((KPF.RECLAIM, KPF.READAHEAD))
    for old, new in moved:
        if flags & old:
            flags = flags & ~int(old) | int(new)
    return flags


def _well_known(flags: int) -> int:
    """Without what is for who works on the kernel, and compound pages that are not hugetlb's."""
    flags &= ~_HACKERS
    if not flags & KPF.HUGE:
        flags &= ~_COMPOUND
    return flags
