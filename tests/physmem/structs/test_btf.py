# SPDX-License-Identifier: GPL-2.0-only
"""BTF: small blobs made by hand, and layouts read from them."""

from __future__ import annotations

import random
import struct
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from physmem.errors import LayoutError
from physmem.structs.btf import Btf, Kind
from physmem.structs.btf_layout import LazyLayout, read_btf
from physmem.structs.field import Field
from physmem.structs.layout import Layout


@pytest.fixture(scope="module")
def blob(makers: ModuleType) -> bytes:
    """A kernel in small: what a struct page and its neighbours have, and everything that C can do in a struct."""
    m = makers.BtfMaker()
    ulong = m.integer("long unsigned int", 8)
    int_ = m.integer("int", 4, signed=True)
    uint = m.integer("unsigned int", 4)
    char = m.integer("char", 1, signed=True)
    boolean = m.add(makers.TYPEDEF, "bool", m.integer("_Bool", 1, boolean=True))
    atomic = m.add(makers.TYPEDEF, "atomic_t", m.aggregate("", 4, [("counter", int_, 0, 0)]))
    wrapped = m.add(makers.TYPEDEF, "memdesc_flags_t", m.aggregate("", 8, [("f", ulong, 0, 0)]))
    list_fwd = m.add(makers.FWD, "list_head")
    list_ptr = m.add(makers.PTR, ref=list_fwd)
    list_head = m.aggregate("list_head", 16, [("next", list_ptr, 0, 0), ("prev", list_ptr, 64, 0)])
    const_char = m.add(makers.CONST, ref=char)
    name_ptr = m.add(makers.PTR, ref=const_char)
    function = m.add(makers.PTR, ref=m.function(0, [m.add(makers.PTR, ref=0), int_]))
    variadic = m.add(makers.PTR, ref=m.function(int_, [name_ptr, 0]))
    pair = m.aggregate("", 8, [("inuse", uint, 0, 16), ("objects", uint, 16, 15), ("frozen", uint, 31, 1)])
    words = m.aggregate("", 16, [("lru", list_head, 0, 0), ("compound_head", ulong, 0, 0)], makers.UNION)
    zone_type = m.enum("zone_type", {"ZONE_DMA": 0, "ZONE_NORMAL": 2})
    volatile = m.add(makers.VOLATILE, ref=ulong)
    m.aggregate(
        "page",
        64,
        [
            ("flags", wrapped, 0, 0),
            ("", words, 64, 0),
            ("", pair, 192, 0),
            ("_mapcount", atomic, 256, 0),
            ("valid", boolean, 288, 0),
            ("zone", zone_type, 320, 0),
            ("state", volatile, 384, 0),
        ],
    )
    grid = m.array(m.array(uint, 3), 2)
    rest = m.array(list_head, 0)
    m.aggregate(
        "zone",
        88,
        [
            ("name", name_ptr, 0, 0),
            ("grid", grid, 64, 0),
            ("lists", m.array(list_head, 2), 256, 0),
            ("call", function, 512, 0),
            ("print", variadic, 576, 0),
            ("self", m.add(makers.PTR, ref=m.add(makers.PTR, ref=list_fwd)), 640, 0),
            ("rest", rest, 704, 0),
        ],
    )
    m.add(makers.TYPEDEF, "nodemask_t", m.aggregate("", 16, [("bits", m.array(ulong, 2), 0, 0)]))
    m.add(makers.TYPEDEF, "number_t", int_)
    m.enum("pageflags", {"PG_locked": 0, "PG_head": 6, "__NR_PAGEFLAGS": 24})
    m.enum("signed", {"MINUS": -2, "PLUS": 3}, signed=True)
    m.enum("wide", {"FAR": 1 << 40, "TOP": (1 << 64) - 1}, wide=True)
    m.enum("", {"SECTION_MARKED_PRESENT_BIT": 0, "MAX_NR": 0x80000000})
    m.add(makers.FLOAT, "double", 8)
    m.add(makers.DECL_TAG, "tag", 1, words=[0xFFFFFFFF])
    m.add(makers.VAR, "variable", int_, words=[1])
    m.add(makers.DATASEC, ".data", 8, 1, words=[int_, 0, 4])
    m.add(makers.FUNC, "function", function)
    data: bytes = m.data()
    return data


@pytest.fixture
def layout(blob: bytes) -> LazyLayout:
    return read_btf(blob)


# -- structs -----------------------------------------------------------------


