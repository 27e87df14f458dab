# SPDX-License-Identifier: GPL-2.0-only
"""Ways to free wrongly, each as it comes about: what a judge must recognise, and a test can provoke.

A kind prepares a machine, whatever its size and state, up to just before the wrong call, and gives the call.
:func:`perform` makes it, by the core's functions: those of :class:`~kernelmm.machine.Machine` check their arguments.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import NamedTuple

from kernelmm import gfp
from kernelmm.core import free
from kernelmm.core.free import __free_pages as free_struct_pages
from kernelmm.machine import Machine
from kernelmm.validate.judge import Judge
from kernelmm.validate.verdict import Fate, Verdict
from physmem import abi, address
from physmem.errors import UsageError
from physmem.inspect.pageformat import PageFormat
from physmem.inspect.zones import populated_zones

__all__ = ["KINDS", "Call", "Kind", "Later", "judge", "perform"]

#: Nothing that waits, and nothing that complains.
QUIET = gfp.GFP_ATOMIC | gfp.__GFP_NOWARN


class Call(NamedTuple):
    """A free that is about to be made: ``free_pages`` of an address, ``__free_pages`` or ``put_page`` of a page."""

    name: str
    where: int
    order: int = 0


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


# -- what the kinds are made of ------------------------------------------------


def _take(m: Machine, order: int = 0, extra: int = 0) -> int:
    page = m.alloc_pages(QUIET | extra, order)
    if page is None:
        raise UsageError(f"the machine has no free block of order {order}")
    return page


def _free(m: Machine, page: int, order: int = 0) -> Call:
    return Call("free_pages", m.page_address(page), order)


def _next(page: int, count: int = 1) -> int:
    return page + count * abi.SIZEOF_PAGE


def _poke(m: Machine, page: int, offset: int, form: str, value: int) -> None:
    m.ram.write(address.page_off(m.mm, page) + offset, struct.pack(form, value))


def _set_flag(m: Machine, page: int, name: str) -> None:
    bit = PageFormat(m.dump.layout).bit(name)
    _poke(m, page, abi.PAGE_FLAGS, "<Q", m.page(page)["flags"] | bit)


def _count(m: Machine, page: int, value: int) -> None:
    _poke(m, page, abi.PAGE_COUNT, "<i", value)


def _flagged(name: str) -> Callable[[Machine], Call]:
    def prepare(m: Machine) -> Call:
        page = _take(m)
        _set_flag(m, page, name)
        return _free(m, page)

    return prepare


def _at(where: Callable[[Machine], int]) -> Callable[[Machine], Call]:
    return lambda m: Call("free_pages", where(m))


def _freed(m: Machine, order: int) -> int:
    page = _take(m, order)
    m.free_block(page, order)
    return page


def _split(m: Machine, order: int) -> int:
    """Pages that were allocated together, to be freed one by one."""
    page = _take(m, order)
    m.split_page(page, order)
    return page


# -- the kinds -----------------------------------------------------------------


def _double_page(m: Machine) -> Call:
    return _free(m, _freed(m, 0))


def _double_block(m: Machine) -> Call:
    return _free(m, _freed(m, 3), 3)


def _double_drained(m: Machine) -> Call:
    page = _freed(m, 0)
    m.drain_all_pages()
    return _free(m, page)


def _inside_free(m: Machine) -> Call:
    return _free(m, _next(_freed(m, 4), 5))


def _inside_block(m: Machine) -> Call:
    return _free(m, _next(_take(m, 3)))


def _negative(m: Machine) -> Call:
    page = _take(m)
    _count(m, page, -1)
    return _free(m, page)


def _put_twice(m: Machine) -> Call:
    page = _take(m, 2, gfp.__GFP_COMP)
    m.put_page(page)
    return Call("put_page", page)


def _too_small(m: Machine) -> Call:
    return _free(m, _take(m, 3))


def _a_bit_too_small(m: Machine) -> Call:
    return _free(m, _take(m, 3), 2)


def _neighbour_in_use(m: Machine) -> Call:
    return _free(m, _split(m, 1), 1)


def _neighbour_block(m: Machine) -> Call:
    """Its buddy is free, and marked as a free block."""
    page = _split(m, 1)
    m.free_block(_next(page))
    m.drain_all_pages()
    return _free(m, page, 1)


def _neighbour_on_list(m: Machine) -> Call:
    page = _split(m, 1)
    m.free_block(_next(page))
    return _free(m, page, 1)


def _neighbour_taken(m: Machine) -> Call:
    """Two blocks side by side; the second one's first page is counted, the others are not."""
    page = _take(m, 3)
    _count(m, _next(page, 4), 1)
    _count(m, _next(page, 2), 1)
    return Call("__free_pages", page, 2)


