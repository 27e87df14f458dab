# SPDX-License-Identifier: GPL-2.0-only
"""The texts of /proc against the kernel's own, of every image.

buddyinfo was read closest to the images, and is equal byte for byte.  The others were read a moment
earlier (A) or later (B), while the process that read them allocated and freed a few pages: the
rows that this changes are named here, and all others must be equal.
"""

from __future__ import annotations

import dataclasses

import pytest

from physmem.errors import AbsentError
from physmem.inspect.buddyinfo import buddyinfo
from physmem.inspect.pagetypeinfo import pagetypeinfo
from physmem.inspect.zoneinfo import all_unreclaimable, stat_name, zoneinfo
from physmem.inspect.zones import populated_zones
from physmem.ranges import Ranges


def rows_that_differ(found: str, expected: str) -> list[str]:
    """The rows of ``found`` that are not those of ``expected``; there must be as many."""
    both = list(zip(found.splitlines(), expected.splitlines(), strict=True))
    return [mine for mine, theirs in both if mine != theirs]


def test_buddyinfo(image, open_case, proc):
    case, which, when = image
    assert buddyinfo(populated_zones(open_case(case, which))) == proc(case, "buddyinfo", when)


def test_pagetypeinfo(image, open_case, proc):
    case, which, when = image
    found = pagetypeinfo(open_case(case, which))
    assert found.breaks == ()
    # A column of the table of free blocks adds up to buddyinfo's.
    for each in found.zones:
        assert [sum(blocks) for blocks in zip(*each.free, strict=True)] == list(each.zone.nr_free)
    differ = rows_that_differ(found.text(), proc(case, "pagetypeinfo", when))
    if which == "A":
        assert all("type    Unmovable" in row for row in differ)
    else:
        assert all(", type " in row for row in differ) or case == "n128cma_s17_contig"


def test_zoneinfo(image, open_case, proc):
    case, which, when = image
    dump = open_case(case, which)
    found = "".join(zoneinfo(dump, zone) for zone in populated_zones(dump))
    differ = {row.split()[0] for row in rows_that_differ(found, proc(case, "zoneinfo", when))}
    moving = {"pages", "nr_free_pages", "nr_kernel_stack"}
    if which == "B":
        # What the process did between B and its look at /proc.
        moving |= {"count:", "nr_alloc_batch", "nr_active_anon", "nr_inactive_anon", "nr_anon_pages", "numa_hit"}
        moving |= {"numa_local", "numa_other", "numa_interleave", "nr_page_table_pages", "nr_free_cma"}
        moving |= {"nr_slab_unreclaimable", "nr_slab_reclaimable"}
    assert differ <= moving | {"all_unreclaimable:"}


def test_the_names_of_statistics(open_case, proc):
    said = [line.split()[0] for line in proc("n128_s1", "vmstat", "before A").splitlines()]
    zone = next(populated_zones(open_case("n128_s1")))
    assert [stat_name(item) for item in zone.vm_stat] == said[: len(zone.vm_stat)]


def test_a_negative_statistic(open_case):
    smp, up = open_case("n128_s1"), open_case("u128_s1")
    for dump, shown in ((smp, "0"), (up, str(2**64 - 2))):
        zone = next(populated_zones(dump))
        zone = dataclasses.replace(zone, vm_stat=zone.vm_stat | {"NR_ALLOC_BATCH": -2})
        assert f"    nr_alloc_batch {shown}\n" in zoneinfo(dump, zone)


@pytest.mark.parametrize(
    ("file", "anon", "scanned", "expected"),
    [
        (10, 0, 59, False),
        (10, 0, 60, True),
        (10, 10, 59, False),
        (10, 10, 60, None),  # depends on whether there is swap space
        (10, 10, 119, None),
        (10, 10, 120, True),
    ],
)
def test_all_unreclaimable(open_case, file, anon, scanned, expected):
    dump = open_case("n128_s1")
    zone = next(populated_zones(dump))
    stat = {"NR_ACTIVE_FILE": file, "NR_INACTIVE_FILE": 0, "NR_ACTIVE_ANON": 0, "NR_INACTIVE_ANON": anon}
    zone = dataclasses.replace(zone, vm_stat=zone.vm_stat | stat | {"NR_PAGES_SCANNED": scanned})
    assert all_unreclaimable(dump, zone) is expected
    shown = "?" if expected is None else str(int(expected))
    assert f"  all_unreclaimable: {shown}\n" in zoneinfo(dump, zone)


def test_pagetypeinfo_of_a_broken_list_counts_what_it_finds(edit):
    editor = edit()
    order, migratetype, pfns = editor.longest(editor.zone(), 5)
    editor.set_next(editor.lru(pfns[1]), 0)
    found = pagetypeinfo(editor.dump)
    assert [(each.rule, each.pfn) for each in found.breaks] == [("list_link", pfns[1])]
    assert found.zones[1].free[migratetype][order] == len(pfns)


def test_pagetypeinfo_needs_the_pageblock_flags(edit):
    editor = edit()
    section = editor.dump.u64(editor.dump.symbols["mem_section"])
    usemap = editor.dump.virt_to_phys(editor.get(section, "mem_section", "pageblock_flags"))
    editor.ram.ranges = editor.ram.ranges.difference(Ranges([(usemap & -4096, (usemap & -4096) + 4096)]))
    with pytest.raises(AbsentError):
        pagetypeinfo(editor.dump)
