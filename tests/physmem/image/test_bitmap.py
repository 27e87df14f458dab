# SPDX-License-Identifier: GPL-2.0-only
"""Bitmaps of pages: against sets of numbers, and against ``Ranges``."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from physmem.image.bitmap import InMemory, PageBitmap, PageRanges
from physmem.ranges import Ranges

PAGE = 4096
#: Some pages in two of the blocks that set bits are counted by, and at their borders.
PFNS = st.sets(st.integers(0, 9000) | st.sampled_from([0, 7, 8, 4095, 4096, 8191, 8192]), max_size=40)
SPREAD = st.builds(lambda pfns, runs: pfns | {p + i for p in pfns for i in range(runs)}, PFNS, st.integers(1, 30))


def bitmap_of(pfns: set[int], pages: int = 9100) -> PageBitmap:
    bits = bytearray(-(-pages // 8) + 3)
    for pfn in pfns:
        bits[pfn >> 3] |= 1 << (pfn & 7)
    return PageBitmap(InMemory.of(bytes(bits)), pages)


@given(SPREAD, st.integers(0, 9200))
def test_counts(pfns: set[int], pfn: int) -> None:
    bitmap = bitmap_of(pfns)
    assert bitmap.total == len(pfns)
    assert bitmap.rank(pfn) == sum(p < pfn for p in pfns)
    assert (pfn in bitmap) == (pfn in pfns)
    assert bitmap.end == max(pfns, default=-1) + 1


@given(SPREAD, st.integers(0, 9200), st.integers(0, 9200))
def test_gaps_and_runs(pfns: set[int], start: int, end: int) -> None:
    bitmap = bitmap_of(pfns)
    assert bitmap.first_missing(start, end) == next((p for p in range(start, end) if p not in pfns), None)
    inside = Ranges((p, p + 1) for p in pfns if start <= p < end)
    assert [tuple(run) for run in bitmap.runs(start, end).tolist()] == list(inside)


def test_runs_across_the_pieces_that_are_taken_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("physmem.image.bitmap._PIECE", 2)
    bitmap = bitmap_of({3, 15, 16, 17, 31, 32, 60})
    assert bitmap.runs(0, 100).tolist() == [[3, 4], [15, 18], [31, 33], [60, 61]]
    assert bitmap.runs(16, 32).tolist() == [[16, 18], [31, 32]]


def test_a_long_run() -> None:
    bitmap = PageBitmap(InMemory.of(b"\xff" * 5000), 40000)
    assert bitmap.first_missing(3, 40000) is None
    assert bitmap.first_missing(3, 40001) == 40000
    assert bitmap.rank(39999) == 39999
    assert bitmap.runs(0, 1 << 40).tolist() == [[0, 40000]]


@pytest.mark.parametrize("pages", range(1, 17))
def test_bits_beyond_the_last_page_do_not_count(pages: int) -> None:
    bitmap = PageBitmap(InMemory.of(b"\xff\xff\xff"), pages)
    assert (bitmap.total, bitmap.end, bitmap.rank(1000)) == (pages, pages, pages)
    assert pages - 1 in bitmap
    assert pages not in bitmap


def test_nothing() -> None:
    bitmap = PageBitmap(InMemory.of(b""), 0)
    assert (bitmap.total, bitmap.end, bitmap.rank(5), 0 in bitmap, -1 in bitmap) == (0, 0, 0, False, False)
    assert bitmap.first_missing(0, 1) == 0
    assert bitmap.first_missing(-5, 1) == -5
    assert list(PageRanges(bitmap)) == []
    with pytest.raises(AttributeError):
        PageRanges(bitmap).nothing  # noqa: B018


@given(SPREAD, st.integers(-5, 9200 * PAGE), st.integers(-5, 9200 * PAGE))
def test_ranges_are_those_of_the_pages(pfns: set[int], start: int, end: int) -> None:
    lazy = PageRanges(bitmap_of(pfns))
    plain = Ranges((p * PAGE, (p + 1) * PAGE) for p in pfns)
    # First what is answered by the bitmap, then what needs the lists.
    assert lazy.end == plain.end
    assert lazy.total() == plain.total()
    assert (start in lazy) == (start in plain)
    assert lazy.first_gap(start, end) == plain.first_gap(start, end)
    assert lazy.covers(start, end) == plain.covers(start, end)
    assert lazy.clip(start, end) == plain.clip(start, end)
    assert lazy.overlaps(start, end) == plain.overlaps(start, end)
    assert lazy.find(start) == plain.find(start)
    assert lazy == plain
    assert hash(lazy) == hash(plain)
    assert len(lazy) == len(plain)
    assert lazy | Ranges([(0, 5)]) == plain | Ranges([(0, 5)])
    assert repr(lazy) == repr(plain)
