# SPDX-License-Identifier: GPL-2.0-only
"""Page arrays in which the tails of hugepages are one page of memory (CONFIG_HUGETLB_PAGE_OPTIMIZE_VMEMMAP, HVO).

The pages of the array that describe only tails of a hugetlb page all say the same, so that since 5.14 they can be
mapped to the same memory: the first of them or the second (until 5.17), or, where a tail says which bits of its own
address lead to the head (``compound_info``), one that serves all hugepages of an order.  mm/hugetlb_vmemmap.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from physmem.dump import Dump
from physmem.errors import CorruptionError
from physmem.inspect.hugetlb import HugetlbFormat
from physmem.inspect.pageformat import PageFormat
from physmem.memory import UNMAPPED

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
else:
    from physmem.later import np

__all__ = ["shared_chunks"]

#: Orders of the hugepages of x86-64: 2 MiB, 1 GiB.
_ORDERS = (9, 18)


def shared_chunks(dump: Dump, chunks: tuple[npt.NDArray[np.uint64], int], limit: int) -> npt.NDArray[np.bool_]:
    """Which chunks of a page array, of those that are the same memory, have tails of hugepages and nothing else.

    :param chunks: as :attr:`Dump.memmap` says it
    :param limit: one past the last PFN that is looked at
    :raises CorruptionError: others are the same memory
    :raises AbsentError: the head of a hugepage is not in the image
    """
    phys, shift = chunks
    per_chunk = (1 << shift) // dump.sizeof_page
    index = np.flatnonzero(phys[: -(-limit // per_chunk)] != np.uint64(UNMAPPED))
    _, group, sizes = np.unique(phys[index], return_inverse=True, return_counts=True)
    again = sizes[group] > 1
    alias, group = index[again], group[again]
    owner, order = np.full(len(alias), -1, np.int64), np.zeros(len(alias), np.int64)
    if shift == 12 and not dump.sizeof_page & (dump.sizeof_page - 1) and dump.release >= (5, 14):
        owner, order = _hugepages(dump, phys, alias, per_chunk)
    right = owner >= 0
    # All of one hugepage, which is where one of its first two pages of the array is.
    first, size = np.unique(group, return_index=True)[1], np.bincount(group)
    same_owner = owner == owner[first][np.searchsorted(group[first], group)]
    beside = np.minimum(np.maximum(owner, 0) + 1, len(phys) - 1)
    own = (phys[alias] == phys[np.maximum(owner, 0)]) | (phys[alias] == phys[beside])
    classic = right & same_owner & own
    # Or tails only, of hugepages of one order.
    same_order = order == order[first][np.searchsorted(group[first], group)]
    of_all = right & same_order & (alias != owner) & dump.layout.has("page", "compound_info")
    kept = np.bincount(group, classic, len(size)) == size
    kept |= np.bincount(group, of_all, len(size)) == size
    wrong = ~kept[group]
    if wrong.any():
        at = int(alias[wrong][0])
        same = alias[group == group[wrong][0]]
        detail = f"the pages from pfn {at * per_chunk} and from pfn {int(same[1]) * per_chunk} on share memory"
        raise CorruptionError("page_array", detail)
    found = np.zeros(len(phys), bool)
    found[alias] = alias != owner
    return found


def _hugepages(
    dump: Dump, phys: npt.NDArray[np.uint64], alias: npt.NDArray[np.int64], per_chunk: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Of each chunk, the first chunk of the hugepage that it is of (-1: of none), and the order of that."""
    form = PageFormat(dump.layout)
    hugetlb = HugetlbFormat(dump, form)
    owner, found = np.full(len(alias), -1, np.int64), np.zeros(len(alias), np.int64)
    dtype = dump.layout.dtype("page", ["flags", form.mapcount])
    for order in _ORDERS:
        bases = alias & -((1 << order) // per_chunk)
        unique = np.unique(bases)
        unique = unique[phys[unique] != np.uint64(UNMAPPED)]
        rows = [dump.memory.array(int(phys[base]), np.uint8, 2 * dump.sizeof_page) for base in unique]
        if not rows:
            continue
        both = np.stack(rows).reshape(len(rows), 2, dump.sizeof_page)
        heads, second = np.ascontiguousarray(both[:, 0]).view(dtype).ravel(), np.ascontiguousarray(both[:, 1])
        are = (heads["flags"] & np.uint64(form.bit("PG_head"))) != 0
        are &= hugetlb.are(heads, second) & (form.compound_orders(second) == order)
        here = np.isin(bases, unique[are])
        owner[here], found[here] = bases[here], order
    return owner, found
