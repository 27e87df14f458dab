# SPDX-License-Identifier: GPL-2.0-only
"""What the log says of memory when the allocator takes over (mm/page_alloc.c)."""

from __future__ import annotations

from kernelmm.bringup.kernel import Kernel
from kernelmm.pressure import stat

__all__ = ["mem_init_print_info"]


def mem_init_print_info(kernel: Kernel) -> str:
    """``mem_init_print_info``: what is available, and what the kernel has taken; no part of ours is for boot only."""
    symbols = kernel.symbols
    sizes = {
        "kernel code": symbols["_etext"] - symbols["_stext"],
        "rwdata": symbols["_edata"] - symbols["_sdata"],
        "rodata": symbols["__end_rodata"] - symbols["__start_rodata"],
        "init": 0,
        "bss": symbols["__bss_stop"] - symbols["__bss_start"],
    }
    physpages = sum(kernel.get(kernel.node_data(nid), "pglist_data.node_present_pages") for nid in kernel.nodes())
    free = stat.global_state(kernel.mm, kernel.layout.enumerator("NR_FREE_PAGES"))
    cma = kernel.var("totalcma_pages")
    reserved = physpages - kernel.var("totalram_pages") - cma
    parts = [f"{size >> 10}K {what}" for what, size in sizes.items()]
    parts += [f"{reserved << 2}K reserved", f"{cma << 2}K cma-reserved"]
    return f"Memory: {free << 2}K/{physpages << 2}K available ({', '.join(parts)})"
