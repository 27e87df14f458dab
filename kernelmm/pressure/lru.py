# SPDX-License-Identifier: GPL-2.0-only
"""The LRU lists: in which order pages are to be given up (mm/swap.c, mm/vmscan.c, include/linux/mm_inline.h).

Each zone has five lists in ``zone->lruvec``: inactive and active, of anonymous and of file pages,
and unevictable ones.  New pages enter at the head of an inactive list and are reclaimed from its
tail; pages that were used twice move to an active list.

The kernel collects up to 14 pages per CPU (a *pagevec*) before it takes ``zone->lru_lock`` for all of them.  Of its
kinds of pagevecs that of new pages (``lru_add_pvec``) is here, on a machine whose image has it; otherwise, and of the
other kinds, every page goes to its list at once, as if ``lru_add_drain`` followed: the lists are the same,
``lru_lock`` is taken once a page.
"""

from __future__ import annotations

from collections.abc import Iterator

from kernelmm.core import compound, free, mmzone, page
from kernelmm.core.mm import Mm
from kernelmm.pressure import owners, stat
from kernelmm.pressure.fields import Fields
from physmem import abi, address, list_head, word
from physmem.errors import CorruptionError

__all__ = ["PageList", "isolate_lru_page", "lru_cache_add", "mark_page_accessed", "page_lru", "putback_lru_page"]

LRU_INACTIVE_ANON = 0
LRU_ACTIVE = 1
LRU_ACTIVE_ANON = 1
LRU_INACTIVE_FILE = 2
LRU_ACTIVE_FILE = 3
LRU_UNEVICTABLE = 4
LRU_FILE = 2


class PageList:
    """A list of pages linked through ``page->lru``; its head is a ``struct list_head`` at a kernel address.

    Iterating is safe if the page that was given is unlinked meanwhile.
    """

    def __init__(self, mm: Mm, head: int) -> None:
        self.mm = mm
        self.head = head
        self.head_at = address.off(mm, head)

    @classmethod
    def on_stack(cls, mm: Mm, slot: int) -> PageList:
        """An empty list whose head is a local variable of a function: word ``slot`` of the running task's stack."""
        fresh = cls(mm, mm.stack + 16 * slot)
        list_head.init_list_head(mm, fresh.head, fresh.head_at)
        return fresh

    def __bool__(self) -> bool:
        return not list_head.list_empty(self.mm, self.head, self.head_at)

    def __iter__(self) -> Iterator[int]:
        entry = list_head.first(self.mm, self.head_at)
        for _ in self._bounded():
            if entry == self.head:
                return
            pg = entry - abi.PAGE_LRU
            entry = list_head.first(self.mm, address.page_off(self.mm, pg) + abi.PAGE_LRU)
            yield pg

    def _bounded(self) -> Iterator[int]:
        """As many turns as there are pages, which no list is longer than; the one after that raises CorruptionError."""
        yield from range(self.mm.memmap_chunks << (self.mm.memmap_shift - abi.SIZEOF_PAGE_SHIFT))
        raise CorruptionError("lru_list", f"the list at {self.head:#x} does not end")

    @property
    def last(self) -> int:
        """``lru_to_page``: the page at the tail."""
        return list_head.last(self.mm, self.head_at) - abi.PAGE_LRU

    @property
    def first(self) -> int:
        """The page at the head."""
        return list_head.first(self.mm, self.head_at) - abi.PAGE_LRU

    def add(self, pg: int) -> None:
        """``list_add(&page->lru, head)``."""
        at = address.page_off(self.mm, pg) + abi.PAGE_LRU
        list_head.list_add(self.mm, pg + abi.PAGE_LRU, at, self.head, self.head_at)

    def move(self, pg: int) -> None:
        """``list_move(&page->lru, head)``: from whatever list it is on."""
        at = address.page_off(self.mm, pg) + abi.PAGE_LRU
        list_head.list_move(self.mm, pg + abi.PAGE_LRU, at, self.head, self.head_at)

    def move_tail(self, pg: int) -> None:
        """``list_move_tail(&page->lru, head)``."""
        at = address.page_off(self.mm, pg) + abi.PAGE_LRU
        list_head.unlink(self.mm, pg + abi.PAGE_LRU, at)
        list_head.list_add_tail(self.mm, pg + abi.PAGE_LRU, at, self.head, self.head_at)

    def splice(self, other: PageList) -> None:
        """``list_splice_init(other, self)``: all of ``other`` goes to the front."""
        # In order, or two heads in one ring, which only damage makes, would hand pages round for ever.
        for _ in other._bounded():
            if not other:
                return
            self.move(other.last)