def test_fields(layout: LazyLayout) -> None:
    page = layout.struct("page")
    assert page.size == 64
    assert list(page.fields) == [
        *("flags", "flags.f"),
        *("lru", "lru.next", "lru.prev", "compound_head"),
        *("inuse", "objects", "frozen"),
        *("_mapcount", "_mapcount.counter", "valid", "zone", "state"),
    ]
    f = page.fields
    assert f["lru"] == Field("lru", 8, 16, "struct list_head", "struct", tag="list_head")
    assert f["lru.prev"] == Field("lru.prev", 16, 8, "struct list_head *", "ptr", target="struct list_head")
    assert f["compound_head"] == Field("compound_head", 8, 8, "unsigned long", "int", False)
    assert f["objects"] == Field("objects", 26, 4, "unsigned int", "int", False, bit_offset=208, bit_size=15)
    assert f["_mapcount"] == Field("_mapcount", 32, 4, "atomic_t", "struct")
    assert f["_mapcount.counter"] == Field("_mapcount.counter", 32, 4, "int", "int", True)
    assert f["valid"] == Field("valid", 36, 1, "bool", "bool")
    assert f["zone"] == Field("zone", 40, 4, "enum zone_type", "enum")
    assert f["state"] == Field("state", 48, 8, "volatile unsigned long", "int", False)


def test_an_integer_that_is_wrapped_in_a_struct_is_an_integer(layout: LazyLayout) -> None:
    assert layout.field("page", "flags") == Field("flags", 0, 8, "memdesc_flags_t", "int", False)
    dtype = layout.dtype("page", ["flags", "_mapcount"])
    assert dtype["flags"] == np.dtype("<u8")
    assert dtype["_mapcount"] == np.dtype("<i4")


def test_arrays_and_pointers(layout: LazyLayout) -> None:
    f = layout.struct("zone").fields
    assert f["name"] == Field("name", 0, 8, "const char *", "ptr", target="const char")
    assert f["grid"] == Field("grid", 8, 4, "unsigned int", "int", False, (2, 3))
    assert f["lists"] == Field("lists", 32, 16, "struct list_head", "struct", dims=(2,), tag="list_head")
    assert f["call"] == Field("call", 64, 8, "void (*)(void *, int)", "ptr", target="void (void *, int)")
    assert f["print"].type == "int (*)(const char *, ...)"
    assert f["self"].type == "struct list_head **"
    assert f["rest"].dims == (0,)
    assert layout.lengthof("zone", "lists") == 2
    assert layout.dtype("zone")["lists"].shape == (2,)


def test_names_of_structs(layout: LazyLayout) -> None:
    assert layout.sizeof("nodemask_t") == 16
    assert layout.has("list_head", "prev")
    assert not layout.has("zone", "page")
    for name in ("number_t", "int", "pageflags", "", "nothing", "é", "pag"):
        assert not layout.has(name)
    assert list(layout.structs) == ["list_head", "page", "zone"]
    assert len(layout.structs) == 3
    with pytest.raises(LayoutError, match="BTF: no struct 'nothing'"):
        layout.struct("nothing")
    with pytest.raises(LayoutError, match="BTF: struct page has no field 'x'"):
        layout.offsetof("page", "x")


