# SPDX-License-Identifier: GPL-2.0-only
"""Healthy images are clean, and every rule is broken once to see it found."""

from __future__ import annotations

import pytest

from physmem.inspect.check import RULES, check, report
from physmem.inspect.zones import pagesets, populated_zones
from physmem.ranges import Ranges

UNMOVABLE, MOVABLE, CMA, ISOLATE = 0, 2, 4, 5

#: What a real 4.0 got wrong: pages drained while half of a pair of blocks was isolated are counted twice.
FLAWED = {("n128cma_s17_contig", "B"): {"nr_free_pages", "nr_free_cma"}}


def test_real_images_are_clean(image, open_case):
    case, which, _ = image
    found = check(open_case(case, which))
    assert set(found.counts) == FLAWED.get((case, which), set()), found.findings
    assert found.not_checked == {}


def test_the_flaw_of_a_real_kernel_is_told_in_numbers(open_case):
    found = [str(each) for each in check(open_case("n128cma_s17_contig", "B")).findings]
    assert found == [
        "nr_free_pages: node 0 zone DMA32: NR_FREE_PAGES 24485, 23973 on the lists",
        "nr_free_cma: node 0 zone DMA32: NR_FREE_CMA_PAGES 4130, 3618 on the lists",
    ]


# -- one way to break each rule: changes the memory, and returns the PFN that is to be blamed --------------------------


def a_pageset(editor):
    return pagesets(editor.dump, editor.zone())[0]


def a_free_block(editor, least_order=1, zone="DMA32"):
    """PFN and order of a free block of at least this order; its list is sound."""
    for order, heads in enumerate(editor.zone(zone).free_lists[least_order:], least_order):
        for head in heads:
            if head.next != head.address:
                return editor.pfn_of(head.next), order
    raise AssertionError("no such block")


def a_pcp_page(editor):
    return editor.entries(a_pageset(editor).lists[UNMOVABLE].address)[1]


def set_pageblock(editor, pfn, flags):
    """Set the four flag bits of a pageblock of section 0."""
    root = editor.dump.u64(editor.dump.symbols["mem_section"])
    at = editor.dump.virt_to_phys(editor.get(root, "mem_section", "pageblock_flags")) + 8 * (pfn >> 13)
    shift = 60 - 4 * (pfn >> 9 & 15)
    editor.ram.set_u64(at, editor.ram.u64(at) & ~(15 << shift) | flags << shift)


def move(editor, pfn, zone, order, migratetype):
    """Put a free block on another list, as it is."""
    editor.unlink(pfn)
    editor.link(pfn, editor.zone(zone).free_lists[order][migratetype].address)


def count_free(editor, order, delta, zone="DMA32"):
    area = editor.zone(zone).free_lists[order][0].address
    editor.add(area, "free_area", "nr_free", delta)


BREAKERS = {}


def breaks(rule, *others):
    """Register a way to break ``rule``; ``others`` are broken inevitably with it."""

    def register(breaker):
        BREAKERS[breaker.__name__] = (rule, {rule, *others}, breaker)
        return breaker

    return register


@breaks("pointer")
def a_section_that_leads_nowhere(editor):
    editor.set_symbol("mem_section", 0xFFFFE00000000000)


@breaks("pointer")
def a_pageset_that_leads_nowhere(editor):
    editor.set(editor.zone().address, "zone", "pageset", 0x1234567890000000)


@breaks("cpu_online")
def no_cpu(editor):
    editor.set_symbol("cpu_online_bits", 0)


@breaks("node_data")
def a_node_twice(editor):
    editor.set_symbol("node_data", editor.dump.pgdats[0], 8)


@breaks("node_span")
def a_node_beyond_physical_memory(editor):
    editor.set(editor.dump.pgdats[0], "pglist_data", "node_spanned_pages", 1 << 40)


@breaks("node_span")
def a_node_that_ends_before_its_zones(editor):
    editor.add(editor.dump.pgdats[0], "pglist_data", "node_start_pfn", -1)