def _misaligned(m: Machine) -> Call:
    page = _split(m, 2)
    m.free_block(_next(page, 2))
    return _free(m, _next(page), 1)


def _huge_order(m: Machine) -> Call:
    page = _split(m, 1)
    return _free(m, page, abi.MAX_ORDER)


def _compound_as_page(m: Machine) -> Call:
    return _free(m, _take(m, 2, gfp.__GFP_COMP))


def _compound_too_small(m: Machine) -> Call:
    return _free(m, _take(m, 3, gfp.__GFP_COMP), 2)


def _tail(m: Machine) -> Call:
    return _free(m, _next(_take(m, 2, gfp.__GFP_COMP)))


def _counted_tail(m: Machine) -> Call:
    # Not the first one, which keeps the order.
    page = _next(_take(m, 2, gfp.__GFP_COMP), 2)
    _count(m, page, 1)
    return _free(m, page)


def _mapped(m: Machine) -> Call:
    page = _take(m)
    _poke(m, page, abi.PAGE_MAPCOUNT, "<i", 0)
    return _free(m, page)


def _cached(m: Machine) -> Call:
    page = _take(m)
    _poke(m, page, abi.PAGE_MAPPING, "<Q", m.page_address(page))
    return _free(m, page)


def _bad_inside(m: Machine) -> Call:
    page = _take(m, 2)
    _set_flag(m, _next(page, 2), "PG_private")
    return _free(m, page, 2)


def _lru_block(m: Machine) -> Call:
    page = _take(m, 2, gfp.__GFP_COMP)
    _set_flag(m, _next(page, 3), "PG_lru")
    return _free(m, page, 2)


def _kernel_text(m: Machine) -> int:
    return m.dump.symbols["_stext"] & -abi.PAGE_SIZE


def _reserved(m: Machine) -> int:
    """A page of the kernel's image, by its direct-map address."""
    return m.mm.page_offset + m.dump.virt_to_phys(_kernel_text(m))


def _between(m: Machine) -> int:
    """A frame that has a struct page, but is in no zone."""
    # The page array is mapped in pieces that describe more memory than there is.
    return m.mm.page_offset + (m.dump.max_pfn << abi.PAGE_SHIFT)


def _beyond(m: Machine) -> int:
    return m.mm.page_offset + (m.dump.max_pfn + (1 << 24) << abi.PAGE_SHIFT)


def _moved_pointer(m: Machine) -> Call:
    return Call("free_pages", m.page_address(_take(m)) + 8)


def _in_zone(m: Machine, page: int, node: int, index: int) -> None:
    """Overwrite what a page's flags say about its zone."""
    mm = m.mm
    flags = m.page(page)["flags"] & ~(mm.zones_mask << mm.zones_pgshift) & ~(mm.nodes_mask << mm.nodes_pgshift)
    _poke(m, page, abi.PAGE_FLAGS, "<Q", flags | index << mm.zones_pgshift | node << mm.nodes_pgshift)


def _wrong_zone(order: int) -> Callable[[Machine], Call]:
    def prepare(m: Machine) -> Call:
        page = _take(m, order, gfp.__GFP_DMA)
        pfn = m.page_to_pfn(page)
        others = [zone for zone in populated_zones(m.dump) if not zone.start_pfn <= pfn < zone.end_pfn]
        if not others:
            raise UsageError("the machine has one zone only")
        # A large one, which keeps single pages on lists of its CPUs.
        other = max(others, key=lambda zone: zone.managed)
        _in_zone(m, page, other.node, other.index)
        return _free(m, page, order)

    return prepare


def _empty_zone(order: int) -> Callable[[Machine], Call]:
    def prepare(m: Machine) -> Call:
        zones = {(zone.node, zone.index) for zone in populated_zones(m.dump)}
        index = next((i for i in range(m.mm.max_nr_zones) if (0, i) not in zones), None)
        if index is None:
            raise UsageError("node 0 of the machine has every zone")
        page = _take(m, order)
        _in_zone(m, page, 0, index)
        return _free(m, page, order)

    return prepare


