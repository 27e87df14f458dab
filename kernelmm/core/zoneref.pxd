# SPDX-License-Identifier: GPL-2.0-only
# Written by tools/pxd.py from zoneref.py; do not edit.

cimport cython
from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from kernelmm.core cimport mmzone
from kernelmm.core.mm cimport AllocContext
from kernelmm.core.mm cimport Mm
from physmem cimport abi
from physmem cimport address
from physmem cimport word

cdef inline uint64_t zonerefs(Mm mm, uint64_t zonelist) except? 0xBAD0BAD0BAD0BAD0:
    with cython.boundscheck(False):
        return address.struct_off(mm, zonelist, mm.sizeof_zonelist) + mm.zonelist_zonerefs

cdef inline uint64_t zonerefs_end(Mm mm, uint64_t refs) noexcept:
    with cython.boundscheck(False):
        return refs + mm.max_zonerefs * abi.SIZEOF_ZONEREF

cdef inline uint64_t zone_of(Mm mm, uint64_t zref) noexcept:
    with cython.boundscheck(False):
        return (<uint64_t *>&mm.as_u8[zref + abi.ZONEREF_ZONE])[0]

cdef inline int set_zonelist(Mm mm, AllocContext ac, uint64_t zonelist) except -1:
    with cython.boundscheck(False):
        ac.zonelist = zonelist
        ac.zonerefs = zonerefs(mm, zonelist)
        ac.zonerefs_end = zonerefs_end(mm, ac.zonerefs)
    return 0

cdef inline uint64_t next_zones_zonelist(Mm mm, uint64_t zref, uint64_t end, int32_t high_zoneidx, uint64_t nodemask) except? 0xBAD0BAD0BAD0BAD0:
    cdef uint64_t zone
    with cython.boundscheck(False):
        while True:
            if zref >= end:
                mm.bad_zonelist(end)
            if (<int32_t *>&mm.as_u8[zref + abi.ZONEREF_ZONE_IDX])[0] <= high_zoneidx:
                zone = zone_of(mm, zref)
                if zone == 0 or nodemask == 0 or nodemask & word.bit(mmzone.zone_nid(mm, mmzone.zone_off(mm, zone))) != 0:
                    return zref
            zref += abi.SIZEOF_ZONEREF

cdef inline int first_zones_zonelist(Mm mm, AllocContext ac, uint64_t nodemask) except -1:
    cdef uint64_t zref
    with cython.boundscheck(False):
        zref = next_zones_zonelist(mm, ac.zonerefs, ac.zonerefs_end, ac.high_zoneidx, nodemask)
        ac.preferred_zone = zone_of(mm, zref)
        ac.classzone_idx = (<int32_t *>&mm.as_u8[zref + abi.ZONEREF_ZONE_IDX])[0]
        if ac.preferred_zone != 0:
            ac.preferred_z = mmzone.zone_off(mm, ac.preferred_zone)
            if ac.classzone_idx < 0:
                mm.bad_zone_idx(zref, ac.classzone_idx)
    return 0