@breaks("node_pages")
def a_node_that_misses_a_page(editor):
    editor.add(editor.dump.pgdats[0], "pglist_data", "node_present_pages", -1)


@breaks("zone_identity")
def a_node_with_another_id(editor):
    editor.set(editor.dump.pgdats[0], "pglist_data", "node_id", 1)


@breaks("zone_identity")
def a_zone_of_another_node(editor):
    editor.set(editor.zone().address, "zone", "node", 3)


@breaks("zone_identity")
def a_zone_with_another_pgdat(editor):
    editor.add(editor.zone().address, "zone", "zone_pgdat", 64)


@breaks("zone_order")
def zones_that_overlap(editor):
    editor.add(editor.zone("DMA").address, "zone", "spanned_pages", 1)


@breaks("zone_pages")
def more_managed_than_present(editor):
    zone = editor.zone()
    editor.set(zone.address, "zone", "managed_pages", zone.present + 1)


@breaks("zone_pages", "node_pages")
def more_present_than_spanned(editor):
    zone = editor.zone()
    editor.set(zone.address, "zone", "present_pages", zone.spanned + 1)


@breaks("watermark_order")
def watermarks_in_disorder(editor):
    editor.set(editor.zone().address, "zone", "watermark", 1 << 40, index=1)


@breaks("list_link")
def a_link_to_nowhere(editor):
    _, _, pfns = editor.longest(editor.zone())
    editor.set_next(editor.lru(pfns[1]), 0xFFFFEA0000000000)
    return pfns[1]


@breaks("list_broken")
def a_neighbour_that_does_not_lead_back(editor):
    _, _, pfns = editor.longest(editor.zone())
    editor.set_prev(editor.lru(pfns[2]), editor.lru(pfns[0]))
    return pfns[2]


@breaks("list_broken")
def a_broken_per_cpu_list(editor):
    pfns = editor.entries(a_pageset(editor).lists[UNMOVABLE].address)
    editor.set_prev(editor.lru(pfns[2]), editor.lru(pfns[0]))
    return pfns[2]


@breaks("list_cycle")
def a_cycle(editor):
    _, _, pfns = editor.longest(editor.zone())
    editor.set_next(editor.lru(pfns[-1]), editor.lru(pfns[0]))
    return pfns[-1]


@breaks("two_lists")
def a_page_on_two_lists(editor):
    _, _, pfns = editor.longest(editor.zone())
    head = editor.zone().free_lists[10][ISOLATE].address
    editor.set_next(head, editor.lru(pfns[1]))
    return pfns[1]


@breaks("list_zone", "list_page_zone", "nr_free", "nr_free_pages")
def a_page_on_a_list_of_another_zone(editor):
    pfn, order = a_free_block(editor, zone="DMA")
    move(editor, pfn, "DMA32", order, UNMOVABLE)
    return pfn


@breaks("list_page_zone", "page_zone")
def a_page_on_a_list_that_names_another_zone(editor):
    pfn, _ = a_free_block(editor)
    editor.set_page(pfn, "flags", editor.get_page(pfn, "flags") ^ 1 << editor.dump.layout.constant("ZONES_PGSHIFT"))
    return pfn


@breaks("buddy_without_list")
def a_mark_on_a_page_in_use(editor):
    editor.set_page(28889, "_mapcount", -128)
    return 28889


@breaks("buddy_without_list", "nr_free", "nr_free_pages")
def a_block_that_is_lost(editor):
    pfn, _ = a_free_block(editor)
    editor.unlink(pfn)
    return pfn


@breaks("free_without_buddy")
def a_block_without_mark(editor):
    pfn, _ = a_free_block(editor)
    editor.set_page(pfn, "_mapcount", -1)
    return pfn


@breaks("pcp_buddy", "block_order")
def a_mark_on_a_per_cpu_page(editor):
    pfn = a_pcp_page(editor)
    editor.set_page(pfn, "_mapcount", -128)
    editor.set_page(pfn, "private", 1)
    return pfn


