# SPDX-License-Identifier: GPL-2.0-only
# Written by tools/pxd.py from cpuset.py; do not edit.

cimport cython
from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from kernelmm cimport gfp
from kernelmm.core cimport current
from kernelmm.core.mm cimport Mm
from physmem cimport abi
from physmem cimport word

cdef inline bint node_allowed(Mm mm, int32_t nid, uint32_t gfp_mask) noexcept:
    with cython.boundscheck(False):
        if not mm.cpusets_enabled or mm.in_interrupt or gfp_mask & gfp.__GFP_THISNODE:
            return True
        if current.mems_allowed(mm) & word.bit(nid) != 0 or current.memdie(mm):
            return True
        if gfp_mask & gfp.__GFP_HARDWALL:
            return False
        return current.flags(mm) & abi.PF_EXITING != 0 or current.hardwall_mems(mm) & word.bit(nid) != 0
