# SPDX-License-Identifier: GPL-2.0-only
"""From a page to the page table entries that map it (mm/rmap.c).

An anonymous page belongs to one task, ``page->index`` is its page number in that task.  A file
page may be mapped by any mapping of its file.  An owner that is not known (see
:mod:`~kernelmm.pressure.owners`) has entries that cannot be found: the page stays mapped.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum

from kernelmm.core.mm import Mm
from kernelmm.pressure import lru, owners, stat, writeback
from physmem import abi, address, word

__all__ = ["Swap", "page_add_anon_rmap", "page_add_file_rmap", "page_referenced", "page_remove_rmap", "try_to_unmap"]

# enum ttu_flags
TTU_UNMAP = 1
TTU_MIGRATION = 2
TTU_IGNORE_MLOCK = 1 << 8
TTU_IGNORE_ACCESS = 1 << 9


class Swap(Enum):
    """What became of an attempt to unmap a page (SWAP_SUCCESS and so on, include/linux/rmap.h)."""

    SUCCESS = 0
    AGAIN = 1
    FAIL = 2
    MLOCK = 3


def rmap_walk(mm: Mm, pg: int) -> Iterator[tuple[int, int]]:
    """Where the page may be mapped: task, physical address of the page table entry."""
    index = mm.as_u64[(address.page_off(mm, pg) + abi.PAGE_INDEX) >> 3]
    task = owners.task_of(mm, pg)
    if mm.aids is not None and mm.aids.lockdep is not None:
        name = "&anon_vma->rwsem" if owners.page_anon(mm, pg) else "&mapping->i_mmap_rwsem"
        mm.aids.lockdep.acquired(mm, name, read=True)
    if task:
        yield from at_slot(mm, task, index)
        return
    file = owners.file_of(mm, pg)
    if file:
        for mapper, shift, pages in owners.vmas(mm, file):
            if index < pages:
                yield from at_slot(mm, mapper, shift + index)


def at_slot(mm: Mm, task: int, vpn: int) -> Iterator[tuple[int, int]]:
    """The entry for page ``vpn`` of a task's address space, if there is a page table for it."""
    pte = owners.slot(mm, task, vpn)
    if pte:
        yield task, pte


def present_ptes(mm: Mm, pg: int) -> Iterator[tuple[int, int]]:
    """``page_check_address``: the entries that do map this page now."""
    pfn = address.page_to_pfn(mm, pg)
    for task, pte in rmap_walk(mm, pg):
        entry = mm.as_u64[pte >> 3]
        if entry & owners.PTE_PRESENT and (entry & owners.PTE_PFN_MASK) >> owners.PTE_PFN_SHIFT == pfn:
            yield task, pte


def page_referenced(mm: Mm, pg: int) -> tuple[int, int]:
    """``page_referenced``: entries through which the page was used since last time, and their PTE_LOCKED and PTE_EXEC.

    The accessed bits are cleared.  At an mlocked mapping the search ends.
    """
    referenced = vm_flags = 0
    if not lru.page_mapped(mm, pg):
        return 0, 0
    for _, pte in present_ptes(mm, pg):
        entry = mm.as_u64[pte >> 3]
        if entry & owners.PTE_LOCKED:
            return referenced, vm_flags | owners.PTE_LOCKED
        if entry & owners.PTE_ACCESSED:
            mm.as_u64[pte >> 3] = entry & ~owners.PTE_ACCESSED
            referenced += 1
            vm_flags |= entry & owners.PTE_EXEC
    return referenced, vm_flags


def try_to_unmap(mm: Mm, pg: int, flags: int) -> Swap:
    """``try_to_unmap``: take the page out of all page tables; for a migration leave an entry that says so."""
    for task, pte in list(present_ptes(mm, pg)):
        entry = mm.as_u64[pte >> 3]
        if entry & owners.PTE_LOCKED and not flags & TTU_IGNORE_MLOCK:
            mlock_page(mm, pg)
            return Swap.MLOCK
        if entry & owners.PTE_ACCESSED and not flags & TTU_IGNORE_ACCESS:
            mm.as_u64[pte >> 3] = entry & ~owners.PTE_ACCESSED
            return Swap.FAIL
        if entry & owners.PTE_DIRTY:
            writeback.set_page_dirty(mm, pg)
        if flags & TTU_MIGRATION:
            kind = owners.SWP_MIGRATION_WRITE if entry & owners.PTE_RW else owners.SWP_MIGRATION_READ
            kept = entry & (owners.PTE_PFN_MASK | owners.PTE_LOCKED | owners.PTE_EXEC)
            mm.as_u64[pte >> 3] = kept | kind
        else:
            # Without swap, only file pages are unmapped for good.
            mm.as_u64[pte >> 3] = 0
            owners.add(mm, task, owners.TASK_FILE_RSS, -1)
        page_remove_rmap(mm, pg)
        lru.put_page(mm, pg)
    return Swap.AGAIN if lru.page_mapped(mm, pg) else Swap.SUCCESS


