# SPDX-License-Identifier: GPL-2.0-only
"""Lists walked from both ends: sound ones, and each way in which they can break."""

from __future__ import annotations

import pytest

from physmem.inspect import links
from physmem.inspect.freelist import read_lists
from physmem.inspect.pageformat import PageFormat
from physmem.inspect.zones import pagesets, populated_zones
from physmem.ranges import Ranges


def walked(dump):
    return read_lists(dump, list(populated_zones(dump)))


def on_list(lists, order, migratetype, zone="DMA32", cpu=None):
    """The number of a list."""
    (number,) = [
        i
        for i, each in enumerate(lists.lists)
        if (each.zone.name, each.order, each.migratetype, each.cpu) == (zone, order, migratetype, cpu)
    ]
    return number


def breaks(editor):
    lists = walked(editor.dump)
    return lists, [(each.rule, each.pfn) for each in lists.breaks]


@pytest.mark.parametrize("case", ["n128_s1", "n256x2_s6n", "u128_s3", "n128_s4"])
def test_every_list_in_its_order(case, edit):
    editor = edit(case, "B")
    lists = walked(editor.dump)
    assert lists.breaks == []
    found = 0
    for number, each in enumerate(lists.lists):
        assert lists.pfns(number).tolist() == editor.entries(each.head.address)
        found += len(lists.members[number])
    assert found == (lists.owner >= 0).sum() > 50


def test_names(open_case):
    dump = open_case("n128_s1")
    lists = walked(dump)
    assert lists.lists[on_list(lists, 3, 2)].name == "node 0 zone DMA32 order 3 Movable"
    assert lists.lists[on_list(lists, 0, 1, "DMA", 0)].name == "node 0 zone DMA CPU 0 Reclaimable"
    assert PageFormat(dump.layout).migratetypes == (
        *("Unmovable", "Reclaimable", "Movable", "Reserve", "CMA", "Isolate"),
    )


def test_the_table_has_what_looks_free_and_little_else(open_case):
    """Of the 28,000 free pages of this machine, the heads of blocks and the pages of per-cpu lists."""
    lists = walked(open_case("n128_s1"))
    assert len(lists.links.pfns) == (lists.owner >= 0).sum() + 2


@pytest.mark.parametrize("position", [0, 1, -1])
@pytest.mark.parametrize("value", [0, 8, 0xFFFFEA0000000021, 0xFFFFEA0000000020 + (32736 << 6), 0xFFFF880000000000])
def test_a_link_to_nowhere_hides_nothing(edit, position, value):
    editor = edit()
    order, migratetype, pfns = editor.longest(editor.zone(), 4)
    editor.set_next(editor.lru(pfns[position]), value)
    lists, found = breaks(editor)
    assert found == [("list_link", pfns[position])]
    assert f"page's next is {value:#x}, which is no entry" in lists.breaks[0].detail
    assert lists.pfns(on_list(lists, order, migratetype)).tolist() == pfns


def test_a_backward_link_to_nowhere(edit):
    editor = edit()
    order, migratetype, pfns = editor.longest(editor.zone(), 4)
    editor.set_prev(editor.lru(pfns[2]), 0xDEAD000000200200)
    lists, found = breaks(editor)
    assert found == [("list_link", pfns[2])]
    assert "page's prev is 0xdead000000200200" in lists.breaks[0].detail
    assert lists.pfns(on_list(lists, order, migratetype)).tolist() == pfns


def test_list_heads_that_lead_nowhere(edit):
    editor = edit()
    order, migratetype, pfns = editor.longest(editor.zone(), 4)
    head = editor.zone().free_lists[order][migratetype].address
    editor.set_next(head, 0x1234567890ABCDEF)
    lists, found = breaks(editor)
    assert found == [("list_link", None)]
    assert "list head's next is 0x1234567890abcdef" in lists.breaks[0].detail
    assert lists.pfns(on_list(lists, order, migratetype)).tolist() == pfns
    editor.set_prev(head, 0)
    lists, found = breaks(editor)
    assert found == [("list_link", None), ("list_link", None)]
    assert lists.pfns(on_list(lists, order, migratetype)).tolist() == []


def test_a_neighbour_that_does_not_lead_back(edit):
    editor = edit()
    order, migratetype, pfns = editor.longest(editor.zone(), 4)
    editor.set_prev(editor.lru(pfns[2]), editor.lru(pfns[0]))
    lists, found = breaks(editor)
    assert found == [("list_broken", pfns[2])]
    assert f"page's prev leads to pfn {pfns[0]}, which does not lead back" in lists.breaks[0].detail
    assert lists.pfns(on_list(lists, order, migratetype)).tolist() == pfns


