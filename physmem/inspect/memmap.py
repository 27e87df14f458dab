# SPDX-License-Identifier: GPL-2.0-only
"""The page array, read in pieces of bounded size.

A machine has a ``struct page`` for each page frame: 64 GiB of memory have 1 GiB of them.  They
are looked at many at a time, as numpy arrays, and never all at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from physmem.dump import Dump
from physmem.errors import CorruptionError
from physmem.ranges import Ranges
from physmem.space import UNMAPPED

__all__ = ["gather", "mapped_pfns", "page_dtype", "scan", "struct_pages"]

#: Pages read at a time: 4 MiB of page array.
CHUNK = 1 << 16


def mapped_pfns(dump: Dump) -> Ranges:
    """The PFNs that have a ``struct page``, whether or not it is in the image."""
    per_piece = (1 << dump.memmap[1]) // dump.sizeof_page
    return Ranges((i * per_piece, j * per_piece) for i, j, _ in _runs(dump)).clip(0, dump.max_pfn)


def struct_pages(dump: Dump) -> Ranges:
    """The PFNs whose ``struct page`` is in the image.

    :raises CorruptionError: they are more than the image has bytes for: parts of the array share memory
    """
    size = dump.sizeof_page
    shift = dump.memmap[1]
    found = []
    for i, j, phys in _runs(dump):
        base = i * ((1 << shift) // size)
        for start, end in dump.memory.ranges.clip(phys, phys + ((j - i) << shift)):
            # A struct page that is only half there is absent.
            first, last = base - (phys - start) // size, base + (end - phys) // size
            if first < last:
                found.append((first, last))
    pages = Ranges(found).clip(0, dump.max_pfn)
    memory = dump.memory.ranges.total()
    if pages.total() * size > memory:
        raise CorruptionError("page_array", f"{pages.total()} entries in an image of {memory} bytes")
    return pages


def _runs(dump: Dump) -> Iterator[tuple[int, int, int]]:
    """Pieces [i, j) of the page array that are mapped to contiguous memory, with its physical address."""
    phys, shift = dump.memmap
    mapped = np.flatnonzero(phys != np.uint64(UNMAPPED))
    if not len(mapped):
        return
    steps = np.diff(phys[mapped]) != np.uint64(1 << shift)
    breaks = np.flatnonzero(steps | (np.diff(mapped) != 1)) + 1
    for group in np.split(mapped, breaks):
        yield int(group[0]), int(group[-1]) + 1, int(phys[group[0]])


def page_dtype(dump: Dump, *names: str) -> np.dtype[np.void]:
    """The dtype of ``struct page`` with these fields."""
    return dump.layout.dtype("page", names)


def scan(dump: Dump, names: list[str], pfns: Ranges) -> Iterator[tuple[int, npt.NDArray[Any]]]:
    """These fields of the pages ``pfns``, a piece at a time: the first PFN, and a structured array.

    :param pfns: pages whose ``struct page`` is in the image (:func:`struct_pages`)
    """
    for start, end in pfns:
        for pfn in range(start, end, CHUNK):
            yield pfn, dump.pages(pfn, min(pfn + CHUNK, end), names)[0]


def gather(dump: Dump, names: list[str], pfns: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    """These fields of scattered pages, whose PFNs are ascending and have a ``struct page`` in the image."""
    found = np.zeros(len(pfns), page_dtype(dump, *names))
    starts = np.flatnonzero(np.diff(pfns // CHUNK, prepend=-1))
    for start, end in zip(starts.tolist(), [*starts.tolist()[1:], len(pfns)], strict=True):
        here = pfns[start:end]
        found[start:end] = dump.pages(int(here[0]), int(here[-1]) + 1, names)[0][here - here[0]]
    return found
