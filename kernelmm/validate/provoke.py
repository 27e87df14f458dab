# SPDX-License-Identifier: GPL-2.0-only
"""How wrong frees come about: each function prepares a machine up to just before the wrong call, and gives the call."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple

from kernelmm import gfp
from kernelmm.machine import Machine
from physmem import abi, address
from physmem.errors import UsageError
from physmem.inspect.pageformat import PageFormat
from physmem.inspect.zones import populated_zones

__all__ = ["Call"]

#: Nothing that waits, and nothing that complains.
QUIET = gfp.GFP_ATOMIC | gfp.__GFP_NOWARN


class Call(NamedTuple):
    """A free that is about to be made: ``free_pages`` of an address, ``__free_pages`` or ``put_page`` of a page."""

    name: str
    where: int
    order: int = 0


# -- what the kinds are made of ------------------------------------------------


def take(m: Machine, order: int = 0, extra: int = 0) -> int:
    page = m.alloc_pages(QUIET | extra, order)
    if page is None:
        raise UsageError(f"the machine has no free block of order {order}")
    return page


def free(m: Machine, page: int, order: int = 0) -> Call:
    return Call("free_pages", m.page_address(page), order)


def after(page: int, count: int = 1) -> int:
    return page + count * abi.SIZEOF_PAGE


def poke(m: Machine, page: int, offset: int, form: str, value: int) -> None:
    m.ram.write(address.page_off(m.mm, page) + offset, struct.pack(form, value))


def set_flag(m: Machine, page: int, name: str) -> None:
    bit = PageFormat(m.dump.layout).bit(name)
    poke(m, page, abi.PAGE_FLAGS, "<Q", m.page(page)["flags"] | bit)


def count(m: Machine, page: int, value: int) -> None:
    poke(m, page, abi.PAGE_COUNT, "<i", value)


def flagged(name: str) -> Callable[[Machine], Call]:
    def prepare(m: Machine) -> Call:
        page = take(m)
        set_flag(m, page, name)
        return free(m, page)

    return prepare


def at(where: Callable[[Machine], int]) -> Callable[[Machine], Call]:
    return lambda m: Call("free_pages", where(m))


def freed(m: Machine, order: int) -> int:
    page = take(m, order)
    m.free_block(page, order)
    return page


def split(m: Machine, order: int) -> int:
    """Pages that were allocated together, to be freed one by one."""
    page = take(m, order)
    m.split_page(page, order)
    return page


# -- the kinds -----------------------------------------------------------------


def double_page(m: Machine) -> Call:
    return free(m, freed(m, 0))


def double_block(m: Machine) -> Call:
    return free(m, freed(m, 3), 3)


def double_drained(m: Machine) -> Call:
    page = freed(m, 0)
    m.drain_all_pages()
    return free(m, page)


def inside_free(m: Machine) -> Call:
    return free(m, after(freed(m, 4), 5))


def inside_block(m: Machine) -> Call:
    return free(m, after(take(m, 3)))


def negative(m: Machine) -> Call:
    page = take(m)
    count(m, page, -1)
    return free(m, page)


def put_twice(m: Machine) -> Call:
    page = take(m, 2, gfp.__GFP_COMP)
    m.put_page(page)
    return Call("put_page", page)


def too_small(m: Machine) -> Call:
    return free(m, take(m, 3))


def a_bit_too_small(m: Machine) -> Call:
    return free(m, take(m, 3), 2)


def neighbour_in_use(m: Machine) -> Call:
    return free(m, split(m, 1), 1)


def neighbour_block(m: Machine) -> Call:
    """Its buddy is free, and marked as a free block."""
    page = split(m, 1)
    m.free_block(after(page))
    m.drain_all_pages()
    return free(m, page, 1)


def neighbour_on_list(m: Machine) -> Call:
    page = split(m, 1)
    m.free_block(after(page))
    return free(m, page, 1)


def neighbour_taken(m: Machine) -> Call:
    """Two blocks side by side; the second one's first page is counted, the others are not."""
    page = take(m, 3)
    count(m, after(page, 4), 1)
    count(m, after(page, 2), 1)
    return Call("__free_pages", page, 2)


