# SPDX-License-Identifier: GPL-2.0-only
"""kswapd: the node's own task that keeps its zones above their high marks (mm/vmscan.c, mm/vmstat.c).

An emulated machine has one flow of control: a woken kswapd runs when somebody lets it, with
:func:`run_kswapd`, or when an allocation has to wait (:func:`let_others_run`).  It runs until it
goes to sleep again, or until it gets nowhere: 4.0's kswapd does not give up, it spins beside the others
as long as its node is neither balanced nor beyond reclaim.  It is awake then, and goes on at its next turn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from kernelmm import gfp
from kernelmm.core import mmzone, watermark
from kernelmm.core.mm import Mm
from kernelmm.pressure import codes, compaction, exit, pfmemalloc, reclaim, scanners, stat, waiting, wakeup, writeback
from kernelmm.pressure.fields import Fields
from kernelmm.pressure.shrink import ScanControl
from physmem import address, list_head, word

__all__ = ["balance_pgdat", "kswapd_is_woken", "kswapd_run", "kswapd_stop", "let_others_run", "run_kswapd"]

#: The high mark's neighbourhood: 1/100 of a zone.
KSWAPD_ZONE_BALANCE_GAP_RATIO = 100
#: How far down the stack the wait queue entries of sleeping kswapds are, whose own stacks are not there.
_WAITERS = 2600
_SIZEOF_WAIT_QUEUE = 40
_WAIT_TASK_LIST = 24


def zones_of(mm: Mm, pgdat: int, first: int, stop: int) -> Iterator[tuple[int, int]]:
    """The populated zones of a node, by index in [first, stop): kernel address, index."""
    for index in range(first, stop):
        zone = pgdat + mm.pgdat_node_zones + index * mm.sizeof_zone
        if mmzone.populated(mm, mmzone.zone_off(mm, zone)):
            yield zone, index


def nr_zones(mm: Mm, pgdat: int) -> int:
    """``pgdat->nr_zones``, as far as there can be zones."""
    return min(max(mm.as_s32[(address.off(mm, pgdat) + mm.pgdat_nr_zones) >> 2], 0), mm.max_nr_zones)


def balance_gap(mm: Mm, z: int) -> int:
    """How far above the high mark counts as too many free pages: the low mark, or 1 % of the zone if that is less."""
    managed = mm.as_u64[(z + mm.zone_managed_pages) >> 3]
    low = watermark.wmark_pages(mm, z, watermark.WMARK_LOW)
    return min(low, -(-managed // KSWAPD_ZONE_BALANCE_GAP_RATIO))


def pgdat_balanced(mm: Mm, pgdat: int, order: int, classzone_idx: int) -> bool:
    """``pgdat_balanced``: every zone for order 0, a quarter of the node's memory for larger ones."""
    managed = balanced = 0
    for zone, index in zones_of(mm, pgdat, 0, classzone_idx + 1):
        z = mmzone.zone_off(mm, zone)
        pages = mm.as_u64[(z + mm.zone_managed_pages) >> 3]
        managed += pages
        if not reclaim.zone_reclaimable(mm, z) or wakeup.zone_balanced(mm, z, order, 0, index):
            balanced += pages
        elif order == 0:
            return False
    return order == 0 or balanced >= managed >> 2


def kswapd_shrink_zone(mm: Mm, zone: int, classzone_idx: int, sc: ScanControl) -> tuple[bool, int]:
    """``kswapd_shrink_zone``: whether the zone was scanned enough, and how many pages were attempted."""
    fields: Fields = mm.cold
    z = mmzone.zone_off(mm, zone)
    sc.nr_to_reclaim = max(codes.SWAP_CLUSTER_MAX, watermark.wmark_pages(mm, z, watermark.WMARK_HIGH))
    testorder = sc.order
    if mm.compaction and sc.order:
        suitable = wakeup.compaction_suitable(mm, z, sc.order, 0, classzone_idx)
        if suitable != codes.COMPACT_SKIPPED:
            testorder = 0
    if wakeup.zone_balanced(mm, z, testorder, balance_gap(mm, z), classzone_idx):
        return True, 0
    reclaim.shrink_zone(mm, zone, sc)
    word.clear_bits(mm, z + mm.zone_flags, 1 << fields.ZONE_WRITEBACK)
    if reclaim.zone_reclaimable(mm, z) and wakeup.zone_balanced(mm, z, testorder, 0, classzone_idx):
        word.clear_bits(mm, z + mm.zone_flags, 1 << fields.ZONE_CONGESTED | 1 << fields.ZONE_DIRTY)
    return sc.nr_scanned >= sc.nr_to_reclaim, sc.nr_to_reclaim


