# SPDX-License-Identifier: GPL-2.0-only
# Written by tools/pxd.py from list_head.py; do not edit.

cimport cython
from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from physmem cimport abi
from physmem cimport address
from physmem.space cimport AddressSpace

cdef inline int init_list_head(AddressSpace space, uint64_t head, uint64_t head_at) noexcept:
    with cython.boundscheck(False):
        (<uint64_t *>&space.as_u8[head_at])[0] = head
        (<uint64_t *>&space.as_u8[head_at + abi.LIST_PREV])[0] = head
    return 0

cdef inline uint64_t first(AddressSpace space, uint64_t head_at) noexcept:
    with cython.boundscheck(False):
        return (<uint64_t *>&space.as_u8[head_at])[0]

cdef inline uint64_t last(AddressSpace space, uint64_t head_at) noexcept:
    with cython.boundscheck(False):
        return (<uint64_t *>&space.as_u8[head_at + abi.LIST_PREV])[0]

cdef inline bint list_empty(AddressSpace space, uint64_t head, uint64_t head_at) noexcept:
    with cython.boundscheck(False):
        return (<uint64_t *>&space.as_u8[head_at])[0] == head

cdef inline int list_add(AddressSpace space, uint64_t new, uint64_t new_at, uint64_t head, uint64_t head_at) except -1:
    cdef uint64_t next
    cdef uint64_t next_at
    with cython.boundscheck(False):
        next = (<uint64_t *>&space.as_u8[head_at])[0]
        next_at = address.lookup(space, next)
        if next_at > space.size - abi.SIZEOF_LIST_HEAD or (<uint64_t *>&space.as_u8[next_at + abi.LIST_PREV])[0] != head:
            space.broken_list(head)
        (<uint64_t *>&space.as_u8[next_at + abi.LIST_PREV])[0] = new
        (<uint64_t *>&space.as_u8[new_at])[0] = next
        (<uint64_t *>&space.as_u8[new_at + abi.LIST_PREV])[0] = head
        (<uint64_t *>&space.as_u8[head_at])[0] = new
    return 0

cdef inline int list_add_tail(AddressSpace space, uint64_t new, uint64_t new_at, uint64_t head, uint64_t head_at) except -1:
    cdef uint64_t prev
    cdef uint64_t prev_at
    with cython.boundscheck(False):
        prev = (<uint64_t *>&space.as_u8[head_at + abi.LIST_PREV])[0]
        prev_at = address.lookup(space, prev)
        if prev_at > space.size - abi.SIZEOF_LIST_HEAD or (<uint64_t *>&space.as_u8[prev_at])[0] != head:
            space.broken_list(head)
        (<uint64_t *>&space.as_u8[head_at + abi.LIST_PREV])[0] = new
        (<uint64_t *>&space.as_u8[new_at])[0] = head
        (<uint64_t *>&space.as_u8[new_at + abi.LIST_PREV])[0] = prev
        (<uint64_t *>&space.as_u8[prev_at])[0] = new
    return 0

cdef inline int unlink(AddressSpace space, uint64_t entry, uint64_t entry_at) except -1:
    cdef uint64_t next
    cdef uint64_t prev
    cdef uint64_t next_at
    cdef uint64_t prev_at
    with cython.boundscheck(False):
        next = (<uint64_t *>&space.as_u8[entry_at])[0]
        prev = (<uint64_t *>&space.as_u8[entry_at + abi.LIST_PREV])[0]
        next_at = address.lookup(space, next)
        prev_at = address.lookup(space, prev)
        if next_at > space.size - abi.SIZEOF_LIST_HEAD or prev_at > space.size - abi.SIZEOF_LIST_HEAD:
            space.broken_list(entry)
        if (<uint64_t *>&space.as_u8[next_at + abi.LIST_PREV])[0] != entry or (<uint64_t *>&space.as_u8[prev_at])[0] != entry:
            space.broken_list(entry)
        (<uint64_t *>&space.as_u8[next_at + abi.LIST_PREV])[0] = prev
        (<uint64_t *>&space.as_u8[prev_at])[0] = next
    return 0

cdef inline int list_del(AddressSpace space, uint64_t entry, uint64_t entry_at) except -1:
    with cython.boundscheck(False):
        unlink(space, entry, entry_at)
        (<uint64_t *>&space.as_u8[entry_at])[0] = space.list_poison1
        (<uint64_t *>&space.as_u8[entry_at + abi.LIST_PREV])[0] = space.list_poison2
    return 0

cdef inline int list_move(AddressSpace space, uint64_t entry, uint64_t entry_at, uint64_t head, uint64_t head_at) except -1:
    with cython.boundscheck(False):
        unlink(space, entry, entry_at)
        list_add(space, entry, entry_at, head, head_at)
    return 0