def misaligned(m: Machine) -> Call:
    page = split(m, 2)
    m.free_block(after(page, 2))
    return free(m, after(page), 1)


def huge_order(m: Machine) -> Call:
    page = split(m, 1)
    return free(m, page, abi.MAX_ORDER)


def compound_as_page(m: Machine) -> Call:
    return free(m, take(m, 2, gfp.__GFP_COMP))


def compound_too_small(m: Machine) -> Call:
    return free(m, take(m, 3, gfp.__GFP_COMP), 2)


def tail(m: Machine) -> Call:
    return free(m, after(take(m, 2, gfp.__GFP_COMP)))


def counted_tail(m: Machine) -> Call:
    # Not the first one, which keeps the order.
    page = after(take(m, 2, gfp.__GFP_COMP), 2)
    count(m, page, 1)
    return free(m, page)


def mapped(m: Machine) -> Call:
    page = take(m)
    poke(m, page, abi.PAGE_MAPCOUNT, "<i", 0)
    return free(m, page)


def cached(m: Machine) -> Call:
    page = take(m)
    poke(m, page, abi.PAGE_MAPPING, "<Q", m.page_address(page))
    return free(m, page)


def bad_inside(m: Machine) -> Call:
    page = take(m, 2)
    set_flag(m, after(page, 2), "PG_private")
    return free(m, page, 2)


def lru_block(m: Machine) -> Call:
    page = take(m, 2, gfp.__GFP_COMP)
    set_flag(m, after(page, 3), "PG_lru")
    return free(m, page, 2)


def kernel_text(m: Machine) -> int:
    return m.dump.symbols["_stext"] & -abi.PAGE_SIZE


def reserved(m: Machine) -> int:
    """A page of the kernel's image, by its direct-map address."""
    return m.mm.page_offset + m.dump.virt_to_phys(kernel_text(m))


def between(m: Machine) -> int:
    """A frame that has a struct page, but is in no zone."""
    # The page array is mapped in pieces that describe more memory than there is, unless that fills the last of them.
    if not address.pfn_has_page(m.mm, m.dump.max_pfn):
        raise UsageError("the machine's page array ends with its memory")
    return m.mm.page_offset + (m.dump.max_pfn << abi.PAGE_SHIFT)


def beyond(m: Machine) -> int:
    return m.mm.page_offset + (m.dump.max_pfn + (1 << 24) << abi.PAGE_SHIFT)


def moved_pointer(m: Machine) -> Call:
    return Call("free_pages", m.page_address(take(m)) + 8)


def in_zone(m: Machine, page: int, node: int, index: int) -> None:
    """Overwrite what a page's flags say about its zone."""
    mm = m.mm
    flags = m.page(page)["flags"] & ~(mm.zones_mask << mm.zones_pgshift) & ~(mm.nodes_mask << mm.nodes_pgshift)
    poke(m, page, abi.PAGE_FLAGS, "<Q", flags | index << mm.zones_pgshift | node << mm.nodes_pgshift)


def wrong_zone(order: int) -> Callable[[Machine], Call]:
    def prepare(m: Machine) -> Call:
        page = take(m, order, gfp.__GFP_DMA)
        pfn = m.page_to_pfn(page)
        others = [zone for zone in populated_zones(m.dump) if not zone.start_pfn <= pfn < zone.end_pfn]
        if not others:
            raise UsageError("the machine has one zone only")
        # A large one, which keeps single pages on lists of its CPUs.
        other = max(others, key=lambda zone: zone.managed)
        in_zone(m, page, other.node, other.index)
        return free(m, page, order)

    return prepare


def empty_zone(order: int) -> Callable[[Machine], Call]:
    def prepare(m: Machine) -> Call:
        zones = {(zone.node, zone.index) for zone in populated_zones(m.dump)}
        index = next((i for i in range(m.mm.max_nr_zones) if (0, i) not in zones), None)
        if index is None:
            raise UsageError("node 0 of the machine has every zone")
        page = take(m, order)
        in_zone(m, page, 0, index)
        return free(m, page, order)

    return prepare
