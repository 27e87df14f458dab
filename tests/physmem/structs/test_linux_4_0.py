# SPDX-License-Identifier: GPL-2.0-only
"""The declarations against the DWARF of two real kernels: field by field, enumerator by enumerator."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from physmem.errors import LayoutError
from physmem.structs.layout import Layout
from physmem.structs.linux_4_0 import CONFIGS, NUMA, UP, Config, differs, layout, page, recognise, structs

UNDECLARED = {
    *("alloc_context", "address_space", "mm_struct", "task_struct"),
    *("kmem_cache", "kmem_cache_cpu", "kmem_cache_node"),
}
"""Structs of layout.json that the page allocator never looks into."""

UNTOLD = {"resource"}
"""Structs that layout.json does not have: they were no part of what was captured."""


@pytest.fixture
def dwarf(kernel: Any) -> Any:
    return json.loads(kernel.layout_json)


def test_every_struct_is_declared(kernel: Any, dwarf: Any) -> None:
    assert set(kernel.compiled.structs) - UNTOLD == set(dwarf["structs"]) - UNDECLARED
    assert not UNTOLD & set(dwarf["structs"])


def test_field_by_field(kernel: Any, dwarf: Any) -> None:
    """Name, offset, size, type, kind, signedness, array length, bits - and order, and no field more."""
    compiled = json.loads(kernel.compiled.to_json())["structs"]
    for tag in set(compiled) - UNTOLD:
        assert compiled[tag]["size"] == dwarf["structs"][tag]["size"], tag
        for found, expected in zip(compiled[tag]["fields"], dwarf["structs"][tag]["fields"], strict=True):
            assert found == expected, tag


def test_resource(kernel: Any) -> None:
    """include/linux/ioport.h of 4.0: seven words, in this order; ``desc`` is of later kernels."""
    names = ["start", "end", "name", "flags", "parent", "sibling", "child"]
    told = kernel.compiled.structs["resource"]
    assert told.size == 56
    assert [(name, told.fields[name].offset, told.fields[name].size) for name in told.fields] == [
        (name, 8 * i, 8) for i, name in enumerate(names)
    ]


def test_enums(kernel: Any, dwarf: Any) -> None:
    compiled = kernel.compiled.enums
    assert {name: dict(values) for name, values in compiled.items()} == dwarf["enums"]
    assert {name: list(values) for name, values in compiled.items()} == {k: list(v) for k, v in dwarf["enums"].items()}


def test_constants(kernel: Any, dwarf: Any) -> None:
    """All but the GFP words, which are kernelmm's; and none that the kernel does not have."""
    wanted = {name: value for name, value in dwarf["constants"].items() if "GFP_" not in name}
    assert {name: kernel.compiled.constant(name) for name in wanted} == wanted
    assert set(kernel.compiled.constants) <= set(wanted)


def test_the_kernels_own_note_agrees(kernel: Any) -> None:
    note = Layout.from_vmcoreinfo(kernel.note)
    assert note.conflicts(kernel.compiled) == []
    assert note.offsetof("page", "lru") == 32


def test_each_switch_moves_what_it_should() -> None:
    def differences(**switches: Any) -> set[str]:
        changed, base = layout(replace(NUMA, **switches)), layout(NUMA)
        return {tag for tag in base.structs if changed.structs.get(tag) != base.structs[tag]}

    assert differences(hz=100) == set()
    assert differences(numa_balancing=False) == {"pglist_data", "vm_event_state"}
    assert differences(nr_cpus=2) == {"page"}  # no split page table locks
    assert differences(memory_hotplug=True) == {"zone", "pglist_data"}
    assert differences(memcg=True) == {"page", "lruvec", "zone"}  # zone has room for it before a cache line
    assert "zonelist_cache" in differences(nodes_shift=10)
    assert differences(page_extension=True) == {"mem_section"}
    assert {"arch_spinlock", "spinlock", "page", "zone"} <= differences(nr_cpus=4096)  # tickets of two bytes
    assert layout(replace(NUMA, nr_cpus=4096)).offsetof("arch_spinlock", "tickets.tail") == 2


def test_a_kernel_without_cma_and_isolation_has_fewer_lists() -> None:
    made = layout(replace(NUMA, cma=False, memory_isolation=False))
    assert made.enumerator("MIGRATE_TYPES") == made.lengthof("free_area", "free_list") == 4
    assert not made.has("zone", "nr_isolate_pageblock")
    with pytest.raises(LayoutError, match="no enumerator 'MIGRATE_CMA'"):
        made.enumerator("MIGRATE_CMA")


def test_page_flags_hold_the_section_without_a_virtual_memmap() -> None:
    made = layout(replace(NUMA, sparsemem_vmemmap=False))
    assert made.constant("SECTIONS_PGSHIFT") == 64 - 19
    assert made.constant("NODES_PGSHIFT") == 64 - 19 - 6
    assert not made.has("page", "_last_cpupid")


