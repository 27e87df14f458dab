# SPDX-License-Identifier: GPL-2.0-only
"""Watermarks and reserves: how much of each zone is kept back, and from whom (mm/page_alloc.c, mm/vmstat.c).

``min_free_kbytes``, which grows with the square root of memory, is shared out among the zones by size:
that is a zone's *min* mark; *low* and *high* are a quarter and a half of it higher.  ``lowmem_reserve[j]``
is what a zone keeps besides from requests that could have been served from zone j above it.  The sum of
all that is ``totalreserve_pages``.
"""

from __future__ import annotations

from math import isqrt

from kernelmm.bringup.kernel import Kernel, Zone
from kernelmm.bringup.reserve import setup_zone_migrate_reserve
from kernelmm.bringup.zonelists import nr_free_buffer_pages
from kernelmm.core import mmzone, vmstat

__all__ = [
    "calculate_totalreserve_pages",
    "init_per_zone_wmark_min",
    "refresh_zone_stat_thresholds",
    "setup_per_zone_inactive_ratio",
    "setup_per_zone_lowmem_reserve",
    "setup_per_zone_wmarks",
]

PAGE_SHIFT = 12
WMARK_MIN, WMARK_LOW, WMARK_HIGH = 0, 1, 2
MIN_FREE_KBYTES = (128, 65536)
MAX_THRESHOLD = 125


def init_per_zone_wmark_min(kernel: Kernel) -> None:
    """``init_per_zone_wmark_min``: min_free_kbytes from the memory there is, and all that follows from it."""
    lowmem_kbytes = nr_free_buffer_pages(kernel) << (PAGE_SHIFT - 10)
    wanted = isqrt(lowmem_kbytes * 16)
    if wanted > kernel.var("user_min_free_kbytes"):
        least, most = MIN_FREE_KBYTES
        kernel.set_var("min_free_kbytes", max(least, min(wanted, most)))
    setup_per_zone_wmarks(kernel)
    refresh_zone_stat_thresholds(kernel)
    setup_per_zone_lowmem_reserve(kernel)
    setup_per_zone_inactive_ratio(kernel)


def setup_per_zone_wmarks(kernel: Kernel) -> None:
    """``setup_per_zone_wmarks``: share ``min_free_kbytes`` out; batches and MIGRATE_RESERVE follow."""
    pages_min = kernel.var("min_free_kbytes") >> (PAGE_SHIFT - 10)
    managed = {zone: kernel.get(zone.at, "zone.managed_pages") for zone in kernel.zones()}
    lowmem_pages = sum(managed.values())
    for zone, pages in managed.items():
        z = kernel.phys(zone.at)
        mmzone.spin_lock(kernel.mm, z)
        share = pages_min * pages // lowmem_pages
        kernel.set(zone.at, "zone.watermark", share, WMARK_MIN)
        kernel.set(zone.at, "zone.watermark", share + (share >> 2), WMARK_LOW)
        kernel.set(zone.at, "zone.watermark", share + (share >> 1), WMARK_HIGH)
        _reset_alloc_batch(kernel, zone)
        setup_zone_migrate_reserve(kernel, zone)
        mmzone.spin_unlock(kernel.mm, z)
    calculate_totalreserve_pages(kernel)


def _reset_alloc_batch(kernel: Kernel, zone: Zone) -> None:
    """What a zone may give in a round of the fair policy: as much as lies between its low and high marks."""
    item = kernel.layout.enumerator("NR_ALLOC_BATCH")
    z = kernel.phys(zone.at)
    delta = kernel.wmark(zone, WMARK_HIGH) - kernel.wmark(zone, WMARK_LOW) - kernel.get(zone.at, "zone.vm_stat", item)
    vmstat.mod_zone_page_state(kernel.mm, z, mmzone.this_cpu_pageset(kernel.mm, z), item, delta)


