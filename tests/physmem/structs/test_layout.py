# SPDX-License-Identifier: GPL-2.0-only
"""Asking a layout, and putting two together."""

from __future__ import annotations

from typing import Any

import pytest

from physmem.errors import LayoutError
from physmem.structs.field import Field, StructLayout
from physmem.structs.layout import Layout


def small(source: str = "a test", **structs: dict[str, int]) -> Layout:
    """Structs of 16 bytes with int fields at the given offsets."""
    return Layout.of(
        [
            StructLayout(tag, 16, {name: Field(name, at, 4, "int", "int", True) for name, at in fields.items()})
            for tag, fields in structs.items()
        ],
        {},
        {},
        source,
    )


def test_asking(numa: Layout) -> None:
    assert numa.offsetof("zone", "free_area") == 192
    assert numa.offsetof("zone", "lock.rlock.raw_lock.tickets.tail") == 1345
    assert (numa.sizeof("zone"), numa.sizeof("zone", "free_area")) == (1920, 11 * 104)
    assert (numa.lengthof("zone", "vm_stat"), numa.enum("zone_stat_item")["NR_ALLOC_BATCH"]) == (39, 1)
    assert (numa.enumerator("PGFREE"), numa.constant("MAX_ORDER"), numa.constant("MIGRATE_TYPES")) == (8, 11, 6)
    assert numa.has("zone")
    assert numa.has("zone", "node")
    assert not numa.has("zone", "nid")
    assert not numa.has("inode")
    assert numa.field("page", "objects").bit_size == 15


def test_constants_are_unsigned_unless_asked(numa: Layout) -> None:
    assert numa.constant("PAGE_BUDDY_MAPCOUNT_VALUE") == 2**64 - 128
    assert numa.constant("PAGE_BUDDY_MAPCOUNT_VALUE", signed=True) == -128
    assert numa.constant("MAX_ORDER", signed=True) == 11


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda x: x.sizeof("inode"), "no struct 'inode'"),
        (lambda x: x.offsetof("inode", "i_ino"), "no struct 'inode'"),
        (lambda x: x.offsetof("page", "_refcount"), "struct page has no field '_refcount'"),
        (lambda x: x.lengthof("page", "flags"), "the length of struct page.flags is unknown, or it is no array"),
        (lambda x: x.enum("hrtimer_mode"), "no enum 'hrtimer_mode'"),
        (lambda x: x.enumerator("NR_SLAB"), "no enumerator 'NR_SLAB'"),
        (lambda x: x.constant("MAX_FISH"), "no constant 'MAX_FISH'"),
    ],
)
def test_the_unknown_is_named_with_the_source(numa: Layout, ask: Any, message: str) -> None:
    with pytest.raises(LayoutError) as error:
        ask(numa)
    assert str(error.value) == f"built in: Linux 4.0 SMP+NUMA: {message}"


def test_a_layout_cannot_be_changed(numa: Layout) -> None:
    with pytest.raises(TypeError):
        numa.constants["MAX_ORDER"] = 12  # type: ignore[index]
    with pytest.raises(TypeError):
        numa.struct("page").fields["flags"] = Field("flags", 8, 8)  # type: ignore[index]
    with pytest.raises(AttributeError):
        numa.source = "nowhere"  # type: ignore[misc]


def test_merging_completes(kernel: Any) -> None:
    """What a note says of 4.0 is there already; what it says of other structs is added."""
    note = Layout.from_vmcoreinfo(kernel.note)
    for merged in (note | kernel.compiled, kernel.compiled.merge(note)):
        assert merged.struct("zone") == kernel.compiled.struct("zone")
        assert list(merged.struct("page").fields) == list(kernel.compiled.struct("page").fields)
        assert merged.offsetof("vmap_area", "list") == 48
        assert dict(merged.enum("pageflags")) == dict(kernel.compiled.enum("pageflags"))
    assert (note | kernel.compiled).source == f"VMCOREINFO + built in: {kernel.config.name}"


def test_conflicts_are_reported(numa: Layout, up: Layout) -> None:
    ours, theirs = small("ours", s={"a": 0, "b": 4}, t={"c": 0}), small("theirs", s={"b": 8, "a": 0}, u={"c": 8})
    assert ours.conflicts(theirs) == ["offsetof(struct s, b) is 4 in ours, 8 in theirs"]
    assert ours.conflicts(ours) == []
    with pytest.raises(LayoutError, match=r"^offsetof\(struct s, b\) is 4 in ours, 8 in theirs$"):
        ours.merge(theirs)
    with pytest.raises(LayoutError, match=r"^enumerator .* \(and \d+ more conflicts\)$"):
        numa.merge(up)


def test_merging_keeps_both_sides() -> None:
    merged = small("a", s={"a": 0}, t={"c": 0}) | small("b", s={"b": 4}, u={"d": 8})
    assert {tag: sorted(s.fields) for tag, s in merged.structs.items()} == {"s": ["a", "b"], "t": ["c"], "u": ["d"]}


def test_table(up: Layout, numa: Layout) -> None:
    assert up.struct("zoneref").table().splitlines() == [
        "struct zoneref, 16 bytes",
        "offset  size  type           name",
        "     0     8  struct zone *  zone      NULL ends the list",
        "     8     4  int            zone_idx  its zone_type",
    ]
    page = numa.struct("page").table()
    assert "  26.0   :15  unsigned int " in page
    assert "  27.7    :1  unsigned int " in page
    assert "size unknown" in StructLayout("s", None, {"f": Field("f", 8, None)}).table()
