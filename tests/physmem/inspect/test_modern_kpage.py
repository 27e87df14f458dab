# SPDX-License-Identifier: GPL-2.0-only
"""/proc/kpageflags and /proc/kpagecount of every page, against what real kernels said."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from physmem.dump import open_dump
from physmem.errors import UsageError
from physmem.image import VmcoreInfo
from physmem.inspect.kpage import KPages
from physmem.inspect.kpf import KPF
from physmem.inspect.pagetypes import Filter, Histogram, long_flags, symbolic_flags
from physmem.inspect.states import State, survey

DATA = Path(__file__).parents[2] / "data" / "vmcores"
NAMES = sorted(path.name for path in DATA.iterdir() if path.is_dir())


def said(name, file):
    return np.frombuffer(gzip.decompress((DATA / name / f"{file}.gz").read_bytes()), "<u8")


@pytest.mark.parametrize("name", NAMES)
def test_every_page_is_as_the_kernel_said(name):
    with open_dump(DATA / name / "image.vmcore.xz") as dump:
        pages = KPages(dump)
        assert not pages.absent
        pieces = list(pages)
    assert sum(len(piece.flags) for piece in pieces) == pages.end
    flags = np.concatenate([piece.flags for piece in pieces])
    counts = np.concatenate([piece.counts for piece in pieces])
    for mine, theirs in ((flags, said(name, "kpageflags")), (counts, said(name, "kpagecount"))):
        assert len(mine) == len(theirs)
        assert np.flatnonzero(mine != theirs).tolist() == []


@pytest.mark.parametrize("name", NAMES)
def test_states_agree_with_the_kernel(name):
    """What the kernel calls free, slab, page table or anonymous memory, is that here too."""
    flags = said(name, "kpageflags")
    with open_dump(DATA / name / "image.vmcore.xz") as dump:
        pieces = list(survey(dump))
    codes = np.concatenate([piece.states for piece in pieces])
    orders = np.concatenate([piece.orders for piece in pieces])
    flags = flags[: len(codes)]
    states = list(State)
    inside = codes != states.index(State.HOLE)

    def are(*wanted):
        return np.isin(codes, [states.index(each) for each in wanted])

    def have(flag):
        return (flags & np.uint64(flag)) != 0

    assert (are(State.FREE) == (have(KPF.BUDDY) & inside)).all()
    assert (are(State.SLAB) == (have(KPF.SLAB) & inside)).all()
    assert (have(KPF.PGTABLE) <= are(State.PAGE_TABLE)).all()
    # A kernel's look at page->mapping means nothing in slab pages, where other things stand.
    assert ((have(KPF.ANON) & ~have(KPF.SLAB)) <= are(State.ANON, State.HUGEPAGE)).all()
    assert (have(KPF.HUGE) <= are(State.HUGEPAGE)).all()
    assert not are(State.SUSPICIOUS, State.ABSENT).any()
    assert ((orders >= 0) == are(State.FREE, State.PCP)).all()


@pytest.mark.parametrize(
    ("named", "all_of_them"),
    [
        *(("6.9.12", False), ("6.10.0-rc1", True), ("6.12.117+deb13-cloud-amd64", True), ("6.17.13", True)),
        *(("6.18", True), ("6.18.39", True), ("6.18.40", False), ("7.0.13", True), ("7.1.4", True), ("7.1.5", False)),
        *(("7.1.13+deb13-cloud-amd64", False), ("7.2.0", False)),
    ],
)
def test_which_releases_call_all_anonymous_memory_ksm(named, all_of_them):
    """Guests of 6.16.12, 6.17.13, 6.18.15, 6.19.14, 7.0.13 and 7.1.3 did, those of 7.1.7, 7.1.13, 7.2.13 did not."""
    with open_dump(DATA / "deb612-256m" / "image.vmcore.xz") as dump:
        dump.info = VmcoreInfo({**dump.info, "OSRELEASE": named})
        piece = next(iter(KPages(dump)))
    # What is not mapped, as slabs, has something else in ``mapping``.
    anon, ksm = (((piece.flags & np.uint64(flag)) == flag) for flag in (KPF.ANON | KPF.MMAP, KPF.KSM | KPF.MMAP))
    assert anon.sum() > 1000
    assert ksm[anon].all() if all_of_them else not ksm.any()


def test_a_kernel_of_4_0_by_its_own_rules(open_case):
    dump = open_case("n128_s5", "B")
    (flags,) = [np.concatenate(each) for each in zip(*((p.flags,) for p in KPages(dump)), strict=True)]
    pages, exists = dump.pages(0, dump.max_pfn, ["flags", "mapping", "_mapcount"])
    assert len(flags) == dump.max_pfn
    assert ((flags == np.uint64(KPF.NOPAGE)) == ~exists).all()
    for name, flag in (("PG_slab", KPF.SLAB), ("PG_head", KPF.COMPOUND_HEAD), ("PG_tail", KPF.COMPOUND_TAIL)):
        bit = np.uint64(1 << dump.layout.enumerator(name))
        assert (((flags & np.uint64(flag)) != 0) == ((pages["flags"] & bit) != 0)).all(), name
    # Only heads of free blocks say that they are free.
    assert (((flags & np.uint64(KPF.BUDDY)) != 0) == (pages["_mapcount"] == -128)).all()


def test_filters():
    flags = np.array([KPF.LRU | KPF.ANON, KPF.LRU, KPF.BUDDY, 0, KPF.SLAB | KPF.LRU], np.uint64)
    for text, passed in (
        ("lru", [1, 1, 0, 0, 1]),
        ("lru,buddy", [1, 1, 1, 0, 1]),
        ("lru,~slab", [1, 1, 0, 0, 0]),
        ("~lru", [0, 0, 1, 1, 0]),
        ("=lru", [0, 1, 0, 0, 0]),
        ("lru,slab=lru", [1, 1, 0, 0, 0]),
        ("pfn:101-0x66", [0, 1, 1, 0, 0]),
    ):
        assert Filter.parse(text).passes(100, flags).tolist() == [bool(each) for each in passed], text
    for wrong in ("nothing", "lru,=oops", "pfn:", "pfn:3-2", "pfn:1-2-3"):
        with pytest.raises(UsageError):
            Filter.parse(wrong)


def test_letters_and_names():
    flags = KPF.REFERENCED | KPF.BUDDY | KPF.ANON | KPF.OWNER_2
    assert symbolic_flags(flags).startswith("__R_______B_a_")
    assert long_flags(flags) == "referenced,buddy,anonymous,mappedtodisk"
    found = Histogram(pages={int(flags): 3, int(KPF.NOPAGE): 256})
    assert found.text().splitlines()[1:] == [
        f"0x0000000000100000\t       256        1  {symbolic_flags(KPF.NOPAGE)}\tnopage",
        f"0x0000000000001404\t         3        0  {symbolic_flags(0x1404)}\treferenced,buddy,anonymous",
        "             total\t       259        1",
    ]
    assert Histogram(raw=True, pages={int(flags): 3}).rows() == [(0x1404 | int(KPF.ANON_EXCLUSIVE), 3)]
