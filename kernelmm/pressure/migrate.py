# SPDX-License-Identifier: GPL-2.0-only
"""Moving a page that is in use to another frame (mm/migrate.c).

The page is unmapped, its file (or nobody, if it is anonymous) is made to point to the new page, flags and
contents are copied, and the page tables get the new frame.  It works only if everybody who has a
reference to the page is known: somebody else's keeps it where it is.
"""

from __future__ import annotations

import errno
from collections.abc import Callable

from kernelmm.core import page
from kernelmm.core.mm import Mm
from kernelmm.pressure import codes, lru, owners, rmap, stat, waiting, writeback
from kernelmm.pressure.fields import Fields
from kernelmm.pressure.lru import PageList
from physmem import abi, address, word
from physmem.errors import BudgetError, PanicError
from physmem.ranges import Ranges

__all__ = ["copy_highpage", "migrate_pages", "putback_movable_pages"]

GetPage = Callable[[], int]
PutPage = Callable[[int], None]

#: PG_checked: the owner's own (PG_owner_priv_1).
_PG_CHECKED = 8
_PASSES = 10
#: After so many passes a page is waited for, if the mode allows it (``force``).
_PATIENT_PASSES = 2


def copy_highpage(mm: Mm, new: int, old: int) -> None:
    """``copy_highpage``: the contents of a frame, or that it is unknown what they are."""
    src, dst = address.page_to_phys(mm, old), address.page_to_phys(mm, new)
    frame = Ranges([(dst, dst + abi.PAGE_SIZE)])
    if mm.ram.ranges.covers(src, src + abi.PAGE_SIZE):
        mm.ram.ranges = mm.ram.ranges.union(frame)
        mm.ram.write(dst, mm.ram.read(src, abi.PAGE_SIZE))
    elif mm.ram.ranges.overlaps(dst, dst + abi.PAGE_SIZE):
        mm.ram.ranges = mm.ram.ranges.difference(frame)
    if mm.kmemcheck:
        mm.aids.kmemcheck.copy_page(mm, new, old)


def migrate_page_move_mapping(mm: Mm, new: int, old: int) -> int:
    """``migrate_page_move_mapping``: the file has ``new`` in place of ``old``; -EAGAIN if somebody else has ``old``."""
    expected = 1
    if not owners.page_mapping(mm, old):
        return 0 if lru.page_count(mm, old) == expected else -errno.EAGAIN
    file = owners.file_of(mm, old)
    entry = owners.slot(mm, file, mm.as_u64[(address.page_off(mm, old) + abi.PAGE_INDEX) >> 3]) if file else 0
    expected += 1 + lru.page_has_private(mm, old)
    if lru.page_count(mm, old) != expected or not entry or mm.as_u64[entry >> 3] != old:
        return -errno.EAGAIN
    word.add_s32(mm, address.page_off(mm, new) + abi.PAGE_COUNT, 1)
    mm.as_u64[entry >> 3] = new
    page.set_count(mm, address.page_off(mm, old), expected - 1)
    stat.dec_page_state(mm, old, mm.cold.NR_FILE_PAGES)
    stat.inc_page_state(mm, new, mm.cold.NR_FILE_PAGES)
    if not lru.page_is_file_cache(mm, old):
        stat.dec_page_state(mm, old, mm.cold.NR_SHMEM)
        stat.inc_page_state(mm, new, mm.cold.NR_SHMEM)
    return 0


def migrate_page_copy(mm: Mm, new: int, old: int) -> None:
    """``migrate_page_copy``: contents, flags, dirtiness, last CPU and mlock."""
    fields: Fields = mm.cold
    copy_highpage(mm, new, old)
    for flag in (abi.PG_error, abi.PG_referenced, abi.PG_uptodate, _PG_CHECKED, fields.PG_mappedtodisk):
        if lru.has(mm, old, flag):
            lru.set_flag(mm, new, flag)
    if lru.test_and_clear(mm, old, abi.PG_active):
        lru.set_flag(mm, new, abi.PG_active)
    elif lru.test_and_clear(mm, old, abi.PG_unevictable):
        lru.set_flag(mm, new, abi.PG_unevictable)
    if writeback.clear_page_dirty_for_io(mm, old):
        if lru.page_is_file_cache(mm, old):
            writeback.set_page_dirty(mm, new)
        else:
            lru.set_flag(mm, new, abi.PG_dirty)
    old_at, new_at = (address.page_off(mm, each) + abi.PAGE_FLAGS for each in (old, new))
    cpupid = mm.as_u64[old_at >> 3] & mm.last_cpupid_bits
    word.set_bits(mm, old_at, mm.last_cpupid_bits)
    word.clear_bits(mm, new_at, mm.last_cpupid_bits)
    word.set_bits(mm, new_at, cpupid)
    if lru.test_and_clear(mm, old, fields.PG_mlocked):
        stat.mod_zone_state(mm, stat.zone_of(mm, old), fields.NR_MLOCK, -1)
        lru.set_flag(mm, new, fields.PG_mlocked)
        stat.mod_zone_state(mm, stat.zone_of(mm, new), fields.NR_MLOCK, 1)
    lru.clear_flag(mm, old, fields.PG_swapcache)
    lru.clear_flag(mm, old, abi.PG_private)
    page.set_private(mm, address.page_off(mm, old), 0)


