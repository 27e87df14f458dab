# SPDX-License-Identifier: GPL-2.0-only
"""Sets of addresses: sorted, disjoint, half-open intervals of integers.

What an image holds, what a memory map calls usable, what is missing between
two dumps: each is a set of intervals [start, end), with ends up to 2**64 (one
past the last 64-bit address).  A set never changes, and equal sets are equal
objects: intervals that touch or overlap are one interval, empty ones are none.
The unit is the caller's: bytes, pages, PFNs.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator

from physmem.errors import UsageError

__all__ = ["LIMIT", "Ranges"]

#: The highest possible end of an interval.
LIMIT = 1 << 64


class Ranges:
    """An immutable set of integers, kept as sorted disjoint intervals.

    >>> ram = Ranges([(0x1000, 0x2000), (0x2000, 0x3000), (0x8000, 0x9000)])
    >>> ram
    Ranges(0x1000-0x3000, 0x8000-0x9000)
    >>> 0x2fff in ram, 0x3000 in ram, hex(ram.first_gap(0x1000, 0x9000))
    (True, False, '0x3000')

    :param intervals: pairs (start, end) in any order; they may overlap
    :raises UsageError: a pair that ends before it starts, or leaves [0, 2**64]
    """

    __slots__ = ("_ends", "_starts")

    def __init__(self, intervals: Iterable[tuple[int, int]] = ()) -> None:
        starts: list[int] = []
        ends: list[int] = []
        for start, end in sorted(intervals):
            if not 0 <= start <= end <= LIMIT:
                raise UsageError(f"range {start:#x}-{end:#x}: not a range of addresses below 2**64")
            if start == end:
                continue
            if ends and start <= ends[-1]:
                ends[-1] = max(ends[-1], end)
            else:
                starts.append(start)
                ends.append(end)
        self._starts = starts
        self._ends = ends

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self._starts, self._ends, strict=True)

    def __len__(self) -> int:
        """Number of intervals, not of integers: see `total`."""
        return len(self._starts)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Ranges):
            return NotImplemented
        return self._starts == other._starts and self._ends == other._ends

    def __hash__(self) -> int:
        return hash((tuple(self._starts), tuple(self._ends)))

    def __repr__(self) -> str:
        return f"Ranges({', '.join(f'{start:#x}-{end:#x}' for start, end in self)})"

    @property
    def end(self) -> int:
        """One past the highest integer of the set, 0 for the empty set."""
        return self._ends[-1] if self._ends else 0

    def total(self) -> int:
        """How many integers the set has."""
        return sum(self._ends) - sum(self._starts)

    def find(self, value: int) -> tuple[int, int] | None:
        """The interval that holds `value`, if there is one."""
        index = bisect_right(self._starts, value) - 1
        if index < 0 or value >= self._ends[index]:
            return None
        return self._starts[index], self._ends[index]

    def __contains__(self, value: int) -> bool:
        return self.find(value) is not None

    def first_gap(self, start: int, end: int) -> int | None:
        """The lowest integer of [start, end) that is not in the set, or None."""
        if start >= end:
            return None
        here = self.find(start)
        if here is None:
            return start
        # Intervals never touch, so whatever follows `here` is a gap.
        return here[1] if here[1] < end else None

    def covers(self, start: int, end: int) -> bool:
        """True if all of [start, end) is in the set; an empty interval always is."""
        return self.first_gap(start, end) is None

    def overlaps(self, start: int, end: int) -> bool:
        """True if any integer of [start, end) is in the set."""
        if start >= end:
            return False
        index = bisect_right(self._ends, start)
        return index < len(self._starts) and self._starts[index] < end

    def clip(self, start: int, end: int) -> Ranges:
        """The part of the set inside [start, end), in time proportional to that part."""
        first = bisect_right(self._ends, start)
        last = bisect_left(self._starts, end)
        return Ranges((max(start, self._starts[i]), min(end, self._ends[i])) for i in range(first, last) if start < end)

    def union(self, other: Ranges) -> Ranges:
        """Integers of either set."""
        return Ranges([*self, *other])

    def intersection(self, other: Ranges) -> Ranges:
        """Integers of both sets."""
        shared: list[tuple[int, int]] = []
        i = j = 0
        while i < len(self) and j < len(other):
            start = max(self._starts[i], other._starts[j])
            end = min(self._ends[i], other._ends[j])
            if start < end:
                shared.append((start, end))
            if self._ends[i] < other._ends[j]:
                i += 1
            else:
                j += 1
        return Ranges(shared)

    def difference(self, other: Ranges) -> Ranges:
        """Integers of this set that are not in the other."""
        return self.intersection(other.complement())

    def complement(self) -> Ranges:
        """Integers of [0, 2**64) that are not in the set."""
        return Ranges(zip([0, *self._ends], [*self._starts, LIMIT], strict=True))

    __or__ = union
    __and__ = intersection
    __sub__ = difference
