# SPDX-License-Identifier: GPL-2.0-only
# Written by tools/pxd.py from word.py; do not edit.

cimport cython
from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from physmem.space cimport AddressSpace

cdef inline int add_u64(AddressSpace space, uint64_t at, int64_t delta) noexcept:
    cdef uint64_t mask
    with cython.boundscheck(False):
        mask = 18446744073709551615
        (<uint64_t *>&space.as_u8[at])[0] = (<uint64_t *>&space.as_u8[at])[0] + delta & mask
    return 0

cdef inline int add_s32(AddressSpace space, uint64_t at, int32_t delta) noexcept:
    cdef uint32_t mask
    with cython.boundscheck(False):
        mask = 4294967295
        (<uint32_t *>&space.as_u8[at])[0] = (<uint32_t *>&space.as_u8[at])[0] + delta & mask
    return 0

cdef inline int assign_s32(AddressSpace space, uint64_t at, int32_t value) noexcept:
    with cython.boundscheck(False):
        (<int32_t *>&space.as_u8[at])[0] = value
    return 0

cdef inline int add_u8(AddressSpace space, uint64_t at, uint8_t delta) noexcept:
    with cython.boundscheck(False):
        space.as_u8[at] = space.as_u8[at] + delta & 255
    return 0

cdef inline int set_bits(AddressSpace space, uint64_t at, uint64_t mask) noexcept:
    with cython.boundscheck(False):
        (<uint64_t *>&space.as_u8[at])[0] = (<uint64_t *>&space.as_u8[at])[0] | mask
    return 0

cdef inline int clear_bits(AddressSpace space, uint64_t at, uint64_t mask) noexcept:
    with cython.boundscheck(False):
        (<uint64_t *>&space.as_u8[at])[0] ^= (<uint64_t *>&space.as_u8[at])[0] & mask
    return 0

cdef inline uint64_t bit(uint32_t nr) noexcept:
    cdef uint64_t one
    with cython.boundscheck(False):
        one = 1
        return one << (nr & 63)
