# SPDX-License-Identifier: GPL-2.0-only
"""The two scanners of compaction, and what they remember in the zone (mm/compaction.c).

The *migration* scanner goes up from the start of the zone and isolates pages in use, 32 at a time; the *free* scanner
comes down from the end and isolates free pages for them to move to.  Pageblocks where they found nothing are marked
to be skipped.  What drives them is :mod:`~kernelmm.pressure.compaction`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from kernelmm.core import compound, free, mmzone, page
from kernelmm.core.mm import Mm
from kernelmm.pressure import codes, isolation, lru, migrate, owners, shrink, stat, waiting
from kernelmm.pressure.fields import Fields
from kernelmm.pressure.lru import PageList
from physmem import abi, address, word

__all__ = ["CompactControl", "isolate_freepages", "isolate_migratepages", "isolate_migratepages_range"]

PAGEBLOCK = abi.PAGEBLOCK_NR_PAGES
#: The skip bit of a pageblock's four: the lowest, as they are stored.
_SKIP_SHIFT = 60
# Where on the stack struct compact_control, and so its list heads, are.
_STACK_COMPACT_CONTROL = 24
_free_pages = vars(free)["__free_pages"]


@dataclass
class CompactControl:
    """``struct compact_control``: one compaction of one zone.

    :ivar zone: kernel address
    :ivar order: the block that is wanted; -1: compact everything
    """

    mm: Mm
    zone: int
    order: int
    gfp_mask: int
    mode: int
    alloc_flags: int = 0
    classzone_idx: int = 0
    ignore_skip_hint: bool = False
    free_pfn: int = 0
    migrate_pfn: int = 0
    nr_freepages: int = 0
    nr_migratepages: int = 0
    #: where on the stack the two list heads are
    stack_slot: int = _STACK_COMPACT_CONTROL
    freepages: PageList = field(init=False)
    migratepages: PageList = field(init=False)

    def __post_init__(self) -> None:
        self.freepages = PageList.on_stack(self.mm, self.stack_slot)
        self.migratepages = PageList.on_stack(self.mm, self.stack_slot + 1)
        self.z = mmzone.zone_off(self.mm, self.zone)
        self.start_pfn, self.end_pfn = isolation.zone_span(self.mm, self.z)

    @property
    def span(self) -> tuple[int, int, int, int]:
        """PFNs of the zone's start, of the two scanners, and of its end."""
        return self.start_pfn, self.migrate_pfn, self.free_pfn, self.end_pfn


# -- what the scanners remember --------------------------------------------------------------


def skip_bit(mm: Mm, pfn: int) -> int:
    """The mask of a pageblock's skip bit in its word of ``pageblock_flags``."""
    return 1 << (_SKIP_SHIFT - (mmzone.pageblock_nr(mm, pfn) * 4 & 63))


def get_pageblock_skip(mm: Mm, pfn: int) -> bool:
    """``get_pageblock_skip``: nothing could be isolated here lately."""
    return bool(mm.as_u64[mmzone.pageblock_word(mm, pfn) >> 3] & skip_bit(mm, pfn))


def cached_migrate_pfn(mm: Mm, z: int, sync: bool) -> int:
    """Index into ``as_u64`` of ``zone->compact_cached_migrate_pfn[sync]``."""
    fields: Fields = mm.cold
    return (z + fields.zone_compact_cached_migrate_pfn + 8 * sync) >> 3


def __reset_isolation_suitable(mm: Mm, zone: int) -> None:
    """``__reset_isolation_suitable``: forget where the scanners were and what they skip."""
    z = mmzone.zone_off(mm, zone)
    start, end = isolation.zone_span(mm, z)
    for sync in (False, True):
        mm.as_u64[cached_migrate_pfn(mm, z, sync)] = start
    mm.as_u64[(z + mm.cold.zone_compact_cached_free_pfn) >> 3] = end
    mm.as_u8[z + mm.cold.zone_compact_blockskip_flush] = 0
    for pfn in range(start, end, PAGEBLOCK):
        if address.pfn_has_page(mm, pfn) and isolation.zone_of(mm, pfn) == zone:
            word.clear_bits(mm, mmzone.pageblock_word(mm, pfn), skip_bit(mm, pfn))


