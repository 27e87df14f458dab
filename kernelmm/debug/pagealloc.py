# SPDX-License-Identifier: GPL-2.0-only
"""What is done to frames that are free: their mapping goes, or they are filled with a pattern.

``__kernel_map_pages`` of arch/x86/mm/pageattr.c changes the entries of the direct map, which has pages of
4 KiB on such a kernel; that of mm/debug-pagealloc.c, for processors that cannot, poisons.
"""

from __future__ import annotations

import numpy as np

from kernelmm.bringup.kernel import Kernel
from kernelmm.core.mm import Mm
from kernelmm.debug.page_ext import PageExt
from kernelmm.study.reporter import RateLimit, Reporter
from physmem import abi, address
from physmem.paging import LARGE, PRESENT, PTE_ADDRESS

__all__ = ["PAGE_POISON", "hex_dump", "kernel_map_pages", "poison_pages", "unpoison_pages"]

PAGE_POISON = 0xAA

_RW, _GLOBAL = 1 << 1, 1 << 8
_ENTRIES = 512


def kernel_map_pages(kernel: Kernel, pfn: int, count: int, enable: bool) -> None:
    """``__kernel_map_pages`` of x86: frames [pfn, pfn + count) get their mapping in the direct map, or lose it.

    An entry that does not map anything is not global either: __change_page_attr sees to that.
    """
    va = kernel.va(pfn << abi.PAGE_SHIFT)
    while count:
        index = va >> abi.PAGE_SHIFT & _ENTRIES - 1
        here = min(count, _ENTRIES - index)
        table = pte_table(kernel, va)
        if table:
            entries = kernel.words(table, _ENTRIES)[index : index + here]
            if enable:
                entries |= np.uint64(PRESENT | _RW | _GLOBAL)
            else:
                entries &= np.uint64((1 << 64) - 1 - (PRESENT | _RW | _GLOBAL))
        count -= here
        va += here << abi.PAGE_SHIFT


def pte_table(kernel: Kernel, va: int) -> int:
    """Physical address of the table whose entries map 4 KiB each around ``va``; 0 if larger pages do."""
    table = kernel.phys(kernel.symbols["init_level4_pgt"])
    for shift in (39, 30, 21):
        entry = int(kernel.words(table, _ENTRIES)[va >> shift & _ENTRIES - 1])
        if not entry & PRESENT or entry & LARGE:
            return 0
        table = entry & PTE_ADDRESS
    return table


# -- poison -----------------------------------------------------------------------


def poison_pages(mm: Mm, ext: PageExt, pg: int, count: int) -> None:
    """``poison_pages``: fill frames that have been freed, as far as the image has them."""
    for i in range(count):
        page = pg + i * abi.SIZEOF_PAGE
        phys = address.page_to_phys(mm, page)
        if mm.ram.ranges.covers(phys, phys + abi.PAGE_SIZE):
            ext.mark(mm, page, ext.poison, True)
            mm.ram.write(phys, bytes([PAGE_POISON]) * abi.PAGE_SIZE)


def unpoison_pages(mm: Mm, ext: PageExt, pg: int, count: int, reporter: Reporter | None, limit: RateLimit) -> None:
    """``unpoison_pages``: see whether the pattern is still there, and report it if not."""
    for i in range(count):
        page = pg + i * abi.SIZEOF_PAGE
        if ext.test(mm, page, ext.poison):
            check_poison_mem(mm, address.page_to_phys(mm, page), reporter, limit)
            ext.mark(mm, page, ext.poison, False)


def check_poison_mem(mm: Mm, phys: int, reporter: Reporter | None, limit: RateLimit) -> None:
    """``check_poison_mem``: report the bytes of a frame from the first to the last that is not poison."""
    data = mm.ram.read(phys, abi.PAGE_SIZE)
    wrong = [i for i, byte in enumerate(data) if byte != PAGE_POISON] if data.strip(bytes([PAGE_POISON])) else []
    if not wrong or reporter is None or not reporter.ratelimit(mm, limit, "check_poison_mem"):
        return
    start, end = wrong[0], wrong[-1]
    error = data[start] ^ PAGE_POISON
    if start == end and error & error - 1 == 0:
        reporter.printk("pagealloc: single bit error")
    else:
        reporter.printk("pagealloc: memory corruption")
    for line in hex_dump(address.phys_to_virt(mm, phys + start), data[start : end + 1]):
        reporter.printk(line)
    reporter.dump_stack(mm)


def hex_dump(va: int, data: bytes) -> list[str]:
    """``print_hex_dump`` with addresses, 16 bytes a line, one by one and as text."""
    lines = []
    for i in range(0, len(data), 16):
        row = data[i : i + 16]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        lines.append(f"{va + i:016x}: {row.hex(' '):<49}{text}")
    return lines
