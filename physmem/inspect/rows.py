# SPDX-License-Identifier: GPL-2.0-only
"""Pages in a row sorted into kinds, and told of again: with the compiled engine (``alike``), else with numpy.

Both give the same answers.  The compiled one reads the page array once; numpy looks at it field by field, and sorts
stretches of neighbours that are alike.
"""

from __future__ import annotations

import mmap
import struct
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from physmem import engine
from physmem.dump import Dump
from physmem.inspect.alike import Sorter
from physmem.inspect.distinct import distinct
from physmem.inspect.memmap import PageArray
from physmem.inspect.pageformat import PageFormat

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
else:
    from physmem.later import np

__all__ = ["ByNumpy", "Compiled", "Found", "Rows", "Said", "anonymous", "fits", "rows"]

#: In a key: the flags (no kernel has more), where the low bits of mapping are, whether it is a tail; then the mapcount.
KEY_FLAGS, KEY_MAPPING, KEY_TAIL = (1 << 29) - 1, 29, 1 << 31
#: What a kind is; FREE is the head of a free block.
TAIL, HEAD, FREE = 1, 2, 4
#: Pages of the page array that are read at a time: so few that they stay in the processor's cache.
_BLOCK = 1 << 13
#: A table of kinds: a power of two, and far more than a machine has.
_SLOTS = 1 << 14


class Found(NamedTuple):
    """What some pages in a row have been sorted into.

    :ivar start: PFN of the first
    :ivar pages: how many they are
    :ivar keys: of each kind
    :ivar run_begin: of each run of tails that lead to the same head, the position of the first
    :ivar run_word: how they lead there
    :ivar run_high: the highest mapcount of them
    :ivar head_at: position of each head of a compound page
    :ivar rows: words of its ``struct page``, and of the one behind it
    :ivar seconds: whether that is here too
    """

    start: int
    pages: int
    keys: memoryview
    run_begin: memoryview
    run_word: memoryview
    run_high: memoryview
    head_at: memoryview
    rows: memoryview
    seconds: memoryview


class Said(NamedTuple):
    """What a kernel says of them: for each kind, run of tails, and head, the words that :meth:`Sorter.tell` takes.

    :ivar free: the flags of a page inside a free block that has no reference
    """

    kinds: memoryview
    runs: memoryview
    heads: memoryview
    free: int


class Rows(Protocol):
    """Sorts pages into kinds, and tells of each page what is said of its kind."""

    def sort(self, array: PageArray, start: int, stop: int) -> Found:
        """Sort the pages [start, stop), all of which are present."""

    def tell(self, said: Said, flags: memoryview, counts: memoryview) -> None:
        """Flags and counts of the pages that were sorted last."""


def rows(dump: Dump, form: PageFormat, piece: int) -> Rows:
    """The way that is faster here, for up to ``piece`` pages at a time."""
    return Compiled(dump, form, piece) if engine.current() == "compiled" else ByNumpy(dump, form)


def fits(dump: Dump, form: PageFormat) -> bool:
    """Whether all fields lie as :class:`Sorter` has them: words, and halves of words."""
    layout, size = dump.layout, dump.sizeof_page
    wide = [layout.field("page", name) for name in ("flags", "mapping", form.order, form.tail_field)]
    half = [layout.field("page", name) for name in (form.mapcount, form.count)]
    right = all(f.size == 8 and f.offset % 8 == 0 for f in wide) and all(f.size == 4 for f in half)
    return size % 8 == 0 and right and all(f.offset % 4 == 0 and f.offset + (f.size or 0) <= size for f in wide + half)