def highest_unbalanced(mm: Mm, pgdat: int, order: int, sc: ScanControl) -> int:
    """The highest zone that needs work; -1 if none does.  Those above it are done with congestion."""
    for zone, index in reversed(list(zones_of(mm, pgdat, 0, nr_zones(mm, pgdat)))):
        z = mmzone.zone_off(mm, zone)
        if sc.priority != codes.DEF_PRIORITY and not reclaim.zone_reclaimable(mm, z):
            continue
        if not wakeup.zone_balanced(mm, z, order, 0, 0):
            return index
        word.clear_bits(mm, z + mm.zone_flags, 1 << mm.cold.ZONE_CONGESTED | 1 << mm.cold.ZONE_DIRTY)
    return -1


def balance_pgdat(mm: Mm, pgdat: int, order: int, classzone_idx: int) -> tuple[int, int, int]:
    """``balance_pgdat``: reclaim until the node is balanced or priority 1 is through.

    Every round reclaims something or raises the priority, so there is an end.

    :param pgdat: kernel address of the node
    :returns: the order that was reclaimed for in the end, the highest zone that was looked at, and the pages reclaimed
    """
    sc = ScanControl(nr_to_reclaim=0, gfp_mask=gfp.GFP_KERNEL, order=order)
    end_zone = total = 0
    stat.count(mm, mm.cold.PAGEOUTRUN)
    while True:
        attempted = 0
        raise_priority = True
        sc.nr_reclaimed = 0
        highest = highest_unbalanced(mm, pgdat, order, sc)
        if highest < 0:
            break
        end_zone = highest
        below = [zone for zone, _ in zones_of(mm, pgdat, 0, end_zone + 1)]
        needs_compaction = order > 0 and not any(
            watermark.zone_watermark_ok(
                mm,
                mmzone.zone_off(mm, zone),
                order,
                watermark.wmark_pages(mm, mmzone.zone_off(mm, zone), watermark.WMARK_LOW),
                classzone_idx,
                0,
            )
            for zone in below
        )
        for zone in below:
            if sc.priority != codes.DEF_PRIORITY and not reclaim.zone_reclaimable(mm, mmzone.zone_off(mm, zone)):
                continue
            sc.nr_scanned = 0
            enough, tried = kswapd_shrink_zone(mm, zone, end_zone, sc)
            attempted += tried
            if enough:
                raise_priority = False
        total += sc.nr_reclaimed
        if pfmemalloc.waitqueue_active(mm, pgdat) and pfmemalloc.pfmemalloc_watermark_ok(mm, pgdat):
            pfmemalloc.wake_up_all(mm, pgdat)
        if order and sc.nr_reclaimed >= 2 << order:
            # Twice the block was reclaimed: the rest is compaction's.
            order = sc.order = 0
        if needs_compaction and sc.nr_reclaimed > attempted:
            compaction.compact_pgdat(mm, pgdat, order)
        if raise_priority or not sc.nr_reclaimed:
            sc.priority -= 1
        if sc.priority < 1 or pgdat_balanced(mm, pgdat, order, classzone_idx):
            break
    return order, end_zone, total


# -- sleeping and waking -----------------------------------------------------------------


def calculate_normal_threshold(mm: Mm, z: int) -> int:
    """``calculate_normal_threshold``: how far a CPU's differential may go; grows with CPUs and memory."""
    cpus = sum(mmzone.cpu_online(mm, cpu) for cpu in range(mm.nr_cpus))
    mem = mm.as_u64[(z + mm.zone_managed_pages) >> 3] >> (27 - 12)
    return min(125, 2 * cpus.bit_length() * (1 + mem.bit_length()))


