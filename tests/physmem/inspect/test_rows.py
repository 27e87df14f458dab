# SPDX-License-Identifier: GPL-2.0-only
"""Pages are sorted and told of alike by the compiled room and by numpy, on real images, whole and damaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from physmem import engine
from physmem.dump import open_dump
from physmem.inspect import kpage
from physmem.inspect.alike import tally
from physmem.inspect.kpage import KPages
from physmem.inspect.pageformat import PageFormat
from physmem.inspect.pagetypes import Histogram
from physmem.inspect.rows import ByNumpy, Compiled, fits
from tests.physmem.inspect.conftest import Editor

DATA = Path(__file__).parents[2] / "data"
IMAGES = {path.name: path / "image.vmcore.xz" for path in sorted((DATA / "vmcores").iterdir()) if path.is_dir()}
IMAGES |= {case: DATA / "oracle" / case / "B.vmcore.xz" for case in ("n128_s1", "n128_s5", "n256x2_s6n", "u128_s1")}
#: Values that lead somewhere: flags of heads and tails, types of 4.0 to 7.2, counts, orders.
WORDS = st.sampled_from([0, 1, 3, 1 << 6, 1 << 14, 1 << 15, 1 << 16, 5, 9, 10, 11, 63, 64, (1 << 64) - 1, 1 << 63])
TYPES = st.sampled_from(
    [0, 1, 7, -1, -2, -128, -129, -130, -256, -257, -512, 0xF0 << 24, 0xF5 << 24, 0xF4 << 24, 1 << 31]
)


@pytest.fixture(scope="module", params=IMAGES)
def editor(request):
    with open_dump(IMAGES[request.param]) as dump:
        yield Editor(dump)


def both(dump, piece=kpage.PIECE):
    """What is told of all pages, by the room (that of the engine that runs) and by numpy."""
    form = PageFormat(dump.layout)
    assert fits(dump, form)
    found = []
    for way in (Compiled(dump, form, piece), ByNumpy(dump, form)):
        pages = KPages(dump, way, reuse=True)
        pieces = [(piece.start, piece.flags.copy(), piece.counts.copy()) for piece in pages]
        found.append(tuple(np.concatenate([piece[n] for piece in pieces]) for n in (1, 2)))
    return found


def assert_alike(dump, **options):
    (flags, counts), (other_flags, other_counts) = both(dump, **options)
    assert np.flatnonzero(flags != other_flags).tolist() == []
    assert np.flatnonzero(counts != other_counts).tolist() == []
    assert len(flags)


def test_both_say_the_same(editor):
    assert_alike(editor.dump)


@settings(max_examples=8 if engine.current() == "compiled" else 2)
@given(data=st.data())
def test_both_say_the_same_of_damaged_pages(editor, data):
    """Compound pages and free blocks that begin, end and lead anywhere, types and flags of any kind."""
    dump, form = editor.dump, PageFormat(editor.dump.layout)
    page_array = KPages(dump).array
    start = next(iter(page_array.present))[0]
    undo = []

    def put(pfn, name, value):
        undo.append((pfn, name, editor.get_page(pfn, name)))
        editor.set_page(pfn, name, value)

    for _ in range(data.draw(st.integers(1, 40))):
        pfn = start + data.draw(st.integers(0, 300))
        if pfn not in page_array.present:
            continue
        kind = data.draw(st.sampled_from(["flags", "mapping", form.mapcount, form.count, form.order, form.tail_field]))
        if kind == form.tail_field:
            value = editor.page(pfn - data.draw(st.integers(-2, 20))) + (1 if form.compound else 0)
            if not form.compound:
                put(pfn, "flags", editor.get_page(pfn, "flags") | form.bit("PG_tail"))
        elif kind == form.mapcount:
            value = data.draw(TYPES)
        elif kind == "flags":
            value = editor.get_page(pfn, "flags") ^ data.draw(WORDS | st.just(form.bit("PG_head")))
        else:
            value = data.draw(WORDS)
        put(pfn, kind, value)
    try:
        assert_alike(dump)
    finally:
        for pfn, name, before in reversed(undo):
            editor.set_page(pfn, name, before)


def test_in_small_pieces(editor, monkeypatch):
    """Compound pages whose head is in the piece before."""
    monkeypatch.setattr(kpage, "PIECE", 1 << 13)
    (whole, counts), _ = both(editor.dump, piece=1 << 13)
    monkeypatch.undo()
    again, _ = both(editor.dump)
    assert (whole == again[0]).all()
    assert (counts == again[1]).all()


def test_a_table_of_kinds_that_is_full_is_no_matter(editor):
    """Keys made to be hard to find have several numbers, and are told of alike all the same."""
    dump, form = editor.dump, PageFormat(editor.dump.layout)
    full = Compiled(dump, form, kpage.PIECE)
    full.slots = 8
    plain = KPages(dump, ByNumpy(dump, form))
    for mine, theirs in zip(KPages(dump, full), plain, strict=True):
        assert (mine.flags == theirs.flags).all()
        assert (mine.counts == theirs.counts).all()


@given(values=st.lists(st.integers(0, 40) | st.integers(0, (1 << 64) - 1), max_size=300))
def test_values_are_counted(values):
    array = np.array(values, np.uint64)
    found, done, rounds = {}, 0, 0
    while done < len(array):
        keys, counts = np.zeros((2, 16), np.uint64)
        done = tally(array.data, done, keys.data, counts.data)
        for key, count in zip(keys.tolist(), counts.tolist(), strict=True):
            found[key] = found.get(key, 0) + count
        rounds += 1
        assert rounds <= len(array)
    assert {key: count for key, count in found.items() if count} == {v: values.count(v) for v in values}


def test_a_histogram_is_the_same_by_both(monkeypatch):
    flags = np.random.default_rng(1).integers(0, 9000, 50_000).astype(np.uint64)
    found = []
    for name in engine.ENGINES:
        monkeypatch.setattr("physmem.engine._chosen", name)
        histogram = Histogram([], True)
        histogram.add(kpage.Piece(0, flags.data, flags.data))
        found.append(histogram.pages)
    assert found[0] == found[1]
    assert sum(found[0].values()) == len(flags)
