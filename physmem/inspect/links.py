# SPDX-License-Identifier: GPL-2.0-only
"""The ``page->lru`` links of every page that looks free, read at once.

In the table a link is not an address but a *code*: the position of the page it leads to, or a
negative number.  Walking a list is then following positions in an array, whatever the size of
the machine, and the page array itself is read once, in pieces.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from physmem.dump import Dump
from physmem.inspect.distinct import distinct
from physmem.inspect.memmap import PageArray
from physmem.inspect.pageformat import PageFormat

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    _Codes = npt.NDArray[np.intc]
    _Pfns = npt.NDArray[np.int64]
else:
    from physmem.later import np

__all__ = ["FIRST_HEAD", "NOWHERE", "UNREAD", "Links"]

#: A link to nothing that can be an entry.
NOWHERE = -1
#: A link to a page whose ``struct page`` is not in the image.
UNREAD = -2
#: A link to the first list head; the others have the numbers below.
FIRST_HEAD = -3

#: How many pages in a row that do not look free are followed along a list.
_MAX_STRAYS = 16
#: Pages of the machine, for each that is on a list, up to which there is a table of all of them.
_DENSE = 16


class Links:
    """Which page leads to which.

    :param heads: address of every list head that may be met; a link to another leads nowhere

    :ivar pfns: the pages of the table, ascending
    :ivar pages: their fields, a structured array: count, mapcount, order and ``index``
    :ivar next: code of each page's ``lru.next``
    :ivar prev: code of each page's ``lru.prev``
    :ivar array: the page array that it was read from
    """

    def __init__(self, dump: Dump, heads: Sequence[int]) -> None:
        self.dump = dump
        self.format = PageFormat(dump.layout)
        self.array = PageArray(dump)
        self._heads = np.array(heads, np.uint64)
        self._fields = [*self.format.free_fields, self.format.next, self.format.prev]
        self._packed = np.dtype([(name, dump.layout.dtype("page", [name])[name]) for name in self._fields])
        self.pfns, self.pages = self._candidates()
        self._number()
        self._add_strays()
        self.next = self.codes(self.pages[self.format.next])
        self.prev = self.codes(self.pages[self.format.prev])

    def _candidates(self) -> tuple[_Pfns, npt.NDArray[np.void]]:
        """The pages that are marked as free blocks, and those without references whose links may be links."""
        pfns, pages = [np.empty(0, np.int64)], [np.empty(0, self._packed)]
        form = self.format
        for start, piece in self.array.scan(list(dict.fromkeys([*self._fields, *form.unused_fields]))):
            # A page that was on a list has poison in its links, one that never was leads to itself.
            own = self._entries(np.arange(start, start + len(piece)))
            linked = (piece[form.next] >= np.uint64(self.dump.page_offset)) & (piece[form.next] != own)
            where = np.flatnonzero(form.buddy(piece) | (form.unused(piece) & linked))
            pfns.append(where + start)
            pages.append(piece[where][self._fields].astype(self._packed))
        return np.concatenate(pfns), np.concatenate(pages)

    def _add_strays(self) -> None:
        """Add pages that do not look free but are linked to by such that do: only corruption has them."""
        for _ in range(_MAX_STRAYS):
            for link in (self.format.next, self.format.prev):
                pfns = self._pfns(self.pages[link])
                strays = distinct(pfns[(self.array.slots(pfns) >= 0) & (self._positions(pfns) < 0)])
                if len(strays):
                    self._add(strays)
                    break
            else:
                return

    def _add(self, pfns: _Pfns) -> None:
        pages = self.array.gather(self._fields, pfns)[self._fields].astype(self._packed)
        order = np.argsort(np.concatenate([self.pfns, pfns]))
        self.pfns = np.concatenate([self.pfns, pfns])[order]
        self.pages = np.concatenate([self.pages, pages])[order]
        self._number()

    def _number(self) -> None:
        """A table of all pages is quickest to look up, but is not to take more room than the pages that it is for."""
        self._dense: npt.NDArray[np.intc] | None = None
        total = self.array.present.total()
        if total <= _DENSE * len(self.pfns):
            self._dense = np.full(total + 1, -1, np.intc)
            self._dense[self.array.slots(self.pfns)] = np.arange(len(self.pfns))

    def _positions(self, pfns: _Pfns) -> npt.NDArray[np.intp]:
        """The position of each page in the table; -1 if it is not in it."""
        if self._dense is not None:
            return self._dense[self.array.slots(pfns)].astype(np.intp)
        if not len(self.pfns):
            return np.full(len(pfns), -1, np.intp)
        at = np.minimum(np.searchsorted(self.pfns, pfns), len(self.pfns) - 1)
        return np.where(self.pfns[at] == pfns, at, -1)

    def codes(self, addresses: npt.NDArray[np.uint64]) -> _Codes:
        """The code of each address of a list entry."""
        pfns = self._pfns(addresses)
        codes = np.where(self.array.slots(pfns) >= 0, self._positions(pfns), UNREAD).astype(np.intc)
        elsewhere = np.flatnonzero(pfns < 0)
        codes[elsewhere] = self._head_codes(addresses[elsewhere])
        return codes

    def _head_codes(self, addresses: npt.NDArray[np.uint64]) -> _Codes:
        if not len(self._heads):
            return np.full(len(addresses), NOWHERE, np.intc)
        by_address = np.argsort(self._heads)
        heads = self._heads[by_address]
        at = np.minimum(np.searchsorted(heads, addresses), len(heads) - 1)
        return np.where(heads[at] == addresses, FIRST_HEAD - by_address[at], NOWHERE).astype(np.intc)

    def _pfns(self, entries: npt.NDArray[np.uint64]) -> _Pfns:
        """The PFN of the page that each address is the ``lru`` of; -1 if it is not that of any."""
        pfns = self.dump.page_map.pfns(entries - np.uint64(self.format.lru))
        return np.where(pfns < self.dump.max_pfn, pfns, -1)

    def _entries(self, pfns: _Pfns) -> npt.NDArray[np.uint64]:
        """The address of each page's ``lru``."""
        return self.dump.page_map.pages(pfns) + np.uint64(self.format.lru)
