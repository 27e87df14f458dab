# SPDX-License-Identifier: GPL-2.0-only
"""The rare operations of a page script: on ranges of page frames, on a file, on the task, on fault injection."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from kernelmm.core import fault, mmzone, page
from kernelmm.core.mm import Mm
from kernelmm.pressure import codes, contig, isolation
from kernelmm.pressure.workload import Workload
from kernelmm.study.script import Script
from physmem import abi, address
from physmem.errors import UnsupportedError

__all__ = ["perform"]

#: What ``t`` sets.
_TASK_FLAGS = codes.PF_KTHREAD | codes.PF_MEMALLOC | codes.PF_MEMALLOC_NOIO | codes.PF_DUMPCORE
#: Offset of each of the seven numbers of ``k`` in ``fail_page_alloc``, and its size in bytes.
_FAULT_FIELDS = (
    (fault.PROBABILITY, 8),
    (fault.INTERVAL, 8),
    (fault.TIMES, 4),
    (fault.SPACE, 4),
    (fault.MIN_ORDER, 4),
    (fault.IGNORE_GFP_WAIT, 4),
    (fault.IGNORE_GFP_HIGHMEM, 4),
)


def perform(mm: Mm, script: Script, position: int, pages: npt.NDArray[np.uint64]) -> tuple[int, int, int, int]:
    """Perform one rare operation; its four results.

    :param pages: ``struct page *`` by id, which ``L`` adds to
    :raises PhysmemError: the range is not one of this machine
    """
    code, ident, a, b, c = script.ops[position].tolist()
    if code == ord("k"):
        return _set_faults(mm, script.faults[a])
    if code == ord("t"):
        mm.task_flags = mm.task_flags & ~_TASK_FLAGS | a & _TASK_FLAGS
        return -1, 0, -1, -1
    if code == ord("M"):
        return _make_file(mm)
    if code == ord("C"):
        return _add_to_page_cache(mm, int(pages[ident]), a)
    if code == ord("R"):
        if not pages[ident]:
            return -1, 0, -1, -1
        pfn = address.page_to_pfn(mm, int(pages[ident])) + a
        contig.free_contig_range(mm, pfn, b)
        count = page.count(mm, address.page_off(mm, address.pfn_to_page(mm, pfn)))
        return pfn, 0, mmzone.pageblock_migratetype(mm, pfn), count
    if code == ord("L"):
        status = contig.alloc_contig_range(mm, a, b, c)
        pages[ident] = address.pfn_to_page(mm, a) if status == 0 else 0
        return a, c, mmzone.pageblock_migratetype(mm, a), status
    change = isolation.start_isolate_page_range if code == ord("i") else isolation.undo_isolate_page_range
    status = change(mm, a, b, abi.MIGRATE_MOVABLE)
    return a, 0, mmzone.pageblock_migratetype(mm, a), status


def _make_file(mm: Mm) -> tuple[int, int, int, int]:
    """Make the file of ``C``, with room for its pages."""
    workload = Workload(mm)
    file = workload.open()
    leaf, _ = workload.slot(file.va, 0)
    pg = address.virt_to_page(mm, address.phys_to_virt(mm, leaf & -abi.PAGE_SIZE))
    pfn = address.page_to_pfn(mm, pg)
    return pfn, 0, mmzone.pageblock_migratetype(mm, pfn), page.count(mm, address.page_off(mm, pg))


def _add_to_page_cache(mm: Mm, pg: int, index: int) -> tuple[int, int, int, int]:
    """Add a page to the first file, for which its allocator's reference is given up."""
    files = Workload(mm).files if pg else []
    if not files or files[0].page(index):
        return -1, 0, -1, -1
    files[0].add(pg, index)
    pfn = address.page_to_pfn(mm, pg)
    return pfn, 0, mmzone.pageblock_migratetype(mm, pfn), page.count(mm, address.page_off(mm, pg))


def _set_faults(mm: Mm, numbers: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Set ``fail_page_alloc``; its count stays as it is and is the result."""
    attr = mm.var_fail_page_alloc
    if not attr:
        raise UnsupportedError("this kernel has no fail_page_alloc (CONFIG_FAIL_PAGE_ALLOC)")
    for (offset, size), number in zip(_FAULT_FIELDS, numbers, strict=True):
        at = attr + offset if mm.smp or offset < fault.DNAME else attr + offset - 8
        mm.ram.write(at, (number & ((1 << 8 * size) - 1)).to_bytes(size, "little"))
    return -1, numbers[4], -1, mm.ram.u64(attr + fault.COUNT)
