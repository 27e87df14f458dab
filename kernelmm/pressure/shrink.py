# SPDX-License-Identifier: GPL-2.0-only
"""Giving up pages from the ends of the LRU lists (mm/vmscan.c).

``shrink_inactive_list`` isolates some pages from the tail of an inactive list, frees those it can
and puts the rest back; ``shrink_active_list`` feeds it.  There is no swap: an anonymous page has
nowhere to go.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from kernelmm import gfp
from kernelmm.core import compound, mmzone, page
from kernelmm.core.mm import Mm
from kernelmm.pressure import codes, lru, owners, rmap, stat, waiting, writeback
from kernelmm.pressure.fields import Fields
from kernelmm.pressure.lru import PageList
from physmem import abi, address, word
from physmem.errors import CorruptionError

__all__ = ["ScanControl", "current_is_kswapd", "shrink_active_list", "shrink_inactive_list", "shrink_page_list"]

# isolate_mode_t
ISOLATE_CLEAN = 1
ISOLATE_UNMAPPED = 2
ISOLATE_ASYNC_MIGRATE = 4
ISOLATE_UNEVICTABLE = 8

# Where on the stack the list heads of these functions are.
_STACK_PAGES = 16
_STACK_RETURNED = 17
_STACK_FREE = 18
_STACK_HOLD = 19
_STACK_ACTIVE = 20
_STACK_INACTIVE = 21


@dataclass
class ScanControl:
    """``struct scan_control``: one reclaim session.

    :ivar nr_to_reclaim: pages wanted
    :ivar nodemask: allowed nodes, a bit each; 0: all
    :ivar priority: look at 1/2^priority of a list
    """

    nr_to_reclaim: int
    gfp_mask: int
    order: int
    nodemask: int = 0
    priority: int = codes.DEF_PRIORITY
    may_writepage: bool = True
    may_unmap: bool = True
    may_thrash: bool = False
    compaction_ready: bool = False
    nr_scanned: int = 0
    nr_reclaimed: int = 0


@dataclass
class Tally:
    """What ``shrink_page_list`` found among the pages it looked at."""

    dirty: int = 0
    unqueued_dirty: int = 0
    congested: int = 0
    writeback: int = 0
    immediate: int = 0


class Fate(Enum):
    """What is to become of a locked page: the labels of ``shrink_page_list``."""

    FREE = "free_it"
    KEEP = "keep"
    KEEP_LOCKED = "keep_locked"
    ACTIVATE = "activate_locked"
    CULL = "cull_mlocked"


class References(Enum):
    """``enum page_references``: what recent uses say about a page."""

    RECLAIM = 0
    RECLAIM_CLEAN = 1
    KEEP = 2
    ACTIVATE = 3


def current_is_kswapd(mm: Mm) -> bool:
    """``current_is_kswapd``."""
    return bool(mm.task_flags & codes.PF_KSWAPD)


# -- one page --------------------------------------------------------------------------


def page_check_references(mm: Mm, pg: int) -> References:
    """``page_check_references``: a used page is worth keeping, one that was used once on probation."""
    ptes, vm_flags = rmap.page_referenced(mm, pg)
    marked = lru.test_and_clear(mm, pg, abi.PG_referenced)
    if vm_flags & owners.PTE_LOCKED:
        return References.RECLAIM
    swap_backed = not lru.page_is_file_cache(mm, pg)
    if ptes:
        if swap_backed:
            return References.ACTIVATE
        # A mapped page starts its life with one reference: only the next one counts.
        lru.set_flag(mm, pg, abi.PG_referenced)
        if marked or ptes > 1 or vm_flags & owners.PTE_EXEC:
            return References.ACTIVATE
        return References.KEEP
    return References.RECLAIM_CLEAN if marked and not swap_backed else References.RECLAIM


def fate(mm: Mm, pg: int, z: int, sc: ScanControl, tally: Tally, force_reclaim: bool) -> Fate:
    """Decide on one locked page, and do what it takes to free it: unmap it, write it, forget it."""
    fields: Fields = mm.cold
    sc.nr_scanned += 1
    if not lru.page_evictable(mm, pg):
        return Fate.CULL
    mapped = lru.page_mapped(mm, pg)
    if mapped and not sc.may_unmap:
        return Fate.KEEP_LOCKED
    if mapped or lru.has(mm, pg, fields.PG_swapcache):
        sc.nr_scanned += 1

    file_cache = lru.page_is_file_cache(mm, pg)
    dirty = file_cache and lru.has(mm, pg, abi.PG_dirty)
    under_writeback = lru.has(mm, pg, fields.PG_writeback)
    tally.dirty += dirty or (file_cache and under_writeback)
    tally.unqueued_dirty += dirty and not under_writeback
    mapping = owners.page_mapping(mm, pg)
    if ((dirty or (file_cache and under_writeback)) and mapping and waiting.congested(mm)) or (
        file_cache and under_writeback and lru.has(mm, pg, fields.PG_reclaim)
    ):
        tally.congested += 1
    if under_writeback:
        if (
            current_is_kswapd(mm)
            and lru.has(mm, pg, fields.PG_reclaim)
            and mm.as_u64[(z + mm.zone_flags) >> 3] >> fields.ZONE_WRITEBACK & 1
        ):
            tally.immediate += 1
        else:
            lru.set_flag(mm, pg, fields.PG_reclaim)
            tally.writeback += 1
        return Fate.KEEP_LOCKED

    references = References.RECLAIM_CLEAN if force_reclaim else page_check_references(mm, pg)
    if references is References.ACTIVATE:
        return Fate.ACTIVATE
    if references is References.KEEP:
        return Fate.KEEP_LOCKED
    if owners.page_anon(mm, pg):
        # add_to_swap fails: there is no swap.
        return Fate.ACTIVATE if sc.gfp_mask & gfp.__GFP_IO else Fate.KEEP_LOCKED
    if mapped and mapping:
        unmapped = rmap.try_to_unmap(mm, pg, rmap.TTU_UNMAP | (rmap.TTU_IGNORE_ACCESS if force_reclaim else 0))
        if unmapped is not rmap.Swap.SUCCESS:
            return _AFTER_UNMAP[unmapped]
    if lru.has(mm, pg, abi.PG_dirty):
        return dirty_fate(mm, pg, z, sc, references)
    if lru.page_has_private(mm, pg):
        # What a file system keeps there, only it could release.
        return Fate.ACTIVATE
    return Fate.FREE if remove_mapping(mm, pg) else Fate.KEEP_LOCKED


_AFTER_UNMAP = {
    rmap.Swap.FAIL: Fate.ACTIVATE,
    rmap.Swap.AGAIN: Fate.KEEP_LOCKED,
    rmap.Swap.MLOCK: Fate.CULL,
}


def dirty_fate(mm: Mm, pg: int, z: int, sc: ScanControl, references: References) -> Fate:
    """A dirty page: file pages are the flusher's, unless kswapd meets nothing else; the rest is written if allowed."""
    fields: Fields = mm.cold
    zone_dirty = mm.as_u64[(z + mm.zone_flags) >> 3] >> fields.ZONE_DIRTY & 1
    if lru.page_is_file_cache(mm, pg) and not (current_is_kswapd(mm) and zone_dirty):
        stat.inc_page_state(mm, pg, fields.NR_VMSCAN_IMMEDIATE)
        lru.set_flag(mm, pg, fields.PG_reclaim)
        return Fate.KEEP_LOCKED
    if references is References.RECLAIM_CLEAN or not sc.gfp_mask & gfp.__GFP_FS or not sc.may_writepage:
        return Fate.KEEP_LOCKED
    return pageout(mm, pg)