def writeout(mm: Mm, pg: int, file: int) -> int:
    """``writeout``: hand a dirty page to its device, so that a later pass finds it clean: a negative errno."""
    if not mm.as_u64[(address.off(mm, file) + owners.FILE_A_OPS) >> 3] & owners.A_OPS_WRITEPAGE:
        return -errno.EINVAL
    writeback.clear_page_dirty_for_io(mm, pg)
    # Whoever maps the page may go on with it meanwhile.
    rmap.remove_migration_ptes(mm, pg, pg)
    writeback.writepage(mm, pg)
    lru.set_flag(mm, pg, abi.PG_locked)
    return -errno.EAGAIN


def may_move(mm: Mm, old: int, mode: int) -> int:
    """Whether the page's file lets it move now: 0 or a negative errno (``fallback_migrate_page`` has the rule)."""
    file = owners.file_of(mm, old)
    if not file or mm.as_u64[(address.off(mm, file) + owners.FILE_A_OPS) >> 3] & owners.A_OPS_MIGRATEPAGE:
        return 0
    if lru.has(mm, old, abi.PG_dirty):
        # It has to be written first, and only a fully synchronous migration may do that.
        return writeout(mm, old, file) if mode == codes.MIGRATE_SYNC else -errno.EBUSY
    return -errno.EAGAIN if lru.page_has_private(mm, old) else 0


def move_to_new_page(mm: Mm, new: int, old: int, was_mapped: bool, mode: int) -> int:
    """``move_to_new_page``: the unmapped page ``old`` becomes ``new``; 0 or a negative errno."""
    old_at, new_at = address.page_off(mm, old), address.page_off(mm, new)
    lru.set_flag(mm, new, abi.PG_locked)
    mm.as_u64[(new_at + abi.PAGE_INDEX) >> 3] = mm.as_u64[(old_at + abi.PAGE_INDEX) >> 3]
    mm.as_u64[(new_at + abi.PAGE_MAPPING) >> 3] = mm.as_u64[(old_at + abi.PAGE_MAPPING) >> 3]
    if not lru.page_is_file_cache(mm, old):
        lru.set_flag(mm, new, mm.cold.PG_swapbacked)
    result = may_move(mm, old, mode) or migrate_page_move_mapping(mm, new, old)
    if result:
        mm.as_u64[(new_at + abi.PAGE_MAPPING) >> 3] = 0
    else:
        migrate_page_copy(mm, new, old)
        if was_mapped:
            rmap.remove_migration_ptes(mm, old, new)
        mm.as_u64[(old_at + abi.PAGE_MAPPING) >> 3] = 0
    lru.unlock_page(mm, new)
    return result


def lock_page(mm: Mm, pg: int, force: bool, mode: int) -> bool:
    """Lock a page to be moved.  Only a patient migration, not one on behalf of an allocation, sleeps on the lock."""
    while not lru.trylock_page(mm, pg):
        if not force or mode == codes.MIGRATE_ASYNC or mm.task_flags & codes.PF_MEMALLOC:
            return False
        waiting.charge(mm, f"the lock of page frame {address.page_to_pfn(mm, pg)}")
    return True


def wait_on_page_writeback(mm: Mm, pg: int) -> None:
    """``wait_on_page_writeback``: until the device is done.

    :raises BudgetError: it never is: nobody here knows who has the page written
    """
    while lru.has(mm, pg, mm.cold.PG_writeback):
        waiting.charge(mm, f"writeback of page frame {address.page_to_pfn(mm, pg)}")
        writeback.complete_writeback(mm)


