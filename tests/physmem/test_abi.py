# SPDX-License-Identifier: GPL-2.0-only
"""The hot rooms' compile-time constants are the declared layouts' numbers, for every configuration."""

from __future__ import annotations

import pytest

from physmem import abi
from physmem.structs import linux_4_0
from physmem.structs.layout import Layout

FIELDS = {
    "PAGE_FLAGS": ("page", "flags"),
    "PAGE_MAPPING": ("page", "mapping"),
    "PAGE_INDEX": ("page", "index"),
    "PAGE_PFMEMALLOC": ("page", "pfmemalloc"),
    "PAGE_MAPCOUNT": ("page", "_mapcount"),
    "PAGE_COUNT": ("page", "_count"),
    "PAGE_LRU": ("page", "lru"),
    "PAGE_LRU_PREV": ("page", "lru.prev"),
    "PAGE_COMPOUND_DTOR": ("page", "compound_dtor"),
    "PAGE_COMPOUND_ORDER": ("page", "compound_order"),
    "PAGE_PRIVATE": ("page", "private"),
    "PAGE_FIRST_PAGE": ("page", "first_page"),
    "LIST_NEXT": ("list_head", "next"),
    "LIST_PREV": ("list_head", "prev"),
    "PCP_COUNT": ("per_cpu_pageset", "pcp.count"),
    "PCP_HIGH": ("per_cpu_pageset", "pcp.high"),
    "PCP_BATCH": ("per_cpu_pageset", "pcp.batch"),
    "PCP_LISTS": ("per_cpu_pageset", "pcp.lists"),
    "ZONEREF_ZONE": ("zoneref", "zone"),
    "ZONEREF_ZONE_IDX": ("zoneref", "zone_idx"),
}
SIZES = {"SIZEOF_PAGE": "page", "SIZEOF_LIST_HEAD": "list_head", "SIZEOF_ZONEREF": "zoneref"}
#: Constants that have another name in C.
CONSTANTS = {"PAGEBLOCK_ORDER": "pageblock_order", "PAGEBLOCK_NR_PAGES": "pageblock_nr_pages"}
#: What follows from another constant.
DERIVED = {"PAGE_SIZE": 1 << abi.PAGE_SHIFT, "SIZEOF_PAGE_SHIFT": abi.SIZEOF_PAGE.bit_length() - 1}
#: include/linux/sched.h: the layouts, which are of the page allocator, have PF_MEMALLOC alone.
SCHED_H = {"PF_EXITING": 0x00000004, "PF_MEMALLOC_NOIO": 0x00080000}


@pytest.fixture(params=sorted(linux_4_0.CONFIGS))
def layout(request: pytest.FixtureRequest) -> Layout:
    return linux_4_0.layout(linux_4_0.CONFIGS[request.param])


def numbers() -> dict[str, int]:
    return {name: value for name, value in vars(abi).items() if isinstance(value, int) and not name.startswith("_")}


def expected(layout: Layout, name: str) -> int:
    if name in DERIVED:
        return DERIVED[name]
    if name in SCHED_H:
        return SCHED_H[name]
    if name in FIELDS:
        return layout.offsetof(*FIELDS[name])
    if name in SIZES:
        return layout.sizeof(SIZES[name])
    return layout.constant(CONSTANTS.get(name, name), signed=True)


@pytest.mark.parametrize("name", numbers())
def test_a_constant_is_the_layouts(layout: Layout, name: str) -> None:
    assert numbers()[name] == expected(layout, name)


def test_nothing_in_the_tables_is_left_over() -> None:
    assert FIELDS.keys() | SIZES.keys() | CONSTANTS.keys() | DERIVED.keys() <= numbers().keys()