@pytest.mark.parametrize(("last", "to"), [(-1, 0), (-1, 1), (2, 1), (1, 1)])
def test_a_cycle(edit, last, to):
    editor = edit()
    order, migratetype, pfns = editor.longest(editor.zone(), 4)
    editor.set_next(editor.lru(pfns[last]), editor.lru(pfns[to]))
    lists, found = breaks(editor)
    assert found == [("list_cycle", pfns[last])]
    assert lists.pfns(on_list(lists, order, migratetype)).tolist() == pfns


def test_a_cycle_that_is_closed_both_ways(edit):
    editor = edit()
    order, migratetype, pfns = editor.longest(editor.zone(), 4)
    editor.join(editor.lru(pfns[-1]), editor.lru(pfns[0]))
    lists, found = breaks(editor)
    # Whoever comes from the head finds a first entry that does not know the head, and a last one likewise.
    assert {rule for rule, _ in found} == {"list_broken"}
    assert len(lists.members[on_list(lists, order, migratetype)]) == 0


def test_a_list_that_is_cut_short(edit):
    editor = edit()
    order, migratetype, pfns = editor.longest(editor.zone(), 4)
    head = editor.zone().free_lists[order][migratetype].address
    editor.set_next(editor.lru(pfns[1]), head)
    lists, found = breaks(editor)
    assert found == [("list_broken", pfns[1])]
    assert "leads to the list head of node 0 zone DMA32" in lists.breaks[0].detail
    assert lists.pfns(on_list(lists, order, migratetype)).tolist() == pfns


def test_a_page_on_two_lists(edit):
    editor = edit()
    order, migratetype, pfns = editor.longest(editor.zone(), 4)
    empty = next(heads[5] for heads in editor.zone().free_lists if heads[5].next == heads[5].address)
    editor.set_next(empty.address, editor.lru(pfns[2]))
    lists, found = breaks(editor)
    assert found == [("two_lists", pfns[2])]
    assert lists.breaks[0].detail.endswith("linked from node 0 zone DMA32 order 0 Isolate: list head's next")
    assert lists.pfns(on_list(lists, order, migratetype)).tolist() == pfns


def test_two_broken_links_lose_what_is_between_them(edit):
    editor = edit()
    order, migratetype, pfns = editor.longest(editor.zone(), 5)
    editor.set_next(editor.lru(pfns[0]), 0)
    editor.set_prev(editor.lru(pfns[3]), 0)
    lists, found = breaks(editor)
    assert found == [("list_link", pfns[0]), ("list_link", pfns[3])]
    assert lists.pfns(on_list(lists, order, migratetype)).tolist() == [pfns[0], *pfns[3:]]


def test_a_page_that_does_not_look_free_is_followed(edit):
    editor = edit()
    order, migratetype, pfns = editor.longest(editor.zone(), 5)
    for pfn in pfns[1:3]:
        editor.set_page(pfn, "_mapcount", 3)
        editor.set_page(pfn, "_count", 1)
    lists, found = breaks(editor)
    assert found == []
    assert lists.pfns(on_list(lists, order, migratetype)).tolist() == pfns


def test_only_so_many_of_them_in_a_row(edit, monkeypatch):
    monkeypatch.setattr(links, "_MAX_STRAYS", 1)
    editor = edit()
    order, migratetype, pfns = editor.longest(editor.zone(), 7)
    for pfn in pfns[1:6]:
        editor.set_page(pfn, "_mapcount", 3)
        editor.set_page(pfn, "_count", 1)
    lists, found = breaks(editor)
    assert {rule for rule, _ in found} == {"list_link"}
    assert len(lists.members[on_list(lists, order, migratetype)]) < len(pfns)


def test_a_page_that_is_not_in_the_image(edit):
    editor = edit()
    order, migratetype, pfns = editor.longest(editor.zone(), 5)
    at = editor.dump.virt_to_phys(editor.page(pfns[2]))
    editor.ram.ranges = editor.ram.ranges.difference(Ranges([(at, at + 64)]))
    lists, found = breaks(editor)
    assert found == [("absent", pfns[1]), ("absent", pfns[3])]
    assert lists.pfns(on_list(lists, order, migratetype)).tolist() == [*pfns[:2], *pfns[3:]]


def test_without_the_pagesets_the_free_lists_are_still_read(edit):
    editor = edit()
    (pageset,) = pagesets(editor.dump, editor.zone())
    page = editor.dump.virt_to_phys(pageset.address) & -4096
    editor.ram.ranges = editor.ram.ranges.difference(Ranges([(page, page + 4096)]))
    lists, found = breaks(editor)
    assert found == []
    assert {each.cpu for each in lists.lists} == {None}
    assert len(lists.lists) == 2 * 11 * 6