def unlink(mm: Mm, pg: int) -> None:
    """``list_del(&page->lru)``."""
    list_head.list_del(mm, pg + abi.PAGE_LRU, address.page_off(mm, pg) + abi.PAGE_LRU)


# -- flags of a page ---------------------------------------------------------------


def has(mm: Mm, pg: int, flag: int) -> bool:
    """``test_bit(flag, &page->flags)``."""
    return page.test_flag(mm, address.page_off(mm, pg), flag)


def set_flag(mm: Mm, pg: int, flag: int) -> None:
    """``set_bit(flag, &page->flags)``."""
    page.set_flag(mm, address.page_off(mm, pg), flag)


def clear_flag(mm: Mm, pg: int, flag: int) -> None:
    """``clear_bit(flag, &page->flags)``."""
    page.clear_flag(mm, address.page_off(mm, pg), flag)


def test_and_clear(mm: Mm, pg: int, flag: int) -> bool:
    """``test_and_clear_bit(flag, &page->flags)``."""
    was = has(mm, pg, flag)
    clear_flag(mm, pg, flag)
    return was


def trylock_page(mm: Mm, pg: int) -> bool:
    """``trylock_page``: False if somebody else has it locked."""
    if has(mm, pg, abi.PG_locked):
        return False
    set_flag(mm, pg, abi.PG_locked)
    return True


def unlock_page(mm: Mm, pg: int) -> None:
    """``unlock_page``."""
    clear_flag(mm, pg, abi.PG_locked)


def page_count(mm: Mm, pg: int) -> int:
    """``page_count``."""
    return page.count(mm, address.page_off(mm, pg))


def page_mapped(mm: Mm, pg: int) -> bool:
    """``page_mapped``: some page table has it."""
    return page.mapcount(mm, address.page_off(mm, pg)) >= 0


def page_has_private(mm: Mm, pg: int) -> bool:
    """``page_has_private``: a file system keeps something of its own about the page, with a reference."""
    return has(mm, pg, abi.PG_private) or has(mm, pg, mm.cold.PG_private_2)


def page_is_file_cache(mm: Mm, pg: int) -> bool:
    """``page_is_file_cache``: not backed by swap, so on the file lists."""
    return not has(mm, pg, mm.cold.PG_swapbacked)


def page_evictable(mm: Mm, pg: int) -> bool:
    """``page_evictable``: neither mlocked nor of a file that must stay in memory."""
    file = owners.file_of(mm, pg)
    if file and mm.as_u64[(address.off(mm, file) + owners.FILE_FLAGS) >> 3] & owners.AS_UNEVICTABLE:
        return False
    return not has(mm, pg, mm.cold.PG_mlocked)


def page_lru(mm: Mm, pg: int) -> int:
    """``page_lru``: number of the list that the page belongs on."""
    if has(mm, pg, abi.PG_unevictable):
        return LRU_UNEVICTABLE
    base = LRU_INACTIVE_FILE if page_is_file_cache(mm, pg) else LRU_INACTIVE_ANON
    return base + LRU_ACTIVE if has(mm, pg, abi.PG_active) else base


def page_off_lru(mm: Mm, pg: int) -> int:
    """``page_off_lru``: the same, and the flags that said so are cleared: the page is going."""
    lru = page_lru(mm, pg)
    clear_flag(mm, pg, abi.PG_unevictable if lru == LRU_UNEVICTABLE else abi.PG_active)
    return lru


# -- the lists of a zone -----------------------------------------------------------


def lru_list(mm: Mm, zone: int, lru: int) -> PageList:
    """``zone->lruvec.lists[lru]``."""
    return PageList(mm, zone + mm.cold.zone_lruvec + abi.SIZEOF_LIST_HEAD * lru)