def setup_per_zone_lowmem_reserve(kernel: Kernel) -> None:
    """``setup_per_zone_lowmem_reserve``: what zones keep from requests for the zones above them.

    For each higher zone, a fraction (1 / sysctl_lowmem_reserve_ratio) of the pages above, as far as that one.
    """
    for nid in kernel.nodes():
        zones = [kernel.zone(nid, idx) for idx in range(kernel.max_nr_zones)]
        for j, high in enumerate(zones):
            above = kernel.get(high.at, "zone.managed_pages")
            kernel.set(high.at, "zone.lowmem_reserve", 0, j)
            for low in reversed(zones[:j]):
                if kernel.var("sysctl_lowmem_reserve_ratio", low.idx) < 1:
                    kernel.set_var("sysctl_lowmem_reserve_ratio", 1, low.idx)
                reserve = above // kernel.var("sysctl_lowmem_reserve_ratio", low.idx)
                kernel.set(low.at, "zone.lowmem_reserve", reserve, j)
                above += kernel.get(low.at, "zone.managed_pages")
    calculate_totalreserve_pages(kernel)


def calculate_totalreserve_pages(kernel: Kernel) -> None:
    """``calculate_totalreserve_pages``: each zone's high mark and largest reserve, at most all of it."""
    total = 0
    for zone in kernel.zones():
        reserves = [kernel.get(zone.at, "zone.lowmem_reserve", j) for j in range(zone.idx, kernel.max_nr_zones)]
        kept = max(0, *reserves) + kernel.wmark(zone, WMARK_HIGH)
        kept = min(kept, kernel.get(zone.at, "zone.managed_pages"))
        kernel.set(zone.at, "zone.dirty_balance_reserve", kept)
        total += kept
    kernel.set_var("dirty_balance_reserve", total)
    kernel.set_var("totalreserve_pages", total)


def setup_per_zone_inactive_ratio(kernel: Kernel) -> None:
    """``setup_per_zone_inactive_ratio``: of every zone."""
    for zone in kernel.zones():
        calculate_zone_inactive_ratio(kernel, zone)


def calculate_zone_inactive_ratio(kernel: Kernel, zone: Zone) -> None:
    """``calculate_zone_inactive_ratio``: active to inactive anonymous pages; the larger the zone, the more active."""
    gigabytes = kernel.get(zone.at, "zone.managed_pages") >> (30 - PAGE_SHIFT)
    kernel.set(zone.at, "zone.inactive_ratio", isqrt(10 * gigabytes) if gigabytes else 1)


def refresh_zone_stat_thresholds(kernel: Kernel) -> None:
    """``refresh_zone_stat_thresholds``: how far a CPU's statistics may differ; nothing without SMP.

    Where all CPUs together could hide that a zone is below its min mark, ``percpu_drift_mark`` says
    from when on to count exactly.
    """
    if not kernel.smp:
        return
    online = kernel.online_cpus()
    for zone in kernel.populated_zones():
        threshold = _normal_threshold(kernel, zone, len(online))
        pageset = kernel.get(zone.at, "zone.pageset")
        for cpu in online:
            kernel.set(kernel.per_cpu_ptr(pageset, cpu), "per_cpu_pageset.stat_threshold", threshold)
        drift = len(online) * threshold
        if drift > kernel.wmark(zone, WMARK_LOW) - kernel.wmark(zone, WMARK_MIN):
            kernel.set(zone.at, "zone.percpu_drift_mark", kernel.wmark(zone, WMARK_HIGH) + drift)


def _normal_threshold(kernel: Kernel, zone: Zone, cpus: int) -> int:
    """``calculate_normal_threshold``: grows with the logarithms of CPUs and memory (in units of 128 MiB)."""
    memory = kernel.get(zone.at, "zone.managed_pages") >> (27 - PAGE_SHIFT)
    return min(MAX_THRESHOLD, 2 * cpus.bit_length() * (1 + memory.bit_length()))
