# SPDX-License-Identifier: GPL-2.0-only
"""Statistics as the cold rooms update them: by page, by zone, by event (include/linux/vmstat.h, mm/vmstat.c).

``mod`` forms fold a CPU's differential into the zone when it leaves the threshold; ``inc`` and
``dec`` overshoot by half the threshold then, so that a counter that only grows folds half as often.
"""

from __future__ import annotations

from collections.abc import Iterator

from kernelmm import gfp
from kernelmm.core import mmzone, pcp, vmstat
from kernelmm.core.mm import Mm
from physmem import abi, address

__all__ = [
    "count",
    "count_zone",
    "dec_page_state",
    "global_state",
    "inc_page_state",
    "inc_zone",
    "mod_zone_state",
    "populated_zones",
    "printk",
    "refresh_cpu_vm_stats",
    "snapshot",
    "zone_of",
    "zone_state",
]


def mod_zone_state(mm: Mm, z: int, item: int, delta: int) -> None:
    """``mod_zone_page_state`` on the running CPU; ``z`` is the physical address of the zone."""
    vmstat.mod_zone_page_state(mm, z, mmzone.this_cpu_pageset(mm, z), item, delta)


def zone_state(mm: Mm, z: int, item: int) -> int:
    """``zone_page_state``: pages, without the CPUs' differentials."""
    return vmstat.zone_page_state(mm, z, item)


def snapshot(mm: Mm, z: int, item: int) -> int:
    """``zone_page_state_snapshot``: pages, with the CPUs' differentials."""
    return vmstat.zone_page_state_snapshot(mm, z, item)


def populated_zones(mm: Mm) -> Iterator[int]:
    """``for_each_populated_zone``: physical addresses."""
    for nid in range(mm.nr_node_ids):
        for index in range(mm.max_nr_zones):
            if zone := mmzone.populated_zone(mm, nid, index):
                yield mmzone.zone_off(mm, zone)


def global_state(mm: Mm, item: int) -> int:
    """``global_page_state``: the sum over all zones, never below 0."""
    return max(mm.as_s64[(mm.var_vm_stat + 8 * item) >> 3], 0)


def refresh_cpu_vm_stats(mm: Mm) -> None:
    """``refresh_cpu_vm_stats`` on every CPU: fold the differentials, as the vmstat worker does once a second."""
    here = mm.cpu
    for cpu in range(mm.nr_cpus) if mm.smp else ():
        if mmzone.cpu_online(mm, cpu):
            mm.set_cpu(cpu)
            for z in populated_zones(mm):
                refresh_pageset(mm, z, mmzone.this_cpu_pageset(mm, z))
    mm.set_cpu(here)


def refresh_pageset(mm: Mm, z: int, pageset: int) -> None:
    """The running CPU's share of one zone; pages of another node that it keeps, but has not used for 3 seconds, go
    back (``drain_zone_pages``, a batch at a time).
    """
    expire = mm.cold.pageset_expire + pageset
    at = pageset + mm.pageset_vm_stat_diff
    for item in range(mm.cold.nr_stat_items):
        if mm.as_s8[at + item]:
            vmstat.zone_page_state_add(mm, z, item, mm.as_s8[at + item])
            mm.as_s8[at + item] = 0
            if mm.numa:
                mm.as_s8[expire] = 3
    if not mm.numa or not mm.as_s8[expire] or not mm.as_s32[(pageset + abi.PCP_COUNT) >> 2]:
        return
    if mmzone.zone_nid(mm, z) == mm.numa_node_id():
        mm.as_s8[expire] = 0
        return
    mm.as_s8[expire] -= 1
    if not mm.as_s8[expire]:
        drain_zone_pages(mm, z, pageset)


def drain_zone_pages(mm: Mm, z: int, pageset: int) -> None:
    """``drain_zone_pages``: give back a batch of the running CPU's pages of a zone."""
    count = (pageset + abi.PCP_COUNT) >> 2
    to_drain = min(mm.as_s32[count], mm.as_s32[(pageset + abi.PCP_BATCH) >> 2])
    if to_drain > 0:
        zone = address.phys_to_virt(mm, z)
        pcp.free_pcppages_bulk(mm, zone, to_drain, mmzone.pageset_va(mm, z, mm.cpu), pageset)
        mm.as_s32[count] -= to_drain


def zone_of(mm: Mm, pg: int) -> int:
    """Physical address of the page's zone."""
    return mmzone.zone_off(mm, mmzone.page_zone(mm, address.page_off(mm, pg)))


def inc_zone(mm: Mm, z: int, item: int) -> None:
    """``inc_zone_state``: one more in a zone."""
    vmstat.inc_zone_state(mm, z, mmzone.this_cpu_pageset(mm, z), item)


def inc_page_state(mm: Mm, pg: int, item: int) -> None:
    """``inc_zone_page_state``: one more in the page's zone."""
    inc_zone(mm, zone_of(mm, pg), item)


def dec_page_state(mm: Mm, pg: int, item: int) -> None:
    """``dec_zone_page_state``: one less in the page's zone."""
    z = zone_of(mm, pg)
    if not mm.smp:
        vmstat.zone_page_state_add(mm, z, item, -1)
        return
    pageset = mmzone.this_cpu_pageset(mm, z)
    at = pageset + mm.pageset_vm_stat_diff + item
    diff = (mm.as_s8[at] - 1 + 128) % 256 - 128
    threshold = mm.as_s8[pageset + mm.pageset_stat_threshold]
    if diff < -threshold:
        vmstat.zone_page_state_add(mm, z, item, diff - (threshold >> 1))
        diff = threshold >> 1
    mm.as_s8[at] = diff


def count(mm: Mm, event: int, delta: int = 1) -> None:
    """``count_vm_events`` on the running CPU."""
    vmstat.count_vm_events(mm, event, delta)


def printk(mm: Mm, line: str) -> None:
    """``printk``: a line for whoever listens."""
    if mm.reporter is not None:
        mm.reporter.printk(line)


def count_zone(mm: Mm, normal: int, zone: int, delta: int) -> None:
    """``__count_zone_vm_events``: an event counted for each kind of zone; ``normal`` is ZONE_NORMAL's."""
    index = mmzone.zone_idx(mm, zone, mmzone.zone_off(mm, zone))
    count(mm, normal - gfp.ZONE_NORMAL + index, delta)
