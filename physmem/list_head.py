# SPDX-License-Identifier: GPL-2.0-only
# room: inline
"""The kernel's intrusive doubly linked list (include/linux/list.h), living in emulated memory.

An entry is the kernel virtual address of a ``struct list_head``: ``next`` at +0,
``prev`` at +8, both kernel addresses.  Unlike the kernel without CONFIG_DEBUG_LIST,
these functions look at the neighbours before they write to them: in a corrupt image
a link may lead anywhere, and following it blindly would spread the damage or never
end.  What is wrong is raised as CorruptionError with the PFN and the rule.
"""

from __future__ import annotations

from physmem import abi, address
from physmem.ctype import u64
from physmem.space import AddressSpace

__all__ = ["first", "init_list_head", "last", "list_add", "list_add_tail", "list_del", "list_empty", "list_move"]


def init_list_head(space: AddressSpace, head: u64) -> None:
    """Make ``head`` an empty list (INIT_LIST_HEAD)."""
    at: u64 = address.off(space, head)
    space.as_u64[at >> 3] = head
    space.as_u64[(at + abi.LIST_PREV) >> 3] = head


def first(space: AddressSpace, head: u64) -> u64:
    """``head->next``: the first entry, or ``head`` itself if the list is empty."""
    return space.as_u64[address.off(space, head) >> 3]


def last(space: AddressSpace, head: u64) -> u64:
    """``head->prev``: the last entry, or ``head`` itself if the list is empty."""
    return space.as_u64[(address.off(space, head) + abi.LIST_PREV) >> 3]


def list_empty(space: AddressSpace, head: u64) -> bool:
    """Whether ``head->next`` is ``head``."""
    return space.as_u64[address.off(space, head) >> 3] == head


def insert_between(space: AddressSpace, new: u64, prev: u64, next: u64) -> None:
    """``__list_add``: link ``new`` between two entries that must know each other."""
    n: u64 = address.lookup(space, next)
    p: u64 = address.lookup(space, prev)
    at: u64 = address.off(space, new)
    if n >= space.size or p >= space.size:
        space.bad_link(new, "list_broken", "a neighbour's link leads to no memory")
    if space.as_u64[(n + abi.LIST_PREV) >> 3] != prev or space.as_u64[p >> 3] != next:
        space.bad_link(prev, "list_broken", "next->prev or prev->next does not lead back here")
    space.as_u64[(n + abi.LIST_PREV) >> 3] = new
    space.as_u64[at >> 3] = next
    space.as_u64[(at + abi.LIST_PREV) >> 3] = prev
    space.as_u64[p >> 3] = new


def list_add(space: AddressSpace, new: u64, head: u64) -> None:
    """Put ``new`` first on the list ``head`` (or just after any entry)."""
    insert_between(space, new, head, first(space, head))


def list_add_tail(space: AddressSpace, new: u64, head: u64) -> None:
    """Put ``new`` last on the list ``head``."""
    insert_between(space, new, last(space, head), head)


def unlink(space: AddressSpace, entry: u64) -> None:
    """``__list_del_entry``: join the neighbours of ``entry``; its own links keep their values."""
    at: u64 = address.off(space, entry)
    next: u64 = space.as_u64[at >> 3]
    prev: u64 = space.as_u64[(at + abi.LIST_PREV) >> 3]
    n: u64 = address.lookup(space, next)
    p: u64 = address.lookup(space, prev)
    if n >= space.size or p >= space.size:
        space.bad_link(entry, "list_broken", "its next or prev leads to no memory")
    if space.as_u64[(n + abi.LIST_PREV) >> 3] != entry or space.as_u64[p >> 3] != entry:
        space.bad_link(entry, "list_broken", "next->prev or prev->next does not lead back here")
    space.as_u64[(n + abi.LIST_PREV) >> 3] = prev
    space.as_u64[p >> 3] = next


def list_del(space: AddressSpace, entry: u64) -> None:
    """Take ``entry`` off its list and poison its links."""
    at: u64 = address.off(space, entry)
    unlink(space, entry)
    space.as_u64[at >> 3] = space.list_poison1
    space.as_u64[(at + abi.LIST_PREV) >> 3] = space.list_poison2


def list_move(space: AddressSpace, entry: u64, head: u64) -> None:
    """Take ``entry`` off its list and put it first on ``head``; no poison in between."""
    unlink(space, entry)
    list_add(space, entry, head)