def reset_isolation_suitable(mm: Mm, pgdat: int) -> None:
    """``reset_isolation_suitable``: of the node's zones that were compacted from end to end."""
    if not mm.compaction:
        return
    for index in range(mm.max_nr_zones):
        zone = pgdat + mm.pgdat_node_zones + index * mm.sizeof_zone
        z = mmzone.zone_off(mm, zone)
        if mmzone.populated(mm, z) and mm.as_u8[z + mm.cold.zone_compact_blockskip_flush]:
            __reset_isolation_suitable(mm, zone)


def update_pageblock_skip(cc: CompactControl, pfn: int, isolated: int, migrate_scanner: bool) -> None:
    """``update_pageblock_skip``: a whole pageblock was scanned (from ``pfn``) and gave nothing: skip it next time."""
    if cc.ignore_skip_hint or isolated:
        return
    mm = cc.mm
    word.set_bits(mm, mmzone.pageblock_word(mm, pfn), skip_bit(mm, pfn))
    if migrate_scanner:
        for sync in (False, True) if cc.mode != codes.MIGRATE_ASYNC else (False,):
            at = cached_migrate_pfn(mm, cc.z, sync)
            mm.as_u64[at] = max(mm.as_u64[at], pfn)
    else:
        at = (cc.z + mm.cold.zone_compact_cached_free_pfn) >> 3
        mm.as_u64[at] = min(mm.as_u64[at], pfn)


def migrate_async_suitable(mm: Mm, pfn: int) -> bool:
    """``migrate_async_suitable``: the pageblock is there for pages that move."""
    return mmzone.pageblock_migratetype(mm, pfn) in (abi.MIGRATE_MOVABLE, mm.migrate_cma)


def pageblock_in_zone(cc: CompactControl, start_pfn: int, end_pfn: int) -> bool:
    """``pageblock_pfn_to_page``: the first and last page of [start, end) exist and are in the zone."""
    mm = cc.mm
    if not (address.pfn_has_page(mm, start_pfn) and address.pfn_has_page(mm, end_pfn - 1)):
        return False
    first, last = isolation.at_of(mm, start_pfn), isolation.at_of(mm, end_pfn - 1)
    return mmzone.page_zone(mm, first) == cc.zone and page.zone_id(mm, first) == page.zone_id(mm, last)


# -- the free scanner ------------------------------------------------------------------------


def isolate_freepages_block(cc: CompactControl, start_pfn: int, end_pfn: int) -> int:
    """``isolate_freepages_block``: take free pages of [start, end) until there are enough; where it stopped."""
    mm = cc.mm
    pfn = start_pfn
    scanned = total = 0
    locked = False
    while pfn < end_pfn:
        if pfn % codes.SWAP_CLUSTER_MAX == 0 and locked:
            mmzone.spin_unlock(mm, cc.z)
            locked = False
        scanned += 1
        if page.buddy(mm, isolation.at_of(mm, pfn)):
            if not locked:
                mmzone.spin_lock(mm, cc.z)
                locked = True
            taken = isolation.split_free_page(mm, pfn)
            for each in range(pfn, pfn + taken):
                cc.freepages.add(address.pfn_to_page(mm, each))
            total += taken
            cc.nr_freepages += taken
            pfn += max(taken, 1)
            if taken and cc.nr_migratepages <= cc.nr_freepages:
                break
            continue
        pfn += 1
    if mm.tracing:
        mm.tracer.mm_compaction_isolate_freepages(mm, start_pfn, pfn, scanned, total)
    if locked:
        mmzone.spin_unlock(mm, cc.z)
    if pfn == end_pfn and start_pfn < end_pfn:
        update_pageblock_skip(cc, start_pfn, total, False)
    stat.count(mm, mm.cold.COMPACTFREE_SCANNED, scanned)
    stat.count(mm, mm.cold.COMPACTISOLATED, total)
    return pfn


def suitable_migration_target(mm: Mm, pfn: int) -> bool:
    """``suitable_migration_target``: a pageblock for movable pages that is not free as a whole."""
    at = isolation.at_of(mm, pfn)
    if page.buddy(mm, at) and page.order(mm, at) >= abi.PAGEBLOCK_ORDER:
        return False
    return migrate_async_suitable(mm, pfn)