def test_last_cpupid_leaves_page_flags_when_it_does_not_fit() -> None:
    made = layout(replace(NUMA, sparsemem_vmemmap=False, nr_cpus=8192, nodes_shift=10))
    assert made.constant("LAST_CPUPID_WIDTH") == 0
    assert made.constant("LAST_CPUPID_MASK") == (1 << 8 + 13) - 1
    assert made.offsetof("page", "_last_cpupid") == 56


def test_flatmem() -> None:
    made = layout(replace(UP, sparsemem=False, sparsemem_vmemmap=False))
    assert not made.has("mem_section")
    assert made.has("zone", "pageblock_flags")
    assert made.has("pglist_data", "node_mem_map")
    with pytest.raises(LayoutError, match="no constant 'PAGES_PER_SECTION'"):
        made.constant("PAGES_PER_SECTION")


@pytest.mark.parametrize(
    ("switches", "rule"),
    [
        ({"smp": False}, "numa needs smp"),
        ({"numa": False}, "numa_balancing needs numa"),
        ({"nr_cpus": 0}, "nr_cpus is from 1 to 8192"),
        ({"nodes_shift": 11}, "nodes_shift is from 0 to 10"),
        ({"sparsemem": False}, "numa needs sparsemem"),
        ({"memory_isolation": False}, "cma needs memory_isolation"),
    ],
)
def test_impossible_configurations(switches: dict[str, Any], rule: str) -> None:
    with pytest.raises(LayoutError, match=rule):
        replace(NUMA, **switches)


def common(con: Any, data: bytes, obj: Any, size: int) -> None:
    """One line proves parse, build and size together."""
    assert con.sizeof() == size
    assert con.parse(data) == obj
    assert con.build(obj) == data


def u64(*values: int) -> bytes:
    return b"".join(v.to_bytes(8, "little") for v in values)


def u32(*values: int) -> bytes:
    return b"".join(v.to_bytes(4, "little") for v in values)


def lists(n: int) -> tuple[bytes, list[dict[str, int]]]:
    """``struct list_head [n]`` with distinct links."""
    return u64(*range(2 * n)), [{"next": 2 * i, "prev": 2 * i + 1} for i in range(n)]


def ticket(head: int, tail: int) -> dict[str, Any]:
    return {"rlock": {"raw_lock": {"head_tail": head | tail << 8, "tickets": {"head": head, "tail": tail}}}}


STATS = list(range(-20, 19))
NO_LOCK: dict[str, Any] = {"rlock": {"raw_lock": {}}}


