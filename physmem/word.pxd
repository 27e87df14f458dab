# SPDX-License-Identifier: GPL-2.0-only
# Written by tools/pxd.py from word.py; do not edit.

cimport cython
from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from physmem.space cimport AddressSpace

cdef inline int add_u64(AddressSpace space, uint64_t at, int64_t delta) except -1:
    cdef uint64_t mask
    mask = 18446744073709551615
    space.as_u64[at >> 3] = space.as_u64[at >> 3] + delta & mask
    return 0

cdef inline int add_s32(AddressSpace space, uint64_t at, int32_t delta) except -1:
    cdef uint32_t mask
    mask = 4294967295
    space.as_u32[at >> 2] = space.as_u32[at >> 2] + delta & mask
    return 0

cdef inline int assign_s32(AddressSpace space, uint64_t at, int32_t value) except -1:
    space.as_s32[at >> 2] = value
    return 0

cdef inline int add_u8(AddressSpace space, uint64_t at, uint8_t delta) except -1:
    space.as_u8[at] = space.as_u8[at] + delta & 255
    return 0

cdef inline int set_bits(AddressSpace space, uint64_t at, uint64_t mask) except -1:
    space.as_u64[at >> 3] = space.as_u64[at >> 3] | mask
    return 0

cdef inline int clear_bits(AddressSpace space, uint64_t at, uint64_t mask) except -1:
    space.as_u64[at >> 3] ^= space.as_u64[at >> 3] & mask
    return 0

cdef inline uint64_t bit(uint32_t nr) noexcept:
    cdef uint64_t one
    one = 1
    return one << (nr & 63)