def __unmap_and_move(mm: Mm, old: int, new: int, force: bool, mode: int) -> int:
    """``__unmap_and_move``: under the page's lock; 0 or a negative errno."""
    if not lock_page(mm, old, force, mode):
        return -errno.EAGAIN
    result = -errno.EAGAIN
    if lru.has(mm, old, mm.cold.PG_writeback):
        if mode != codes.MIGRATE_SYNC or not force:
            lru.unlock_page(mm, old)
            return -errno.EBUSY if mode != codes.MIGRATE_SYNC else -errno.EAGAIN
        wait_on_page_writeback(mm, old)
    was_mapped = lru.page_mapped(mm, old)
    if not owners.page_anon(mm, old) or was_mapped:
        if was_mapped:
            flags = rmap.TTU_MIGRATION | rmap.TTU_IGNORE_MLOCK | rmap.TTU_IGNORE_ACCESS
            rmap.try_to_unmap(mm, old, flags)
        if not lru.page_mapped(mm, old):
            result = move_to_new_page(mm, new, old, was_mapped, mode)
        if result and was_mapped:
            rmap.remove_migration_ptes(mm, old, old)
    lru.unlock_page(mm, old)
    return result


def unmap_and_move(
    mm: Mm, get_new_page: GetPage, put_new_page: PutPage | None, old: int, force: bool, mode: int
) -> int:
    """``unmap_and_move``: move one isolated page; it goes back to a list unless it is worth another try."""
    new = get_new_page()
    if not new:
        return -errno.ENOMEM
    result = 0
    if lru.page_count(mm, old) != 1:
        result = __unmap_and_move(mm, old, new, force, mode)
    if result != -errno.EAGAIN:
        lru.unlink(mm, old)
        stat.dec_page_state(mm, old, isolated_item(mm, old))
        # A page that has moved loses its last reference here.
        lru.putback_lru_page(mm, old)
    if result and put_new_page is not None:
        lru.clear_flag(mm, new, mm.cold.PG_swapbacked)
        put_new_page(new)
    else:
        # A page that was not needed loses its only reference by that, too.
        lru.putback_lru_page(mm, new)
    return result


def isolated_item(mm: Mm, pg: int) -> int:
    """NR_ISOLATED_ANON or NR_ISOLATED_FILE: where an isolated page is counted."""
    fields: Fields = mm.cold
    return fields.NR_ISOLATED_FILE if lru.page_is_file_cache(mm, pg) else fields.NR_ISOLATED_ANON


def migrate_pages(mm: Mm, pages: PageList, get_new_page: GetPage, put_new_page: PutPage | None, mode: int) -> int:
    """``migrate_pages``: ten passes over isolated pages; how many stayed, or -ENOMEM when there is no room.

    Pages that were neither moved nor put back are still on ``pages``.

    :param get_new_page: gives a page to move to, or 0
    :param put_new_page: takes one that was not needed; None: it is freed
    """
    failed = succeeded = passes = 0
    retry = 1
    no_room = False
    before = mm.task_flags
    mm.task_flags |= codes.PF_SWAPWRITE
    try:
        while retry and passes < _PASSES and not no_room:
            passes += 1
            retry = 0
            for pg in pages:
                result = unmap_and_move(mm, get_new_page, put_new_page, pg, passes > _PATIENT_PASSES + 1, mode)
                if result == -errno.ENOMEM:
                    no_room = True
                    break
                retry += result == -errno.EAGAIN
                succeeded += result == 0
                failed += result not in (0, -errno.EAGAIN)
    except (BudgetError, PanicError):
        # Allocating the new page has no end: a kernel would wait on, or be no more; here nothing stays isolated.
        putback_movable_pages(mm, pages)
        raise
    finally:
        mm.task_flags = before
    stat.count(mm, mm.cold.PGMIGRATE_SUCCESS, succeeded)
    stat.count(mm, mm.cold.PGMIGRATE_FAIL, failed)
    return -errno.ENOMEM if no_room else failed + retry


def putback_movable_pages(mm: Mm, pages: PageList) -> None:
    """``putback_movable_pages``: isolated pages go back to their lists."""
    for pg in pages:
        lru.unlink(mm, pg)
        stat.dec_page_state(mm, pg, isolated_item(mm, pg))
        lru.putback_lru_page(mm, pg)
