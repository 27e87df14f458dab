# SPDX-License-Identifier: GPL-2.0-only
"""What the compiled engine does not ask at every access is asked when a kernel is attached."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kernelmm import Machine, gfp
from kernelmm.core import bounds, buddy, entry, free, mmzone
from kernelmm.core.mm import Mm
from physmem import abi, address
from physmem.errors import AddressError, CorruptionError, LayoutError, SymbolError, UsageError


@pytest.fixture
def mm(oracle: Callable[[str], Any]) -> Iterator[Mm]:
    with Machine.attach(oracle("n128_s1").a) as machine:
        yield machine.mm


FIELDS = [
    "zone_watermark",
    "zone_lowmem_reserve",
    "zone_node",
    "zone_pgdat",
    "zone_pageset",
    "zone_start_pfn",
    "zone_managed_pages",
    "zone_spanned_pages",
    "zone_present_pages",
    "zone_nr_isolate_pageblock",
    "zone_free_area",
    "zone_flags",
    "zone_lock",
    "zone_percpu_drift_mark",
    "zone_vm_stat",
    "zone_pageblock_flags",
    "free_area_nr_free",
    "pageset_stat_threshold",
    "pageset_vm_stat_diff",
    "pgdat_kswapd_wait_lock",
    "pgdat_kswapd_wait_task_list",
    "pgdat_kswapd_max_order",
    "pgdat_classzone_idx",
    "zonelist_zonerefs",
    "zlc_fullzones",
]
NUMBERS = ["nr_free_cma_pages", "nr_pages_scanned", "numa_hit", "numa_other", "pgfree", "pgalloc", "migrate_types"]


def test_a_kernel_as_it_is(mm: Mm) -> None:
    bounds.check(mm)


@pytest.mark.parametrize("field", FIELDS)
def test_a_field_outside_its_struct(mm: Mm, field: str) -> None:
    setattr(mm, field, 1 << 32)
    with pytest.raises(LayoutError, match=r"is outside its \d+ bytes, or not aligned"):
        bounds.check(mm)


@pytest.mark.parametrize("field", [name for name in FIELDS if not name.endswith(("lock", "threshold", "diff"))])
def test_a_field_that_is_not_aligned(mm: Mm, field: str) -> None:
    setattr(mm, field, getattr(mm, field) + 1)
    with pytest.raises(LayoutError, match="not aligned"):
        bounds.check(mm)


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("value", [1 << 20, -9])
def test_a_number_that_leads_out_of_an_array(mm: Mm, number: str, value: int) -> None:
    setattr(mm, number, value)
    with pytest.raises((LayoutError, SymbolError), match=r"outside|aligned|the number of none"):
        bounds.check(mm)


@pytest.mark.parametrize("struct", ["zone", "free_area", "pageset", "pgdat", "zonelist", "zlc", "vm_event_state"])
@pytest.mark.parametrize("size", [8, 1 << 40])
def test_a_struct_too_small_or_larger_than_memory(mm: Mm, struct: str, size: int) -> None:
    setattr(mm, f"sizeof_{struct}", size)
    with pytest.raises(LayoutError, match=r"is outside its|more than the memory has"):
        bounds.check(mm)


@pytest.mark.parametrize(
    "variable",
    [
        "node_data",
        "mem_section",
        "vm_stat",
        "gfp_allowed_mask",
        "page_group_by_mobility_disabled",
        "jiffies",
        "nr_online_nodes",
        "zone_reclaim_mode",
        "node_states_memory",
        "cpu_online_bits",
        "fail_page_alloc",
    ],
)
def test_a_variable_outside_memory(mm: Mm, variable: str) -> None:
    for place in (mm.size, mm.size - 2, 1 << 63, (1 << 64) - 8):
        setattr(mm, f"var_{variable}", place)
        with pytest.raises(SymbolError, match=r"bytes at physical 0x[0-9a-f]+ are outside the memory, or not aligned"):
            bounds.check(mm)


def test_a_page_array_that_is_not_aligned(mm: Mm) -> None:
    mm.mem_map += 8
    with pytest.raises(LayoutError, match="not aligned to its entries"):
        bounds.check(mm)


def test_a_struct_must_be_in_memory_to_its_end(mm: Mm) -> None:
    last = mm.page_offset + mm.size - mm.sizeof_zone
    assert mmzone.zone_off(mm, last & ~7) == (last & ~7) - mm.page_offset
    for va in (last + 8, mm.page_offset + mm.size - 8, mm.page_offset + mm.size, (1 << 64) - 8, 0):
        with pytest.raises(AddressError):
            mmzone.zone_off(mm, va)


def test_a_block_must_be_in_memory_to_its_end(mm: Mm) -> None:
    # The page array's first piece, as if it were the last of memory.
    chunk = 1 << mm.memmap_shift
    mm.memmap[0] = mm.size - chunk
    last = chunk // abi.SIZEOF_PAGE - 1
    page = address.pfn_to_page(mm, last)
    assert address.block_off(mm, page, 0) == mm.size - abi.SIZEOF_PAGE
    assert address.buddies_off(mm, page, last) == mm.size - abi.SIZEOF_PAGE
    for order in (1, 10, 11, 31, 32, 63, (1 << 32) - 1):
        with pytest.raises(CorruptionError, match=f"no block of order {order} begins at {page:#x}"):
            address.block_off(mm, page, order)
    with pytest.raises(CorruptionError, match="no block of order 10"):
        address.buddies_off(mm, page, 0)
    mm.memmap[0] = mm.size - chunk + 64
    with pytest.raises(CorruptionError, match="is not an element of the page array"):
        address.page_off(mm, page)
    assert not address.pfn_has_page(mm, last)
    assert address.lookup(mm, page) == (1 << 64) - 1


@pytest.mark.parametrize("order", [16, 20, 31, 32, 63, (1 << 32) - 1])
def test_a_block_that_is_larger_than_the_page_array(mm: Mm, order: int) -> None:
    page = entry.alloc_pages(mm, gfp.GFP_ATOMIC, 0)
    assert entry.alloc_pages(mm, gfp.GFP_ATOMIC | gfp.__GFP_NOWARN, order) == 0
    before = bytes(mm.as_u8)
    with pytest.raises(CorruptionError, match="page_pointer"):
        free.__free_pages_ok(mm, page, order)
    assert bytes(mm.as_u8) == before


def test_a_block_for_which_there_is_no_list(mm: Mm) -> None:
    page = entry.alloc_pages(mm, gfp.GFP_ATOMIC, 0)
    zone = mmzone.page_zone(mm, address.page_off(mm, page))
    z = mmzone.zone_off(mm, zone)
    pfn = address.page_to_pfn(mm, page)
    before = bytes(mm.as_u8)
    with pytest.raises(CorruptionError, match="no block of order 11"):
        buddy.__free_one_page(mm, page, pfn, zone, z, mmzone.this_cpu_pageset(mm, z), 11, 0)
    assert bytes(mm.as_u8) == before


def test_a_node_that_there_cannot_be(mm: Mm) -> None:
    for nid in (mm.nodes_mask + 1, (1 << 31) - 1):
        with pytest.raises(UsageError, match=f"node {nid}: the kernel is built for {mm.nodes_mask + 1}"):
            entry.alloc_pages_node(mm, nid, gfp.GFP_ATOMIC, 0)
