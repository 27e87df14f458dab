# SPDX-License-Identifier: GPL-2.0-only
"""What a page is: one test for each thing that it can be."""

from __future__ import annotations

import numpy as np
import pytest

from physmem.inspect.freelist import read_lists
from physmem.inspect.page import inspect_page
from physmem.inspect.states import PageStates, State
from physmem.inspect.what import locate, parse_what
from physmem.inspect.zones import pagesets, populated_zones
from physmem.ranges import Ranges


def ask(dump, what):
    return inspect_page(dump, locate(dump, parse_what(what if isinstance(what, str) else f"pfn:{what}")))


def first_with(dump, flag):
    pages, _ = dump.pages(0, dump.max_pfn, ["flags"])
    bit = np.uint64(1 << dump.layout.enumerator(flag))
    return int(np.flatnonzero(pages["flags"] & bit)[0])


def test_the_head_of_a_free_block(edit):
    editor = edit()
    dump = editor.dump
    order, migratetype, pfns = editor.longest(editor.zone(), 4)
    for position, pfn in enumerate(pfns, 1):
        page = ask(dump, pfn)
        assert page.verdict.state is State.FREE
        assert (page.verdict.order, page.verdict.head) == (order, pfn)
        assert (page.verdict.list.order, page.verdict.list.migratetype) == (order, migratetype)
        assert f"entry {position} of the list node 0 zone DMA32 order {order}" in page.verdict.summary
        assert page.fields["_mapcount"] == -128


def test_all_that_is_said_of_a_page(open_case):
    page = ask(open_case("n128_s1"), "ffffea0000140000")
    assert (page.pfn, page.phys, page.address) == (0x5000, 0x5000000, 0xFFFFEA0000140000)
    assert (page.present, page.section, page.pageblock, page.migratetype) == (False, 0, 40, "Movable")
    assert str(page.zone) == "node 0 zone DMA32"
    assert page.fields["flags"] == 0x1FFE00000000000
    assert page.flags == []


def test_inside_a_free_block(open_case):
    page = ask(open_case("n128_s1"), 0x5000 + 777)
    assert page.verdict.state is State.FREE
    assert page.verdict.summary == "free: inside the free block of order 10 headed at pfn 20480"
    assert (page.verdict.order, page.verdict.head) == (10, 0x5000)


def test_on_a_per_cpu_list(edit):
    editor = edit()
    (pageset,) = pagesets(editor.dump, editor.zone())
    pfns = editor.entries(pageset.lists[0].address)
    page = ask(editor.dump, pfns[1])
    assert page.verdict.state is State.PCP
    assert page.verdict.list.cpu == 0
    assert page.verdict.summary == "free: entry 2 of the list node 0 zone DMA32 CPU 0 Unmovable"


def test_a_compound_page(open_case):
    dump = open_case("n128_s5", "B")
    head = first_with(dump, "PG_head")
    page = ask(dump, head)
    order = page.verdict.order
    assert page.verdict.state is State.SLAB
    assert page.verdict.head == head
    assert page.verdict.summary == f"in use: head of a compound page of order {order} ({1 << order} pages), slab"
    assert "head" in page.flags
    for tail in (head + 1, head + (1 << order) - 1):
        page = ask(dump, tail)
        assert page.verdict.state is State.SLAB
        assert (page.verdict.head, page.verdict.order) == (head, order)
        assert page.verdict.summary == f"in use: tail of the compound page of order {order} headed at pfn {head}, slab"


@pytest.mark.parametrize("first_page", [0, 0xFFFFEA0000000001, 0xFFFF880000000000, 0xFFFFFFFFFFFFFFFF])
def test_a_tail_without_a_head(edit, first_page):
    editor = edit("n128_s5", "B")
    tail = first_with(editor.dump, "PG_tail")
    editor.set_page(tail, "private", first_page)
    assert ask(editor.dump, tail).verdict.summary.endswith(f"without head ({first_page:#x})")


def test_a_head_without_tails(edit):
    editor = edit("n128_s5", "B")
    head = first_with(editor.dump, "PG_head")
    editor.set_page(head + 1, "compound_order", 1 << 40)
    assert ask(editor.dump, head).verdict.summary == "in use: head of a compound page of unknown order, slab"
    editor.set_page(head + 1, "flags", editor.get_page(head, "flags"))
    assert ask(editor.dump, head).verdict.order is None