def spin_lock(mm: Mm, z: int) -> None:
    """Take and release ``zone->lru_lock``, a ticket lock; only its two counters can tell."""
    if mm.smp:
        lock = z + mm.cold.zone_lru_lock
        word.add_u8(mm, lock + 1, mm.ticket_lock_inc)
        word.add_u8(mm, lock, mm.ticket_lock_inc)
    if mm.aids is not None and mm.aids.lockdep is not None:
        mm.aids.lockdep.acquired(mm, "&(&zone->lru_lock)->rlock", irqs_off=True)


def zone_of(mm: Mm, pg: int) -> int:
    """``page_zone``."""
    return mmzone.page_zone(mm, address.page_off(mm, pg))


def add_page_to_lru_list(mm: Mm, pg: int, lru: int) -> None:
    """``add_page_to_lru_list``: at the head."""
    zone = zone_of(mm, pg)
    lru_list(mm, zone, lru).add(pg)
    stat.mod_zone_state(mm, mmzone.zone_off(mm, zone), mm.cold.NR_LRU_BASE + lru, 1)


def del_page_from_lru_list(mm: Mm, pg: int, lru: int) -> None:
    """``del_page_from_lru_list``."""
    unlink(mm, pg)
    stat.mod_zone_state(mm, stat.zone_of(mm, pg), mm.cold.NR_LRU_BASE + lru, -1)


def update_page_reclaim_stat(mm: Mm, z: int, file: bool, rotated: bool) -> None:
    """``update_page_reclaim_stat``: of the pages looked at lately, how many were still wanted."""
    fields: Fields = mm.cold
    word.add_u64(mm, z + fields.recent_scanned + 8 * file, 1)
    if rotated:
        word.add_u64(mm, z + fields.recent_rotated + 8 * file, 1)


def lru_cache_add(mm: Mm, pg: int) -> None:
    """``lru_cache_add``: into the running CPU's pagevec, and with it, or at once, onto a list."""
    if mm.debug_vm:
        mm.checker.lru_cache_add(mm, pg, 662)
    pvec = pagevec(mm, mm.cpu)
    if not pvec:
        spin_lock(mm, stat.zone_of(mm, pg))
        __pagevec_lru_add_fn(mm, pg)
        return
    compound.get_page(mm, pg)
    if pagevec_count(mm, pvec) == PAGEVEC_SIZE:
        __pagevec_lru_add(mm, pvec)
    count = pagevec_count(mm, pvec)
    mm.as_u64[(pvec + PAGEVEC_PAGES >> 3) + count] = pg
    mm.as_u64[(pvec + PAGEVEC_NR) >> 3] = count + 1


def __pagevec_lru_add_fn(mm: Mm, pg: int) -> None:
    """``__pagevec_lru_add_fn``: onto the active list if the page is marked active; the caller has the lock."""
    if mm.debug_vm:
        mm.checker.lru_cache_add(mm, pg, 1030)
    set_flag(mm, pg, abi.PG_lru)
    add_page_to_lru_list(mm, pg, page_lru(mm, pg))
    z = stat.zone_of(mm, pg)
    update_page_reclaim_stat(mm, z, page_is_file_cache(mm, pg), has(mm, pg, abi.PG_active))


def add_page_to_unevictable_list(mm: Mm, pg: int) -> None:
    """``add_page_to_unevictable_list``."""
    spin_lock(mm, stat.zone_of(mm, pg))
    clear_flag(mm, pg, abi.PG_active)
    set_flag(mm, pg, abi.PG_unevictable)
    set_flag(mm, pg, abi.PG_lru)
    add_page_to_lru_list(mm, pg, LRU_UNEVICTABLE)


def lru_cache_add_active_or_unevictable(mm: Mm, pg: int, locked: bool) -> None:
    """``lru_cache_add_active_or_unevictable``: a new anonymous page; ``locked`` if its mapping is mlocked."""
    if mm.debug_vm:
        mm.checker.lru_cache_add(mm, pg, 704)
    if not locked:
        set_flag(mm, pg, abi.PG_active)
        lru_cache_add(mm, pg)
        return
    if not has(mm, pg, mm.cold.PG_mlocked):
        set_flag(mm, pg, mm.cold.PG_mlocked)
        stat.mod_zone_state(mm, stat.zone_of(mm, pg), mm.cold.NR_MLOCK, 1)
        stat.count(mm, mm.cold.UNEVICTABLE_PGMLOCKED)
    add_page_to_unevictable_list(mm, pg)


