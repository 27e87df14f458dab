# SPDX-License-Identifier: GPL-2.0-only
"""A dump of 6.1 that is damaged in one place: check, diff, page and the states say so, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from physmem.dump import open_dump
from physmem.inspect.check import check
from physmem.inspect.diff import diff
from physmem.inspect.page import inspect_page
from physmem.inspect.states import State, survey
from physmem.inspect.what import Place, Region
from physmem.inspect.zones import pagesets, populated_zones
from physmem.ranges import Ranges
from tests.physmem.inspect.conftest import Editor

DATA = Path(__file__).parents[2] / "data" / "vmcores"


@pytest.fixture(scope="module")
def dump():
    with open_dump(DATA / "deb61-256m" / "image.vmcore.xz") as opened:
        yield opened


@pytest.fixture
def editor(dump):
    return Editor(dump)


def first_block(editor, least=2):
    for zone in populated_zones(editor.dump):
        for order, heads in enumerate(zone.free_lists[least:], least):
            for head in heads:
                if head.next != head.address:
                    return zone, editor.pfn_of(head.next), order
    raise AssertionError("no free block")


def found(editor):
    return set(check(editor.dump).counts)


def ask(editor, pfn):
    return inspect_page(editor.dump, Place(Region.PFN, pfn, pfn, 0)).verdict


def test_a_reference_to_a_free_page(editor):
    _, pfn, order = first_block(editor)
    editor.set_page(pfn + 1, "_refcount", 1)
    assert found(editor) == {"free_count"}
    verdict = ask(editor, pfn + 1)
    assert (verdict.state, verdict.order) == (State.SUSPICIOUS, order)
    assert verdict.summary.endswith("; but _refcount is 1")
    piece = next(iter(survey(editor.dump)))
    assert list(State)[piece.states[pfn + 1]] is State.SUSPICIOUS
    assert list(State)[piece.states[pfn + 2]] is State.FREE


def test_a_page_on_a_list_of_a_zone_that_it_does_not_name(editor):
    _, pfn, _ = first_block(editor)
    shift = editor.dump.layout.constant("ZONES_PGSHIFT")
    editor.set_page(pfn, "flags", editor.get_page(pfn, "flags") ^ 1 << shift)
    assert found(editor) == {"list_page_zone", "page_zone"}


def set_ram(editor, was, start):
    """Let the System RAM that begins at ``was`` begin at ``start``."""
    at = editor.dump.symbols["iomem_resource"]
    child = editor.get(at, "resource", "child")
    while child:
        if editor.get(child, "resource", "start") == was:
            editor.set(child, "resource", "start", start)
        child = editor.get(child, "resource", "sibling")


def test_a_reserved_page_of_a_hole_is_of_the_zone_behind_it(editor):
    pfn, shift = 200, editor.dump.layout.constant("ZONES_PGSHIFT")
    reserved = 1 << editor.dump.layout.enumerator("PG_reserved")
    flags = editor.get_page(pfn, "flags")
    assert (flags & reserved, flags >> shift & 3) == (reserved, 0)
    editor.set_page(pfn, "flags", flags | 1 << shift)
    assert found(editor) == {"page_zone"}, "zone DMA is behind this hole"
    set_ram(editor, 0x100000, 0x1001000)
    assert "page_zone" not in found(editor), "now zone DMA32 is, as init_unavailable_range() has it"
    editor.set_page(pfn, "flags", (flags | 1 << shift) & ~reserved)
    assert "page_zone" in found(editor), "not reserved"
    editor.set_page(pfn, "flags", flags | 2 << shift)
    assert "page_zone" in found(editor), "no zone of this machine"
    editor.set_page(pfn, "flags", flags)
    editor.set_page(4200, "flags", editor.get_page(4200, "flags") & ~(3 << shift) | reserved)
    assert "page_zone" in found(editor), "no hole"


def test_a_free_block_where_there_is_no_memory(editor):
    set_ram(editor, 0x100000, 0x2000000)
    assert found(editor) == {"block_ram"}


def test_a_free_block_that_reaches_into_a_hole(editor):
    _, pfn, order = first_block(editor, 8)
    assert pfn % 64 == 0
    behind = pfn + 64  # one page of the page array further on
    table = editor.dump.virt_to_phys(editor.page(behind))  # memory that is needed no more
    editor.split_page_array(pfn, table)
    editor.ram.set_u64(editor.pte(table, behind), 0)
    report = check(editor.dump)
    assert [(each.rule, each.pfn) for each in report.findings] == [("block_hole", pfn)]
    assert report.findings[0].detail == f"order {order}: from pfn {behind} on there is no struct page"


def test_a_block_on_a_per_cpu_list_counts_all_its_pages(editor):
    zone = editor.zone()
    pageset = next(each for each in pagesets(editor.dump, zone) if each.count)
    editor.add(pageset.address, "per_cpu_pages", "count", 1)
    assert found(editor) == {"pcp_count"}


def test_without_a_part_of_the_page_array_nothing_is_called_passed(editor):
    at = editor.dump.virt_to_phys(editor.page(0x8000)) & -4096
    editor.ram.ranges = editor.ram.ranges.difference(Ranges([(at, at + 4096)]))
    report = check(editor.dump)
    assert {"page_zone", "free_count"} <= set(report.not_checked)
    assert report.clean


def test_what_changed(dump, editor):
    zone, pfn, order = first_block(editor, 3)
    # As if the block were allocated as a whole.
    editor.unlink(pfn)
    editor.add(zone.free_lists[order][0].address, "free_area", "nr_free", -1)
    editor.set_page(pfn, "page_type", 0xFFFFFFFF)
    editor.set_page(pfn, "_refcount", 1)
    changed = diff(dump, editor.dump)
    assert dict(changed.blocks.taken) == {(str(zone), order): 1}
    assert not any(count for kind, count in changed.blocks.kinds().items() if kind != "taken")
    assert changed.pages.zones[str(zone), State.FREE, State.IN_USE] == 1
    assert not changed.not_compared
    assert not diff(dump, dump)