def pageout(mm: Mm, pg: int) -> Fate:
    """``pageout``: hand a dirty page to its device; it is kept until it has been written."""
    file = owners.file_of(mm, pg)
    if lru.page_count(mm, pg) - lru.page_has_private(mm, pg) != 2 or not file:
        return Fate.KEEP_LOCKED
    if not mm.as_u64[(address.off(mm, file) + owners.FILE_A_OPS) >> 3] & owners.A_OPS_WRITEPAGE:
        return Fate.ACTIVATE
    if waiting.congested(mm) and not mm.task_flags & codes.PF_SWAPWRITE:
        return Fate.KEEP_LOCKED
    writeback.clear_page_dirty_for_io(mm, pg)
    lru.set_flag(mm, pg, mm.cold.PG_reclaim)
    writeback.writepage(mm, pg)
    if mm.tracing:
        mm.tracer.mm_vmscan_writepage(mm, pg)
    stat.inc_page_state(mm, pg, mm.cold.NR_VMSCAN_WRITE)
    return Fate.KEEP


def remove_mapping(mm: Mm, pg: int) -> bool:
    """``__remove_mapping``: take a page that only reclaim and the page cache hold out of its file.

    A shadow entry stays behind, from which a later read of the page tells how long it was away.
    """
    file = owners.file_of(mm, pg)
    if not file or lru.page_count(mm, pg) != 2 or lru.has(mm, pg, abi.PG_dirty):
        return False
    shadow = 0
    if lru.page_is_file_cache(mm, pg):
        shadow = workingset_eviction(mm, pg)
    delete_from_page_cache(mm, pg, file, shadow)
    page.set_count(mm, address.page_off(mm, pg), 0)
    return True


