# SPDX-License-Identifier: GPL-2.0-only
# room: compiled
"""The allocator's front: ``alloc_pages`` and its relatives (include/linux/gfp.h, mm/page_alloc.c, mm/mempolicy.c).

``gfp_mask`` is a ``gfp_t``, ``order`` the log2 of the number of pages.  A page is returned as
``struct page *``, memory as a direct-map address; 0 is NULL.
"""

from __future__ import annotations

from kernelmm import gfp
from kernelmm.core import alloc, current, fault, free, mmzone, watermark, zoneref
from kernelmm.core.mm import AllocContext, Mm
from kernelmm.pressure import attempt, slowpath
from physmem import abi, address, word
from physmem.ctype import s32, u32, u64


def __alloc_pages_slowpath(mm: Mm, gfp_mask: u32, order: u32, ac: AllocContext) -> u64:
    """``__alloc_pages_slowpath``: the free lists said no; ``struct page *``, or 0 if the request fails.

    Who may not wait is served, or fails, without leaving the compiled rooms.

    :raises BudgetError: a real kernel would go on trying
    :raises PanicError: memory is out, and there is nobody to kill
    """
    pg: u64 = 0
    if order >= abi.MAX_ORDER:
        mm.warn_order(gfp_mask)
        return 0
    # A caller with GFP_THISNODE has a plan of its own for when its node is full.
    if not (mm.numa and gfp_mask & gfp.GFP_THISNODE == gfp.GFP_THISNODE):
        if not current.flags(mm) & abi.PF_MEMALLOC:
            # Not nested in somebody's reclaim, whose budget goes on.
            mm.steps_left = mm.step_budget
        pg = attempt.attempt(mm, gfp_mask, order, ac)
        if pg == 0 and gfp_mask & (gfp.__GFP_WAIT | gfp.__GFP_NOFAIL):
            pg = slowpath.wait_for_pages(mm, gfp_mask, order, ac)
    if pg == 0:
        mm.warn_alloc_failed(gfp_mask, order)
    return pg


def __alloc_pages_nodemask(mm: Mm, gfp_mask: u32, order: u32, zonelist: u64, nodemask: u64) -> u64:
    """The heart of the buddy allocator: a block from the zones of ``zonelist``.

    :param zonelist: ``struct zonelist *``
    :param nodemask: a bit for each allowed node, or 0: all are
    :returns: ``struct page *`` or 0
    """
    ac: AllocContext = mm.ac
    alloc_flags: u32 = watermark.ALLOC_WMARK_LOW | watermark.ALLOC_CPUSET | watermark.ALLOC_FAIR
    alloc_mask: u32
    cookie: u32
    pg: u64
    ac.high_zoneidx = gfp.gfp_zone(gfp_mask)
    ac.nodemask = nodemask
    ac.migratetype = gfp.gfpflags_to_migratetype(gfp_mask, mmzone.mobility_disabled(mm))
    zoneref.set_zonelist(mm, ac, zonelist)
    gfp_mask &= current.gfp_allowed_mask(mm)
    if mm.debug_alloc:
        mm.alloc_begins(gfp_mask)
    if fault.should_fail_alloc_page(mm, gfp_mask, order):
        return 0
    if zoneref.zone_of(mm, ac.zonerefs) == 0:
        # A node without memory, asked for its own memory only.
        return 0
    if mm.migrate_cma >= 0 and ac.migratetype == abi.MIGRATE_MOVABLE:
        alloc_flags |= watermark.ALLOC_CMA
    while True:
        cookie = current.read_mems_allowed_begin(mm)
        zoneref.first_zones_zonelist(mm, ac, current.mems_allowed(mm) if nodemask == 0 else nodemask)
        pg = 0
        if ac.preferred_zone != 0:
            alloc_mask = gfp_mask | gfp.__GFP_HARDWALL
            pg = alloc.get_page_from_freelist(mm, alloc_mask, order, alloc_flags, ac)
            if pg == 0:
                alloc_mask = gfp_mask
                if current.flags(mm) & abi.PF_MEMALLOC_NOIO:
                    # memalloc_noio_flags: a task that must not start I/O does not allocate with it either.
                    alloc_mask -= gfp_mask & gfp.GFP_IOFS
                pg = __alloc_pages_slowpath(mm, alloc_mask, order, ac)
            if mm.debug_alloc and pg != 0:
                mm.alloc_ends(pg, order, gfp_mask)
            if mm.tracing:
                mm.tracer.mm_page_alloc(mm, pg, order, alloc_mask, ac.migratetype)
        if pg != 0 or not current.read_mems_allowed_retry(mm, cookie):
            # Not a failure that only a change of the allowed nodes has caused.
            return pg
        # The slow path may have changed it.
        zoneref.set_zonelist(mm, ac, zonelist)