@breaks("block_order")
def a_block_of_another_order(editor):
    pfn, order = a_free_block(editor)
    editor.set_page(pfn, "private", order - 1)
    return pfn


@breaks("block_order", "buddy_without_list")
def a_lost_block_of_impossible_order(editor):
    editor.set_page(28889, "_mapcount", -128)
    editor.set_page(28889, "private", 11)
    return 28889


@breaks("block_align")
def a_block_that_is_moved_by_a_page(editor):
    # The last page of the block now ends up outside; the page before is lost, which no rule forbids.
    pfn, order = a_free_block(editor, 2)
    before, after = editor.prev(editor.lru(pfn)), editor.next(editor.lru(pfn))
    editor.set_page(pfn, "_mapcount", -1)
    editor.set_page(pfn + 1, "_mapcount", -128)
    editor.set_page(pfn + 1, "private", order)
    editor.join(before, editor.lru(pfn + 1))
    editor.join(editor.lru(pfn + 1), after)
    return pfn + 1


@breaks("block_zone")
def a_block_across_the_end_of_its_zone(editor):
    order, _, pfns = editor.longest(editor.zone(), 20)
    assert order == 10
    zone = editor.zone()
    editor.set(zone.address, "zone", "spanned_pages", max(pfns) + 512 - zone.start_pfn)
    return max(pfns)


@breaks("block_overlap", "nr_free", "nr_free_pages")
def a_block_inside_another(editor):
    pfn, _ = a_free_block(editor, 4)
    inside = pfn + 4
    editor.set_page(inside, "_mapcount", -128)
    editor.set_page(inside, "private", 2)
    editor.link(inside, editor.zone().free_lists[2][UNMOVABLE].address)
    return inside


@breaks("block_overlap", "pcp_count")
def a_per_cpu_page_inside_a_block(editor):
    pfn, _ = a_free_block(editor, 4)
    editor.link(pfn + 3, a_pageset(editor).lists[UNMOVABLE].address)
    editor.set_page(pfn + 3, "index", UNMOVABLE)
    return pfn + 3


@breaks("block_merge")
def buddies_that_are_not_merged(editor):
    pfn, order = a_free_block(editor, 3)
    half = 1 << order - 1
    editor.unlink(pfn)
    count_free(editor, order, -1)
    for each in (pfn, pfn + half):
        editor.set_page(each, "_mapcount", -128)
        editor.set_page(each, "private", order - 1)
        editor.link(each, editor.zone().free_lists[order - 1][MOVABLE].address)
        count_free(editor, order - 1, 1)
    return pfn


@breaks("page_zone")
def a_page_of_another_zone(editor):
    editor.set_page(5000, "flags", editor.get_page(5000, "flags") ^ 1 << editor.dump.layout.constant("ZONES_PGSHIFT"))
    return 5000


@breaks("page_zone")
def a_page_of_another_node(editor):
    editor.set_page(5000, "flags", editor.get_page(5000, "flags") ^ 1 << editor.dump.layout.constant("NODES_PGSHIFT"))
    return 5000


@breaks("free_count")
def a_free_page_with_a_reference(editor):
    pfn, _ = a_free_block(editor)
    editor.set_page(pfn + 1, "_count", 1)
    return pfn + 1


@breaks("free_count")
def a_per_cpu_page_with_a_reference(editor):
    pfn = a_pcp_page(editor)
    editor.set_page(pfn, "_count", -1)
    return pfn


@breaks("free_mapcount")
def a_free_page_that_is_mapped(editor):
    pfn, _ = a_free_block(editor)
    editor.set_page(pfn + 1, "_mapcount", 0)
    return pfn + 1


@breaks("free_mapping")
def a_free_page_with_a_mapping(editor):
    pfn, _ = a_free_block(editor)
    editor.set_page(pfn, "mapping", 1)
    return pfn


@breaks("free_flags")
def a_free_page_with_a_flag(editor):
    pfn = a_pcp_page(editor)
    editor.set_page(pfn, "flags", editor.get_page(pfn, "flags") | 1 << editor.dump.layout.enumerator("PG_dirty"))
    return pfn