def workingset_eviction(mm: Mm, pg: int) -> int:
    """``workingset_eviction``: count the eviction; the shadow entry: its number, the node and the zone."""
    zone = lru.zone_of(mm, pg)
    z = mmzone.zone_off(mm, zone)
    fields: Fields = mm.cold
    word.add_u64(mm, z + fields.zone_inactive_age, 1)
    eviction = mm.as_u64[(z + fields.zone_inactive_age) >> 3]
    eviction = eviction << fields.nodes_shift | mmzone.zone_nid(mm, z)
    eviction = eviction << gfp.ZONES_SHIFT | mmzone.zone_idx(mm, zone, z)
    # An exceptional entry of a radix tree: bit 1 is set, which a page's address never has.
    return (eviction << 2 | 2) % (1 << 64)


def delete_from_page_cache(mm: Mm, pg: int, file: int, shadow: int) -> None:
    """``__delete_from_page_cache``: the page's word in the radix tree becomes ``shadow``; the page keeps its index."""
    at = address.page_off(mm, pg)
    entry = owners.slot(mm, file, mm.as_u64[(at + abi.PAGE_INDEX) >> 3])
    if not entry or mm.as_u64[entry >> 3] != pg:
        raise CorruptionError("page_cache", "the file does not have this page", address.page_to_pfn(mm, pg))
    mm.as_u64[entry >> 3] = shadow
    owners.add(mm, file, owners.FILE_NRPAGES, -1)
    mm.as_u64[(at + abi.PAGE_MAPPING) >> 3] = 0
    stat.dec_page_state(mm, pg, mm.cold.NR_FILE_PAGES)
    if not lru.page_is_file_cache(mm, pg):
        stat.dec_page_state(mm, pg, mm.cold.NR_SHMEM)


# -- lists -----------------------------------------------------------------------------


def shrink_page_list(
    mm: Mm, pages: PageList, zone: int, sc: ScanControl, force_reclaim: bool = False
) -> tuple[int, Tally]:
    """``shrink_page_list``: free what can be freed; what remains is on ``pages`` again.

    :returns: pages reclaimed, and what the others were like
    """
    z = mmzone.zone_off(mm, zone)
    returned = PageList.on_stack(mm, _STACK_RETURNED)
    to_free = PageList.on_stack(mm, _STACK_FREE)
    tally = Tally()
    reclaimed = activated = 0
    while pages:
        pg = pages.last
        lru.unlink(mm, pg)
        if not lru.trylock_page(mm, pg):
            returned.add(pg)
            continue
        what = fate(mm, pg, z, sc, tally, force_reclaim)
        if what is not Fate.KEEP:
            lru.unlock_page(mm, pg)
        if what is Fate.FREE:
            to_free.add(pg)
            reclaimed += 1
        elif what is Fate.CULL:
            lru.putback_lru_page(mm, pg)
        else:
            if what is Fate.ACTIVATE:
                lru.set_flag(mm, pg, abi.PG_active)
                activated += 1
            returned.add(pg)
    lru.free_hot_cold_page_list(mm, to_free, True)
    pages.splice(returned)
    stat.count(mm, mm.cold.PGACTIVATE, activated)
    return reclaimed, tally


def isolate_page(mm: Mm, pg: int, mode: int) -> bool:
    """``__isolate_lru_page``: take a reference and the mark of the list off, if the mode allows this page.

    :raises CorruptionError: the page is on a list without the mark
    """
    if not lru.has(mm, pg, abi.PG_lru):
        raise CorruptionError("lru_flag", "a page on an LRU list has no PG_lru", address.page_to_pfn(mm, pg))
    if lru.has(mm, pg, abi.PG_unevictable) and not mode & ISOLATE_UNEVICTABLE:
        return False
    if mode & (ISOLATE_CLEAN | ISOLATE_ASYNC_MIGRATE):
        if lru.has(mm, pg, mm.cold.PG_writeback):
            return False
        if lru.has(mm, pg, abi.PG_dirty):
            file = owners.file_of(mm, pg)
            a_ops = mm.as_u64[(address.off(mm, file) + owners.FILE_A_OPS) >> 3] if file else 0
            if mode & ISOLATE_CLEAN or (owners.page_mapping(mm, pg) and not a_ops & owners.A_OPS_MIGRATEPAGE):
                return False
    if mode & ISOLATE_UNMAPPED and lru.page_mapped(mm, pg):
        return False
    if not compound.get_page_unless_zero(mm, address.page_off(mm, pg)):
        return False
    lru.clear_flag(mm, pg, abi.PG_lru)
    return True


