# SPDX-License-Identifier: GPL-2.0-only
# room: compiled
"""Perform many operations in one go: the loop under ``kernelmm run``, without Python in between.

An operation is five numbers, ``(code, id, a, b, c)``, the code being the letter of a page
script (:mod:`kernelmm.study.script` has the grammar and makes the numbers); ``pages`` keeps the
``struct page *`` of each id, 0 for an allocation that failed.  Each leaves four results:
PFN, order, migratetype of the PFN's pageblock and page_count afterwards, -1 where there is no page.
"""

from __future__ import annotations

from kernelmm.core import compound, entry, free, mmzone, opcode, page, pcp, vmstat
from kernelmm.core.mm import Mm
from physmem import abi, address, word
from physmem.ctype import s32, s64, s64_view, u64, u64_view


def write_field(mm: Mm, at: u64, field: s64, value: s64) -> None:
    """One ``x`` operation on the page whose ``struct page`` is at physical ``at``; ``field`` is a letter."""
    mask: u64 = 0xFFFFFFFFFFFFFFFF
    if field == 109:  # m: _mapcount, raw
        word.assign_s32(mm, at + abi.PAGE_MAPCOUNT, value)
    elif field == 99:  # c: _count
        word.assign_s32(mm, at + abi.PAGE_COUNT, value)
    elif field == 112:  # p: mapping
        mm.as_s64[(at + abi.PAGE_MAPPING) >> 3] = value
    elif field == 115:  # s: set flag bits
        word.set_bits(mm, at + abi.PAGE_FLAGS, value & mask)
    else:  # z: clear flag bits
        word.clear_bits(mm, at + abi.PAGE_FLAGS, value & mask)


def cold_free(mm: Mm, pg: u64) -> None:
    """Free a single page as cold, if this was its last reference."""
    if page.put_testzero(mm, address.page_off(mm, pg)):
        free.free_hot_cold_page(mm, pg, True)


def perform(mm: Mm, code: s64, pg: u64, a: s64, b: s64, c: s64) -> None:
    """Any operation on an allocated page but the most frequent one and those that hand out ids."""
    if code == opcode.FREE_ADDR:
        free.free_pages(mm, address.page_address(mm, pg), a)
    elif code == opcode.FREE_COLD:
        cold_free(mm, pg)
    elif code == opcode.FREE_BAD:
        free.free_hot_cold_page(mm, pg, False)
    elif code == opcode.GET or code == opcode.GET_TAIL:
        compound.get_page(mm, pg)
    elif code == opcode.PUT or code == opcode.PUT_TAIL:
        free.put_page(mm, pg)
    elif code == opcode.WRITE:
        write_field(mm, address.page_off(mm, pg), b, c)


def drain_or_set(mm: Mm, code: s64, a: s64, b: s64) -> s64:
    """An operation that concerns no page; the value of its fourth result."""
    zone: u64
    z: u64
    if code == opcode.DRAIN_LOCAL:
        pcp.drain_local_pages(mm)
    elif code == opcode.DRAIN_ALL:
        pcp.drain_all_pages(mm, 0)
    elif code == opcode.PIN_CPU:
        mm.set_cpu(a)
    elif code == opcode.SCANNED:
        zone = mmzone.node_data(mm, 0) + mm.pgdat_node_zones + a * mm.sizeof_zone
        z = mmzone.zone_off(mm, zone)
        vmstat.mod_zone_page_state(mm, z, mmzone.this_cpu_pageset(mm, z), mm.nr_pages_scanned, b)
        return vmstat.zone_counter(mm, z, mm.nr_pages_scanned)
    return -1


def replay(mm: Mm, ops: s64_view, pages: u64_view, results: s64_view, start: u64, stop: u64) -> None:
    """Perform operations [start, stop) of ``ops``.

    :param ops: five numbers an operation
    :param pages: ``struct page *`` by id
    :param results: four numbers an operation; or none at all, and then no results are kept
    """
    i: u64
    k: s64
    code: s64
    ident: s64
    a: s64
    shown: s64
    other: s64
    pg: u64
    at: u64
    record: bool = len(results) != 0
    for i in range(start, stop):
        code = ops[5 * i]
        ident = ops[5 * i + 1]
        a = ops[5 * i + 2]
        shown = 0
        other = -1
        pg = 0
        if code == opcode.ALLOC:
            pg = entry.alloc_pages_node(mm, a, ops[5 * i + 4], ops[5 * i + 3])
            pages[ident] = pg
            shown = ops[5 * i + 3]
        elif ident >= 0:
            pg = pages[ident]
            if code == opcode.FREE or code == opcode.FREE_ADDR or code == opcode.SPLIT:
                shown = a
            elif code == opcode.GET_TAIL or code == opcode.PUT_TAIL or code == opcode.WRITE:
                shown = a
                if pg != 0:
                    pg += a << abi.SIZEOF_PAGE_SHIFT
            if code == opcode.SPLIT:
                if pg != 0:
                    free.split_page(mm, pg, a)
                for k in range(1 << a):
                    pages[ops[5 * i + 3] + k] = pg + (k << abi.SIZEOF_PAGE_SHIFT) if pg != 0 else 0
            elif code == opcode.FREE and pg != 0:
                free.__free_pages(mm, pg, a)
            elif pg != 0:
                perform(mm, code, pg, a, ops[5 * i + 3], ops[5 * i + 4])
        if pg == 0 and code != opcode.ALLOC and ident < 0:
            other = drain_or_set(mm, code, a, ops[5 * i + 3])
        if not record:
            continue
        if pg != 0:
            at = address.page_off(mm, pg)
            results[4 * i] = address.page_to_pfn(mm, pg)
            results[4 * i + 1] = shown
            results[4 * i + 2] = mmzone.pageblock_migratetype(mm, address.page_to_pfn(mm, pg))
            results[4 * i + 3] = counted(mm, code, pg, at)
        else:
            results[4 * i] = -1
            results[4 * i + 1] = shown
            results[4 * i + 2] = -1
            results[4 * i + 3] = other
            if code == opcode.SCANNED:
                results[4 * i + 1] = a


def counted(mm: Mm, code: s64, pg: u64, at: u64) -> s32:
    """``page_count`` as the script's results have it: the head's for a compound page, raw after ``x``."""
    if code == opcode.WRITE:
        return page.count(mm, at)
    return page.count(mm, address.page_off(mm, compound.compound_head(mm, pg)))
