# SPDX-License-Identifier: GPL-2.0-only
"""Compound pages: blocks of pages that have one owner, and are spoken for by their first page, the head.

In a piece of the page array the tails of one compound page are a *run*: they lead to the same head,
which may lie before the piece.  What is asked of heads is asked once for each run, so that the cost
is not that of the pages.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from physmem.dump import Dump
from physmem.inspect.distinct import distinct
from physmem.inspect.memmap import PageArray
from physmem.inspect.pageformat import PageFormat

__all__ = ["Folios", "Heads", "Tails"]


@dataclass(frozen=True)
class Tails:
    """The tails in a piece of the page array.

    :ivar mask: which of the pages are tails
    :ivar begin: position of the first page of each run
    :ivar length: pages of each run
    :ivar head: PFN of its head; -1 where what should lead to it leads nowhere
    """

    mask: npt.NDArray[np.bool_]
    begin: npt.NDArray[np.intp]
    length: npt.NDArray[np.intp]
    head: npt.NDArray[np.int64]

    def spread(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """A value for each run as a value for each tail, in the order of the pages."""
        return np.repeat(values, self.length)


@dataclass(frozen=True)
class Heads:
    """Some heads of compound pages.

    :ivar pfn: of each, ascending
    :ivar rows: the bytes of each ``struct page``
    :ivar second: those of the page behind it, which has what did not fit
    :ivar known: whether both are in the image; what is not has zeros for bytes
    """

    pfn: npt.NDArray[np.int64]
    rows: npt.NDArray[np.uint8]
    second: npt.NDArray[np.uint8]
    known: npt.NDArray[np.bool_]

    def at(self, pfns: npt.NDArray[np.int64]) -> npt.NDArray[np.intp]:
        """Where these are among the heads; all of them must be."""
        return np.searchsorted(self.pfn, pfns)


class Folios:
    """Finds compound pages in pieces of a page array."""

    def __init__(self, dump: Dump, array: PageArray, form: PageFormat) -> None:
        self.array = array
        self.format = form
        self._size = dump.sizeof_page
        self._page_map = dump.page_map
        #: What :meth:`tails` looks at.
        self.fields = list(dict.fromkeys(["flags", form.tail_field]))

    def tails(self, start: int, pages: npt.NDArray[Any]) -> Tails:
        """The tails among the pages from PFN ``start`` on (of which ``fields`` are there)."""
        mask = self.format.tail(pages)
        where = np.flatnonzero(mask)
        words = pages[self.format.tail_field][where]
        apart = np.ones(len(where), bool)
        if len(where) > 1:
            apart[1:] = (np.diff(where) != 1) | (words[1:] != words[:-1])
        first = np.flatnonzero(apart)
        begin = where[first]
        length = np.diff(np.append(first, len(where)))
        return Tails(mask, begin, length, self.tails_at(start, pages, begin))

    def tails_at(self, start: int, pages: npt.NDArray[Any], where: npt.NDArray[np.intp]) -> npt.NDArray[np.int64]:
        """The heads of the tails at these positions: PFNs, -1 where what should lead to one leads nowhere."""
        return self.led(where + start, pages[self.format.tail_field][where])

    def led(self, tails: npt.NDArray[np.int64], words: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
        """The heads of tails (PFNs) that have these words to lead there; -1 where they lead nowhere."""
        own = self._page_map.pages(tails)
        head = self._page_map.pfns(self.format.head_addresses(own, words))
        return np.where(head < tails, head, -1)

    def heads(self, pfns: npt.NDArray[np.int64], start: int = 0, pages: npt.NDArray[Any] | None = None) -> Heads:
        """What the page array has of these heads, each of which may be asked for several times.

        :param pages: those from PFN ``start`` on, if they are at hand: not to be read again
        """
        unique = distinct(pfns)
        rows = np.zeros((len(unique), self._size), np.uint8)
        second = rows.copy()
        known = np.zeros(len(unique), bool)
        if pages is not None and pages.flags.c_contiguous:
            here = pages.view(np.uint8).reshape(len(pages), self._size)
            known = (unique >= start) & (unique + 1 < start + len(pages))
            rows[known] = here[unique[known] - start]
            second[known] = here[unique[known] + 1 - start]
        if not known.all():
            there = ~known & (self.array.slots(unique) >= 0) & (self.array.slots(unique + 1) >= 0)
            rows[there] = self.array.rows(unique[there])
            second[there] = self.array.rows(unique[there] + 1)
            known |= there
        return Heads(unique, rows, second, known)

    def heads_of(
        self,
        pfns: npt.NDArray[np.int64],
        own: npt.NDArray[np.int64],
        both: npt.NDArray[np.uint8],
        whole: npt.NDArray[np.bool_],
    ) -> Heads:
        """The same of these heads and of ``own``, of which two pages' bytes are at hand, the second if ``whole``."""
        unique = distinct(np.concatenate([pfns, own]))
        if len(unique) == len(own) and whole.all():
            return Heads(own, np.ascontiguousarray(both[:, 0]), both[:, 1], whole)
        rows = np.zeros((len(unique), self._size), np.uint8)
        second, known = rows.copy(), np.zeros(len(unique), bool)
        here = np.searchsorted(unique, own[whole])
        rows[here], second[here], known[here] = both[whole, 0], both[whole, 1], True
        there = ~known & (self.array.slots(unique) >= 0) & (self.array.slots(unique + 1) >= 0)
        rows[there] = self.array.rows(unique[there])
        second[there] = self.array.rows(unique[there] + 1)
        return Heads(unique, rows, second, known | there)
