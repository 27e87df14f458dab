# SPDX-License-Identifier: GPL-2.0-only
"""Which parts of a mapping nobody has touched, by what the host's kernel says.

Private anonymous memory that was never touched is zeros.  To look would be to
touch it: the host would set up a page table entry for each page.  Linux tells in
``/proc/self/pagemap``, one u64 for a page: bit 63, it is in memory; bit 62, it is in
swap.  Format: Documentation/admin-guide/mm/pagemap.rst.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from physmem.ranges import Ranges

if TYPE_CHECKING:
    import numpy as np
else:
    from physmem.later import np

__all__ = ["untouched"]

_PAGEMAP = "/proc/self/pagemap"
_SOMEWHERE = 3 << 62
# Pages that are asked about at a time.
_PIECE = 1 << 20


def untouched(address: int, size: int) -> Ranges:
    """The bytes of a private anonymous mapping, counted from its beginning, that nobody has touched.

    Where the host does not tell, none.

    :param address: where the mapping is in this process
    :param size: its bytes
    """
    page = os.sysconf("SC_PAGE_SIZE")
    if address % page or size % page:
        return Ranges()
    try:
        descriptor = os.open(_PAGEMAP, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return Ranges()
    try:
        return Ranges((start * page, end * page) for start, end in _runs(descriptor, address // page, size // page))
    except OSError:
        return Ranges()
    finally:
        os.close(descriptor)


def _runs(descriptor: int, first: int, count: int) -> Iterator[tuple[int, int]]:
    """Runs of pages that are nowhere."""
    for done in range(0, count, _PIECE):
        size = min(_PIECE, count - done)
        data = os.pread(descriptor, 8 * size, 8 * (first + done))
        words = np.frombuffer(data[: len(data) // 8 * 8], np.uint64)
        nowhere = (words & np.uint64(_SOMEWHERE)) == 0
        edges = np.flatnonzero(np.diff(nowhere, prepend=False, append=False)).reshape(-1, 2) + done
        yield from ((int(start), int(end)) for start, end in edges)