@pytest.mark.parametrize(
    ("flag", "state", "summary"),
    [
        ("PG_reserved", State.RESERVED, "reserved: never given to the page allocator"),
        ("PG_slab", State.SLAB, "in use: slab"),
        ("PG_lru", State.ANON, "in use: anonymous memory, on an LRU list, 1 reference"),
    ],
)
def test_pages_with_a_flag(open_case, flag, state, summary):
    dump = open_case("n128_s1")
    page = ask(dump, first_with(dump, flag))
    assert page.verdict.state is state
    assert page.verdict.summary == summary
    assert flag.removeprefix("PG_") in page.flags


def test_in_use(edit):
    editor = edit()
    assert ask(editor.dump, 37).verdict.summary == "in use: 1 reference"
    editor.set_page(37, "mapping", 0xFFFF880000000001)
    editor.set_page(37, "_count", 3)
    assert ask(editor.dump, 37).verdict.summary == "in use: anonymous memory, 3 references"


def test_no_reference_and_on_no_list(open_case):
    """A page after the first of an allocation of several pages that is not compound."""
    page = ask(open_case("n128_s1"), 28889)
    assert page.verdict.state is State.UNREFERENCED
    assert "on no list" in page.verdict.summary


def test_on_a_free_list_but_not_marked(edit):
    editor = edit()
    _, _, pfns = editor.longest(editor.zone(), 4)
    editor.set_page(pfns[0], "_mapcount", -1)
    assert "but not marked as free" in ask(editor.dump, pfns[0]).verdict.summary


def test_a_block_of_impossible_order(edit):
    editor = edit()
    editor.set_page(0x5000, "private", 1 << 40)
    assert "impossible order 0x10000000000" in ask(editor.dump, 0x5000).verdict.summary
    assert ask(editor.dump, 0x5001).verdict.state is not State.FREE


def test_a_list_without_end(edit):
    editor = edit()
    _, _, pfns = editor.longest(editor.zone(), 4)
    editor.set_prev(editor.lru(pfns[0]), editor.lru(pfns[1]))
    assert "on no list" in ask(editor.dump, pfns[1]).verdict.summary
    summary = ask(editor.dump, pfns[2]).verdict.summary
    assert "more than 100000 entries from the head of a list" in summary


def test_holes(open_case):
    dump = open_case("n128_s1")
    page = ask(dump, 0)
    assert page.verdict.state is State.HOLE
    assert page.verdict.summary == "no page: no zone spans this PFN"
    page = ask(dump, 32736)
    assert page.verdict.state is State.HOLE
    assert page.verdict.summary == "no page: there is no struct page for this PFN"
    assert (page.fields, page.zone, page.flags) == ({}, None, [])


def test_an_absent_struct_page(edit):
    editor = edit()
    at = editor.dump.virt_to_phys(editor.page(5000))
    editor.ram.ranges = editor.ram.ranges.difference(Ranges([(at, at + 64)]))
    page = ask(editor.dump, 5000)
    assert page.verdict.state is State.ABSENT
    assert page.migratetype == "Movable"
    assert ask(editor.dump, 4999).verdict.state is not State.ABSENT


def test_a_page_whose_contents_are_there(open_case):
    dump = open_case("n128_s1")
    assert ask(dump, f"{dump.symbols['node_data']:x}").present
    assert not ask(dump, 5000).present


@pytest.mark.parametrize("case", ["n128_s1", "n128_s5", "u128_s1"])
def test_one_by_one_and_many_at_a_time_agree(case, open_case):
    dump = open_case(case, "B")
    states = PageStates(read_lists(dump, list(populated_zones(dump))))
    pages, _ = dump.pages(0, dump.max_pfn, states.fields)
    codes = states.codes(0, pages)
    for pfn in range(1, dump.max_pfn, 101):
        assert ask(dump, pfn).verdict.state is list(State)[codes[pfn]], pfn


def test_states_do_not_depend_on_where_the_array_is_cut(open_case):
    dump = open_case("n128_s4", "B")
    states = PageStates(read_lists(dump, list(populated_zones(dump))))
    pages, _ = dump.pages(0, dump.max_pfn, states.fields)
    whole = states.codes(0, pages)
    for start, end in ((1, 2), (513, 1500), (20480 + 1000, 20480 + 1100), (32000, 32736)):
        assert states.codes(start, pages[start:end]).tolist() == whole[start:end].tolist()