def isolate_lru_pages(
    mm: Mm, nr_to_scan: int, zone: int, dst: PageList, sc: ScanControl, which: int
) -> tuple[int, int]:
    """``isolate_lru_pages``: move pages from the tail of an LRU list to ``dst``; how many were taken, and looked at."""
    src, mode = lru.lru_list(mm, zone, which), isolate_mode(sc)
    scanned = taken = 0
    while scanned < nr_to_scan and src:
        pg = src.last
        if isolate_page(mm, pg, mode):
            dst.move(pg)
            taken += 1
        else:
            src.move(pg)
        scanned += 1
    if mm.tracing:
        mm.tracer.mm_vmscan_lru_isolate(mm, sc.order, nr_to_scan, scanned, taken, mode, which >= lru.LRU_FILE)
    return taken, scanned


def isolate_mode(sc: ScanControl) -> int:
    """Which pages a session has no use for."""
    return (0 if sc.may_unmap else ISOLATE_UNMAPPED) | (0 if sc.may_writepage else ISOLATE_CLEAN)


def too_many_isolated(mm: Mm, z: int, file: bool, sc: ScanControl) -> bool:
    """``too_many_isolated``: others have more pages in their hands than there are left on the list."""
    if current_is_kswapd(mm):
        return False
    fields: Fields = mm.cold
    inactive = stat.zone_state(mm, z, fields.NR_INACTIVE_FILE if file else fields.NR_INACTIVE_ANON)
    isolated = stat.zone_state(mm, z, fields.NR_ISOLATED_FILE if file else fields.NR_ISOLATED_ANON)
    if sc.gfp_mask & gfp.GFP_IOFS == gfp.GFP_IOFS:
        inactive >>= 3
    return isolated > inactive


