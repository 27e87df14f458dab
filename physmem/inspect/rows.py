# SPDX-License-Identifier: GPL-2.0-only
"""Pages in a row sorted into kinds, and told of again: with the compiled engine (``alike``), else with numpy.

Both give the same answers.  The compiled one reads the page array once; numpy looks at it field by field, and
has a kind for each stretch of neighbours that are alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from physmem import engine
from physmem.dump import Dump
from physmem.inspect.alike import Sorter
from physmem.inspect.memmap import PageArray
from physmem.inspect.pageformat import PageFormat

__all__ = ["ByNumpy", "Compiled", "Found", "Rows", "Said", "fits", "rows"]

#: In a key: the flags (no kernel has more), where the low bits of mapping are, whether it is a tail; then the mapcount.
KEY_FLAGS, KEY_MAPPING, KEY_TAIL = (1 << 29) - 1, 29, 1 << 31
#: What a kind is; FREE is the head of a free block.
TAIL, HEAD, FREE = 1, 2, 4
#: Pages of the page array that are read at a time: so few that they stay in the processor's cache.
_BLOCK = 1 << 13
#: A table of kinds: a power of two, and far more than a machine has.
_SLOTS = 1 << 14
_U64 = np.uint64

U64s = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Found:
    """What some pages in a row have been sorted into.

    :ivar start: PFN of the first
    :ivar pages: how many they are
    :ivar keys: of each kind
    :ivar run_begin: of each run of tails that lead to the same head, the position of the first
    :ivar run_word: how they lead there
    :ivar run_high: the highest mapcount of them
    :ivar head_at: position of each head of a compound page
    :ivar both: bytes of its ``struct page``, and of the one behind it
    :ivar known: whether that is here too
    """

    start: int
    pages: int
    keys: U64s
    run_begin: npt.NDArray[np.int64]
    run_word: U64s
    run_high: npt.NDArray[np.int32]
    head_at: npt.NDArray[np.int64]
    both: npt.NDArray[np.uint8]
    known: npt.NDArray[np.bool_]


class Said(NamedTuple):
    """What a kernel says of them: a row for each kind, run of tails, and head, with the columns of :meth:`Sorter.tell`.

    :ivar free: the flags of a page inside a free block that has no reference
    """

    kinds: U64s
    runs: U64s
    heads: U64s
    free: int


class Rows(Protocol):
    """Sorts pages into kinds, and tells of each page what is said of its kind."""

    def sort(self, array: PageArray, start: int, stop: int) -> Found:
        """Sort the pages [start, stop), all of which are present."""

    def tell(self, said: Said, flags: U64s, counts: U64s) -> None:
        """Flags and counts of the pages that were sorted last."""


def rows(dump: Dump, form: PageFormat, piece: int) -> Rows:
    """The way that is faster here, for up to ``piece`` pages at a time."""
    return Compiled(dump, form, piece) if engine.current() == "compiled" and fits(dump, form) else ByNumpy(dump, form)


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
        # Memory that is not touched costs nothing: hardly any of it is.
        self._kind, self._keys = np.empty(piece, np.uint32), np.empty(piece, np.uint64)
        self._begin, self._word, self._length = (np.empty(piece, np.uint64) for _ in range(3))
        self._high, self._at = np.empty(piece, np.int32), np.empty(piece, np.uint64)
        self._rows = np.empty(piece * 2 * sorter.stride, np.uint64)
        self._seconds, self._orders = np.empty(piece, np.uint8), np.empty(piece, np.uint8)
        self._slots = np.zeros(_SLOTS, np.uint32)
        self._room = np.empty(_BLOCK * sorter.stride, np.uint64)
        sorter.kind, sorter.keys, sorter.slots = self._kind.data, self._keys.data, self._slots.data
        sorter.run_begin, sorter.run_word, sorter.run_length = self._begin.data, self._word.data, self._length.data
        sorter.run_high, sorter.head_at, sorter.rows = self._high.data, self._at.data, self._rows.data
        sorter.seconds, sorter.orders = self._seconds.data, self._orders.data
        self._start = 0

    def sort(self, array: PageArray, start: int, stop: int) -> Found:
        sorter = self._sorter
        sorter.begin()
        self._slots.fill(0)
        self._start = start
        for block in array.words(start, stop, self._room):
            sorter.sort(block.data, len(block) // sorter.stride)
        runs, heads = sorter.runs, sorter.heads
        both = self._rows[: 2 * heads * sorter.stride].view(np.uint8).reshape(heads, 2, self._size)
        return Found(
            start,
            stop - start,
            self._keys[: sorter.kinds],
            self._begin[:runs].view(np.int64),
            self._word[:runs],
            self._high[:runs],
            self._at[:heads].view(np.int64),
            both,
            self._seconds[:heads] != 0,
        )

    def tell(self, said: Said, flags: U64s, counts: U64s) -> None:
        kinds, runs, heads = (table.reshape(-1).data for table in said[:3])
        self._sorter.tell(self._start, self._largest, kinds, runs, heads, said.free, flags.data, counts.data)


class ByNumpy:
    """By numpy; of any layout."""

    def __init__(self, dump: Dump, form: PageFormat) -> None:
        self._form = form
        self._size = dump.sizeof_page
        names = ["flags", "mapping", form.count, form.mapcount, form.order, form.tail_field]
        self._dtype = dump.layout.dtype("page", list(dict.fromkeys(names)))
        self._pages: npt.NDArray[Any] = np.empty(0, self._dtype)
        self._found: Found
        self._kind_at: npt.NDArray[np.int64] = np.empty(0, np.int64)
        self._run_end: npt.NDArray[np.int64] = np.empty(0, np.int64)

    def sort(self, array: PageArray, start: int, stop: int) -> Found:
        form = self._form
        raw = array.raw(start, stop)
        pages = self._pages = raw.reshape(-1).view(self._dtype)
        is_tail = form.tail(pages)
        key = pages[form.mapcount].view(np.uint32).astype(np.uint64) << _U64(32)
        key |= (pages["mapping"] & _U64(3)) << _U64(KEY_MAPPING)
        key |= pages["flags"] & _U64(KEY_FLAGS)
        key |= is_tail * _U64(KEY_TAIL)
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
        head_at = np.flatnonzero(((pages["flags"] & _U64(form.mask("PG_head"))) != 0) & ~is_tail)
        known = head_at + 1 < len(pages)
        both = np.zeros((len(head_at), 2, self._size), np.uint8)
        both[:, 0] = raw[head_at]
        both[known, 1] = raw[head_at[known] + 1]
        keys = key[self._kind_at]
        self._found = Found(start, len(pages), keys, begin, word[begin], high, head_at, both, known)
        return self._found

    def tell(self, said: Said, flags: U64s, counts: U64s) -> None:
        found = self._found
        length = np.diff(self._kind_at, append=found.pages)
        flags[:], counts[:], keep, what = (np.repeat(column, length) for column in said.kinds.T)
        many = self._run_end - found.run_begin
        tails = np.repeat(found.run_begin - (np.cumsum(many) - many), many) + np.arange(many.sum())
        for at, table in ((tails, np.repeat(said.runs, many, 0)), (found.head_at, said.heads)):
            flags[at] |= table[:, 0]
            counts[at] = (counts[at] + table[:, 1]) & keep[at] & table[:, 2]
        if said.free:
            self._inside(flags, np.flatnonzero(what & _U64(FREE)), said.free)

    def _inside(self, flags: U64s, heads: npt.NDArray[np.intp], free: int) -> None:
        """Tell what is in free blocks, and has no reference."""
        form, pages = self._form, self._pages
        orders = np.minimum(pages[form.order][heads], _U64(form.max_order - 1)).astype(np.int64)
        pfns = heads + self._found.start
        # A block is no larger than its place allows.
        size = np.minimum(1 << orders, np.where(pfns == 0, 1 << form.max_order, pfns & -pfns))
        size = np.minimum(size, len(pages) - heads)
        # In how many blocks each page is, behind their first.
        depth = np.zeros(len(pages) + 1, np.int32)
        depth[heads + 1] = 1
        np.subtract.at(depth, heads + size, 1)
        inside = np.cumsum(depth, out=depth)[:-1] > 0
        inside &= pages[form.count] == 0
        flags |= np.multiply(inside, _U64(free))


def _first(key: U64s) -> npt.NDArray[np.int64]:
    """Where stretches of equal keys begin."""
    return np.concatenate([np.zeros(min(len(key), 1), np.int64), np.flatnonzero(key[1:] != key[:-1]) + 1])