def remove_migration_ptes(mm: Mm, old: int, new: int) -> None:
    """``remove_migration_ptes``: entries that wait for the page ``old`` map ``new``.

    ``new`` has its mapping and index already; it may be ``old`` itself, if the migration failed.
    """
    pfn = address.page_to_pfn(mm, old)
    for _, pte in list(rmap_walk(mm, new)):
        entry = mm.as_u64[pte >> 3]
        kind = entry & owners.SWP_TYPE_MASK
        if (
            entry & owners.PTE_PRESENT
            or kind not in (owners.SWP_MIGRATION_READ, owners.SWP_MIGRATION_WRITE)
            or (entry & owners.PTE_PFN_MASK) >> owners.PTE_PFN_SHIFT != pfn
        ):
            continue
        word.add_s32(mm, address.page_off(mm, new) + abi.PAGE_COUNT, 1)
        present = owners.PTE_PRESENT | owners.PTE_USER | address.page_to_pfn(mm, new) << owners.PTE_PFN_SHIFT
        if kind == owners.SWP_MIGRATION_WRITE:
            present |= owners.PTE_RW
        mm.as_u64[pte >> 3] = present | entry & (owners.PTE_LOCKED | owners.PTE_EXEC)
        if owners.page_anon(mm, new):
            page_add_anon_rmap(mm, new)
        else:
            page_add_file_rmap(mm, new)


# -- counting mappings ---------------------------------------------------------------


def page_add_anon_rmap(mm: Mm, pg: int) -> None:
    """``page_add_anon_rmap``, ``page_add_new_anon_rmap``: one page table entry more."""
    at = address.page_off(mm, pg) + abi.PAGE_MAPCOUNT
    word.add_s32(mm, at, 1)
    if mm.as_s32[at >> 2] == 0:
        stat.mod_zone_state(mm, stat.zone_of(mm, pg), mm.cold.NR_ANON_PAGES, 1)


def page_add_file_rmap(mm: Mm, pg: int) -> None:
    """``page_add_file_rmap``: one page table entry more."""
    at = address.page_off(mm, pg) + abi.PAGE_MAPCOUNT
    word.add_s32(mm, at, 1)
    if mm.as_s32[at >> 2] == 0:
        stat.inc_page_state(mm, pg, mm.cold.NR_FILE_MAPPED)


def page_remove_rmap(mm: Mm, pg: int) -> None:
    """``page_remove_rmap``: one page table entry less; the last one takes the mlock with it."""
    at = address.page_off(mm, pg) + abi.PAGE_MAPCOUNT
    word.add_s32(mm, at, -1)
    if mm.as_s32[at >> 2] >= 0:
        return
    if owners.page_anon(mm, pg):
        stat.mod_zone_state(mm, stat.zone_of(mm, pg), mm.cold.NR_ANON_PAGES, -1)
    else:
        stat.dec_page_state(mm, pg, mm.cold.NR_FILE_MAPPED)
    if lru.has(mm, pg, mm.cold.PG_mlocked):
        clear_page_mlock(mm, pg)


def mlock_page(mm: Mm, pg: int) -> None:
    """``mlock_vma_page``: the page must stay in memory: off to the unevictable list."""
    if lru.has(mm, pg, mm.cold.PG_mlocked):
        return
    lru.set_flag(mm, pg, mm.cold.PG_mlocked)
    stat.mod_zone_state(mm, stat.zone_of(mm, pg), mm.cold.NR_MLOCK, 1)
    stat.count(mm, mm.cold.UNEVICTABLE_PGMLOCKED)
    if lru.isolate_lru_page(mm, pg):
        lru.putback_lru_page(mm, pg)


def clear_page_mlock(mm: Mm, pg: int) -> None:
    """``clear_page_mlock``: nobody needs it to stay any longer."""
    lru.clear_flag(mm, pg, mm.cold.PG_mlocked)
    stat.mod_zone_state(mm, stat.zone_of(mm, pg), mm.cold.NR_MLOCK, -1)
    stat.count(mm, mm.cold.UNEVICTABLE_PGCLEARED)
    if lru.isolate_lru_page(mm, pg):
        lru.putback_lru_page(mm, pg)
    elif lru.has(mm, pg, abi.PG_unevictable):
        stat.count(mm, mm.cold.UNEVICTABLE_PGSTRANDED)