def calculate_pressure_threshold(mm: Mm, z: int) -> int:
    """``calculate_pressure_threshold``: while memory is short, so little that the min mark cannot be missed."""
    cpus = sum(mmzone.cpu_online(mm, cpu) for cpu in range(mm.nr_cpus))
    low, least = (watermark.wmark_pages(mm, z, which) for which in (watermark.WMARK_LOW, watermark.WMARK_MIN))
    return min(125, max(1, (low - least) // cpus))


def set_pgdat_percpu_threshold(mm: Mm, pgdat: int, calculate: Callable[[Mm, int], int]) -> None:
    """``set_pgdat_percpu_threshold``: of the zones where the counters' lag matters (``percpu_drift_mark``)."""
    for zone, _ in zones_of(mm, pgdat, 0, nr_zones(mm, pgdat)):
        z = mmzone.zone_off(mm, zone)
        if mm.smp and mm.as_u64[(z + mm.zone_percpu_drift_mark) >> 3]:
            threshold = calculate(mm, z)
            for cpu in range(mm.nr_cpus):
                if mmzone.cpu_online(mm, cpu):
                    mm.as_s8[mmzone.pageset_of(mm, z, cpu) + mm.pageset_stat_threshold] = threshold


def kswapd_run(mm: Mm, nid: int) -> None:
    """``kswapd_run``: start the node's kswapd; as nobody wants anything yet, it goes to sleep."""
    pgdat = mmzone.node_data(mm, nid)
    if kswapd_is_woken(mm, pgdat):
        take_request(mm, pgdat)
        go_to_sleep(mm, pgdat, nid)


def kswapd_stop(mm: Mm, nid: int) -> None:
    """``kswapd_stop``: the node has no memory left that it could look after."""
    leave_queue(mm, mmzone.node_data(mm, nid))


def leave_queue(mm: Mm, pgdat: int) -> None:
    """``finish_wait``: kswapd, the only one there, is off its wait queue."""
    head = pgdat + mm.pgdat_kswapd_wait_task_list
    list_head.init_list_head(mm, head, address.off(mm, head))


def kswapd_is_woken(mm: Mm, pgdat: int) -> bool:
    """Whether the node's kswapd is not waiting on its queue."""
    head = pgdat + mm.pgdat_kswapd_wait_task_list
    return list_head.list_empty(mm, head, address.off(mm, head))


def take_request(mm: Mm, pgdat: int) -> tuple[int, int]:
    """What the wakers want, order and zone; nothing is wanted any more then."""
    at = address.off(mm, pgdat)
    order = mm.as_s32[(at + mm.pgdat_kswapd_max_order) >> 2]
    classzone_idx = mm.as_s32[(at + mm.pgdat_classzone_idx) >> 2]
    mm.as_s32[(at + mm.pgdat_kswapd_max_order) >> 2] = 0
    mm.as_s32[(at + mm.pgdat_classzone_idx) >> 2] = nr_zones(mm, pgdat) - 1
    return order, min(max(classzone_idx, 0), mm.max_nr_zones - 1)


def go_to_sleep(mm: Mm, pgdat: int, nid: int) -> None:
    """The end of ``kswapd_try_to_sleep``: normal thresholds, a fresh start for compaction, and onto the queue."""
    if mm.tracing:
        mm.tracer.mm_vmscan_kswapd_sleep(mm, nid)
    set_pgdat_percpu_threshold(mm, pgdat, calculate_normal_threshold)
    scanners.reset_isolation_suitable(mm, pgdat)
    wakeup.wait_lock(mm, address.off(mm, pgdat))
    entry = mm.stack - _WAITERS + _SIZEOF_WAIT_QUEUE * nid + _WAIT_TASK_LIST
    head = pgdat + mm.pgdat_kswapd_wait_task_list
    list_head.init_list_head(mm, entry, address.off(mm, entry))
    list_head.list_add(mm, entry, address.off(mm, entry), head, address.off(mm, head))


@contextmanager
def as_kswapd(mm: Mm, nid: int) -> Iterator[None]:
    """Be the node's kswapd for a while."""
    before = mm.task_flags, mm.comm, mm.pid, mm.memdie, mm.fatal_signal, mm.rt_task
    mm.task_flags = codes.PF_MEMALLOC | codes.PF_SWAPWRITE | codes.PF_KSWAPD | codes.PF_KTHREAD
    mm.comm, mm.memdie, mm.fatal_signal, mm.rt_task = f"kswapd{nid}", False, False, False
    try:
        with waiting.reclaim_state(mm, gfp.GFP_KERNEL):
            yield
    finally:
        mm.task_flags, mm.comm, mm.pid, mm.memdie, mm.fatal_signal, mm.rt_task = before


def prepare_kswapd_sleep(mm: Mm, pgdat: int, order: int, classzone_idx: int) -> bool:
    """``kswapd_try_to_sleep`` up to its ``schedule()``: balanced now, and still after a tenth of a second.

    Who waits for reserves looks again before it sleeps.
    """
    for _ in range(2):
        if pfmemalloc.waitqueue_active(mm, pgdat):
            pfmemalloc.wake_up_all(mm, pgdat)
        if not pgdat_balanced(mm, pgdat, order, classzone_idx):
            return False
    return True


def pages_scanned(mm: Mm, pgdat: int) -> int:
    """Pages of a node that were scanned since one of their zone was freed."""
    zones = zones_of(mm, pgdat, 0, nr_zones(mm, pgdat))
    return sum(stat.snapshot(mm, mmzone.zone_off(mm, zone), mm.cold.NR_PAGES_SCANNED) for zone, _ in zones)


def run_kswapd(mm: Mm, nid: int) -> bool:
    """``kswapd``: balance the node until nothing more is wanted, then sleep.

    :returns: False if it does not sleep, as the node is not balanced, but there was nothing to scan, and so nothing
        that could tell it that the node is beyond reclaim: it is awake, and would go on at once
    """
    pgdat = mmzone.node_data(mm, nid)
    with as_kswapd(mm, nid):
        leave_queue(mm, pgdat)
        set_pgdat_percpu_threshold(mm, pgdat, calculate_pressure_threshold)
        order, classzone_idx = take_request(mm, pgdat)
        while True:
            if mm.tracing:
                mm.tracer.mm_vmscan_kswapd_wake(mm, nid, order)
            scanned = pages_scanned(mm, pgdat)
            balanced_order, balanced_idx, reclaimed = balance_pgdat(mm, pgdat, order, classzone_idx)
            new_order, new_idx = order, classzone_idx
            if balanced_idx >= classzone_idx and balanced_order == order:
                new_order, new_idx = take_request(mm, pgdat)
            if order < new_order or classzone_idx > new_idx:
                order, classzone_idx = new_order, new_idx
                continue
            if prepare_kswapd_sleep(mm, pgdat, balanced_order, balanced_idx):
                go_to_sleep(mm, pgdat, nid)
                return True
            stat.count(mm, mm.cold.KSWAPD_HIGH_WMARK_HIT_QUICKLY)
            # Counters that lag could make it go on for ever: in a real machine a second has passed by now.
            stat.refresh_cpu_vm_stats(mm)
            if not reclaimed and pages_scanned(mm, pgdat) == scanned:
                return False
            order, classzone_idx = take_request(mm, pgdat)


def let_others_run(mm: Mm) -> None:
    """The caller lets others go first: tasks that are dying, the flusher, the device and every woken kswapd.

    It does not take so long that the vmstat worker comes by.
    """
    exit.exit_dying(mm)
    writeback.flush(mm)
    writeback.complete_writeback(mm)
    for nid in range(mm.nr_node_ids):
        pgdat = mmzone.node_data(mm, nid)
        has_memory = mm.as_u64[(mm.var_node_states_memory >> 3) + (nid >> 6)] >> (nid & 63) & 1
        if pgdat and has_memory and kswapd_is_woken(mm, pgdat):
            run_kswapd(mm, nid)