def test_a_struct_is_read_once_and_when_it_is_asked_for(blob: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = read_btf(blob)
    page = layout.struct("page")
    monkeypatch.setattr(Btf, "members", None)
    assert layout.struct("page") is page
    with pytest.raises(TypeError):
        layout.struct("zone")


# -- enums -------------------------------------------------------------------


def test_enums(layout: LazyLayout) -> None:
    assert layout.enum("pageflags") == {"PG_locked": 0, "PG_head": 6, "__NR_PAGEFLAGS": 24}
    assert list(layout.enum("signed").items()) == [("MINUS", -2), ("PLUS", 3)]
    assert layout.enum("wide") == {"FAR": 1 << 40, "TOP": (1 << 64) - 1}
    assert list(layout.enums) == ["zone_type", "pageflags", "signed", "wide"]
    with pytest.raises(LayoutError, match="no enum 'page'"):
        layout.enum("page")


def test_enumerators(layout: LazyLayout) -> None:
    assert layout.enumerator("PG_head") == 6
    assert layout.enumerator("MINUS") == -2
    assert layout.enumerator("TOP") == (1 << 64) - 1
    assert layout.enumerator("MAX_NR") == 0x80000000
    assert layout.constant("SECTION_MARKED_PRESENT_BIT") == 0
    for name in ("page", "zone_type", "nothing"):
        with pytest.raises(LayoutError, match=f"no enumerator '{name}'"):
            layout.enumerator(name)
    assert set(layout.enumerators) >= {"ZONE_DMA", "FAR", "MAX_NR"}


def test_before_enums_said_whether_they_are_signed(makers: ModuleType) -> None:
    m = makers.BtfMaker()
    m.enum("old", {"NOWHERE": -1, "HERE": 0})
    assert read_btf(m.data()).enum("old") == {"NOWHERE": -1, "HERE": 0}


# -- with VMCOREINFO ---------------------------------------------------------


def test_merged_with_vmcoreinfo(layout: LazyLayout) -> None:
    note = {
        "SIZE(page)": "64",
        "OFFSET(page.lru)": "8",
        "OFFSET(page.compound_head)": "8",
        "SIZE(nodemask_t)": "16",
        "OFFSET(uts_namespace.name)": "4",
        "NUMBER(PG_head)": "6",
        "NUMBER(PG_new)": "7",
        "NUMBER(PG_head_mask)": "64",
        "NUMBER(MAX_PHYSMEM_BITS)": "46",
    }
    both = layout | Layout.from_vmcoreinfo(note)
    assert both.source == "BTF + VMCOREINFO"
    assert both.struct("page") == layout.struct("page")
    assert both.offsetof("uts_namespace", "name") == 4
    assert both.constant("MAX_PHYSMEM_BITS") == 46
    assert both.enumerator("PG_new") == 7
    assert both.enumerator("PG_head") == 6
    assert both.enum("pageflags")["PG_new"] == 7
    assert both.enum("wide") == layout.enum("wide")
    assert both.offsetof("zone", "grid") == 8
    assert set(both.structs) == {"page", "nodemask_t", "uts_namespace", "list_head", "zone"}
    assert len(both.structs) == 5
    assert "" not in both.enums


@pytest.mark.parametrize(
    ("note", "conflict"),
    [
        ({"SIZE(page)": "56"}, r"sizeof\(struct page\) is 64 in BTF, 56 in VMCOREINFO"),
        ({"OFFSET(page.lru)": "16"}, r"offsetof\(struct page, lru\) is 8 in BTF, 16 in VMCOREINFO"),
        ({"NUMBER(PG_head)": "16"}, "enumerator PG_head is 6 in BTF, 16 in VMCOREINFO"),
    ],
)
def test_a_vmcoreinfo_of_another_kernel(layout: LazyLayout, note: dict[str, str], conflict: str) -> None:
    with pytest.raises(LayoutError, match=conflict):
        layout.merge(Layout.from_vmcoreinfo(note))


# -- newer and malformed BTF -------------------------------------------------


def test_kinds_that_are_not_known_are_passed_over_by_their_sizes(makers: ModuleType) -> None:
    m = makers.BtfMaker()
    m.add(20, "", 8, 2, words=[1, 2, 3])
    m.aggregate("list_head", 16, [])
    sizes = [(0, 0)] * 20 + [(4, 4)]
    assert read_btf(m.data(sizes)).sizeof("list_head") == 16
    with pytest.raises(LayoutError, match="type 1: a record of an unknown kind, or cut short"):
        read_btf(m.data())


def test_more_members_than_16_bits_count(makers: ModuleType) -> None:
    m = makers.BtfMaker()
    count = 70000
    m.add(makers.ENUM, "many", 4, count, words=[w for i in range(count) for w in (m.string("E"), i)])
    m.aggregate("after", 8, [])
    assert read_btf(m.data()).sizeof("after") == 8


def header(**fields: int) -> bytes:
    values = {"magic": 0xEB9F, "version": 1, "flags": 0, "hdr": 24, "toff": 0, "tlen": 0, "soff": 0, "slen": 1} | fields
    return struct.pack("<HBBIIIII", *values.values()) + b"\0" * 12


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "0 bytes: not BTF"),
        (header()[:23], "23 bytes: not BTF"),
        (header(magic=0x9FEB), "magic 0x9feb, version 1: not BTF"),
        (header(version=2), "version 2: not BTF"),
        (header(hdr=12), "outside the data"),
        (header(tlen=40), "40 bytes of types at 0x18: outside the data"),
        (header(soff=0xFFFFFFFF), "1 bytes of strings at 0x100000017: outside the data"),
        (header(tlen=4), "type 1: a record of an unknown kind, or cut short"),
        (header(tlen=8), "type 1 ends outside the types"),
    ],
)
def test_malformed(data: bytes, reason: str) -> None:
    with pytest.raises(LayoutError, match=reason):
        read_btf(data)


