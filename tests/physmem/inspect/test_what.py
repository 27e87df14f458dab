# SPDX-License-Identifier: GPL-2.0-only
"""Every way to name a page, and every way to get it wrong."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from physmem.errors import AddressError, UsageError
from physmem.inspect.what import Region, locate, parse_address, parse_what, region_of


@pytest.mark.parametrize(
    ("text", "region", "pfn", "offset"),
    [
        ("ffffea0000140000", Region.STRUCT_PAGE, 0x5000, 0),
        ("0xffffea0000140000", Region.STRUCT_PAGE, 0x5000, 0),
        ("0XFFFFEA0000140020", Region.STRUCT_PAGE, 0x5000, 32),
        ("ffffea0000fffff8", Region.STRUCT_PAGE, 0x3FFFF, 56),  # beyond this machine's memory
        ("pfn:5000", Region.PFN, 5000, 0),
        ("pfn:0x1388", Region.PFN, 5000, 0),
        ("pfn:0X1388", Region.PFN, 5000, 0),
        ("phys:0x5000000", Region.PHYSICAL, 0x5000, 0),
        ("phys:5000000", Region.PHYSICAL, 0x5000, 0),
        ("phys:5000fff", Region.PHYSICAL, 0x5000, 0xFFF),
        ("ffff880005000000", Region.DIRECT_MAP, 0x5000, 0),
        ("ffff880005000123", Region.DIRECT_MAP, 0x5000, 0x123),
        ("ffffffff81000000", Region.KERNEL_IMAGE, 0x1000, 0),
    ],
)
def test_forms(open_case, text, region, pfn, offset):
    place = locate(open_case("n128_s1"), parse_what(text))
    assert (place.region, place.pfn, place.offset) == (region, pfn, offset)


@pytest.mark.parametrize(
    "text",
    [
        *("", "xyz", "pfn:", "pfn:12a", "pfn:-1", "pfn:0x", "pfn: 5", "pfn:1_000", "pfn:٣", "phys:", "phys:-5"),
        *("phys:0x", "0x", "page:5", "5000:pfn", "ffffea00001400000", "phys:11112222333344445", " 5", "5\n"),
    ],
)
def test_nonsense(text):
    with pytest.raises(UsageError) as error:
        parse_what(text)
    assert "\n" not in str(error.value)


@given(st.text())
def test_any_text_is_a_page_or_a_usage_error(text):
    try:
        parse_what(text)
    except UsageError:
        return


@given(st.integers(0, 32735), st.integers(0, 63), st.integers(0, 4095))
def test_round_trips(open_case, pfn, inside, offset):
    dump = open_case("n128_s1")
    for text, at in (
        (f"pfn:{pfn}", 0),
        (f"pfn:{pfn:#x}", 0),
        (f"phys:{(pfn << 12) + offset:x}", offset),
        (f"{dump.page_offset + (pfn << 12) + offset:x}", offset),
        (f"{dump.mem_map + 64 * pfn + inside:#x}", inside),
    ):
        place = locate(dump, parse_what(text))
        assert (place.pfn, place.offset) == (pfn, at)


def test_the_highest_addresses():
    assert parse_address("ffffffffffffffff") == 2**64 - 1
    assert parse_what("pfn:99999999999999999999").value == 99999999999999999999


@pytest.mark.parametrize("text", ["pfn:99999999999999999999", "pfn:0x400000000", "phys:400000000000"])
def test_beyond_physical_memory(open_case, text):
    with pytest.raises(UsageError, match="beyond physical memory of 46 bits"):
        locate(open_case("n128_s1"), parse_what(text))


@pytest.mark.parametrize(
    ("text", "reason"), [("5000", "not mapped by the kernel's page tables"), ("1234567890000000", "not canonical")]
)
def test_addresses_of_nothing(open_case, text, reason):
    with pytest.raises(AddressError, match=reason):
        locate(open_case("n128_s1"), parse_what(text))


def test_regions_end_where_they_end(open_case):
    dump = open_case("n128_s1")
    assert region_of(dump, dump.mem_map - 1) is not Region.STRUCT_PAGE
    assert region_of(dump, dump.mem_map + (64 << 34) - 1) is Region.STRUCT_PAGE
    assert region_of(dump, dump.mem_map + (64 << 34)) is Region.PAGE_TABLES
    assert region_of(dump, 0xFFFF880000000000 - 1) is Region.PAGE_TABLES
    assert region_of(dump, 0xFFFFC7FFFFFFFFFF) is Region.DIRECT_MAP
    assert region_of(dump, 0xFFFFC80000000000) is Region.PAGE_TABLES
    assert region_of(dump, 0xFFFFFFFF80000000) is Region.KERNEL_IMAGE
    assert region_of(dump, 0xFFFFFFFFA0000000) is Region.PAGE_TABLES