def shrink_inactive_list(mm: Mm, nr_to_scan: int, zone: int, sc: ScanControl, which: int) -> int:
    """``shrink_inactive_list``: look at the last pages of an inactive list; pages reclaimed."""
    fields: Fields = mm.cold
    z = mmzone.zone_off(mm, zone)
    file = which >= lru.LRU_FILE
    kswapd = current_is_kswapd(mm)
    pages = PageList.on_stack(mm, _STACK_PAGES)
    while too_many_isolated(mm, z, file, sc):
        waiting.congestion_wait(mm, mm.hz // 10)
        if mm.fatal_signal:
            return codes.SWAP_CLUSTER_MAX
    lru.lru_add_drain(mm)
    lru.spin_lock(mm, z)
    taken, scanned = isolate_lru_pages(mm, nr_to_scan, zone, pages, sc, which)
    stat.mod_zone_state(mm, z, fields.NR_LRU_BASE + which, -taken)
    stat.mod_zone_state(mm, z, fields.NR_ISOLATED_ANON + file, taken)
    stat.mod_zone_state(mm, z, fields.NR_PAGES_SCANNED, scanned)
    stat.count_zone(mm, fields.PGSCAN_KSWAPD_NORMAL if kswapd else fields.PGSCAN_DIRECT_NORMAL, zone, scanned)
    if taken == 0:
        return 0
    reclaimed, tally = shrink_page_list(mm, pages, zone, sc)
    lru.spin_lock(mm, z)
    word.add_u64(mm, z + fields.recent_scanned + 8 * file, taken)
    stat.count_zone(mm, fields.PGSTEAL_KSWAPD_NORMAL if kswapd else fields.PGSTEAL_DIRECT_NORMAL, zone, reclaimed)
    putback_inactive_pages(mm, z, pages)
    stat.mod_zone_state(mm, z, fields.NR_ISOLATED_ANON + file, -taken)
    lru.free_hot_cold_page_list(mm, pages, True)
    note_zone(mm, z, tally, taken)
    if tally.immediate:
        waiting.congestion_wait(mm, mm.hz // 10)
    if not kswapd:
        waiting.wait_iff_congested(mm, z, mm.hz // 10)
    if mm.tracing:
        mm.tracer.mm_vmscan_lru_shrink_inactive(mm, zone, scanned, reclaimed, sc.priority, file)
    return reclaimed


def note_zone(mm: Mm, z: int, tally: Tally, taken: int) -> None:
    """Mark the zone if all that was isolated was under writeback, congested, or dirty and not even queued."""
    fields: Fields = mm.cold
    if tally.writeback and tally.writeback == taken:
        word.set_bits(mm, z + mm.zone_flags, 1 << fields.ZONE_WRITEBACK)
    if tally.dirty and tally.dirty == tally.congested:
        word.set_bits(mm, z + mm.zone_flags, 1 << fields.ZONE_CONGESTED)
    if tally.unqueued_dirty == taken:
        word.set_bits(mm, z + mm.zone_flags, 1 << fields.ZONE_DIRTY)


def putback_inactive_pages(mm: Mm, z: int, pages: PageList) -> None:
    """``putback_inactive_pages``: back to the lists; pages that nobody else has any more stay on ``pages``."""
    to_free = PageList.on_stack(mm, _STACK_FREE)
    while pages:
        pg = pages.last
        lru.unlink(mm, pg)
        if not lru.page_evictable(mm, pg):
            lru.putback_lru_page(mm, pg)
            continue
        lru.set_flag(mm, pg, abi.PG_lru)
        which = lru.page_lru(mm, pg)
        lru.add_page_to_lru_list(mm, pg, which)
        if which & lru.LRU_ACTIVE:
            word.add_u64(mm, z + mm.cold.recent_rotated + 8 * (which >= lru.LRU_FILE), 1)
        drop_isolated(mm, pg, which, to_free)
    pages.splice(to_free)


def drop_isolated(mm: Mm, pg: int, which: int, to_free: PageList) -> None:
    """Drop the isolation's reference to a page that is back on its list; the last one takes it off again."""
    if page.put_testzero(mm, address.page_off(mm, pg)):
        lru.clear_flag(mm, pg, abi.PG_lru)
        lru.clear_flag(mm, pg, abi.PG_active)
        lru.del_page_from_lru_list(mm, pg, which)
        to_free.add(pg)


def shrink_active_list(mm: Mm, nr_to_scan: int, zone: int, sc: ScanControl, which: int) -> None:
    """``shrink_active_list``: the last pages of an active list become inactive, but for code that was just run."""
    fields: Fields = mm.cold
    z = mmzone.zone_off(mm, zone)
    file = which >= lru.LRU_FILE
    hold = PageList.on_stack(mm, _STACK_HOLD)
    active = PageList.on_stack(mm, _STACK_ACTIVE)
    inactive = PageList.on_stack(mm, _STACK_INACTIVE)
    rotated = 0
    lru.lru_add_drain(mm)
    lru.spin_lock(mm, z)
    taken, scanned = isolate_lru_pages(mm, nr_to_scan, zone, hold, sc, which)
    stat.mod_zone_state(mm, z, fields.NR_PAGES_SCANNED, scanned)
    word.add_u64(mm, z + fields.recent_scanned + 8 * file, taken)
    stat.count_zone(mm, fields.PGREFILL_NORMAL, zone, scanned)
    stat.mod_zone_state(mm, z, fields.NR_LRU_BASE + which, -taken)
    stat.mod_zone_state(mm, z, fields.NR_ISOLATED_ANON + file, taken)
    while hold:
        pg = hold.last
        lru.unlink(mm, pg)
        if not lru.page_evictable(mm, pg):
            lru.putback_lru_page(mm, pg)
            continue
        referenced, vm_flags = rmap.page_referenced(mm, pg)
        if referenced:
            rotated += 1
            if vm_flags & owners.PTE_EXEC and lru.page_is_file_cache(mm, pg):
                active.add(pg)
                continue
        lru.clear_flag(mm, pg, abi.PG_active)
        inactive.add(pg)
    lru.spin_lock(mm, z)
    word.add_u64(mm, z + fields.recent_rotated + 8 * file, rotated)
    move_active_pages_to_lru(mm, zone, active, hold, which)
    move_active_pages_to_lru(mm, zone, inactive, hold, which - lru.LRU_ACTIVE)
    stat.mod_zone_state(mm, z, fields.NR_ISOLATED_ANON + file, -taken)
    lru.free_hot_cold_page_list(mm, hold, True)


def move_active_pages_to_lru(mm: Mm, zone: int, pages: PageList, to_free: PageList, which: int) -> None:
    """``move_active_pages_to_lru``: all of them to the head of one list."""
    moved = 0
    z = mmzone.zone_off(mm, zone)
    while pages:
        pg = pages.last
        lru.set_flag(mm, pg, abi.PG_lru)
        lru.lru_list(mm, zone, which).move(pg)
        moved += 1
        drop_isolated(mm, pg, which, to_free)
    stat.mod_zone_state(mm, z, mm.cold.NR_LRU_BASE + which, moved)
    if not which & lru.LRU_ACTIVE:
        stat.count(mm, mm.cold.PGDEACTIVATE, moved)