@breaks("nr_free")
def a_wrong_count_of_blocks(editor):
    count_free(editor, 3, 1)


@breaks("nr_free_pages")
def a_wrong_count_of_free_pages(editor):
    editor.add(a_pageset(editor).address, "per_cpu_pageset", "vm_stat_diff", 1, index=0)


@breaks("pcp_count")
def a_wrong_count_of_per_cpu_pages(editor):
    editor.add(a_pageset(editor).address, "per_cpu_pageset", "pcp.count", -1)


@breaks("nr_free_cma")
def a_wrong_count_of_cma_pages(editor):
    item = editor.dump.layout.enumerator("NR_FREE_CMA_PAGES")
    editor.add(a_pageset(editor).address, "per_cpu_pageset", "vm_stat_diff", 1, index=item)


@breaks("nr_isolate_pageblock")
def a_wrong_count_of_isolated_pageblocks(editor):
    editor.add(editor.zone().address, "zone", "nr_isolate_pageblock", 1)


@breaks("vm_stat")
def a_statistic_that_does_not_add_up(editor):
    item = editor.dump.layout.enumerator("NR_FILE_PAGES")
    editor.add(editor.zone().address, "zone", "vm_stat", 1, index=item)


@breaks("pageblock_type")
def a_pageblock_of_unknown_type(editor):
    set_pageblock(editor, 24576, 7 << 1)
    return 24576


@breaks("cma_list")
def a_cma_pageblock_with_other_free_pages(editor):
    pfn, _ = a_free_block(editor)
    set_pageblock(editor, pfn, CMA << 1)
    return pfn


@breaks("cma_list", "nr_free_cma")
def a_cma_list_with_other_pages(editor):
    pfn, order = a_free_block(editor)
    move(editor, pfn, "DMA32", order, CMA)
    return pfn


@breaks("isolate_list", "nr_free_pages")
def a_page_that_is_isolated_outside_of_an_isolated_pageblock(editor):
    pfn, order = a_free_block(editor)
    move(editor, pfn, "DMA32", order, ISOLATE)
    return pfn


@breaks("pcp_migratetype")
def a_per_cpu_page_of_another_type(editor):
    pfn = a_pcp_page(editor)
    editor.set_page(pfn, "index", MOVABLE)
    return pfn


@breaks("page_array")
def two_parts_of_the_page_array_that_are_one(editor):
    entries = [list(editor.dump.steps(editor.mem_map + (i << 21)))[2].at for i in (0, 1)]
    editor.ram.set_u64(entries[1], editor.ram.u64(entries[0]))


@pytest.mark.parametrize("name", BREAKERS)
def test_what_is_broken_is_found(name, edit):
    rule, together, breaker = BREAKERS[name]
    editor = edit("n256x2_s6n" if rule == "page_array" else "n128_s1")
    pfn = breaker(editor)
    found = check(editor.dump.over(editor.ram))
    assert (rule, pfn) in [(each.rule, each.pfn) for each in found.findings], found.findings
    # A single fault does not look like many, unless the damage is to what everything hangs on.
    if name != "a_block_across_the_end_of_its_zone":
        assert together <= set(found.counts) <= together | ALSO.get(name, set()), found.findings
    assert all("\n" not in str(each) for each in found.findings)


#: Rules that are broken besides, depending on what lies beside the damage.
ALSO = {
    "a_block_that_is_moved_by_a_page": {"free_count", "free_mapcount", "free_mapping", "free_flags", "block_overlap"},
    "a_cma_pageblock_with_other_free_pages": {"pcp_migratetype"},
}


#: Rules for which these images do not have what is needed: see test_modern_damage.py.
ELSEWHERE = {"block_ram", "block_hole"}


def test_every_rule_is_broken_once():
    assert {rule for rule, _, _ in BREAKERS.values()} == set(RULES) - ELSEWHERE