@pytest.mark.parametrize(
    ("config", "tag", "data", "obj"),
    [
        (NUMA, "list_head", u64(1, 2), {"next": 1, "prev": 2}),
        (NUMA, "free_area", lists(6)[0] + u64(7), {"free_list": lists(6)[1], "nr_free": 7}),
        (NUMA, "arch_spinlock", b"\3\4", ticket(3, 4)["rlock"]["raw_lock"]),
        (NUMA, "raw_spinlock", b"\3\4", ticket(3, 4)["rlock"]),
        (NUMA, "spinlock", b"\3\4", ticket(3, 4)),
        (UP, "raw_spinlock", b"", NO_LOCK["rlock"]),
        (UP, "spinlock", b"", NO_LOCK),
        (
            NUMA,
            "__wait_queue_head",
            b"\3\4" + bytes(6) + u64(0, 1),
            {"lock": ticket(3, 4), "task_list": lists(1)[1][0]},
        ),
        (UP, "__wait_queue_head", u64(0, 1), {"lock": NO_LOCK, "task_list": lists(1)[1][0]}),
        (NUMA, "zoneref", u64(9) + u32(2, 0), {"zone": 9, "zone_idx": 2}),
        (NUMA, "mem_section", u64(3, 4), {"section_mem_map": 3, "pageblock_flags": 4}),
        (NUMA, "zone_reclaim_stat", u64(1, 2, 3, 4), {"recent_rotated": [1, 2], "recent_scanned": [3, 4]}),
        (UP, "vm_event_state", u64(*range(68)), {"event": list(range(68))}),
        (
            UP,
            "lruvec",
            lists(5)[0] + u64(1, 2, 3, 4),
            {"lists": lists(5)[1], "reclaim_stat": {"recent_rotated": [1, 2], "recent_scanned": [3, 4]}},
        ),
        (
            NUMA,
            "per_cpu_pages",
            u32(1, 2, 3, 0) + lists(3)[0],
            {"count": 1, "high": 2, "batch": 3, "lists": lists(3)[1]},
        ),
        (
            NUMA,
            "per_cpu_pageset",
            u32(1, 2, 3, 0) + lists(3)[0] + bytes(v & 255 for v in (-1, 5, *STATS)) + bytes(7),
            {
                "pcp": {"count": 1, "high": 2, "batch": 3, "lists": lists(3)[1]},
                "expire": -1,
                "stat_threshold": 5,
                "vm_stat_diff": STATS,
            },
        ),
        (
            NUMA,
            "zonelist_cache",
            b"".join(n.to_bytes(2, "little") for n in range(256)) + u64(1, 2, 3, 4, 5),
            {"z_to_n": list(range(256)), "fullzones": [1, 2, 3, 4], "last_full_zap": 5},
        ),
        (
            UP,
            "zonelist",
            u64(0) + b"".join(u64(n) + u32(n, 0) for n in range(5)),
            {"zlcache_ptr": 0, "_zonerefs": [{"zone": n, "zone_idx": n} for n in range(5)]},
        ),
        (NUMA, "memblock_region", u64(1, 2, 3) + u32(4, 0), {"base": 1, "size": 2, "flags": 3, "nid": 4}),
        (NUMA, "memblock_type", u64(1, 2, 3, 4), {"cnt": 1, "max": 2, "total_size": 3, "regions": 4}),
        (
            NUMA,
            "memblock",
            u64(1, *range(2, 11)),
            {
                "bottom_up": True,
                "current_limit": 2,
                "memory": {"cnt": 3, "max": 4, "total_size": 5, "regions": 6},
                "reserved": {"cnt": 7, "max": 8, "total_size": 9, "regions": 10},
            },
        ),
        (
            UP,
            "cma",
            u64(1, 2, 3) + u32(4, 0, 5, 0) + u64(0, 1),
            {
                "base_pfn": 1,
                "count": 2,
                "bitmap": 3,
                "order_per_bit": 4,
                "lock": {"count": {"counter": 5}, "wait_lock": NO_LOCK, "wait_list": lists(1)[1][0]},
            },
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_parse_build_size(config: Config, tag: str, data: bytes, obj: Any) -> None:
    common(structs(config)[tag], data, obj, layout(config).sizeof(tag))


def test_page() -> None:
    """A free block's head: every member of every union is read, the first one given is written."""
    data = u64(0x1 << 56, 0, 2) + u32(-128 & 0xFFFFFFFF, 0) + u64(0x100, 0x200, 3, 0)
    head = page(NUMA).parse(data)
    assert (head.flags, head.index, head.lru.next, head.lru.prev, head.private) == (1 << 56, 2, 0x100, 0x200, 3)
    assert (head._mapcount.counter, head._count.counter, head.pfmemalloc) == (-128, 0, True)
    assert (head.inuse, head.objects, head.frozen) == (0xFF80, 0x7FFF, 1)
    assert page(NUMA).build(head) == data
    assert page(NUMA).build({"flags": 1 << 56, "_mapcount": {"counter": -128}, "index": 2, "private": 3}) == (
        u64(0x1 << 56, 0, 2) + u32(-128 & 0xFFFFFFFF, 0) + u64(0, 0, 3, 0)
    )


def test_zone_and_node() -> None:
    """The large ones: what is built is read again, with gaps and padding zero."""
    for config in (NUMA, UP):
        for tag in ("zone", "pglist_data"):
            con = structs(config)[tag]
            data = con.build({})
            assert data == bytes(layout(config).sizeof(tag)) == con.build(con.parse(data))
    zone = structs(NUMA)["zone"].build({"watermark": [1, 2, 3], "lock": {"rlock": {"raw_lock": {"head_tail": 0x0201}}}})
    assert zone[:24] == u64(1, 2, 3)
    assert zone[1344:1346] == b"\1\2"
    node = structs(UP)["pglist_data"].build({"classzone_idx": "ZONE_DMA32"})
    assert node[7180:7184] == u32(1)


def test_a_kernel_is_recognised_by_its_own_types() -> None:
    """Of what debug information tells, which is less than all, and more than one configuration has."""
    for config in (NUMA, UP, CONFIGS["smp-sparsemem"]):
        declared = layout(config)
        own = Layout.of(
            [declared.struct(tag) for tag in ("page", "zone", "pglist_data", "per_cpu_pageset")],
            {name: declared.enums[name] for name in ("pageflags", "zone_type")},
            {},
            "DWARF",
        )
        assert recognise(own, config.sparsemem_vmemmap) is declared
        assert recognise(own, not config.sparsemem_vmemmap) is not declared


def test_a_kernel_that_differs_is_not_recognised() -> None:
    declared = layout(NUMA)
    flags = {**declared.enums["pageflags"], "PG_compound_lock": 22}
    without_pat = Layout.of(declared.structs.values(), {"pageflags": flags}, {}, "DWARF")
    assert differs(declared, without_pat) == "PG_compound_lock is 22"
    assert recognise(without_pat, True) is None
    assert differs(declared, layout(UP)) == "page.pmd_huge_pte is elsewhere"
