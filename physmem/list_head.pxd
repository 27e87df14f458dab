# SPDX-License-Identifier: GPL-2.0-only
# Written by tools/pxd.py from list_head.py; do not edit.

cimport cython
from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from physmem cimport abi
from physmem cimport address
from physmem.space cimport AddressSpace

cdef inline int init_list_head(AddressSpace space, uint64_t head) except -1:
    cdef uint64_t at
    at = address.off(space, head)
    space.as_u64[at >> 3] = head
    space.as_u64[at + abi.LIST_PREV >> 3] = head
    return 0

cdef inline uint64_t first(AddressSpace space, uint64_t head) except? 0xBAD0BAD0BAD0BAD0:
    return space.as_u64[address.off(space, head) >> 3]

cdef inline uint64_t last(AddressSpace space, uint64_t head) except? 0xBAD0BAD0BAD0BAD0:
    return space.as_u64[address.off(space, head) + abi.LIST_PREV >> 3]

cdef inline bint list_empty(AddressSpace space, uint64_t head) except -1:
    return space.as_u64[address.off(space, head) >> 3] == head

cdef inline int insert_between(AddressSpace space, uint64_t new, uint64_t prev, uint64_t next) except -1:
    cdef uint64_t n
    cdef uint64_t p
    cdef uint64_t at
    n = address.lookup(space, next)
    p = address.lookup(space, prev)
    at = address.off(space, new)
    if n >= space.size or p >= space.size:
        space.bad_link(new, 'list_broken', "a neighbour's link leads to no memory")
    if space.as_u64[n + abi.LIST_PREV >> 3] != prev or space.as_u64[p >> 3] != next:
        space.bad_link(prev, 'list_broken', 'next->prev or prev->next does not lead back here')
    space.as_u64[n + abi.LIST_PREV >> 3] = new
    space.as_u64[at >> 3] = next
    space.as_u64[at + abi.LIST_PREV >> 3] = prev
    space.as_u64[p >> 3] = new
    return 0

cdef inline int list_add(AddressSpace space, uint64_t new, uint64_t head) except -1:
    insert_between(space, new, head, first(space, head))
    return 0

cdef inline int list_add_tail(AddressSpace space, uint64_t new, uint64_t head) except -1:
    insert_between(space, new, last(space, head), head)
    return 0

cdef inline int unlink(AddressSpace space, uint64_t entry) except -1:
    cdef uint64_t at
    cdef uint64_t next
    cdef uint64_t prev
    cdef uint64_t n
    cdef uint64_t p
    at = address.off(space, entry)
    next = space.as_u64[at >> 3]
    prev = space.as_u64[at + abi.LIST_PREV >> 3]
    n = address.lookup(space, next)
    p = address.lookup(space, prev)
    if n >= space.size or p >= space.size:
        space.bad_link(entry, 'list_broken', 'its next or prev leads to no memory')
    if space.as_u64[n + abi.LIST_PREV >> 3] != entry or space.as_u64[p >> 3] != entry:
        space.bad_link(entry, 'list_broken', 'next->prev or prev->next does not lead back here')
    space.as_u64[n + abi.LIST_PREV >> 3] = prev
    space.as_u64[p >> 3] = next
    return 0

cdef inline int list_del(AddressSpace space, uint64_t entry) except -1:
    cdef uint64_t at
    at = address.off(space, entry)
    unlink(space, entry)
    space.as_u64[at >> 3] = space.list_poison1
    space.as_u64[at + abi.LIST_PREV >> 3] = space.list_poison2
    return 0

cdef inline int list_move(AddressSpace space, uint64_t entry, uint64_t head) except -1:
    unlink(space, entry)
    list_add(space, entry, head)
    return 0