def test_rules_have_a_meaning():
    assert all(meaning and "\n" not in meaning and not meaning.endswith(".") for meaning in RULES.values())


# -- what cannot be checked --------------------------------------------------------------------------------------------


def without(editor, address, size=4096):
    """Make the page of a kernel address absent."""
    page = editor.dump.virt_to_phys(address) & -4096
    editor.ram.ranges = editor.ram.ranges.difference(Ranges([(page, page + size)]))
    return check(editor.dump.over(editor.ram))


def test_without_pagesets(edit):
    editor = edit()
    found = without(editor, a_pageset(editor).address)
    assert found.clean
    # The per-cpu lists are not there to be walked, and what CPUs have not folded in is unknown.
    assert set(found.not_checked) == {
        *("list_link", "list_broken", "list_cycle", "two_lists", "list_zone"),
        *("pcp_buddy", "pcp_count", "pcp_migratetype", "nr_free_pages", "nr_free_cma"),
    }


def test_without_pageblock_flags(edit):
    editor = edit("n256x2_s6n")
    root = editor.dump.u64(editor.dump.symbols["mem_section"])
    found = without(editor, editor.get(root, "mem_section", "pageblock_flags"))
    assert found.clean
    assert {"pageblock_type", "cma_list", "isolate_list", "nr_isolate_pageblock"} <= set(found.not_checked)


def test_without_some_struct_pages(edit):
    editor = edit()
    _, _, pfns = editor.longest(editor.zone(), 5)
    found = without(editor, editor.page(pfns[1]))
    assert found.clean, found.findings
    for rule in ("list_link", "nr_free", "nr_free_pages", "free_count", "page_zone", "buddy_without_list"):
        assert rule in found.not_checked
    assert "struct pages, from pfn" in found.not_checked["page_zone"][0]


def test_without_the_global_statistics(edit):
    editor = edit()
    found = without(editor, editor.dump.symbols["vm_stat"])
    assert "vm_stat" in found.not_checked
    assert found.clean


def test_without_anything(edit):
    editor = edit()
    editor.ram.ranges = Ranges()
    found = check(editor.dump.over(editor.ram))
    assert found.clean
    assert set(found.not_checked) == set(RULES) - {"pointer", "cpu_online", "page_array", "block_ram"}


def test_a_kernel_without_numa_and_smp_is_checked_all_the_same(open_case):
    assert check(open_case("u128_s1")).not_checked == {}


# -- very much that is wrong -------------------------------------------------------------------------------------------


def test_no_more_findings_are_kept_than_there_is_room_for(edit, monkeypatch):
    monkeypatch.setattr(report, "MAX_LISTED", 100)
    editor = edit()
    for pfn in range(0x5000, 0x5000 + 1024):
        editor.set_page(pfn, "mapping", 8)
    found = check(editor.dump)
    assert found.counts == {"free_mapping": 1024}
    assert [each.pfn for each in found.findings] == list(range(0x5000, 0x5000 + 100))
    assert not found.clean


def test_isolated_pageblocks_are_not_merged_and_not_counted(edit):
    """Isolate half of a free block of order 10, as start_isolate_page_range and a free would leave it."""
    editor = edit()
    pfn = 0x5000
    editor.unlink(pfn)
    count_free(editor, 10, -1)
    for each, kind in ((pfn, ISOLATE), (pfn + 512, MOVABLE)):
        editor.set_page(each, "_mapcount", -128)
        editor.set_page(each, "private", 9)
        editor.link(each, editor.zone().free_lists[9][kind].address)
        count_free(editor, 9, 1)
    editor.set(editor.zone().address, "zone", "nr_isolate_pageblock", 1)
    set_pageblock(editor, pfn, ISOLATE << 1)
    editor.add(editor.zone().address, "zone", "vm_stat", -512)
    editor.set_symbol("vm_stat", sum(zone.vm_stat["NR_FREE_PAGES"] for zone in populated_zones(editor.dump)))
    assert check(editor.dump).findings == []
