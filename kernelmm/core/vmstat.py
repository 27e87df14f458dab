# SPDX-License-Identifier: GPL-2.0-only
# room: inline
"""Zone statistics with per-cpu differentials, and event counters (mm/vmstat.c, include/linux/vmstat.h).

On SMP a change to a zone's counter goes into an ``s8`` of the CPU's pageset first and reaches
``zone->vm_stat`` and the global ``vm_stat`` only when it exceeds ``stat_threshold``; the *inc*
and *dec* forms overshoot by half the threshold then, the *mod* form does not.  Without SMP
there are no differentials.  ``z`` is the physical address of a zone, ``pageset`` that of the
running CPU's pageset of the zone; counts are pages.
"""

from __future__ import annotations

from kernelmm.core import mmzone
from kernelmm.core.mm import Mm
from physmem import abi, word
from physmem.ctype import s32, s64, u32, u64


def count_vm_events(mm: Mm, item: s32, delta: s64) -> None:
    """``__count_vm_events``: add to the running CPU's event counter."""
    word.add_u64(mm, mm.vm_events + 8 * item, delta)


def zone_page_state_add(mm: Mm, z: u64, item: s32, delta: s64) -> None:
    """``zone_page_state_add``: the zone's counter and the global one."""
    word.add_u64(mm, z + mm.zone_vm_stat + 8 * item, delta)
    word.add_u64(mm, mm.var_vm_stat + 8 * item, delta)


def zone_counter(mm: Mm, z: u64, item: s32) -> s64:
    """``zone->vm_stat[item]`` as it is."""
    return mm.as_s64[(z + mm.zone_vm_stat + 8 * item) >> 3]


def zone_page_state(mm: Mm, z: u64, item: s32) -> s64:
    """``zone_page_state``: without the differentials, and on SMP never below 0."""
    value: s64 = zone_counter(mm, z, item)
    if value < 0 and mm.smp:
        return 0
    return value


def zone_page_state_snapshot(mm: Mm, z: u64, item: s32) -> s64:
    """``zone_page_state_snapshot``: with the differentials of every CPU."""
    value: s64 = zone_counter(mm, z, item)
    cpu: u32
    if mm.smp:
        for cpu in range(mm.nr_cpus):
            if mmzone.cpu_online(mm, cpu):
                value += mm.as_s8[mmzone.pageset_of(mm, z, cpu) + mm.pageset_vm_stat_diff + item]
        if value < 0:
            return 0
    return value


def mod_zone_page_state(mm: Mm, z: u64, pageset: u64, item: s32, delta: s64) -> None:
    """``__mod_zone_page_state``."""
    x: s64
    t: s64
    if not mm.smp:
        zone_page_state_add(mm, z, item, delta)
        return
    x = delta + mm.as_s8[pageset + mm.pageset_vm_stat_diff + item]
    t = mm.as_s8[pageset + mm.pageset_stat_threshold]
    if x > t or x < -t:
        zone_page_state_add(mm, z, item, x)
        x = 0
    mm.as_s8[pageset + mm.pageset_vm_stat_diff + item] = x


def inc_zone_state(mm: Mm, z: u64, pageset: u64, item: s32) -> None:
    """``__inc_zone_state``."""
    v: s64
    t: s64
    if not mm.smp:
        zone_page_state_add(mm, z, item, 1)
        return
    v = mm.as_s8[pageset + mm.pageset_vm_stat_diff + item] + 1
    if v > 127:
        v = -128
    t = mm.as_s8[pageset + mm.pageset_stat_threshold]
    if v > t:
        zone_page_state_add(mm, z, item, v + (t >> 1))
        v = -(t >> 1)
    mm.as_s8[pageset + mm.pageset_vm_stat_diff + item] = v


def mod_zone_freepage_state(mm: Mm, z: u64, pageset: u64, nr_pages: s64, migratetype: s32) -> None:
    """``__mod_zone_freepage_state``: free pages, and free CMA pages if they are."""
    mod_zone_page_state(mm, z, pageset, abi.NR_FREE_PAGES, nr_pages)
    if migratetype == mm.migrate_cma:
        mod_zone_page_state(mm, z, pageset, mm.nr_free_cma_pages, nr_pages)


def zone_statistics(mm: Mm, preferred_zone: u64, z: u64, pageset: u64, other_node: bool) -> None:
    """``zone_statistics``: NUMA hits and misses; nothing without CONFIG_NUMA.

    :param preferred_zone: physical address of the zone the caller would have liked
    :param other_node: __GFP_OTHER_NODE: "local" means the preferred zone's node
    """
    node: s32
    if not mm.numa:
        return
    if mmzone.pgdat_of(mm, z) == mmzone.pgdat_of(mm, preferred_zone):
        inc_zone_state(mm, z, pageset, mm.numa_hit)
    else:
        inc_zone_state(mm, z, pageset, mm.numa_miss)
        inc_zone_state(mm, preferred_zone, mmzone.this_cpu_pageset(mm, preferred_zone), mm.numa_foreign)
    node = mm.as_s32[mm.numa_node >> 2]
    if other_node:
        node = mmzone.zone_nid(mm, preferred_zone)
    if mmzone.zone_nid(mm, z) == node:
        inc_zone_state(mm, z, pageset, mm.numa_local)
    else:
        inc_zone_state(mm, z, pageset, mm.numa_other)