def test_a_record_that_is_cut_short(makers: ModuleType) -> None:
    m = makers.BtfMaker()
    m.aggregate("page", 64, [("flags", 1, 0, 0)])
    m.types = m.types[:-4]
    with pytest.raises(LayoutError, match="type 1 ends outside the types"):
        read_btf(m.data())


def endless(makers: ModuleType, kind: str) -> Any:
    m = makers.BtfMaker()
    if kind == "typedef":
        m.add(makers.TYPEDEF, "loop", 1)
        m.aggregate("page", 64, [("flags", 1, 0, 0)])
    elif kind == "pointer":
        m.add(makers.PTR, ref=1)
        m.aggregate("page", 64, [("flags", 1, 0, 0)])
    elif kind == "array":
        m.array(1, 1)
        m.aggregate("page", 64, [("flags", 1, 0, 0)])
    elif kind == "struct":
        m.aggregate("page", 64, [("self", 1, 0, 0)])
    elif kind == "tree":
        # Each struct has the one before it twice: 2^30 fields.
        number = m.aggregate("", 8, [])
        for _ in range(30):
            number = m.aggregate("s", 8, [("a", number, 0, 0), ("b", number, 0, 0)])
        m.aggregate("page", 64, [("s", number, 0, 0)])
    elif kind == "function":
        number = 0
        for _ in range(40):
            number = m.add(makers.PTR, ref=m.function(number, [number] * 3))
        m.aggregate("page", 64, [("f", number, 0, 0)])
    elif kind == "outside":
        m.aggregate("page", 64, [("flags", m.integer("int", 4), 8 * 62, 0)])
    elif kind == "huge":
        m.aggregate("page", 1 << 31, [])
    elif kind == "type":
        m.aggregate("page", 64, [("flags", 77, 0, 0)])
    elif kind == "name":
        m.add(makers.STRUCT, "page", 64, 1, words=[1 << 20, 0, 0])
    return m.data()


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("typedef", "typedefs of typedefs without end"),
        ("pointer", "types of types without end"),
        ("array", "an array of more than 8 dimensions"),
        ("struct", "structs inside structs without end"),
        ("tree", "more than 32768 fields"),
        ("outside", "field 'flags' ends outside its 64 bytes"),
        ("huge", "at most 16777216 are read"),
        ("type", "no type 77: there are 1"),
        ("name", "no string at 0x100000"),
    ],
)
def test_types_without_end(makers: ModuleType, kind: str, reason: str) -> None:
    layout = read_btf(endless(makers, kind))
    with pytest.raises(LayoutError, match=reason):
        layout.struct("page")


def test_a_long_type_is_cut(makers: ModuleType) -> None:
    f = read_btf(endless(makers, "function")).field("page", "f")
    assert len(f.type) == 200
    assert f.type.endswith("...")


@settings(max_examples=400)
@given(seed=st.integers(0, 1 << 32), count=st.integers(1, 8))
def test_any_data_is_read_or_refused(makers: ModuleType, blob: bytes, seed: int, count: int) -> None:
    chance = random.Random(seed)
    data = bytearray(blob)
    for _ in range(count):
        at = chance.randrange(len(data))
        data[at] = chance.choice([0, 1, 0x80, 0xFF, chance.randrange(256)])
    with makers.read_or_refused():
        layout = read_btf(bytes(data[: chance.choice([len(data), chance.randrange(len(data))])]))
        for tag in ["page", "zone", "list_head", "nodemask_t", *layout.structs]:
            if layout.has(tag):
                layout.struct(tag).table()
                layout.dtype(tag)
        for name in [*layout.enums, *layout.enumerators]:
            layout.enums.get(name)
            layout.enumerators.get(name)


def test_the_record_of_a_type(blob: bytes) -> None:
    btf = Btf(blob, "BTF")
    number = btf.find("page", Kind.STRUCT)
    assert number is not None
    page = btf.type(number)
    assert (page.kind, page.name, page.flag, page.vlen, page.ref) == (Kind.STRUCT, "page", False, 7, 64)
    assert btf.find("page", Kind.UNION, Kind.TYPEDEF) is None
    with pytest.raises(LayoutError, match="no type 0"):
        btf.type(0)
    assert 30 < len(btf) < 60


def test_a_signed_char_of_which_it_is_not_said(makers: ModuleType) -> None:
    """As in the BTF of 5.10: the type has no flag that says it is signed."""
    maker = makers.BtfMaker()
    small = maker.add(makers.TYPEDEF, "s8", maker.integer("signed char", 1))
    maker.aggregate("per_cpu_pageset", 1, [("stat_threshold", small, 0, 0)])
    assert read_btf(maker.data()).struct("per_cpu_pageset").fields["stat_threshold"].signed is True
