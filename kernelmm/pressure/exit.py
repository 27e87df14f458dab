# SPDX-License-Identifier: GPL-2.0-only
"""The end of a task: its memory goes back (mm/memory.c, mm/mmap.c, kernel/exit.c).

Pages are dropped one by one, in the order of their addresses; the kernel collects some first and
frees each lot from its end.
"""

from __future__ import annotations

from kernelmm.core import free, page
from kernelmm.core.mm import Mm
from kernelmm.pressure import codes, lru, owners, rmap, stat, writeback
from physmem import address

__all__ = ["do_exit", "exit_dying", "unmap_page_range", "zap_pte"]

_free_pages = vars(free)["__free_pages"]


def zap_pte(mm: Mm, task: int, pte: int) -> None:
    """``zap_pte_range`` for one entry: unmap the page; what the hardware noted about its use goes to the page."""
    entry = mm.as_u64[pte >> 3]
    mm.as_u64[pte >> 3] = 0
    pg = address.pfn_to_page(mm, (entry & owners.PTE_PFN_MASK) >> owners.PTE_PFN_SHIFT)
    if not entry & owners.PTE_PRESENT:
        # On the move: who moves it has the only reference.
        owners.add(mm, task, owners.TASK_ANON_RSS if owners.page_anon(mm, pg) else owners.TASK_FILE_RSS, -1)
        return
    if owners.page_anon(mm, pg):
        owners.add(mm, task, owners.TASK_ANON_RSS, -1)
    else:
        owners.add(mm, task, owners.TASK_FILE_RSS, -1)
        if entry & owners.PTE_DIRTY:
            writeback.set_page_dirty(mm, pg)
        if entry & owners.PTE_ACCESSED:
            lru.mark_page_accessed(mm, pg)
    rmap.page_remove_rmap(mm, pg)
    lru.put_page(mm, pg)


def unmap_page_range(mm: Mm, task: int, first: int, pages: int) -> None:
    """``unmap_page_range``: pages [first, first + pages) of a task's address space."""
    for vpn in range(first, first + pages):
        pte = owners.slot(mm, task, vpn)
        if pte:
            zap_pte(mm, task, pte)


def free_leaf(mm: Mm, at: int) -> None:
    """Free the leaf page that the word at ``at`` points to."""
    table = mm.as_u64[at >> 3]
    mm.as_u64[at >> 3] = 0
    _free_pages(mm, address.virt_to_page(mm, table), 0)


def free_pgtables(mm: Mm, task: int) -> None:
    """``free_pgtables``: the page table pages."""
    for number in range(owners.NR_LEAVES):
        at = owners.leaf(mm, task, number * owners.LEAF_WORDS)
        if mm.as_u64[at >> 3]:
            stat.dec_page_state(mm, address.virt_to_page(mm, mm.as_u64[at >> 3]), mm.cold.NR_PAGETABLE)
            free_leaf(mm, at)
            owners.add(mm, task, owners.TASK_NR_PTES, -1)


def forget_vmas(mm: Mm, task: int) -> None:
    """Take the task's mappings off the files they are of (``unlink_file_vma``)."""
    for file in owners.files(mm):
        at = address.off(mm, file) + owners.FILE_VMAS
        for i in range(owners.MAX_VMAS):
            vma = (at + owners.SIZEOF_VMA * i) >> 3
            if mm.as_u64[vma] == task:
                mm.as_u64[vma] = 0


def unlist(mm: Mm, table: int, count: int, owner: int) -> None:
    """Take an owner off the root's list."""
    at = (address.off(mm, owners.find_root(mm)) + table) >> 3
    for i in range(count):
        if mm.as_u64[at + i] == owner:
            mm.as_u64[at + i] = 0


def free_owner(mm: Mm, owner: int) -> None:
    """Free the page that an owner is in."""
    mm.as_u64[address.off(mm, owner) >> 3] = 0
    pg = address.virt_to_page(mm, owner)
    page.set_private(mm, address.page_off(mm, pg), 0)
    _free_pages(mm, pg, 0)


def do_exit(mm: Mm, task: int) -> None:
    """``do_exit``: unmap everything, free the page tables, and be forgotten."""
    for _, pte in owners.words(mm, task):
        zap_pte(mm, task, pte)
    free_pgtables(mm, task)
    forget_vmas(mm, task)
    unlist(mm, owners.ROOT_TASKS, owners.MAX_TASKS, task)
    free_owner(mm, task)
    if mm.current == task:
        mm.set_task(0)


def exit_dying(mm: Mm) -> None:
    """The others run: whoever has been killed, or is exiting, comes to its end."""
    for task in list(owners.tasks(mm)):
        flags, tif = (mm.as_u32[(address.off(mm, task) + at) >> 2] for at in (owners.TASK_FLAGS, owners.TASK_TIF))
        if task != mm.current and (tif & (owners.TIF_MEMDIE | owners.TIF_SIGKILL) or flags & codes.PF_EXITING):
            do_exit(mm, task)
