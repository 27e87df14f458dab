# SPDX-License-Identifier: GPL-2.0-only
"""VMCOREINFO: robust reading, the typed view, writing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from physmem.errors import LayoutError, PhysmemError, SymbolError
from physmem.image import vmcoreinfo
from physmem.image.vmcoreinfo import VmcoreInfo, encode, parse

TEXT = b"""OSRELEASE=6.12.117+deb13-cloud-amd64
PAGESIZE=4096
SYMBOL(init_uts_ns)=ffffffff812f8280
SIZE(page)=64
OFFSET(page.flags)=0
OFFSET(page._mapcount)=48
LENGTH(zone.free_area)=11
NUMBER(PAGE_BUDDY_MAPCOUNT_VALUE)=-128
NUMBER(VMALLOC_START)=0xffffd00180000000
NUMBER(phys_base)=-268435456
KERNELOFFSET=16400000
BUILD-ID=3b43fad5034874490492495d552c0af6a5fab235
"""


def info(text: str) -> VmcoreInfo:
    return VmcoreInfo(parse(text.encode()))


def test_typed_view() -> None:
    view = VmcoreInfo(parse(TEXT))
    assert view.release == "6.12.117+deb13-cloud-amd64"
    assert view.page_size == 4096
    assert view.kernel_offset == 0x16400000
    assert view.symbol("init_uts_ns") == 0xFFFFFFFF812F8280
    assert view.size("page") == 64
    assert (view.offset("page.flags"), view.offset("page._mapcount")) == (0, 48)
    assert view.length("zone.free_area") == 11
    assert view.number("PAGE_BUDDY_MAPCOUNT_VALUE") == -128
    assert view.number("VMALLOC_START") == 0xFFFFD00180000000
    assert view.number("phys_base") == -0x10000000
    assert view["BUILD-ID"].startswith("3b43")
    assert view.encode() == TEXT
    assert dict(view) == parse(TEXT)
    assert len(view) == 12


def test_kernel_offset_is_zero_for_kernels_without_kaslr() -> None:
    assert info("OSRELEASE=4.0.0").kernel_offset == 0


@pytest.mark.parametrize(
    ("ask", "error", "key"),
    [
        (lambda view: view.release, LayoutError, "OSRELEASE"),
        (lambda view: view.page_size, LayoutError, "PAGESIZE"),
        (lambda view: view.symbol("mem_map"), SymbolError, "SYMBOL(mem_map)"),
        (lambda view: view.size("zone"), LayoutError, "SIZE(zone)"),
        (lambda view: view.offset("page.lru"), LayoutError, "OFFSET(page.lru)"),
        (lambda view: view.length("node_data"), LayoutError, "LENGTH(node_data)"),
        (lambda view: view.number("PG_lru"), LayoutError, "NUMBER(PG_lru)"),
    ],
)
def test_what_is_missing_is_named(ask: Callable[[VmcoreInfo], object], error: type[PhysmemError], key: str) -> None:
    with pytest.raises(error) as caught:
        ask(VmcoreInfo({}))
    assert str(caught.value) == f"VMCOREINFO has no {key}"


@pytest.mark.parametrize("value", ["", "-1", "0x40", "4_0", " 4", "4 ", "1e3", "18446744073709551616", "9" * 5000])
def test_sizes_that_are_no_sizes(value: str) -> None:
    view = VmcoreInfo({"SIZE(page)": value, "OFFSET(a.b)": value, "LENGTH(a)": value})
    for ask, name in ((view.size, "page"), (view.offset, "a.b"), (view.length, "a")):
        with pytest.raises(LayoutError, match=r"VMCOREINFO: .*: not a decimal number"):
            ask(name)


@pytest.mark.parametrize("value", ["", "-1", "g", "0x", "1_0", "10000000000000000", "٣", "f" * 5000])
def test_symbols_that_are_no_addresses(value: str) -> None:
    with pytest.raises(SymbolError, match=r"VMCOREINFO: SYMBOL\(x\)=.*: not a hexadecimal number"):
        VmcoreInfo({"SYMBOL(x)": value}).symbol("x")


@pytest.mark.parametrize(
    "value", ["", "--1", "0x", "0xg", "-0x1", "1_0", "-9223372036854775809", "18446744073709551616"]
)
def test_numbers_that_are_no_numbers(value: str) -> None:
    with pytest.raises(LayoutError, match=r"VMCOREINFO: NUMBER\(x\)="):
        VmcoreInfo({"NUMBER(x)": value}).number("x")


@pytest.mark.parametrize("value", [-(1 << 63), -1, 0, (1 << 64) - 1])
def test_numbers_at_the_edges(value: int) -> None:
    assert VmcoreInfo({"NUMBER(x)": str(value)}).number("x") == value


def test_junk_is_passed_over() -> None:
    data = b"\0\0junk\n=5\nA=1\nB\x80=2\nC=\xff\nD=a=b\nE=\n\rF=1\nG=1\0\0H=2\nA=3\n\0\0"
    assert parse(data) == {"A": "1", "D": "a=b", "E": "", "G": "1", "H": "2"}


def test_too_long_a_text_is_refused() -> None:
    assert parse(bytes(vmcoreinfo.MAX_BYTES)) == {}
    with pytest.raises(LayoutError, match="VMCOREINFO of 1048577 bytes"):
        parse(bytes(vmcoreinfo.MAX_BYTES + 1))


@given(st.binary(max_size=300))
def test_any_bytes_parse_and_what_they_give_encodes(data: bytes) -> None:
    entries = parse(data)
    assert parse(encode(entries)) == entries


printable = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=12)


@given(st.dictionaries(printable.filter(lambda key: key != "" and "=" not in key), printable))
def test_encode_is_the_inverse_of_parse(entries: dict[str, str]) -> None:
    assert parse(encode(entries)) == entries


@pytest.mark.parametrize("entries", [{"": "1"}, {"A=B": "1"}, {"A\n": "1"}, {"A": "1\nB=2"}, {"Ä": "1"}, {"A": "\0"}])
def test_what_cannot_be_encoded_is_refused(entries: dict[str, str]) -> None:
    with pytest.raises(LayoutError, match="VMCOREINFO"):
        encode(entries)
