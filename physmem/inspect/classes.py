# SPDX-License-Identifier: GPL-2.0-only
"""What pages are used for, by their ``struct page`` alone (and that of their head): many at a time.

Whether a page is free is known from the lists, see :mod:`physmem.inspect.states`.
"""

from __future__ import annotations

from enum import Enum
from typing import Any

import numpy as np
import numpy.typing as npt

from physmem.dump import Dump
from physmem.inspect.folios import Folios, Heads
from physmem.inspect.hugetlb import HugetlbFormat
from physmem.inspect.memmap import PageArray
from physmem.inspect.pageformat import PageFormat

__all__ = ["CODE", "MAPPING_ANON", "Classes", "State"]

#: Bits of page->mapping: of anonymous memory; with both, the address is another thing (KSM, or a driver's).
MAPPING_ANON, MAPPING_FLAGS = 1, 3


class State(Enum):
    """What a page is; the value is what to call it."""

    HOLE = "hole"
    ABSENT = "absent"
    FREE = "free"
    PCP = "per-cpu"
    COMPOUND = "compound"
    RESERVED = "reserved"
    SLAB = "slab"
    LRU = "lru"
    IN_USE = "in use"
    UNREFERENCED = "unreferenced"
    ANON = "anon"
    FILE = "file"
    HUGEPAGE = "hugepage"
    PAGE_TABLE = "page table"
    OFFLINE = "offline"
    SUSPICIOUS = "suspicious"


#: Of each state, its position among them: what arrays have.
CODE = {state: code for code, state in enumerate(State)}


class Classes:
    """Tells what pages are used for.

    :ivar fields: the fields of ``struct page`` that are looked at
    """

    def __init__(self, dump: Dump, array: PageArray, form: PageFormat) -> None:
        self.format = form
        self.folios = Folios(dump, array, form)
        self._hugetlb = HugetlbFormat(dump, form)
        self._dtype = dump.layout.dtype("page", ["flags", "mapping", form.count, form.mapcount])
        self._huge_order = min(9, form.max_order - 1)
        self._lru, self._reserved, self._head = (form.mask(f"PG_{n}") for n in ("lru", "reserved", "head"))
        self.fields = list(dict.fromkeys([*self.folios.fields, "flags", "mapping", form.count, form.mapcount]))

    def codes(self, start: int, pages: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
        """The use of each page from PFN ``start`` on, as a position in ``list(State)``."""
        states = self._own(pages)
        tails = self.folios.tails(start, pages)
        heads = np.flatnonzero(((pages["flags"] & np.uint64(self._head)) != 0) & ~tails.mask)
        states[tails.mask] = CODE[State.COMPOUND]
        states[heads] = CODE[State.COMPOUND]
        led = tails.head >= 0
        asked = self.folios.heads(np.concatenate([tails.head[led], heads + start]), start, pages)
        if not len(asked.pfn):
            return states
        kinds = self._of_heads(asked)
        states[heads] = kinds[asked.at(heads + start)]
        of_runs = np.full(len(tails.head), CODE[State.COMPOUND], np.uint8)
        of_runs[led] = kinds[asked.at(tails.head[led])]
        states[tails.mask] = tails.spread(of_runs)
        return states

    def _own(self, pages: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
        """The use of pages that are no part of a compound page."""
        form = self.format
        flags, mapping = pages["flags"], pages["mapping"]
        on_lru = (flags & np.uint64(self._lru)) != 0
        anon = (mapping & np.uint64(MAPPING_ANON)) != 0
        # Other owners keep other things in the word: it is an address of a file's where no bit says otherwise.
        file = (mapping >> np.uint64(63) != 0) & ((mapping & np.uint64(MAPPING_FLAGS)) == 0)
        states = np.full(len(pages), CODE[State.IN_USE], np.uint8)
        # What comes later prevails.
        for state, where in (
            (State.UNREFERENCED, pages[form.count] == 0),
            (State.LRU, on_lru),
            (State.FILE, file),
            (State.ANON, anon),
            (State.PAGE_TABLE, form.is_type(pages, "table")),
            (State.OFFLINE, form.is_type(pages, "offline")),
            (State.SLAB, form.slab(pages)),
            (State.RESERVED, (flags & np.uint64(self._reserved)) != 0),
        ):
            states[where] = CODE[state]
        return states

    def _of_heads(self, heads: Heads) -> npt.NDArray[np.uint8]:
        """The use of whole compound pages."""
        pages = heads.rows.reshape(-1).view(self._dtype)
        states = self._own(pages)
        plain = np.isin(states, [CODE[State.IN_USE], CODE[State.UNREFERENCED], CODE[State.LRU]])
        states[plain | ~heads.known] = CODE[State.COMPOUND]
        huge = self.format.compound_orders(heads.second) >= self._huge_order
        of_people = np.isin(states, [CODE[State.ANON], CODE[State.FILE]])
        states[heads.known & ((huge & of_people) | self._hugetlb.are(pages, heads.second))] = CODE[State.HUGEPAGE]
        return states
