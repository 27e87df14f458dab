# SPDX-License-Identifier: GPL-2.0-only
# Written by tools/pxd.py from list_head.py; do not edit.

cimport cython
from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from physmem cimport abi
from physmem cimport address
from physmem.space cimport AddressSpace

cdef inline int init_list_head(AddressSpace space, uint64_t head, uint64_t head_at) except -1:
    space.as_u64[head_at >> 3] = head
    space.as_u64[head_at + abi.LIST_PREV >> 3] = head
    return 0

cdef inline uint64_t first(AddressSpace space, uint64_t head_at) except? 0xBAD0BAD0BAD0BAD0:
    return space.as_u64[head_at >> 3]

cdef inline uint64_t last(AddressSpace space, uint64_t head_at) except? 0xBAD0BAD0BAD0BAD0:
    return space.as_u64[head_at + abi.LIST_PREV >> 3]

cdef inline bint list_empty(AddressSpace space, uint64_t head, uint64_t head_at) except -1:
    return space.as_u64[head_at >> 3] == head

cdef inline int list_add(AddressSpace space, uint64_t new, uint64_t new_at, uint64_t head, uint64_t head_at) except -1:
    cdef uint64_t next
    cdef uint64_t next_at
    next = space.as_u64[head_at >> 3]
    next_at = address.lookup(space, next)
    if next_at >= space.size or space.as_u64[next_at + abi.LIST_PREV >> 3] != head:
        space.broken_list(head)
    space.as_u64[next_at + abi.LIST_PREV >> 3] = new
    space.as_u64[new_at >> 3] = next
    space.as_u64[new_at + abi.LIST_PREV >> 3] = head
    space.as_u64[head_at >> 3] = new
    return 0

cdef inline int list_add_tail(AddressSpace space, uint64_t new, uint64_t new_at, uint64_t head, uint64_t head_at) except -1:
    cdef uint64_t prev
    cdef uint64_t prev_at
    prev = space.as_u64[head_at + abi.LIST_PREV >> 3]
    prev_at = address.lookup(space, prev)
    if prev_at >= space.size or space.as_u64[prev_at >> 3] != head:
        space.broken_list(head)
    space.as_u64[head_at + abi.LIST_PREV >> 3] = new
    space.as_u64[new_at >> 3] = head
    space.as_u64[new_at + abi.LIST_PREV >> 3] = prev
    space.as_u64[prev_at >> 3] = new
    return 0

cdef inline int unlink(AddressSpace space, uint64_t entry, uint64_t entry_at) except -1:
    cdef uint64_t next
    cdef uint64_t prev
    cdef uint64_t next_at
    cdef uint64_t prev_at
    next = space.as_u64[entry_at >> 3]
    prev = space.as_u64[entry_at + abi.LIST_PREV >> 3]
    next_at = address.lookup(space, next)
    prev_at = address.lookup(space, prev)
    if next_at >= space.size or prev_at >= space.size:
        space.broken_list(entry)
    if space.as_u64[next_at + abi.LIST_PREV >> 3] != entry or space.as_u64[prev_at >> 3] != entry:
        space.broken_list(entry)
    space.as_u64[next_at + abi.LIST_PREV >> 3] = prev
    space.as_u64[prev_at >> 3] = next
    return 0

cdef inline int list_del(AddressSpace space, uint64_t entry, uint64_t entry_at) except -1:
    unlink(space, entry, entry_at)
    space.as_u64[entry_at >> 3] = space.list_poison1
    space.as_u64[entry_at + abi.LIST_PREV >> 3] = space.list_poison2
    return 0

cdef inline int list_move(AddressSpace space, uint64_t entry, uint64_t entry_at, uint64_t head, uint64_t head_at) except -1:
    unlink(space, entry, entry_at)
    list_add(space, entry, entry_at, head, head_at)
    return 0
