# SPDX-License-Identifier: GPL-2.0-only
"""Ways to free wrongly, each as it comes about: what a judge must recognise, and a test can provoke.

A kind prepares a machine, whatever its size and state, up to just before the wrong call, and gives the call.
:func:`perform` makes it, by the core's functions: those of :class:`~kernelmm.machine.Machine` check their arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType

from kernelmm.core import free
from kernelmm.core.free import __free_pages as free_struct_pages
from kernelmm.machine import Machine
from kernelmm.validate import provoke
from kernelmm.validate.judge import Judge
from kernelmm.validate.provoke import Call
from kernelmm.validate.verdict import Fate, Verdict

__all__ = ["KINDS", "Call", "Kind", "Later", "judge", "perform"]


class Later(Enum):
    """How the damage surfaces, where the kernel went on."""

    NEVER = "it does not"
    AT_ALLOCATION = "when the page is to be handed out: a bad page, and its block is lost"
    AT_FREE = "when the block that it is part of is freed: a bad page, and the block is lost"
    LOST = "pages that nobody gets again"
    MARK = "a free block without its mark; pages that nobody gets again"
    LISTS = "a free list breaks, or a page comes up for two owners"
    TWICE = "the page has two owners, and is freed by both"
    ZONES = "a page on the lists of a zone that it is not in"
    STOPPED = "at once"


@dataclass(frozen=True)
class Kind:
    """A kind of wrong free.

    :ivar story: how it comes about
    :ivar check: the check that names it
    :ivar plain: what the kernel does
    :ivar later: how that surfaces
    :ivar text: the reason in its report of a bad page, if it makes one
    :ivar debug_vm: source line of the assertion that stops a kernel with CONFIG_DEBUG_VM; empty if none does
    """

    story: str
    check: str
    plain: Fate
    later: Later
    prepare: Callable[[Machine], Call]
    text: str = ""
    debug_vm: str = ""


def perform(machine: Machine, call: Call) -> None:
    """Make the call.

    :raises PhysmemError: the kernel would stop, or fault
    """
    if call.name == "free_pages":
        free.free_pages(machine.mm, call.where, call.order)
    elif call.name == "__free_pages":
        free_struct_pages(machine.mm, call.where, call.order)
    else:
        free.put_page(machine.mm, call.where)


def judge(of: Judge, call: Call) -> Verdict:
    """The verdict on the call."""
    if call.name == "free_pages":
        return of.free_pages(call.where, call.order)
    return of.free_block(call.where, call.order) if call.name == "__free_pages" else of.put_page(call.where)


_MISCOUNT = "include/linux/mm.h:340"
_PREPARE = "mm/page_alloc.c"
_MAPCOUNT, _MAPPING, _COUNT = "nonzero mapcount", "non-NULL mapping", "nonzero _count"
_FLAGS = "PAGE_FLAGS_CHECK_AT_FREE flag(s) set"
_NO_FRAME = f"{_PREPARE}:2922"

KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "double free of a page": Kind(
            "freed, and freed again",
            "pcp",
            Fate.MISCOUNTED,
            Later.AT_ALLOCATION,
            provoke.double_page,
            debug_vm=_MISCOUNT,
        ),
        "double free of a block": Kind(
            "a block of 8 pages, freed twice",
            "already_free",
            Fate.MISCOUNTED,
            Later.AT_ALLOCATION,
            provoke.double_block,
            debug_vm=_MISCOUNT,
        ),
        "double free after a drain": Kind(
            "the page has gone back to the free lists in between",
            "already_free",
            Fate.MISCOUNTED,
            Later.AT_ALLOCATION,
            provoke.double_drained,
            debug_vm=_MISCOUNT,
        ),
        "inside a free block": Kind(
            "an address in the middle of free memory",
            "already_free",
            Fate.MISCOUNTED,
            Later.AT_ALLOCATION,
            provoke.inside_free,
            debug_vm=_MISCOUNT,
        ),
        "inside a block": Kind(
            "the second page of an allocation of 8",
            "refcount",
            Fate.MISCOUNTED,
            Later.AT_FREE,
            provoke.inside_block,
            debug_vm=_MISCOUNT,
        ),
        "count below zero": Kind(
            "references were dropped once too often", "refcount", Fate.MISCOUNTED, Later.LOST, provoke.negative
        ),
        "put_page once more": Kind(
            "a compound page whose last reference is gone",
            "already_free",
            Fate.MISCOUNTED,
            Later.AT_ALLOCATION,
            provoke.put_twice,
            debug_vm=_MISCOUNT,
        ),
        "order 0 for 3": Kind(
            "a block of 8 pages, freed as one page", "allocated_order", Fate.FREED, Later.LOST, provoke.too_small
        ),
        "order 2 for 3": Kind(
            "a block of 8 pages, freed as 4", "allocated_order", Fate.FREED, Later.LOST, provoke.a_bit_too_small
        ),
        "neighbour in use": Kind(
            "a page freed as two, the other is allocated",
            "extent",
            Fate.REFUSED,
            Later.LOST,
            provoke.neighbour_in_use,
            _COUNT,
        ),
        "neighbour a free block": Kind(
            "a page freed as two, its buddy is on the free lists",
            "already_free",
            Fate.REFUSED,
            Later.MARK,
            provoke.neighbour_block,
            _MAPCOUNT,
        ),
        "neighbour on a per-cpu list": Kind(
            "a page freed as two, the other is free on its CPU's list",
            "pcp",
            Fate.FREED,
            Later.LISTS,
            provoke.neighbour_on_list,
        ),
        "several owners": Kind(
            "4 pages freed at once that are two allocations",
            "extent",
            Fate.REFUSED,
            Later.LOST,
            provoke.neighbour_taken,
            _COUNT,
        ),
        "misaligned": Kind(
            "two pages that are not buddies, freed as a block",
            "alignment",
            Fate.FREED,
            Later.LISTS,
            provoke.misaligned,
            debug_vm=f"{_PREPARE}:602",
        ),
        "order too high": Kind(
            "an order of MAX_ORDER: a size, taken for an order",
            "order",
            Fate.REFUSED,
            Later.MARK,
            provoke.huge_order,
            _COUNT,
        ),
        "compound page as a page": Kind(
            "4 pages with __GFP_COMP, freed with order 0",
            "compound_order",
            Fate.FREED,
            Later.LOST,
            provoke.compound_as_page,
            debug_vm=f"{_PREPARE}:787",
        ),
        "compound page in half": Kind(
            "8 pages with __GFP_COMP, freed with order 2",
            "compound_order",
            Fate.FREED,
            Later.LOST,
            provoke.compound_too_small,
            debug_vm=f"{_PREPARE}:787",
        ),
        "tail": Kind(
            "the second page of a compound page",
            "tail",
            Fate.MISCOUNTED,
            Later.AT_FREE,
            provoke.tail,
            debug_vm=_MISCOUNT,
        ),
        "counted tail": Kind(
            "a tail that somebody gave a reference of its own",
            "tail",
            Fate.FREED,
            Later.TWICE,
            provoke.counted_tail,
            debug_vm=f"{_PREPARE}:786",
        ),
        "mapped": Kind("a page table still maps it", "mapcount", Fate.REFUSED, Later.LOST, provoke.mapped, _MAPCOUNT),
        "in a file's cache": Kind(
            "its mapping is still set", "mapping", Fate.REFUSED, Later.LOST, provoke.cached, _MAPPING
        ),
        "on an LRU list": Kind(
            "freed by free_pages, not by put_page", "lru", Fate.REFUSED, Later.LOST, provoke.flagged("PG_lru"), _FLAGS
        ),
        "slab": Kind(
            "a slab's page: kfree would be right", "slab", Fate.REFUSED, Later.LOST, provoke.flagged("PG_slab"), _FLAGS
        ),
        "locked": Kind(
            "somebody holds the page's lock", "flags", Fate.REFUSED, Later.LOST, provoke.flagged("PG_locked"), _FLAGS
        ),
        "under writeback": Kind(
            "its contents are on their way to disk",
            "flags",
            Fate.REFUSED,
            Later.LOST,
            provoke.flagged("PG_writeback"),
            _FLAGS,
        ),
        "with buffers": Kind(
            "a file system's private data", "flags", Fate.REFUSED, Later.LOST, provoke.flagged("PG_private"), _FLAGS
        ),
        "in the swap cache": Kind(
            "still in the swap cache", "flags", Fate.REFUSED, Later.LOST, provoke.flagged("PG_swapcache"), _FLAGS
        ),
        "mlocked": Kind(
            "still locked into memory", "flags", Fate.REFUSED, Later.LOST, provoke.flagged("PG_mlocked"), _FLAGS
        ),
        "one bad page in a block": Kind(
            "the third of 4 pages has private data: all 4 are lost",
            "flags",
            Fate.REFUSED,
            Later.LOST,
            provoke.bad_inside,
            _FLAGS,
        ),
        "a tail on an LRU list": Kind(
            "the last page of a compound page is on an LRU list",
            "lru",
            Fate.REFUSED,
            Later.LOST,
            provoke.lru_block,
            _FLAGS,
        ),
        "the kernel's own text": Kind(
            "an address of the kernel's image",
            "reserved",
            Fate.REFUSED,
            Later.LOST,
            provoke.at(provoke.kernel_text),
            _FLAGS,
        ),
        "reserved": Kind(
            "memory that was never the allocator's",
            "reserved",
            Fate.REFUSED,
            Later.LOST,
            provoke.at(provoke.reserved),
            _FLAGS,
        ),
        "in no zone": Kind(
            "a struct page that describes no memory",
            "span",
            Fate.MISCOUNTED,
            Later.NEVER,
            provoke.at(provoke.between),
            debug_vm=_MISCOUNT,
        ),
        "beyond memory": Kind(
            "an address above the last page",
            "address",
            Fate.FAULT,
            Later.STOPPED,
            provoke.at(provoke.beyond),
            debug_vm=_NO_FRAME,
        ),
        "user address": Kind(
            "a pointer from user space",
            "address",
            Fate.FAULT,
            Later.STOPPED,
            provoke.at(lambda m: 0x7F0012345000),
            debug_vm=_NO_FRAME,
        ),
        "vmalloc": Kind(
            "memory from vmalloc: vfree would be right",
            "address",
            Fate.FAULT,
            Later.STOPPED,
            provoke.at(lambda m: 0xFFFFC90000010000),
            debug_vm=_NO_FRAME,
        ),
        "not canonical": Kind(
            "a number that is no address",
            "address",
            Fate.FAULT,
            Later.STOPPED,
            provoke.at(lambda m: 0xDEAD000000100000),
            debug_vm=_NO_FRAME,
        ),
        "struct page": Kind(
            "the struct page in place of its memory",
            "address",
            Fate.FAULT,
            Later.STOPPED,
            provoke.at(provoke.take),
            debug_vm=_NO_FRAME,
        ),
        "not where it begins": Kind(
            "a pointer that was moved into the page", "page_start", Fate.FREED, Later.NEVER, provoke.moved_pointer
        ),
        "wrong zone, one page": Kind(
            "page->flags names another zone: it shows when the list is drained",
            "zone",
            Fate.FREED,
            Later.ZONES,
            provoke.wrong_zone(0),
        ),
        "wrong zone, a block": Kind(
            "page->flags names another zone",
            "zone",
            Fate.FREED,
            Later.ZONES,
            provoke.wrong_zone(1),
            debug_vm=f"{_PREPARE}:603",
        ),
        "empty zone": Kind(
            "page->flags names a zone that has no pages",
            "zone_setup",
            Fate.FAULT,
            Later.STOPPED,
            provoke.empty_zone(1),
            debug_vm=f"{_PREPARE}:584",
        ),
    }
)
