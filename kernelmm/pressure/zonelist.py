# SPDX-License-Identifier: GPL-2.0-only
"""Walking a zonelist outside the hot rooms (include/linux/mmzone.h)."""

from __future__ import annotations

from collections.abc import Iterator

from kernelmm.core import zoneref
from kernelmm.core.mm import Mm
from physmem import abi

__all__ = ["for_each_zone_zonelist"]


def for_each_zone_zonelist(mm: Mm, zonelist: int, high_zoneidx: int, nodemask: int = 0) -> Iterator[int]:
    """``for_each_zone_zonelist_nodemask``: kernel addresses of the zones that may be used, nearest first."""
    refs = zoneref.zonerefs(mm, zonelist)
    end = zoneref.zonerefs_end(mm, refs)
    zref = zoneref.next_zones_zonelist(mm, refs, end, high_zoneidx, nodemask)
    while True:
        zone = zoneref.zone_of(mm, zref)
        if zone == 0:
            return
        yield zone
        zref = zoneref.next_zones_zonelist(mm, zref + abi.SIZEOF_ZONEREF, end, high_zoneidx, nodemask)