class Compiled:
    """By :class:`Sorter`.

    :param piece: the most pages that are sorted at a time
    """

    def __init__(self, dump: Dump, form: PageFormat, piece: int) -> None:
        layout, self._size = dump.layout, dump.sizeof_page
        sorter = self._sorter = Sorter()
        sorter.stride = self._size // 8
        sorter.flags_at = layout.offsetof("page", "flags") // 8
        sorter.mapping_at = layout.offsetof("page", "mapping") // 8
        sorter.order_at = layout.offsetof("page", form.order) // 8
        mapcount, count = (layout.offsetof("page", name) for name in (form.mapcount, form.count))
        sorter.mapcount_at, sorter.mapcount_shift = mapcount // 8, 8 * (mapcount % 8)
        sorter.count_at, sorter.count_shift = count // 8, 8 * (count % 8)
        sorter.lead_at = layout.offsetof("page", form.tail_field) // 8
        sorter.tail_at, sorter.tail_mask = sorter.lead_at, 1
        if not form.compound:
            sorter.tail_at, sorter.tail_mask = sorter.flags_at, form.bit("PG_tail")
        sorter.head_mask = form.mask("PG_head")
        sorter.buddy_mask, sorter.buddy_value = form.types["buddy"]
        self._largest = form.max_order - 1
        self._keys, self._begin, self._word, self._length, self._at = (anonymous(piece, "Q") for _ in range(5))
        self._kind, self._high, self._rows = (
            anonymous(piece, "I"),
            anonymous(piece, "i"),
            anonymous(piece * 2 * sorter.stride, "Q"),
        )
        self._seconds, self._orders = anonymous(piece, "B"), anonymous(piece, "B")
        self._room = anonymous(_BLOCK * sorter.stride, "Q")
        sorter.kind, sorter.keys = self._kind, self._keys
        sorter.run_begin, sorter.run_word, sorter.run_length = self._begin, self._word, self._length
        sorter.run_high, sorter.head_at, sorter.rows = self._high, self._at, self._rows
        sorter.seconds, sorter.orders = self._seconds, self._orders
        self.slots = _SLOTS
        self._start = 0

    def sort(self, array: PageArray, start: int, stop: int) -> Found:
        sorter = self._sorter
        sorter.begin()
        sorter.slots = memoryview(bytearray(4 * self.slots)).cast("I")
        self._start = start
        for block in array.words(start, stop, self._room):
            sorter.sort(block, len(block) // sorter.stride)
        runs, heads = sorter.runs, sorter.heads
        return Found(
            start,
            stop - start,
            self._keys[: sorter.kinds],
            self._begin[:runs],
            self._word[:runs],
            self._high[:runs],
            self._at[:heads],
            self._rows[: 2 * heads * sorter.stride],
            self._seconds[:heads],
        )

    def tell(self, said: Said, flags: memoryview, counts: memoryview) -> None:
        self._sorter.tell(self._start, self._largest, said.kinds, said.runs, said.heads, said.free, flags, counts)


def anonymous(count: int, code: str) -> memoryview:
    """Room for ``count`` numbers: memory that is not touched costs nothing, and hardly any of it is."""
    size = struct.calcsize(code)
    memory = mmap.mmap(-1, max(count, 1) * size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    view: memoryview = memoryview(memory)[: count * size].cast(code)  # type: ignore[call-overload]
    return view


class ByNumpy:
    """By numpy."""

    def __init__(self, dump: Dump, form: PageFormat) -> None:
        self._form = form
        self._size = dump.sizeof_page
        names = ["flags", "mapping", form.count, form.mapcount, form.order, form.tail_field]
        self._dtype = dump.layout.dtype("page", list(dict.fromkeys(names)))
        self._pages: npt.NDArray[Any] = np.empty(0, self._dtype)
        self._start = 0
        self._kind_at, self._kind_of, self._run_begin, self._run_end, self._head_at = (
            np.empty(0, np.int64) for _ in range(5)
        )

    def sort(self, array: PageArray, start: int, stop: int) -> Found:
        form = self._form
        raw = array.raw(start, stop)
        pages = self._pages = raw.reshape(-1).view(self._dtype)
        is_tail = form.tail(pages)
        key = pages[form.mapcount].view(np.uint32).astype(np.uint64) << np.uint64(32)
        key |= (pages["mapping"] & np.uint64(3)) << np.uint64(KEY_MAPPING)
        key |= pages["flags"] & np.uint64(KEY_FLAGS)
        key |= is_tail * np.uint64(KEY_TAIL)
        self._kind_at = _first(key)
        word = pages[form.tail_field]
        # A run of tails ends where another word begins, or a page that is none.
        apart = np.ones(len(pages), bool)
        apart[1:] = (word[1:] != word[:-1]) | ~is_tail[:-1]
        begin = np.flatnonzero(apart & is_tail)
        ends = np.flatnonzero(is_tail & np.append(apart[1:] | ~is_tail[1:], True))
        self._run_end = ends + 1
        high = np.empty(0, np.int32)
        if len(begin):
            of_tails = np.where(is_tail, pages[form.mapcount], np.int32(-(1 << 31)))
            high = np.maximum.reduceat(of_tails, begin)
        head_at = np.flatnonzero(((pages["flags"] & np.uint64(form.mask("PG_head"))) != 0) & ~is_tail)
        known = head_at + 1 < len(pages)
        both = np.zeros((len(head_at), 2, self._size), np.uint8)
        both[:, 0] = raw[head_at]
        both[known, 1] = raw[head_at[known] + 1]
        of_stretches = key[self._kind_at]
        keys = distinct(of_stretches)
        self._kind_of = np.searchsorted(keys, of_stretches)
        self._start, self._run_begin, self._head_at = start, begin, head_at
        return Found(
            start,
            len(pages),
            keys.data,
            begin.astype(np.uint64).data,
            word[begin].data,
            high.data,
            head_at.astype(np.uint64).data,
            both.reshape(-1).view(np.uint64).data,
            known.astype(np.uint8).data,
        )

    def tell(self, said: Said, flags: memoryview, counts: memoryview) -> None:
        kinds, runs, heads = (
            np.array(table, np.uint64).reshape(-1, columns) for table, columns in zip(said[:3], (4, 3, 3), strict=True)
        )
        found, count = np.frombuffer(flags, np.uint64), np.frombuffer(counts, np.uint64)
        length = np.diff(self._kind_at, append=len(found))
        found[:], count[:], keep, what = (np.repeat(column, length) for column in kinds[self._kind_of].T)
        many = self._run_end - self._run_begin
        tails = np.repeat(self._run_begin - (np.cumsum(many) - many), many) + np.arange(many.sum())
        for at, table in ((tails, np.repeat(runs, many, 0)), (self._head_at, heads)):
            found[at] |= table[:, 0]
            count[at] = (count[at] + table[:, 1]) & keep[at] & table[:, 2]
        if said.free:
            self._inside(found, np.flatnonzero(what & np.uint64(FREE)), said.free)

    def _inside(self, flags: npt.NDArray[np.uint64], heads: npt.NDArray[np.intp], free: int) -> None:
        """Tell what is in free blocks, and has no reference."""
        form, pages = self._form, self._pages
        orders = np.minimum(pages[form.order][heads], np.uint64(form.max_order - 1)).astype(np.int64)
        pfns = heads + self._start
        # A block is no larger than its place allows.
        size = np.minimum(1 << orders, np.where(pfns == 0, 1 << form.max_order, pfns & -pfns))
        size = np.minimum(size, len(pages) - heads)
        # In how many blocks each page is, behind their first.
        depth = np.zeros(len(pages) + 1, np.int32)
        depth[heads + 1] = 1
        np.subtract.at(depth, heads + size, 1)
        inside = np.cumsum(depth, out=depth)[:-1] > 0
        inside &= pages[form.count] == 0
        flags |= np.multiply(inside, np.uint64(free))


def _first(key: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """Where stretches of equal keys begin."""
    return np.concatenate([np.zeros(min(len(key), 1), np.int64), np.flatnonzero(key[1:] != key[:-1]) + 1])
