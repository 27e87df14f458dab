# SPDX-License-Identifier: GPL-2.0-only
# room: inline
"""The kernel's intrusive doubly linked list (include/linux/list.h), living in emulated memory.

An entry is the kernel virtual address of a ``struct list_head``: ``next`` at +0, ``prev`` at +8,
both kernel addresses.  Whoever calls has an entry's physical address at hand as well and gives
both: ``entry`` and ``entry_at``, ``head`` and ``head_at``.

Unlike the kernel without CONFIG_DEBUG_LIST, these functions look at the neighbours before they
write to them: in a corrupt image a link may lead anywhere, and following it blindly would spread
the damage or never end.  What is wrong is raised as CorruptionError with the PFN and the rule.
"""

from __future__ import annotations

from physmem import abi, address
from physmem.ctype import u64
from physmem.space import AddressSpace

__all__ = ["first", "init_list_head", "last", "list_add", "list_add_tail", "list_del", "list_empty", "list_move"]


def init_list_head(space: AddressSpace, head: u64, head_at: u64) -> None:
    """Make ``head`` an empty list (INIT_LIST_HEAD)."""
    space.as_u64[head_at >> 3] = head
    space.as_u64[(head_at + abi.LIST_PREV) >> 3] = head


def first(space: AddressSpace, head_at: u64) -> u64:
    """``head->next``: the first entry, or the head itself if the list is empty."""
    return space.as_u64[head_at >> 3]


def last(space: AddressSpace, head_at: u64) -> u64:
    """``head->prev``: the last entry, or the head itself if the list is empty."""
    return space.as_u64[(head_at + abi.LIST_PREV) >> 3]


def list_empty(space: AddressSpace, head: u64, head_at: u64) -> bool:
    """Whether ``head->next`` is ``head``."""
    return space.as_u64[head_at >> 3] == head


def list_add(space: AddressSpace, new: u64, new_at: u64, head: u64, head_at: u64) -> None:
    """Put ``new`` first on the list ``head`` (or just after any entry)."""
    next: u64 = space.as_u64[head_at >> 3]
    next_at: u64 = address.lookup(space, next)
    if next_at > space.size - abi.SIZEOF_LIST_HEAD or space.as_u64[(next_at + abi.LIST_PREV) >> 3] != head:
        space.broken_list(head)
    space.as_u64[(next_at + abi.LIST_PREV) >> 3] = new
    space.as_u64[new_at >> 3] = next
    space.as_u64[(new_at + abi.LIST_PREV) >> 3] = head
    space.as_u64[head_at >> 3] = new


def list_add_tail(space: AddressSpace, new: u64, new_at: u64, head: u64, head_at: u64) -> None:
    """Put ``new`` last on the list ``head`` (or just before any entry)."""
    prev: u64 = space.as_u64[(head_at + abi.LIST_PREV) >> 3]
    prev_at: u64 = address.lookup(space, prev)
    if prev_at > space.size - abi.SIZEOF_LIST_HEAD or space.as_u64[prev_at >> 3] != head:
        space.broken_list(head)
    space.as_u64[(head_at + abi.LIST_PREV) >> 3] = new
    space.as_u64[new_at >> 3] = head
    space.as_u64[(new_at + abi.LIST_PREV) >> 3] = prev
    space.as_u64[prev_at >> 3] = new


def unlink(space: AddressSpace, entry: u64, entry_at: u64) -> None:
    """``__list_del_entry``: join the neighbours of ``entry``; its own links keep their values."""
    next: u64 = space.as_u64[entry_at >> 3]
    prev: u64 = space.as_u64[(entry_at + abi.LIST_PREV) >> 3]
    next_at: u64 = address.lookup(space, next)
    prev_at: u64 = address.lookup(space, prev)
    if next_at > space.size - abi.SIZEOF_LIST_HEAD or prev_at > space.size - abi.SIZEOF_LIST_HEAD:
        space.broken_list(entry)
    if space.as_u64[(next_at + abi.LIST_PREV) >> 3] != entry or space.as_u64[prev_at >> 3] != entry:
        space.broken_list(entry)
    space.as_u64[(next_at + abi.LIST_PREV) >> 3] = prev
    space.as_u64[prev_at >> 3] = next


def list_del(space: AddressSpace, entry: u64, entry_at: u64) -> None:
    """Take ``entry`` off its list and poison its links."""
    unlink(space, entry, entry_at)
    space.as_u64[entry_at >> 3] = space.list_poison1
    space.as_u64[(entry_at + abi.LIST_PREV) >> 3] = space.list_poison2


def list_move(space: AddressSpace, entry: u64, entry_at: u64, head: u64, head_at: u64) -> None:
    """Take ``entry`` off its list and put it first on ``head``; no poison in between."""
    unlink(space, entry, entry_at)
    list_add(space, entry, entry_at, head, head_at)
