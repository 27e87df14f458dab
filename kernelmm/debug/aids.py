# SPDX-License-Identifier: GPL-2.0-only
"""What the core calls of the debugging aids: hung on ``mm.aids``, if the kernel has some that are on.

The functions are those of mm/page_alloc.c, mm/page_ext.c and mm/debug-pagealloc.c, in their order.
"""

from __future__ import annotations

from collections.abc import Iterator

from kernelmm.bringup.kernel import Kernel
from kernelmm.bringup.memblock import Memblock
from kernelmm.bringup.printk import printk
from kernelmm.core import mmzone, page, vmstat
from kernelmm.core.mm import Mm
from kernelmm.debug import pagealloc
from kernelmm.debug.atomic import NoAids
from kernelmm.debug.kmemcheck import Kmemcheck
from kernelmm.debug.owner import PageOwner
from kernelmm.debug.page_ext import PageExt, alloc_node_page_ext, alloc_sections
from kernelmm.pressure.lru import PageList
from kernelmm.study.reporter import RATELIMIT_BURST, RATELIMIT_INTERVAL, RateLimit
from physmem import abi, address
from physmem.memory_model import MemoryModel

__all__ = [
    "Aids",
    "install",
    "invoke_init_callbacks",
    "invoke_need_callbacks",
    "page_ext_init",
    "page_ext_init_flatmem",
]


class Aids(NoAids):
    """The debugging aids of one kernel.  Which of them are on is in its memory; it is looked up once.

    :ivar unmapping: frames that are free have no mapping
    :ivar poisoning: frames that are free are filled with a pattern
    :ivar owner: what notes who allocates a page, or None
    """

    owner: PageOwner | None = None

    def __init__(self, kernel: Kernel) -> None:
        super().__init__()
        self.kernel = kernel
        self.ext = PageExt(kernel)
        self.poison_limit = RateLimit(RATELIMIT_INTERVAL * kernel.mm.hz, RATELIMIT_BURST)
        self.look()

    def look(self) -> None:
        """See in memory what is on, and tell the core."""
        kernel, mm = self.kernel, self.kernel.mm
        self.poisoning = bool(kernel.var("page_poisoning_enabled"))
        self.unmapping = bool(kernel.var("_debug_pagealloc_enabled")) and not self.poisons
        if kernel.var("page_owner_inited") and self.owner is None:
            self.owner = PageOwner(kernel, self.ext, self.callers(kernel))
        guards = kernel.var("_debug_guardpage_enabled")
        mm.guard_minorder = kernel.var("_debug_guardpage_minorder") if guards else 0
        mm.debug_pages = self.poisoning or self.unmapping or self.owner is not None
        mm.set_debugging()

    @property
    def poisons(self) -> bool:
        """The kernel is built to poison, whether it has begun or not: then it maps all frames all the time."""
        return bool(self.kernel.var("page_poisoning_built"))

    # -- pages come and go ---------------------------------------------------

    def free_pages_prepare(self, mm: Mm, pg: int, order: int) -> None:
        """A block is good to be freed: ``reset_page_owner``, then ``kernel_map_pages(..., 0)``."""
        if self.owner is not None:
            self.owner.reset(mm, pg, order)
        self.map_pages(mm, pg, 1 << order, False)

    def prep_new_page(self, mm: Mm, pg: int, order: int, gfp_flags: int) -> None:
        """A block is handed out: ``kernel_map_pages(..., 1)``, and ``set_page_owner``."""
        self.map_pages(mm, pg, 1 << order, True)
        if self.owner is not None:
            self.owner.set(mm, pg, order, gfp_flags)

    def split_page(self, mm: Mm, pg: int, order: int) -> None:
        """``split_page``: each page of the block has been allocated by itself, says its owner from now on."""
        if self.owner is not None:
            for i in range(1 << order):
                self.owner.set(mm, pg + i * abi.SIZEOF_PAGE, 0, 0)

    def isolate_free_page(self, mm: Mm, pg: int, order: int) -> None:
        """``__isolate_free_page``: whoever took a block off the free lists owns it."""
        if self.owner is not None:
            self.owner.set(mm, pg, order, 0)

    def map_pages(self, mm: Mm, pg: int, count: int, enable: bool) -> None:
        """``kernel_map_pages``."""
        if self.unmapping:
            pagealloc.kernel_map_pages(self.kernel, address.page_to_pfn(mm, pg), count, enable)
        elif self.poisoning and enable:
            pagealloc.unpoison_pages(mm, self.ext, pg, count, mm.reporter, self.poison_limit)
        elif self.poisoning:
            pagealloc.poison_pages(mm, self.ext, pg, count)

    def map_list(self, mm: Mm, head: int) -> None:
        """``map_pages`` of mm/compaction.c: single pages that were taken off the free lists get their mapping back.

        :param head: kernel address of the list that they are on
        """
        for pg in PageList(mm, head):
            self.map_pages(mm, pg, 1, True)

    def owner_of(self, mm: Mm, pg: int) -> Iterator[str]:
        """The record of a page's owner, if it has one."""
        if self.owner is not None and self.ext.test(mm, pg, self.ext.owner):
            yield from self.owner.record(mm, pg)

    # -- guard pages ---------------------------------------------------------

    def set_page_guard(self, mm: Mm, zone: int, pg: int, order: int, migratetype: int) -> bool:
        """``set_page_guard``: a block that nobody will get as long as its neighbour is in use; True."""
        z = mmzone.zone_off(mm, zone)
        at = address.page_off(mm, pg)
        self.ext.mark(mm, pg, self.ext.guard, True)
        for link in (abi.PAGE_LRU, abi.PAGE_LRU_PREV):
            mm.as_u64[(at + link) >> 3] = pg + abi.PAGE_LRU
        page.set_private(mm, at, order)
        vmstat.mod_zone_freepage_state(mm, z, mmzone.this_cpu_pageset(mm, z), -(1 << order), migratetype)
        return True

    def merge_guard(self, mm: Mm, zone: int, pg: int, order: int, migratetype: int) -> bool:
        """``clear_page_guard``, if this buddy is a guard page: it joins the block that is freed; whether it was one."""
        if not self.ext.test(mm, pg, self.ext.guard):
            return False
        z = mmzone.zone_off(mm, zone)
        self.ext.mark(mm, pg, self.ext.guard, False)
        page.set_private(mm, address.page_off(mm, pg), 0)
        if migratetype != mm.migrate_isolate:
            vmstat.mod_zone_freepage_state(mm, z, mmzone.this_cpu_pageset(mm, z), 1 << order, migratetype)
        return True

    def guard_is_buddy(self, mm: Mm, at: int, buddy_at: int, order: int) -> bool:
        """``page_is_buddy`` of a guard page: of the same order, in the same zone."""
        buddy = address.pfn_to_page(mm, self.pfn_at(mm, buddy_at))
        if not self.ext.test(mm, buddy, self.ext.guard) or page.order(mm, buddy_at) != order:
            return False
        if page.zone_id(mm, at) != page.zone_id(mm, buddy_at):
            return False
        if mm.debug_vm:
            mm.checker.guard_is_buddy(mm, buddy_at)
        return True

    def pfn_at(self, mm: Mm, at: int) -> int:
        """PFN of the page whose ``struct page`` is at a physical address."""
        shift = mm.memmap_shift
        for chunk, phys in enumerate(mm.memmap):
            if phys <= at < phys + (1 << shift):
                return ((chunk << shift) + at - phys) // abi.SIZEOF_PAGE
        raise AssertionError(f"no struct page is at physical {at:#x}")


