# SPDX-License-Identifier: GPL-2.0-only
"""Translation with every step, and with what the region says beside it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from physmem.errors import AddressError
from physmem.inspect.translate import translate
from physmem.inspect.what import Region
from physmem.ranges import Ranges


def test_the_direct_map(open_case):
    found = translate(open_case("n128_s1"), 0xFFFF880005000123)
    assert [step.level for step in found.steps] == ["PGD", "PUD", "PMD"]
    assert (found.walked, found.by_region, found.phys) == (0x5000123, 0x5000123, 0x5000123)
    assert (found.page_size, found.pfn, found.page) == (1 << 21, 0x5000, 0xFFFFEA0000140000)
    assert found.region is Region.DIRECT_MAP
    assert found.problem is None


def test_the_kernel_image_and_the_page_array(open_case):
    dump = open_case("n128_s1")
    image = translate(dump, dump.symbols["node_data"])
    assert image.region is Region.KERNEL_IMAGE
    assert image.walked == image.by_region == dump.symbols["node_data"] - 0xFFFFFFFF80000000
    assert [step.level for step in image.steps] == ["PGD", "PUD", "PMD", "PTE"]
    array = translate(dump, dump.mem_map + 64 * 5)
    assert array.region is Region.STRUCT_PAGE
    assert array.by_region is None
    assert array.phys == dump.virt_to_phys(dump.mem_map + 64 * 5)


@given(st.integers(0, (128 << 20) - 1))
def test_both_ways_agree_all_over_the_direct_map(open_case, phys):
    dump = open_case("n128_s1")
    found = translate(dump, dump.page_offset + phys)
    assert found.by_region == phys
    # The hypervisor's own pages at the end of memory are not mapped.
    assert found.walked in (phys, None)
    assert (found.walked is None) == (found.problem is not None)


def test_nothing_is_mapped(open_case):
    found = translate(open_case("n128_s1"), 0xFFFFE00000001000)
    assert (found.phys, found.pfn, found.page, found.page_size) == (None, None, None, 0)
    assert found.problem == "the PGD entry is not present"
    assert len(found.steps) == 1
    with pytest.raises(AddressError, match="not canonical"):
        translate(open_case("n128_s1"), 1 << 62)


def test_a_table_that_is_absent(edit):
    editor = edit()
    pud = translate(editor.dump, 0xFFFF880005000000).steps[1].table
    editor.ram.ranges = editor.ram.ranges.difference(Ranges([(pud, pud + 4096)]))
    found = translate(editor.dump, 0xFFFF880005000000)
    assert [step.level for step in found.steps] == ["PGD"]
    assert found.problem is not None
    assert found.problem.startswith(f"physical {pud:#x}: absent from the image")
    assert (found.walked, found.phys) == (None, 0x5000000)