_MISCOUNT = "include/linux/mm.h:340"
_PREPARE = "mm/page_alloc.c"
_MAPCOUNT, _MAPPING, _COUNT = "nonzero mapcount", "non-NULL mapping", "nonzero _count"
_FLAGS = "PAGE_FLAGS_CHECK_AT_FREE flag(s) set"
_NO_FRAME = f"{_PREPARE}:2922"

KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "double free of a page": Kind(
            "freed, and freed again", "pcp", Fate.MISCOUNTED, Later.AT_ALLOCATION, _double_page, debug_vm=_MISCOUNT
        ),
        "double free of a block": Kind(
            "a block of 8 pages, freed twice",
            "already_free",
            Fate.MISCOUNTED,
            Later.AT_ALLOCATION,
            _double_block,
            debug_vm=_MISCOUNT,
        ),
        "double free after a drain": Kind(
            "the page has gone back to the free lists in between",
            "already_free",
            Fate.MISCOUNTED,
            Later.AT_ALLOCATION,
            _double_drained,
            debug_vm=_MISCOUNT,
        ),
        "inside a free block": Kind(
            "an address in the middle of free memory",
            "already_free",
            Fate.MISCOUNTED,
            Later.AT_ALLOCATION,
            _inside_free,
            debug_vm=_MISCOUNT,
        ),
        "inside a block": Kind(
            "the second page of an allocation of 8",
            "refcount",
            Fate.MISCOUNTED,
            Later.AT_FREE,
            _inside_block,
            debug_vm=_MISCOUNT,
        ),
        "count below zero": Kind(
            "references were dropped once too often", "refcount", Fate.MISCOUNTED, Later.LOST, _negative
        ),
        "put_page once more": Kind(
            "a compound page whose last reference is gone",
            "already_free",
            Fate.MISCOUNTED,
            Later.AT_ALLOCATION,
            _put_twice,
            debug_vm=_MISCOUNT,
        ),
        "order 0 for 3": Kind(
            "a block of 8 pages, freed as one page", "allocated_order", Fate.FREED, Later.LOST, _too_small
        ),
        "order 2 for 3": Kind(
            "a block of 8 pages, freed as 4", "allocated_order", Fate.FREED, Later.LOST, _a_bit_too_small
        ),
        "neighbour in use": Kind(
            "a page freed as two, the other is allocated", "extent", Fate.REFUSED, Later.LOST, _neighbour_in_use, _COUNT
        ),
        "neighbour a free block": Kind(
            "a page freed as two, its buddy is on the free lists",
            "already_free",
            Fate.REFUSED,
            Later.MARK,
            _neighbour_block,
            _MAPCOUNT,
        ),
        "neighbour on a per-cpu list": Kind(
            "a page freed as two, the other is free on its CPU's list",
            "pcp",
            Fate.FREED,
            Later.LISTS,
            _neighbour_on_list,
        ),
        "several owners": Kind(
            "4 pages freed at once that are two allocations",
            "extent",
            Fate.REFUSED,
            Later.LOST,
            _neighbour_taken,
            _COUNT,
        ),
        "misaligned": Kind(
            "two pages that are not buddies, freed as a block",
            "alignment",
            Fate.FREED,
            Later.LISTS,
            _misaligned,
            debug_vm=f"{_PREPARE}:602",
        ),
        "order too high": Kind(
            "an order of MAX_ORDER: a size, taken for an order", "order", Fate.REFUSED, Later.MARK, _huge_order, _COUNT
        ),
        "compound page as a page": Kind(
            "4 pages with __GFP_COMP, freed with order 0",
            "compound_order",
            Fate.FREED,
            Later.LOST,
            _compound_as_page,
            debug_vm=f"{_PREPARE}:787",
        ),
        "compound page in half": Kind(
            "8 pages with __GFP_COMP, freed with order 2",
            "compound_order",
            Fate.FREED,
            Later.LOST,
            _compound_too_small,
            debug_vm=f"{_PREPARE}:787",
        ),
        "tail": Kind(
            "the second page of a compound page", "tail", Fate.MISCOUNTED, Later.AT_FREE, _tail, debug_vm=_MISCOUNT
        ),
        "counted tail": Kind(
            "a tail that somebody gave a reference of its own",
            "tail",
            Fate.FREED,
            Later.TWICE,
            _counted_tail,
            debug_vm=f"{_PREPARE}:786",
        ),
        "mapped": Kind("a page table still maps it", "mapcount", Fate.REFUSED, Later.LOST, _mapped, _MAPCOUNT),
        "in a file's cache": Kind("its mapping is still set", "mapping", Fate.REFUSED, Later.LOST, _cached, _MAPPING),
        "on an LRU list": Kind(
            "freed by free_pages, not by put_page", "lru", Fate.REFUSED, Later.LOST, _flagged("PG_lru"), _FLAGS
        ),
        "slab": Kind(
            "a slab's page: kfree would be right", "slab", Fate.REFUSED, Later.LOST, _flagged("PG_slab"), _FLAGS
        ),
        "locked": Kind(
            "somebody holds the page's lock", "flags", Fate.REFUSED, Later.LOST, _flagged("PG_locked"), _FLAGS
        ),
        "under writeback": Kind(
            "its contents are on their way to disk", "flags", Fate.REFUSED, Later.LOST, _flagged("PG_writeback"), _FLAGS
        ),
        "with buffers": Kind(
            "a file system's private data", "flags", Fate.REFUSED, Later.LOST, _flagged("PG_private"), _FLAGS
        ),
        "in the swap cache": Kind(
            "still in the swap cache", "flags", Fate.REFUSED, Later.LOST, _flagged("PG_swapcache"), _FLAGS
        ),
        "mlocked": Kind("still locked into memory", "flags", Fate.REFUSED, Later.LOST, _flagged("PG_mlocked"), _FLAGS),
        "one bad page in a block": Kind(
            "the third of 4 pages has private data: all 4 are lost",
            "flags",
            Fate.REFUSED,
            Later.LOST,
            _bad_inside,
            _FLAGS,
        ),
        "a tail on an LRU list": Kind(
            "the last page of a compound page is on an LRU list", "lru", Fate.REFUSED, Later.LOST, _lru_block, _FLAGS
        ),
        "the kernel's own text": Kind(
            "an address of the kernel's image", "reserved", Fate.REFUSED, Later.LOST, _at(_kernel_text), _FLAGS
        ),
        "reserved": Kind(
            "memory that was never the allocator's", "reserved", Fate.REFUSED, Later.LOST, _at(_reserved), _FLAGS
        ),
        "in no zone": Kind(
            "a struct page that describes no memory",
            "span",
            Fate.MISCOUNTED,
            Later.NEVER,
            _at(_between),
            debug_vm=_MISCOUNT,
        ),
        "beyond memory": Kind(
            "an address above the last page", "address", Fate.FAULT, Later.STOPPED, _at(_beyond), debug_vm=_NO_FRAME
        ),
        "user address": Kind(
            "a pointer from user space",
            "address",
            Fate.FAULT,
            Later.STOPPED,
            _at(lambda m: 0x7F0012345000),
            debug_vm=_NO_FRAME,
        ),
        "vmalloc": Kind(
            "memory from vmalloc: vfree would be right",
            "address",
            Fate.FAULT,
            Later.STOPPED,
            _at(lambda m: 0xFFFFC90000010000),
            debug_vm=_NO_FRAME,
        ),
        "not canonical": Kind(
            "a number that is no address",
            "address",
            Fate.FAULT,
            Later.STOPPED,
            _at(lambda m: 0xDEAD000000100000),
            debug_vm=_NO_FRAME,
        ),
        "struct page": Kind(
            "the struct page in place of its memory",
            "address",
            Fate.FAULT,
            Later.STOPPED,
            _at(_take),
            debug_vm=_NO_FRAME,
        ),
        "not where it begins": Kind(
            "a pointer that was moved into the page", "page_start", Fate.FREED, Later.NEVER, _moved_pointer
        ),
        "wrong zone, one page": Kind(
            "page->flags names another zone: it shows when the list is drained",
            "zone",
            Fate.FREED,
            Later.ZONES,
            _wrong_zone(0),
        ),
        "wrong zone, a block": Kind(
            "page->flags names another zone",
            "zone",
            Fate.FREED,
            Later.ZONES,
            _wrong_zone(1),
            debug_vm=f"{_PREPARE}:603",
        ),
        "empty zone": Kind(
            "page->flags names a zone that has no pages",
            "zone_setup",
            Fate.FAULT,
            Later.STOPPED,
            _empty_zone(1),
            debug_vm=f"{_PREPARE}:584",
        ),
    }
)
