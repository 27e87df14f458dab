# SPDX-License-Identifier: GPL-2.0-only
"""A dump of 6.1 with hugepages, whose page array is mapped anew as hugetlb_optimize_vmemmap has it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from physmem.dump import open_dump
from physmem.errors import CorruptionError
from physmem.inspect.check import check
from physmem.inspect.kpage import KPages
from physmem.inspect.kpf import KPF
from physmem.inspect.memmap import PageArray
from tests.physmem.inspect.conftest import Editor

DATA = Path(__file__).parents[2] / "data" / "vmcores"
PER_CHUNK, CHUNKS = 64, 8


@pytest.fixture(scope="module")
def dump():
    with open_dump(DATA / "deb61-1g-2node" / "image.vmcore.xz") as opened:
        yield opened


@pytest.fixture(scope="module")
def plain(dump):
    return kpage(dump)


@pytest.fixture(scope="module")
def heads(plain):
    flags = plain[0]
    head = np.uint64(KPF.COMPOUND_HEAD | KPF.HUGE)
    found = [int(pfn) for pfn in np.flatnonzero((flags & head) == head)]
    assert len(found) == 8
    return found


@pytest.fixture
def editor(dump):
    return Editor(dump)


def kpage(dump):
    pieces = list(KPages(dump))
    return np.concatenate([piece.flags for piece in pieces]), np.concatenate([piece.counts for piece in pieces])


def optimize(editor, pfn, kept):
    """Map the tails of a hugepage to the last page of its page array that is kept; gives the table."""
    own = editor.dump.virt_to_phys(editor.page(pfn))
    table = own + 7 * 4096  # memory that is set free by it
    editor.split_page_array(pfn, table)
    shared = editor.ram.u64(editor.pte(table, pfn + (kept - 1) * PER_CHUNK))
    for chunk in range(kept, CHUNKS):
        editor.ram.set_u64(editor.pte(table, pfn + chunk * PER_CHUNK), shared & ~2)
    return table


@pytest.mark.parametrize("kept", [1, 2])
def test_every_page_is_as_without_it(dump, editor, heads, plain, kept):
    optimize(editor, heads[0], kept)
    flags, counts = kpage(editor.dump)
    assert np.flatnonzero(flags != plain[0]).tolist() == []
    assert np.flatnonzero(counts != plain[1]).tolist() == []
    array = PageArray(editor.dump)
    assert (
        array.mapped.total() == array.present.total() == PageArray(editor.dump.over(editor.dump.image)).mapped.total()
    )
    fake = heads[0] + kept * PER_CHUNK
    assert array.fields(["compound_head"], fake)["compound_head"] == editor.page(heads[0]) + 1
    assert array.rows(np.array([fake])).tobytes() == array.raw(fake, fake + 1).tobytes()
    assert not check(editor.dump).findings


def test_tails_that_are_mapped_elsewhere_are_corrupt(editor, heads):
    table = optimize(editor, heads[0], 1)
    other = next(pfn for pfn in heads if pfn >> 15 == heads[0] >> 15 and pfn != heads[0])
    # To the tails of another hugepage: this kernel has none that serve all.
    editor.ram.set_u64(
        editor.pte(table, heads[0] + 5 * PER_CHUNK), editor.ram.u64(editor.pte(table, other + PER_CHUNK))
    )
    with pytest.raises(CorruptionError, match=f"page_array: the pages from pfn {heads[0] + 5 * 64} and"):
        PageArray(editor.dump)
    assert "page_array" in check(editor.dump).counts


def test_pages_that_are_no_hugepage_do_not_share(editor, heads, plain):
    table = optimize(editor, heads[0], 1)
    huge = np.uint64(KPF.HUGE)
    start = heads[0] & -(1 << 15)
    small = next(pfn for pfn in range(start, start + (1 << 15), 512) if not (plain[0][pfn : pfn + 512] & huge).any())
    editor.ram.set_u64(editor.pte(table, small + 3 * PER_CHUNK), editor.ram.u64(editor.pte(table, small)))
    with pytest.raises(CorruptionError, match="share memory"):
        PageArray(editor.dump)


def test_a_head_that_is_no_hugepage_any_more(editor, heads):
    optimize(editor, heads[0], 1)
    bit = 1 << editor.dump.layout.enumerator("PG_head")
    editor.set_page(heads[0], "flags", editor.get_page(heads[0], "flags") & ~bit)
    with pytest.raises(CorruptionError, match="share memory"):
        PageArray(editor.dump)
