# SPDX-License-Identifier: GPL-2.0-only
"""The partial layout in a VMCOREINFO note."""

from __future__ import annotations

from typing import Any

import pytest

from physmem.errors import LayoutError
from physmem.structs.layout import Layout


def test_a_real_note(kernel: Any) -> None:
    layout, whole = Layout.from_vmcoreinfo(kernel.note), kernel.compiled
    assert layout.source == "VMCOREINFO"
    assert layout.sizeof("zone") == whole.sizeof("zone")
    assert layout.enumerator("PG_slab") == 7
    assert layout.enumerator("NR_FREE_PAGES") == 0
    assert layout.constant("PAGE_BUDDY_MAPCOUNT_VALUE", signed=True) == -128
    assert layout.constant("NR_SECTION_ROOTS") == 2048
    assert layout.constant("PG_head_mask") == 1 << 14
    # Every type it claims to know is the real one.
    for tag in ("page", "zone", "pglist_data", "free_area", "list_head", "mem_section"):
        for name, field in layout.struct(tag).fields.items():
            assert field.kind == "unknown" or field == whole.field(tag, name)
    assert [n for n, f in layout.struct("zone").fields.items() if f.kind == "unknown"] == ["vm_stat"]


def test_another_kernels_note() -> None:
    note = {
        "OSRELEASE": "6.12.0",
        "SIZE(page)": "64",
        "OFFSET(page._refcount)": "52",
        "OFFSET(page.compound_order)": "17",
        "NUMBER(PAGE_BUDDY_MAPCOUNT_VALUE)": "-268435456",
        "NUMBER(VMALLOC_START)": "0xffffd00180000000",
        "SYMBOL(mem_section)": "ffff8c07cffdb000",
        "OFFSET(uts_namespace.name)": "0",
        "LENGTH(zone.free_area)": "11",
    }
    layout = Layout.from_vmcoreinfo(note)
    assert layout.offsetof("page", "_refcount") == 52
    assert layout.sizeof("page", "_refcount") == 4
    assert layout.offsetof("page", "compound_order") == 17
    assert layout.constant("VMALLOC_START") == 0xFFFFD00180000000
    assert layout.offsetof("uts_namespace", "name") == 0
    assert not layout.has("zone", "free_area")  # a length, but no offset


def test_unknown_sizes_are_not_guessed() -> None:
    layout = Layout.from_vmcoreinfo({"OFFSET(vmap_area.list)": "40", "OFFSET(zone.vm_stat)": "8", "SIZE(zone)": "64"})
    with pytest.raises(LayoutError, match="VMCOREINFO: the size of struct vmap_area is unknown"):
        layout.sizeof("vmap_area")
    with pytest.raises(LayoutError, match=r"VMCOREINFO: the size of struct zone\.vm_stat is unknown"):
        layout.sizeof("zone", "vm_stat")
    with pytest.raises(LayoutError, match="field 'vm_stat' has no dtype: its size is unknown"):
        layout.dtype("zone", ["vm_stat"])
    with pytest.raises(LayoutError, match="the size of struct vmap_area is unknown"):
        layout.dtype("vmap_area")
    with pytest.raises(LayoutError, match=r"length of struct zone\.vm_stat is unknown"):
        layout.lengthof("zone", "vm_stat")


@pytest.mark.parametrize("text", ["", "x", "-1", "0x1g", "1_0", "16777217", "9" * 5000, "1\n", "\u0661"])
def test_bad_numbers_are_named(text: str) -> None:
    with pytest.raises(LayoutError, match=r"^VMCOREINFO: SIZE\(page\): ") as error:
        Layout.from_vmcoreinfo({"SIZE(page)": text})
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 100


@pytest.mark.parametrize(
    ("offset", "length"), [("1900", "1"), ("0", "20"), ("0", "16777216")], ids=["late", "long", "absurd"]
)
def test_a_field_outside_its_struct_is_named(offset: str, length: str) -> None:
    note = {"SIZE(zone)": "1920", "SIZE(free_area)": "104"}
    note |= {"OFFSET(zone.free_area)": offset, "LENGTH(zone.free_area)": length}
    with pytest.raises(LayoutError, match=rf"^VMCOREINFO: OFFSET\(zone.free_area\): {offset}: the field ends outside"):
        Layout.from_vmcoreinfo(note)
