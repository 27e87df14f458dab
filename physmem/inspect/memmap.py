# SPDX-License-Identifier: GPL-2.0-only
"""The page array, read in pieces of bounded size.

A machine has a ``struct page`` for each page frame: 64 GiB of memory have 1 GiB of them.  They
are looked at many at a time, as numpy arrays over the image itself where that is possible, and
never all at once.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from physmem import paging
from physmem.dump import Dump
from physmem.errors import CorruptionError
from physmem.inspect.hvo import shared_chunks
from physmem.memory import UNMAPPED
from physmem.memory_model import MemoryModel
from physmem.ranges import Ranges

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
else:
    from physmem.later import np

__all__ = ["CHUNK", "PageArray"]

#: Pages read at a time: 4 MiB of page array.
CHUNK = 1 << 16
#: log2 of the bytes of the page array that tails of hugepages share: a page.
_SHARED_SHIFT = 12


class _Segment(NamedTuple):
    """The page array from one PFN up to another, in one piece at a physical address.

    :ivar shared: whether they are tails of a hugepage, and the memory is that of others too
    """

    start: int
    end: int
    phys: int
    shared: bool = False


class PageArray:
    """Every ``struct page`` of a dump.

    :param end: one past the last PFN; by default ``max_pfn``
    :ivar mapped: the PFNs that have a ``struct page``
    :ivar present: those whose ``struct page`` is in the image
    :raises CorruptionError: two of them share memory, and are not both tails of hugepages (:mod:`physmem.inspect.hvo`)
    """

    def __init__(self, dump: Dump, end: int | None = None) -> None:
        self._memory = dump.memory
        self._layout = dump.layout
        self._size = dump.sizeof_page
        limit = dump.max_pfn if end is None else end
        self._set_runs(list(_runs(dump, limit)))
        if self._shared():
            # By right or not: what is left of it then is an error all the same.
            chunks = _chunks(dump, limit)
            self._set_runs(list(_pieces(dump, limit, chunks, shared_chunks(dump, chunks, limit))))
            if self._shared():
                raise CorruptionError("page_array", f"{self._shared()} bytes of it are there twice")

    def _set_runs(self, runs: list[_Segment]) -> None:
        self.mapped = Ranges((run.start, run.end) for run in runs)
        self._segments: list[_Segment] = []
        for run in runs:
            for start, end in self._memory.ranges.clip(run.phys, run.phys + (run.end - run.start) * self._size):
                # A struct page that is only half there is absent.
                first = -(-(start - run.phys) // self._size)
                last = (end - run.phys) // self._size
                if first < last:
                    at = run.phys + first * self._size
                    self._segments.append(_Segment(run.start + first, run.start + last, at, run.shared))
        self._starts = [segment.start for segment in self._segments]
        self.present = Ranges((segment.start, segment.end) for segment in self._segments)

    def _shared(self) -> int:
        """Bytes that are those of several pages, of which not all are tails of hugepages."""
        own = [each for each in self._segments if not each.shared]
        memory = Ranges((each.phys, each.phys + (each.end - each.start) * self._size) for each in own)
        return sum(each.end - each.start for each in own) * self._size - memory.total()

    def _read(self, segment: _Segment, start: int, count: int, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """Pages of a segment.  The first of a shared one is made the tail that it is: see page_fixed_fake_head()."""
        array = self._memory.array(segment.phys + (start - segment.start) * self._size, dtype, count)
        if not segment.shared or start % ((1 << _SHARED_SHIFT) // self._size):
            return array
        array = array.copy()
        other = self._memory.array(segment.phys + self._size, dtype, 1)
        for name in ("compound_head", "compound_info"):
            if name in (array.dtype.names or ()):
                array[name][0] = other[name][0]
        if "flags" in (array.dtype.names or ()):
            array["flags"][0] &= np.uint64(~(1 << self._layout.enumerator("PG_head")) & (1 << 64) - 1)
        if array.dtype.names is None:
            array[0] = other[0]
        return array

    def slots(self, pfns: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Of each PFN, the number of its page among those that are present; -1 if it is not."""
        if not self._segments:
            return np.full(len(pfns), -1, np.int64)
        start, end = np.array([segment[:2] for segment in self._segments], np.int64).T
        before = np.cumsum(end - start) - (end - start)
        segment = np.maximum(np.searchsorted(start, pfns, "right") - 1, 0)
        inside = (pfns >= start[segment]) & (pfns < end[segment])
        return np.where(inside, pfns - start[segment] + before[segment], -1)

    def scan(self, names: list[str], first: int = 0, last: int | None = None) -> Iterator[tuple[int, npt.NDArray[Any]]]:
        """These fields of all pages that are present, a piece at a time: the first PFN, and a structured array.

        :param first: the first PFN that is asked for, by default of all
        :param last: and one past the last
        """
        dtype = self._layout.dtype("page", names)
        begin = max(bisect_right(self._starts, first) - 1, 0)
        for segment in self._segments[begin:]:
            start, end = max(segment.start, first), segment.end if last is None else min(segment.end, last)
            if last is not None and segment.start >= last:
                return
            for pfn in range(start, end, CHUNK):
                yield pfn, self._read(segment, pfn, min(CHUNK, end - pfn), dtype)

    def gather(self, names: list[str], pfns: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """These fields of scattered pages, all of them present, in ascending order."""
        return self._gather(self._layout.dtype("page", names), pfns)

    def rows(self, pfns: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """The bytes of scattered pages, a row for each; as :meth:`gather`."""
        return self._gather(np.dtype((np.void, self._size)), pfns).view(np.uint8).reshape(len(pfns), self._size)

    def _gather(self, dtype: np.dtype[Any], pfns: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        found = np.zeros(len(pfns), dtype)
        position = 0
        while position < len(pfns):
            first = int(pfns[position])
            segment = self._segments[bisect_right(self._starts, first) - 1]
            after = int(np.searchsorted(pfns, min(segment.end, first + CHUNK)))
            here = pfns[position:after] - first
            found[position:after] = self._read(segment, first, int(here[-1]) + 1, dtype)[here]
            position = after
        return found

    def fields(self, names: list[str], pfn: int) -> dict[str, int]:
        """These fields of a single page; empty if it is not present."""
        if pfn not in self.present:
            return {}
        record = self.gather(names, np.array([pfn]))[0]
        return {name: int(record[name]) for name in names}

    def both(self, pfn: int) -> bytes | None:
        """The bytes of a page and of the one behind it; None if one of them is not present."""
        if pfn not in self.present or pfn + 1 not in self.present:
            return None
        found = b""
        for each in (pfn, pfn + 1):
            segment = self._segments[bisect_right(self._starts, each) - 1]
            if segment.shared:
                found += self.rows(np.array([each])).tobytes()
            else:
                found += self._memory.read(segment.phys + (each - segment.start) * self._size, self._size)
        return found

    def words(self, start: int, end: int, room: memoryview) -> Iterator[memoryview]:
        """Pages that are all present, as words of 8 bytes, as many at a time as there is room for.

        A ``struct page`` has to be a whole number of words.  What was yielded last may be written over by the next.
        """
        stride = self._size // 8
        most = len(room) // stride
        fill = getattr(self._memory, "fill", None)
        while start < end:
            segment = self._segments[bisect_right(self._starts, start) - 1]
            upto = min(end, segment.end)
            for pfn in range(start, upto, most):
                count = min(most, upto - pfn)
                at = segment.phys + (pfn - segment.start) * self._size
                if segment.shared:
                    rows = self._read(segment, pfn, count, np.dtype((np.void, self._size)))
                    yield np.ascontiguousarray(rows).view(np.uint64).data
                elif fill is not None:
                    words = room[: count * stride]
                    fill(at, words.cast("B"))
                    yield words
                else:
                    yield np.require(self._memory.array(at, np.uint64, count * stride), requirements=["C", "A"]).data
            start = upto

    def raw(self, start: int, end: int) -> npt.NDArray[np.uint8]:
        """The bytes of pages that are all present, a row for each."""
        parts = []
        while start < end:
            segment = self._segments[bisect_right(self._starts, start) - 1]
            count = min(end, segment.end) - start
            whole = self._read(segment, start, count, np.dtype((np.void, self._size)))
            parts.append(np.ascontiguousarray(whole).view(np.uint8).reshape(count, self._size))
            start += count
        return parts[0] if len(parts) == 1 else np.concatenate([np.empty((0, self._size), np.uint8), *parts])


def _runs(dump: Dump, limit: int) -> Iterator[_Segment]:
    """The parts of the page array that are mapped to contiguous memory, as far as there are pages."""
    size = dump.sizeof_page
    if dump.model is not MemoryModel.SPARSEMEM_VMEMMAP or size & size - 1:
        yield from _pieces(dump, limit, _chunks(dump, limit))
        return
    start = dump.mem_map
    found = paging.runs(dump.tables, dump.pgd, start, start + limit * size, dump.regions.levels)
    for begin, end, phys in found:
        first = (begin - start) // size
        if first < limit:
            yield _Segment(first, min((end - start) // size, limit), phys)


def _chunks(dump: Dump, limit: int) -> tuple[npt.NDArray[np.uint64], int]:
    """Where the array is, as :attr:`Dump.memmap` says it, as far as ``limit``."""
    if limit <= dump.max_pfn or dump.model is not MemoryModel.SPARSEMEM_VMEMMAP:
        # A section's array is whole.
        return dump.memmap
    start = dump.mem_map
    return paging.chunks(dump.tables, dump.pgd, start, start + limit * dump.sizeof_page, dump.regions.levels)


def _pieces(
    dump: Dump,
    limit: int,
    chunks: tuple[npt.NDArray[np.uint64], int],
    shared: npt.NDArray[np.bool_] | None = None,
) -> Iterator[_Segment]:
    """The same by where each piece of the array is, and which of these are others' too."""
    phys, shift = chunks
    per_piece = (1 << shift) // dump.sizeof_page
    mapped = np.flatnonzero(phys != np.uint64(UNMAPPED))
    if not len(mapped):
        return
    apart = (np.diff(phys[mapped]) != np.uint64(1 << shift)) | (np.diff(mapped) != 1)
    if shared is not None:
        apart |= shared[mapped[1:]] | shared[mapped[:-1]]
    for group in np.split(mapped, np.flatnonzero(apart) + 1):
        start, end = int(group[0]) * per_piece, (int(group[-1]) + 1) * per_piece
        if start < limit:
            yield _Segment(start, min(end, limit), int(phys[group[0]]), shared is not None and bool(shared[group[0]]))
