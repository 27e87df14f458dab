# SPDX-License-Identifier: GPL-2.0-only
"""Sections, and the flags of pageblocks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from physmem.errors import AbsentError, AddressError, UnsupportedError
from physmem.inspect import sections
from physmem.ranges import Ranges
from physmem.symbols import Symbols

MOVABLE, RESERVE = 2, 3


def usemap(editor, section=0):
    """Physical address of a section's pageblock flags, and of its mem_section."""
    root = editor.dump.u64(editor.dump.symbols["mem_section"])
    entry = root + section * editor.dump.layout.sizeof("mem_section")
    return editor.dump.virt_to_phys(editor.get(entry, "mem_section", "pageblock_flags")), entry


def test_sections(open_case):
    one, two = open_case("n128_s1"), open_case("n256x2_s6n")
    assert [section.nr for section in sections.sections(one)] == [0]
    found = list(sections.sections(two))
    assert [section.nr for section in found] == [0, 1]
    # A section's part of the page array is kept as if it began at PFN 0.
    assert {section.mem_map & ~3 for section in found} == {two.mem_map}


def test_a_migratetype_for_each_pageblock(open_case):
    types = sections.pageblock_types(open_case("n128_s1"))
    assert len(types) == 64  # 32736 pages
    assert np.bincount(types, minlength=6).tolist() == [5, 4, 53, 2, 0, 0]
    assert types[0] == 0
    assert sections.pageblock_types(open_case("n128cma_s17_contig")).tolist().count(4) == 8  # cma=16M


def test_a_pageblock_is_four_bits_from_the_top_down(edit):
    editor = edit()
    at, _ = usemap(editor)
    dump = editor.dump

    @given(st.lists(st.integers(0, 15), min_size=64, max_size=64))
    def check(values):
        for i in range(0, 64, 16):
            word = int("".join(f"{value:x}" for value in values[i : i + 16]), 16)
            editor.ram.set_u64(at + i // 2, word)
        assert sections.pageblock_flags(dump).tolist() == values
        assert sections.pageblock_types(dump).tolist() == [value >> 1 for value in values]

    check()


def test_flags_that_are_absent(edit):
    editor = edit("n256x2_s6n")
    at, _ = usemap(editor, 1)
    editor.ram.ranges = editor.ram.ranges.difference(Ranges([(at, at + 8)]))
    with pytest.raises(AbsentError):
        sections.pageblock_types(editor.dump)
    types = sections.pageblock_types(editor.dump, partial=True)
    assert set(types[:64].tolist()) <= {0, 1, 2, 3}
    assert set(types[64:].tolist()) == {sections.ABSENT}


def test_a_section_that_is_not_there(edit):
    editor = edit("n256x2_s6n")
    _, entry = usemap(editor, 1)
    editor.set(entry, "mem_section", "section_mem_map", 0)
    types = sections.pageblock_types(editor.dump)
    assert set(types[64:].tolist()) == {sections.NO_SECTION}
    editor.set_symbol("mem_section", 0)
    assert list(sections.sections(editor.dump)) == []
    editor.set_symbol("mem_section", 0xFFFFC90000000000 + (1 << 45))
    with pytest.raises(AddressError):
        list(sections.sections(editor.dump))


def test_a_flat_memory_map_has_none(open_case):
    dump = open_case("n128_s1").over(open_case("n128_s1").memory)
    dump.symbols = Symbols({}, "a test")
    with pytest.raises(UnsupportedError, match="flat memory map"):
        list(sections.sections(dump))


def test_the_migratetype_is_in_the_first_bits(open_case):
    form = sections.PageblockFormat(open_case("n128_s1"))
    flags = np.array([0b0101, 0b0100, sections.NO_SECTION, sections.ABSENT], np.int16)
    assert form.migratetype(flags).tolist() == [MOVABLE, MOVABLE, -1, -2]
    assert form.migratetype(np.array([0b0110], np.int16)).tolist() == [RESERVE]
    assert [form.others(int(each)) for each in flags[:2]] == [["skip"], []]