def activate_page(mm: Mm, pg: int) -> None:
    """``activate_page``: from an inactive list to the active one."""
    if not has(mm, pg, abi.PG_lru) or has(mm, pg, abi.PG_active) or has(mm, pg, abi.PG_unevictable):
        return
    z = stat.zone_of(mm, pg)
    spin_lock(mm, z)
    lru = page_lru(mm, pg)
    del_page_from_lru_list(mm, pg, lru)
    set_flag(mm, pg, abi.PG_active)
    add_page_to_lru_list(mm, pg, lru + LRU_ACTIVE)
    stat.count(mm, mm.cold.PGACTIVATE)
    update_page_reclaim_stat(mm, z, lru >= LRU_FILE, True)


def mark_page_accessed(mm: Mm, pg: int) -> None:
    """``mark_page_accessed``: the first use is noted, the second activates."""
    if not has(mm, pg, abi.PG_referenced):
        set_flag(mm, pg, abi.PG_referenced)
    elif not has(mm, pg, abi.PG_active) and not has(mm, pg, abi.PG_unevictable):
        activate_page(mm, pg)
        clear_flag(mm, pg, abi.PG_referenced)
        if page_is_file_cache(mm, pg):
            word.add_u64(mm, stat.zone_of(mm, pg) + mm.cold.zone_inactive_age, 1)


def rotate_reclaimable_page(mm: Mm, pg: int) -> None:
    """``rotate_reclaimable_page``: a page that was written for reclaim's sake goes next."""
    if any(has(mm, pg, flag) for flag in (abi.PG_locked, abi.PG_dirty, abi.PG_active, abi.PG_unevictable)):
        return
    if has(mm, pg, abi.PG_lru):
        zone = zone_of(mm, pg)
        spin_lock(mm, mmzone.zone_off(mm, zone))
        lru_list(mm, zone, page_lru(mm, pg)).move_tail(pg)
        stat.count(mm, mm.cold.PGROTATED)


# -- pagevecs ----------------------------------------------------------------------

# struct pagevec
PAGEVEC_NR = 0
PAGEVEC_COLD = 8
PAGEVEC_PAGES = 16
PAGEVEC_SIZE = 14
_SIZEOF_PAGEVEC = PAGEVEC_PAGES + 8 * PAGEVEC_SIZE
#: Where on the stack release_pages() has its list head.
_STACK_TO_FREE = 30


def pagevec(mm: Mm, cpu: int) -> int:
    """Physical address of a CPU's ``lru_add_pvec``; 0 if the image does not have it."""
    fields: Fields = mm.cold
    if not fields.percpu_lru_add_pvec:
        return 0
    at = address.off(mm, fields.percpu_lru_add_pvec + mm.per_cpu_offset(cpu))
    return at if mm.ram.ranges.covers(at, at + _SIZEOF_PAGEVEC) else 0


def pagevec_count(mm: Mm, pvec: int) -> int:
    """``pagevec_count``; raises CorruptionError if it cannot be."""
    count = mm.as_u64[(pvec + PAGEVEC_NR) >> 3]
    if count > PAGEVEC_SIZE:
        raise CorruptionError("pagevec", f"an lru_add_pvec has {count} of {PAGEVEC_SIZE} pages")
    return count


def lru_add_drain(mm: Mm) -> None:
    """``lru_add_drain``: the pages in the running CPU's pagevec come onto their lists."""
    lru_add_drain_cpu(mm, mm.cpu)


def lru_add_drain_cpu(mm: Mm, cpu: int) -> None:
    """``lru_add_drain_cpu``: those in the pagevec of a CPU, which may be dead."""
    pvec = pagevec(mm, cpu)
    if pvec and pagevec_count(mm, pvec):
        __pagevec_lru_add(mm, pvec)


