# SPDX-License-Identifier: GPL-2.0-only
"""Dirty pages and writing them (mm/page-writeback.c, mm/filemap.c, fs/fs-writeback.c).

There is one backing device.  A page handed to it is *under writeback* until the device is done,
which is whenever somebody lets time pass: :func:`complete_writeback`.  Who has dirty pages written
is the flusher thread; reclaim asks for it with :func:`wakeup_flusher_threads` and goes on.
"""

from __future__ import annotations

from collections.abc import Iterator

from kernelmm.core.mm import Mm
from kernelmm.pressure import lru, owners, stat
from kernelmm.pressure.fields import Fields
from physmem import abi, address

__all__ = [
    "clear_page_dirty_for_io",
    "complete_writeback",
    "flush",
    "set_page_dirty",
    "wakeup_flusher_threads",
    "writepage",
    "zone_dirty_ok",
]

#: vm.dirty_ratio, whose address no symbol tells: its default, in percent.
VM_DIRTY_RATIO = 20
PF_LESS_THROTTLE = 0x00100000


def set_page_dirty(mm: Mm, pg: int) -> bool:
    """``set_page_dirty``: whether it was clean before."""
    if lru.has(mm, pg, abi.PG_dirty):
        return False
    lru.set_flag(mm, pg, abi.PG_dirty)
    if owners.page_mapping(mm, pg):
        stat.inc_page_state(mm, pg, mm.cold.NR_FILE_DIRTY)
        stat.inc_page_state(mm, pg, mm.cold.NR_DIRTIED)
    return True


def clear_page_dirty_for_io(mm: Mm, pg: int) -> bool:
    """``clear_page_dirty_for_io``: whether there was something to write."""
    if not lru.test_and_clear(mm, pg, abi.PG_dirty):
        return False
    if owners.page_mapping(mm, pg):
        stat.dec_page_state(mm, pg, mm.cold.NR_FILE_DIRTY)
    return True


def writepage(mm: Mm, pg: int) -> None:
    """``a_ops->writepage`` of a simple file system: hand the (locked) page to the device, and unlock it."""
    lru.set_flag(mm, pg, mm.cold.PG_writeback)
    stat.inc_page_state(mm, pg, mm.cold.NR_WRITEBACK)
    lru.unlock_page(mm, pg)


def end_page_writeback(mm: Mm, pg: int) -> None:
    """``end_page_writeback``: the device has written the page; if reclaim waits for it, it goes next."""
    fields: Fields = mm.cold
    if lru.test_and_clear(mm, pg, fields.PG_reclaim):
        lru.rotate_reclaimable_page(mm, pg)
    lru.clear_flag(mm, pg, fields.PG_writeback)
    stat.dec_page_state(mm, pg, fields.NR_WRITEBACK)
    stat.inc_page_state(mm, pg, fields.NR_WRITTEN)


def cached_pages(mm: Mm, flag: int) -> Iterator[int]:
    """The page cache pages that have a flag, file by file, by index."""
    for file in owners.files(mm):
        for _, at in owners.words(mm, file):
            pg = mm.as_u64[at >> 3]
            if not pg & 2 and lru.has(mm, pg, flag):
                yield pg


def complete_writeback(mm: Mm) -> int:
    """Let the device finish all that was handed to it; how many pages."""
    done = 0
    if stat.global_state(mm, mm.cold.NR_WRITEBACK) or any_diff(mm, mm.cold.NR_WRITEBACK):
        for pg in cached_pages(mm, mm.cold.PG_writeback):
            end_page_writeback(mm, pg)
            done += 1
    return done


def any_diff(mm: Mm, item: int) -> bool:
    """Whether some CPU has a differential of this item that has not reached the global counter."""
    return any(stat.snapshot(mm, z, item) for z in stat.populated_zones(mm))


def wakeup_flusher_threads(mm: Mm, nr_pages: int) -> None:
    """``wakeup_flusher_threads``: leave word that so many pages should be written; nothing runs yet."""
    if any_diff(mm, mm.cold.NR_FILE_DIRTY):
        root = owners.find_root(mm)
        if root:
            owners.add(mm, root, owners.ROOT_NR_TO_WRITE, nr_pages)


def flush(mm: Mm) -> int:
    """The flusher thread's turn: write as many dirty pages as it was asked to; how many."""
    root = owners.find_root(mm)
    if not root:
        return 0
    at = (address.off(mm, root) + owners.ROOT_NR_TO_WRITE) >> 3
    wanted = mm.as_u64[at]
    mm.as_u64[at] = 0
    written = 0
    if wanted:
        for pg in cached_pages(mm, abi.PG_dirty):
            if written == wanted:
                break
            if can_write(mm, pg) and lru.trylock_page(mm, pg):
                clear_page_dirty_for_io(mm, pg)
                writepage(mm, pg)
                written += 1
    return written


def can_write(mm: Mm, pg: int) -> bool:
    """Whether the page's file has a ``writepage``, and the page is not being written already."""
    file = owners.file_of(mm, pg)
    a_ops = mm.as_u64[(address.off(mm, file) + owners.FILE_A_OPS) >> 3] if file else 0
    return bool(a_ops & owners.A_OPS_WRITEPAGE) and not lru.has(mm, pg, mm.cold.PG_writeback)


# -- dirty limits ----------------------------------------------------------------------


def zone_dirtyable_memory(mm: Mm, z: int) -> int:
    """``zone_dirtyable_memory``: pages of the zone that page cache could take."""
    fields: Fields = mm.cold
    pages = stat.zone_state(mm, z, abi.NR_FREE_PAGES)
    pages -= min(pages, mm.as_u64[(z + fields.zone_dirty_balance_reserve) >> 3])
    return pages + stat.zone_state(mm, z, fields.NR_INACTIVE_FILE) + stat.zone_state(mm, z, fields.NR_ACTIVE_FILE)


def zone_dirty_limit(mm: Mm, z: int) -> int:
    """``zone_dirty_limit``: dirty pages that the zone may have; a quarter more for those who clean."""
    limit = VM_DIRTY_RATIO * zone_dirtyable_memory(mm, z) // 100
    if mm.task_flags & PF_LESS_THROTTLE or mm.rt_task:
        limit += limit // 4
    return limit


def zone_dirty_ok(mm: Mm, z: int) -> bool:
    """``zone_dirty_ok``: the zone is within its dirty limit."""
    fields: Fields = mm.cold
    dirty = stat.zone_state(mm, z, fields.NR_FILE_DIRTY) + stat.zone_state(mm, z, fields.NR_UNSTABLE_NFS)
    return dirty + stat.zone_state(mm, z, fields.NR_WRITEBACK) <= zone_dirty_limit(mm, z)
