# SPDX-License-Identifier: GPL-2.0-only
# room: inline
"""Zonelists: which zones a request may use, nearest first (include/linux/mmzone.h, mm/mmzone.c).

A zonelist is an array of ``struct zoneref``, each a zone and its index in its node, up to one whose zone is NULL.
"""

from __future__ import annotations

from kernelmm.core import mmzone
from kernelmm.core.mm import AllocContext, Mm
from physmem import abi, address, word
from physmem.ctype import s32, u64


def zonerefs(mm: Mm, zonelist: u64) -> u64:
    """Physical address of ``zonelist->_zonerefs[0]``."""
    return address.struct_off(mm, zonelist, mm.sizeof_zonelist) + mm.zonelist_zonerefs


def zonerefs_end(mm: Mm, refs: u64) -> u64:
    """Physical address just past the array of zonerefs that begins at ``refs``."""
    return refs + mm.max_zonerefs * abi.SIZEOF_ZONEREF


def zone_of(mm: Mm, zref: u64) -> u64:
    """``zonelist_zone``: kernel address of the zone, 0 at the end of the list."""
    return mm.as_u64[(zref + abi.ZONEREF_ZONE) >> 3]


def set_zonelist(mm: Mm, ac: AllocContext, zonelist: u64) -> None:
    """``ac->zonelist = zonelist``, translated here once for all who go through it."""
    ac.zonelist = zonelist
    ac.zonerefs = zonerefs(mm, zonelist)
    ac.zonerefs_end = zonerefs_end(mm, ac.zonerefs)


def next_zones_zonelist(mm: Mm, zref: u64, end: u64, high_zoneidx: s32, nodemask: u64) -> u64:
    """``next_zones_zonelist``: the first zoneref at or after ``zref`` that the request may use.

    :param zref: physical address of a ``struct zoneref``
    :param end: physical address just past the zonelist's array
    :param nodemask: a bit for each allowed node, or 0: all are
    :returns: physical address of a zoneref; its zone is NULL at the end of the list
    :raises CorruptionError: the list does not end
    """
    zone: u64
    while True:
        if zref >= end:
            mm.bad_zonelist(end)
        if mm.as_s32[(zref + abi.ZONEREF_ZONE_IDX) >> 2] <= high_zoneidx:
            zone = zone_of(mm, zref)
            if zone == 0 or nodemask == 0 or nodemask & word.bit(mmzone.zone_nid(mm, mmzone.zone_off(mm, zone))) != 0:
                return zref
        zref += abi.SIZEOF_ZONEREF


def first_zones_zonelist(mm: Mm, ac: AllocContext, nodemask: u64) -> None:
    """``first_zones_zonelist``: set the preferred zone (0 if there is none) and its index.

    :raises CorruptionError: the index is negative, and would lead out of what is kept by it
    """
    zref: u64 = next_zones_zonelist(mm, ac.zonerefs, ac.zonerefs_end, ac.high_zoneidx, nodemask)
    ac.preferred_zone = zone_of(mm, zref)
    ac.classzone_idx = mm.as_s32[(zref + abi.ZONEREF_ZONE_IDX) >> 2]
    if ac.preferred_zone != 0:
        ac.preferred_z = mmzone.zone_off(mm, ac.preferred_zone)
        if ac.classzone_idx < 0:
            mm.bad_zone_idx(zref, ac.classzone_idx)
