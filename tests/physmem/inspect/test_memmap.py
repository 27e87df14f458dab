# SPDX-License-Identifier: GPL-2.0-only
"""The page array in pieces: as a whole, scattered, with holes, and damaged."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from physmem.errors import CorruptionError
from physmem.inspect import memmap
from physmem.inspect.memmap import PageArray
from physmem.ranges import Ranges

MMAP = 0xFFFFEA0000000000


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(memmap, "CHUNK", 1000)


def pmd_entry(editor, va):
    """Physical address of the page table entry that maps 2 MiB of the page array."""
    return list(editor.dump.steps(va))[2].at


def test_all_pages_once(open_case, small_chunks):
    dump = open_case("n256x2_s6n")
    array = PageArray(dump)
    assert array.mapped == array.present == Ranges([(0, 65504)])
    pieces = list(array.scan(["flags", "_count"]))
    assert [start for start, _ in pieces[:3]] == [0, 1000, 2000]
    assert max(len(piece) for _, piece in pieces) == 1000
    whole = np.concatenate([piece["flags"] for _, piece in pieces])
    assert (whole == dump.pages(0, 65504, ["flags"])[0]["flags"]).all()


@given(st.sets(st.integers(0, 65503), max_size=50), st.integers(0, 65503), st.integers(0, 3000))
def test_some_pages(open_case, pfns, start, count):
    dump = open_case("n256x2_s6n")
    array = PageArray(dump)
    chosen = np.array(sorted(pfns), np.int64)
    expected, _ = dump.pages(0, 65504, ["flags", "lru.next"])
    found = array.gather(["flags", "lru.next"], chosen)
    assert found["flags"].tolist() == expected["flags"][chosen].tolist()
    assert found["lru.next"].tolist() == expected["lru.next"][chosen].tolist()
    end = min(start + count, 65504)
    raw = array.raw(start, end)
    assert raw.shape == (end - start, 64)
    assert raw[:, :8].copy().view(np.uint64).ravel().tolist() == expected["flags"][start:end].tolist()


def test_a_single_page(open_case):
    array = PageArray(open_case("n128_s1"))
    assert array.fields(["_mapcount", "flags"], 4096) == {"_mapcount": -1, "flags": 0x1FFE00000000400}
    assert array.fields(["flags"], 32736) == {}
    assert array.fields(["flags"], 1 << 60) == {}


def test_a_hole_in_the_page_array(edit):
    editor = edit("n256x2_s6n")
    editor.ram.set_u64(pmd_entry(editor, MMAP), 0)
    array = PageArray(editor.dump)
    assert array.mapped == array.present == Ranges([(32768, 65504)])
    assert array.slots(np.array([-1, 0, 32767, 32768, 65503, 65504])).tolist() == [-1, -1, -1, 0, 32735, -1]


def test_no_page_array_at_all(edit):
    editor = edit()
    editor.ram.set_u64(pmd_entry(editor, MMAP), 0)
    array = PageArray(editor.dump)
    assert not array.mapped
    assert list(array.scan(["flags"])) == []
    assert array.slots(np.array([0, 5])).tolist() == [-1, -1]
    assert array.raw(7, 7).shape == (0, 64)


def test_pages_that_are_absent(edit):
    editor = edit()
    at = editor.dump.virt_to_phys(editor.page(1000))
    # From the middle of one struct page into the middle of another.
    editor.ram.ranges = editor.ram.ranges.difference(Ranges([(at + 32, at + 10 * 64 + 32)]))
    array = PageArray(editor.dump)
    assert array.mapped == Ranges([(0, 32736)])
    assert array.present == Ranges([(0, 1000), (1011, 32736)])
    assert array.slots(np.array([999, 1000, 1010, 1011])).tolist() == [999, -1, -1, 1000]
    assert array.gather(["private"], np.array([999, 1011]))["private"].shape == (2,)
    assert sum(len(piece) for _, piece in array.scan(["flags"])) == 32736 - 11


def test_parts_that_are_the_same_memory(edit):
    editor = edit("n256x2_s6n")
    first = editor.ram.u64(pmd_entry(editor, MMAP))
    editor.ram.set_u64(pmd_entry(editor, MMAP + (2 << 20)), first)
    with pytest.raises(CorruptionError, match="page_array: the pages from pfn 0 and from pfn 32768 on share memory"):
        PageArray(editor.dump)


def test_small_pages_behind_the_page_array(edit):
    """A vmemmap that is mapped by pages of 4 KiB, in reverse order."""
    editor = edit()
    entry = pmd_entry(editor, MMAP)
    base = editor.ram.u64(entry) & 0x000FFFFFFFE00000
    table = next(start for start, end in editor.ram.ranges if end - start == 4096)
    before, _ = editor.dump.pages(0, 32736, ["flags"])
    for i in range(512):
        editor.ram.set_u64(table + 8 * i, (base + 4096 * (511 - i)) | 0x163)
    editor.ram.set_u64(entry, table | 0x163)
    array = PageArray(editor.dump.over(editor.ram))
    assert array.present == Ranges([(0, 32736)])
    moved = [(511 - pfn // 64) * 64 + pfn % 64 for pfn in range(100, 300)]
    found = array.raw(100, 300)[:, :8].copy().view(np.uint64).ravel()
    assert found.tolist() == before["flags"][moved].tolist()
    assert array.gather(["flags"], np.arange(100, 300))["flags"].tolist() == found.tolist()