def lru_add_drain_all(mm: Mm) -> None:
    """``lru_add_drain_all``: on every CPU."""
    here = mm.cpu
    for cpu in range(mm.nr_cpus):
        if mmzone.cpu_online(mm, cpu):
            mm.set_cpu(cpu)
            lru_add_drain(mm)
    mm.set_cpu(here)


def __pagevec_lru_add(mm: Mm, pvec: int) -> None:
    """``__pagevec_lru_add``: onto the lists, and drop the references that the pagevec had."""
    first = (pvec + PAGEVEC_PAGES) >> 3
    pages = [mm.as_u64[first + i] for i in range(pagevec_count(mm, pvec))]
    locked = 0
    for pg in pages:
        zone = zone_of(mm, pg)
        if zone != locked:
            spin_lock(mm, mmzone.zone_off(mm, zone))
            locked = zone
        __pagevec_lru_add_fn(mm, pg)
    release_pages(mm, pages, bool(mm.as_u64[(pvec + PAGEVEC_COLD) >> 3] & 0xFFFFFFFF))
    mm.as_u64[(pvec + PAGEVEC_NR) >> 3] = 0


def release_pages(mm: Mm, pages: list[int], cold: bool) -> None:
    """``release_pages`` of a pagevec's pages: those that nobody else has leave their lists, and are freed."""
    to_free = PageList.on_stack(mm, _STACK_TO_FREE)
    locked = 0
    for pg in pages:
        if page.compound(mm, address.page_off(mm, pg)):
            locked = 0
            put_page(mm, pg)
            continue
        if not page.put_testzero(mm, address.page_off(mm, pg)):
            continue
        if has(mm, pg, abi.PG_lru):
            zone = zone_of(mm, pg)
            if zone != locked:
                spin_lock(mm, mmzone.zone_off(mm, zone))
                locked = zone
            clear_flag(mm, pg, abi.PG_lru)
            del_page_from_lru_list(mm, pg, page_off_lru(mm, pg))
        clear_flag(mm, pg, abi.PG_active)
        to_free.add(pg)
    free_hot_cold_page_list(mm, to_free, cold)


# -- off the lists and back ----------------------------------------------------------


def isolate_lru_page(mm: Mm, pg: int) -> bool:
    """``isolate_lru_page``: take the page off its list, with a reference; False if it is on none."""
    if not has(mm, pg, abi.PG_lru):
        return False
    spin_lock(mm, stat.zone_of(mm, pg))
    lru = page_lru(mm, pg)
    compound.get_page(mm, pg)
    clear_flag(mm, pg, abi.PG_lru)
    del_page_from_lru_list(mm, pg, lru)
    return True


def putback_lru_page(mm: Mm, pg: int) -> None:
    """``putback_lru_page``: onto the list where it belongs now; drops the reference of the isolation."""
    was_unevictable = has(mm, pg, abi.PG_unevictable)
    clear_flag(mm, pg, abi.PG_unevictable)
    unevictable = not page_evictable(mm, pg)
    if unevictable:
        add_page_to_unevictable_list(mm, pg)
    else:
        lru_cache_add(mm, pg)
    if was_unevictable and not unevictable:
        stat.count(mm, mm.cold.UNEVICTABLE_PGRESCUED)
    elif unevictable and not was_unevictable:
        stat.count(mm, mm.cold.UNEVICTABLE_PGCULLED)
    put_page(mm, pg)


def put_page(mm: Mm, pg: int) -> None:
    """``put_page``: the last reference takes the page off its list and frees it."""
    free.put_page(mm, pg)


def page_cache_release(mm: Mm, pg: int) -> None:
    """``__page_cache_release``: a page that nobody has any more leaves its LRU list."""
    spin_lock(mm, stat.zone_of(mm, pg))
    clear_flag(mm, pg, abi.PG_lru)
    del_page_from_lru_list(mm, pg, page_off_lru(mm, pg))


def free_hot_cold_page_list(mm: Mm, pages: PageList, cold: bool) -> None:
    """``free_hot_cold_page_list``: free every page of the list; nobody has a reference to them."""
    for pg in pages:
        if mm.tracing:
            mm.tracer.mm_page_free_batched(mm, pg, cold)
        free.free_hot_cold_page(mm, pg, cold)
