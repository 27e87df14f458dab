# SPDX-License-Identifier: GPL-2.0-only
"""mark_free_pages: the frames on the free lists, no others, and forbidden ones are left as they are."""

from __future__ import annotations

import numpy as np

from kernelmm import Machine
from kernelmm.gfp import GFP_KERNEL
from kernelmm.pressure.hibernate import mark_free_pages
from physmem.inspect.zones import populated_zones


def test_free_frames_are_marked() -> None:
    with Machine.boot("32M") as machine:
        held = [machine.alloc_pages(GFP_KERNEL, order) for order in (0, 3, 0, 5)]
        free = np.ones(machine.dump.max_pfn, bool)
        forbidden = np.zeros(machine.dump.max_pfn, bool)
        first = machine.page_to_pfn(held[0] or 0)
        forbidden[first] = True
        zones = list(populated_zones(machine.dump))
        locks = [machine.dump.read(zone.address + machine.mm.zone_lock, 1)[0] for zone in zones]
        for zone in zones:
            free[: zone.start_pfn] &= zone.index != 0
            mark_free_pages(machine.mm, zone.address, free, forbidden)
        for zone, lock in zip(zones, locks, strict=True):
            expected = sum(count << order for order, count in enumerate(zone.nr_free))
            marked = int(free[zone.start_pfn : zone.end_pfn].sum())
            assert marked == expected + (zone.start_pfn <= first < zone.end_pfn)
            assert machine.dump.read(zone.address + machine.mm.zone_lock, 1)[0] == lock + 1 & 0xFF
        assert free[first], "forbidden: as it was"
        third = machine.page_to_pfn(held[1] or 0)
        assert not free[third : third + 8].any()