def install(kernel: Kernel) -> None:
    """Switch on the aids that a kernel has on, if it has any.

    :raises SymbolError: a kernel with kmemcheck, of which it is not known whether it is on
    :raises AbsentError: the same
    """
    mm = kernel.mm
    if mm.aids is not None:
        return
    if "page_owner_inited" in kernel.symbols and kernel.layout.has("page_ext"):
        mm.aids = Aids(kernel)
    if kernel.layout.has("page", "shadow"):
        for needed in ("kmemcheck_enabled", "init_level4_pgt"):
            kernel.ram.read(kernel.phys(kernel.symbols[needed]), 4)
        mm.aids = mm.aids or NoAids()
        mm.aids.kmemcheck = Kmemcheck(kernel, mm.aids.callers(kernel))
        mm.kmemcheck = True
        mm.set_debugging()


def invoke_need_callbacks(kernel: Kernel) -> bool:
    """``invoke_need_callbacks``: one of the aids is on and keeps something about each page."""
    if "page_owner_inited" not in kernel.symbols:
        return False
    return bool(kernel.var("_debug_pagealloc_enabled") or not kernel.var("page_owner_disabled"))


def page_ext_init_flatmem(kernel: Kernel, memblock: Memblock) -> None:
    """``page_ext_init_flatmem`` but for its callbacks: memory for what the aids keep, before any page is free."""
    if kernel.model is MemoryModel.FLATMEM and invoke_need_callbacks(kernel):
        printk(kernel, f"allocated {alloc_node_page_ext(kernel, memblock)} bytes of page_ext")


def page_ext_init(kernel: Kernel) -> None:
    """``page_ext_init``: memory for what the aids keep, if one of them needs it; then they begin."""
    if kernel.model is not MemoryModel.FLATMEM and invoke_need_callbacks(kernel):
        printk(kernel, f"allocated {alloc_sections(kernel)} bytes of page_ext")
        invoke_init_callbacks(kernel)


def invoke_init_callbacks(kernel: Kernel) -> None:
    """``invoke_init_callbacks``: the aids that are on begin."""
    aids = kernel.mm.aids
    if kernel.var("_debug_pagealloc_enabled"):
        kernel.set_var("_debug_guardpage_enabled", 1)
        kernel.set_var("page_poisoning_enabled", aids.poisons)
    if not kernel.var("page_owner_disabled"):
        kernel.set_var("page_owner_inited", 1)
    aids.look()
    if aids.owner is not None:
        aids.owner.init_early_allocated_pages(kernel.mm)