def alloc_pages_node(mm: Mm, nid: s32, gfp_mask: u32, order: u32) -> u64:
    """``alloc_pages_node``: preferably from node ``nid``; -1 is the running CPU's."""
    if nid < 0:
        nid = mm.numa_node_id()
    return __alloc_pages_nodemask(
        mm, gfp_mask, order, mmzone.node_zonelist(mm, nid, gfp_mask & gfp.__GFP_THISNODE != 0), 0
    )


def alloc_pages_exact_node(mm: Mm, nid: s32, gfp_mask: u32, order: u32) -> u64:
    """``alloc_pages_exact_node``: the same, by a caller who knows the node's number."""
    if mm.debug_vm:
        mm.checker.exact_node(mm, nid)
    return __alloc_pages_nodemask(
        mm, gfp_mask, order, mmzone.node_zonelist(mm, nid, gfp_mask & gfp.__GFP_THISNODE != 0), 0
    )


def alloc_pages(mm: Mm, gfp_mask: u32, order: u32) -> u64:
    """``alloc_pages``: from the running CPU's node first, as a task without a memory policy does."""
    return alloc_pages_node(mm, -1, gfp_mask, order)


def __get_free_pages(mm: Mm, gfp_mask: u32, order: u32) -> u64:
    """``__get_free_pages``: direct-map address of 2^order pages, or 0."""
    pg: u64
    if mm.debug_vm:
        mm.checker.get_free_pages(mm, gfp_mask)
    pg = alloc_pages(mm, gfp_mask, order)
    if pg == 0:
        return 0
    return address.page_address(mm, pg)


def get_zeroed_page(mm: Mm, gfp_mask: u32) -> u64:
    """``get_zeroed_page``: direct-map address of one page of zeros, or 0."""
    return __get_free_pages(mm, gfp_mask | gfp.__GFP_ZERO, 0)


def get_order(size: u64) -> u32:
    """``get_order``: smallest order whose block holds ``size`` bytes (at least one)."""
    pages: u64 = (size - 1) >> abi.PAGE_SHIFT
    order: u32 = 0
    while pages != 0:
        pages >>= 1
        order += 1
    return order


def make_alloc_exact(mm: Mm, addr: u64, order: u32, size: u64) -> u64:
    """``make_alloc_exact``: split the block at ``addr`` into single pages, and give back those that are too many."""
    used: u64
    end: u64
    if addr != 0:
        end = addr + (word.bit(order) << abi.PAGE_SHIFT)
        used = addr + (((size + abi.PAGE_SIZE - 1) >> abi.PAGE_SHIFT) << abi.PAGE_SHIFT)
        free.split_page(mm, address.virt_to_page(mm, addr), order)
        while used < end:
            free.free_pages(mm, used, 0)
            used += abi.PAGE_SIZE
    return addr


def alloc_pages_exact(mm: Mm, size: u64, gfp_mask: u32) -> u64:
    """``alloc_pages_exact``: address of just enough single pages for ``size`` bytes, adjacent; or 0."""
    order: u32 = get_order(size)
    return make_alloc_exact(mm, __get_free_pages(mm, gfp_mask, order), order, size)


def alloc_pages_exact_nid(mm: Mm, nid: s32, size: u64, gfp_mask: u32) -> u64:
    """``alloc_pages_exact_nid``: the same, preferably from node ``nid``."""
    order: u32 = get_order(size)
    pg: u64 = alloc_pages_node(mm, nid, gfp_mask, order)
    if pg == 0:
        return 0
    return make_alloc_exact(mm, address.page_address(mm, pg), order, size)


def free_pages_exact(mm: Mm, addr: u64, size: u64) -> None:
    """``free_pages_exact``: give back what :func:`alloc_pages_exact` gave."""
    end: u64 = addr + (((size + abi.PAGE_SIZE - 1) >> abi.PAGE_SHIFT) << abi.PAGE_SHIFT)
    while addr < end:
        free.free_pages(mm, addr, 0)
        addr += abi.PAGE_SIZE


# -- memory that a memory cgroup would be charged for: without CONFIG_MEMCG_KMEM, nobody is ------------------


def alloc_kmem_pages(mm: Mm, gfp_mask: u32, order: u32) -> u64:
    """``alloc_kmem_pages``: a block for the kernel's own use; ``struct page *`` or 0."""
    return alloc_pages(mm, gfp_mask, order)


def alloc_kmem_pages_node(mm: Mm, nid: s32, gfp_mask: u32, order: u32) -> u64:
    """``alloc_kmem_pages_node``: the same, preferably from node ``nid``."""
    return alloc_pages_node(mm, nid, gfp_mask, order)


def __free_kmem_pages(mm: Mm, pg: u64, order: u32) -> None:
    """``__free_kmem_pages``: give back what :func:`alloc_kmem_pages` gave."""
    free.__free_pages(mm, pg, order)


def free_kmem_pages(mm: Mm, addr: u64, order: u32) -> None:
    """``free_kmem_pages``: the same by direct-map address; address 0 is no page and does nothing."""
    if mm.debug_vm and addr != 0:
        mm.checker.free_kmem_pages(mm, addr)
    free.free_pages(mm, addr, order)