def isolate_freepages(cc: CompactControl) -> None:
    """``isolate_freepages``: go down from ``free_pfn`` until there is a free page for every page to be moved."""
    isolate_from = cc.free_pfn
    block = cc.free_pfn // PAGEBLOCK * PAGEBLOCK
    block_end = min(block + PAGEBLOCK, cc.end_pfn)
    lowest = (cc.migrate_pfn // PAGEBLOCK + 1) * PAGEBLOCK
    while block >= lowest and cc.nr_migratepages > cc.nr_freepages:
        if (
            pageblock_in_zone(cc, block, block_end)
            and suitable_migration_target(cc.mm, block)
            and (cc.ignore_skip_hint or not get_pageblock_skip(cc.mm, block))
        ):
            stopped = isolate_freepages_block(cc, isolate_from, block_end)
            cc.free_pfn = stopped if stopped < block_end else block - PAGEBLOCK
        block_end = block
        block -= PAGEBLOCK
        isolate_from = block
    if cc.mm.debug_pages:
        cc.mm.aids.map_list(cc.mm, cc.freepages.head)
    if block < lowest:
        cc.free_pfn = cc.migrate_pfn


def compaction_alloc(cc: CompactControl) -> int:
    """``compaction_alloc``: a page to move to, from those isolated; 0 if the scanners have met."""
    if not cc.freepages:
        isolate_freepages(cc)
        if not cc.freepages:
            return 0
    pg = cc.freepages.first
    lru.unlink(cc.mm, pg)
    cc.nr_freepages -= 1
    return pg


def compaction_free(cc: CompactControl, pg: int) -> None:
    """``compaction_free``: a page that was not needed after all."""
    cc.freepages.add(pg)
    cc.nr_freepages += 1


def release_freepages(cc: CompactControl) -> int:
    """``release_freepages``: free those that are left; the highest PFN among them."""
    highest = 0
    for pg in cc.freepages:
        lru.unlink(cc.mm, pg)
        _free_pages(cc.mm, pg, 0)
        highest = max(highest, address.page_to_pfn(cc.mm, pg))
    cc.nr_freepages = 0
    return highest


# -- the migration scanner ---------------------------------------------------------------------


def too_many_isolated(mm: Mm, z: int) -> bool:
    """``too_many_isolated``: more than half of the pages on LRU lists are in somebody's hands."""
    fields: Fields = mm.cold
    on_lists = sum(stat.zone_state(mm, z, fields.NR_LRU_BASE + which) for which in range(4))
    isolated = stat.zone_state(mm, z, fields.NR_ISOLATED_ANON) + stat.zone_state(mm, z, fields.NR_ISOLATED_FILE)
    return isolated > on_lists // 2


def movable(mm: Mm, pg: int) -> bool:
    """Whether it makes sense to isolate a page for moving: on an LRU list, not huge, not pinned and anonymous."""
    if not lru.has(mm, pg, abi.PG_lru):
        return False
    mapcount = page.mapcount(mm, address.page_off(mm, pg)) + 1
    return bool(owners.page_mapping(mm, pg)) or lru.page_count(mm, pg) <= mapcount


def pages_after_huge(mm: Mm, pfn: int, locked: bool) -> int:
    """Where to go on after a huge page's head: without the lock its size cannot be relied upon."""
    if not locked:
        return (pfn // PAGEBLOCK + 1) * PAGEBLOCK
    return pfn + (1 << min(compound.compound_order(mm, address.pfn_to_page(mm, pfn)), abi.MAX_ORDER - 1))


def isolate_migratepages_block(cc: CompactControl, low_pfn: int, end_pfn: int, isolate_mode: int) -> int:
    """``isolate_migratepages_block``: isolate up to 32 movable pages; where it stopped, or 0 to give up altogether."""
    mm = cc.mm
    start_pfn = low_pfn
    scanned = isolated = 0
    locked = False
    while too_many_isolated(mm, cc.z):
        if cc.mode == codes.MIGRATE_ASYNC:
            return 0
        waiting.congestion_wait(mm, mm.hz // 10)
        if mm.fatal_signal:
            return 0
    while low_pfn < end_pfn:
        if low_pfn % codes.SWAP_CLUSTER_MAX == 0:
            locked = False
            if mm.fatal_signal:
                break
        scanned += 1
        pg = address.pfn_to_page(mm, low_pfn)
        at = isolation.at_of(mm, low_pfn)
        if page.buddy(mm, at):
            order = page.order(mm, at)
            low_pfn += 1 << order if 0 < order < abi.MAX_ORDER else 1
            continue
        low_pfn += 1
        if lru.has(mm, pg, abi.PG_lru) and lru.has(mm, pg, abi.PG_head):
            # A transparent huge page: not split for this.
            low_pfn = pages_after_huge(mm, low_pfn - 1, locked)
            continue
        if not movable(mm, pg):
            continue
        if not locked:
            lru.spin_lock(mm, cc.z)
            locked = True
        if not shrink.isolate_page(mm, pg, isolate_mode):
            continue
        lru.del_page_from_lru_list(mm, pg, lru.page_lru(mm, pg))
        cc.migratepages.add(pg)
        cc.nr_migratepages += 1
        isolated += 1
        if cc.nr_migratepages == codes.COMPACT_CLUSTER_MAX:
            break
    low_pfn = min(low_pfn, end_pfn)
    if low_pfn == end_pfn:
        update_pageblock_skip(cc, start_pfn, isolated, True)
    if mm.tracing:
        mm.tracer.mm_compaction_isolate_migratepages(mm, start_pfn, low_pfn, scanned, isolated)
    stat.count(mm, mm.cold.COMPACTMIGRATE_SCANNED, scanned)
    stat.count(mm, mm.cold.COMPACTISOLATED, isolated)
    return low_pfn


def isolate_migratepages_range(cc: CompactControl, start_pfn: int, end_pfn: int) -> int:
    """``isolate_migratepages_range``: isolate up to 32 pages of [start, end), mlocked ones too; where it stopped, or 0.

    The first and the last pageblock may be in the range only in part.
    """
    pfn = start_pfn
    while pfn < end_pfn:
        block_end = min((pfn // PAGEBLOCK + 1) * PAGEBLOCK, end_pfn)
        if not pageblock_in_zone(cc, pfn, block_end):
            pfn = block_end
            continue
        pfn = isolate_migratepages_block(cc, pfn, block_end, shrink.ISOLATE_UNEVICTABLE)
        if not pfn:
            migrate.putback_movable_pages(cc.mm, cc.migratepages)
            cc.nr_migratepages = 0
            break
        if cc.nr_migratepages == codes.COMPACT_CLUSTER_MAX:
            break
        # The scanner stops short of the block's end only if the task has to die.
        pfn = block_end
    acct_isolated(cc)
    return pfn


def acct_isolated(cc: CompactControl) -> None:
    """``acct_isolated``: count the isolated pages in the zone."""
    mm = cc.mm
    files = [lru.page_is_file_cache(mm, pg) for pg in cc.migratepages]
    if files:
        stat.mod_zone_state(mm, cc.z, mm.cold.NR_ISOLATED_ANON, files.count(False))
        stat.mod_zone_state(mm, cc.z, mm.cold.NR_ISOLATED_FILE, files.count(True))


def isolate_migratepages(cc: CompactControl) -> bool:
    """``isolate_migratepages``: isolate pages of the next suitable pageblock; False to give up altogether."""
    mm = cc.mm
    mode = shrink.ISOLATE_ASYNC_MIGRATE if cc.mode == codes.MIGRATE_ASYNC else 0
    low = cc.migrate_pfn
    end = (low // PAGEBLOCK + 1) * PAGEBLOCK
    while end <= cc.free_pfn:
        if (
            pageblock_in_zone(cc, low, end)
            and (cc.ignore_skip_hint or not get_pageblock_skip(mm, low))
            and (cc.mode != codes.MIGRATE_ASYNC or migrate_async_suitable(mm, low))
        ):
            low = isolate_migratepages_block(cc, low, end, mode)
            if not low:
                acct_isolated(cc)
                return False
            break
        low = end
        end += PAGEBLOCK
    acct_isolated(cc)
    cc.migrate_pfn = low if end <= cc.free_pfn else cc.free_pfn
    return True
