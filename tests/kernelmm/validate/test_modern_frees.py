# SPDX-License-Identifier: GPL-2.0-only
"""Frees on dumps of 5.10 to 7.2: judged by those kernels' own paths, against what they said of every page."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kernelmm.validate.freepath import When, path_of
from kernelmm.validate.judge import Judge
from kernelmm.validate.verdict import Fate, Status, Verdict
from physmem.dump import Dump, open_dump
from physmem.inspect.kpf import KPF
from physmem.inspect.states import State, survey
from physmem.ram import Ram

DATA = Path(__file__).parents[2] / "data" / "vmcores"
NAMES = ("deb510-512m", "deb61-1g-2node", "deb612-256m", "deb618-512m-2node", "deb72-1g-2node")
#: Frees that are judged of each sort.
SAMPLE = 25


class Machine:
    """A dump, what its kernel said of its pages, and a judge."""

    def __init__(self, dump: Dump, name: str) -> None:
        self.dump = dump
        self.judge = Judge(dump)
        said = gzip.decompress((DATA / name / "kpageflags.gz").read_bytes())
        form = self.judge.kernel.format
        self.start = max(zone.start_pfn for zone in self.judge.kernel.zones if not zone.node)
        self.flags = np.frombuffer(said, "<u8")[: dump.max_pfn]
        fields = [form.count, form.mapcount, "mapping", "flags", form.compound, self.judge.kernel.charged]
        self.pages = self.judge.kernel.array
        self.fields = np.zeros(len(self.flags), dump.layout.dtype("page", fields))
        for first, piece in self.pages.scan(fields):
            self.fields[first : first + len(piece)] = piece
        self.count = self.fields[form.count]
        self.states = np.full(len(self.flags), -1)
        for piece in survey(dump):
            self.states[piece.start : piece.start + len(piece.states)] = piece.states

    def are(self, *states: State) -> Any:
        return np.isin(self.states, [list(State).index(state) for state in states])

    def have(self, flag: int) -> Any:
        return (self.flags & np.uint64(flag)) != 0

    def some(self, where: Any, seed: int = 1) -> list[int]:
        """Some of the pages, the first and the last among them."""
        pfns = np.flatnonzero(where)
        if len(pfns) <= SAMPLE:
            return pfns.tolist()  # type: ignore[no-any-return]
        chosen = np.random.default_rng(seed).choice(pfns[1:-1], SAMPLE - 2, replace=False)
        return [int(pfns[0]), *chosen.tolist(), int(pfns[-1])]

    def free(self, pfn: int, order: int = 0) -> Verdict:
        return self.judge.free_pages(self.dump.page_offset + (pfn << 12), order)


@pytest.fixture(scope="module", params=NAMES)
def machine(request: Any) -> Iterator[Machine]:
    with open_dump(DATA / request.param / "image.vmcore.xz") as dump:
        yield Machine(dump, request.param)


def test_every_sort_of_page_is_refused_for_what_it_is(machine: Machine) -> None:
    """The kernel's own words (kpageflags) say what a page is; the checks must say the same."""
    in_zone = machine.are(*(state for state in State if state is not State.HOLE))
    sorts = {
        "free": (machine.are(State.FREE), {"already_free"}),
        "on a per-cpu list": (machine.are(State.PCP), {"pcp"}),
        "reserved": (machine.are(State.RESERVED), {"reserved"}),
        "slab, its head": (machine.have(KPF.SLAB) & ~machine.have(KPF.COMPOUND_TAIL) & in_zone, {"slab"}),
        "tail": (machine.have(KPF.COMPOUND_TAIL) & in_zone, {"tail"}),
        "page table": (machine.have(KPF.PGTABLE) & (machine.count == 1) & in_zone, {"type"}),
        "on an LRU list": (machine.have(KPF.LRU) & ~machine.have(KPF.COMPOUND_TAIL) & (machine.count == 1), {"lru"}),
        "hugepage": (machine.have(KPF.COMPOUND_HEAD) & (machine.are(State.HUGEPAGE)), {"compound_order"}),
    }
    met = {}
    for sort, (where, checks) in sorts.items():
        for pfn in machine.some(where & in_zone):
            verdict = machine.free(pfn)
            found = set(verdict.checks) | {answer.check for answer in verdict.answers if answer.status is Status.WRONG}
            assert checks <= found, (sort, pfn, verdict.explanation)
            assert not verdict.right
            met[sort] = met.get(sort, 0) + 1
    assert met["free"] == met["reserved"] == met["tail"] == SAMPLE
    assert all(met.get(sort, 0) > 0 for sort in ("on a per-cpu list", "slab, its head", "page table", "on an LRU list"))


def test_what_is_no_memory_is_refused(machine: Machine) -> None:
    dump, end = machine.dump, machine.dump.max_pfn
    for addr, check in (
        (dump.page_offset + (end + (1 << 20) << 12), "address"),
        (dump.regions.vmemmap, "address"),
        (0x7F00_0000_1000, "address"),
        (0xFF00_0000_0000_0000, "address"),
    ):
        verdict = machine.judge.free_pages(addr)
        assert check in verdict.checks
        assert verdict.debug_vm.where == "mm/page_alloc.c"
    holes = machine.are(State.HOLE)
    for pfn in machine.some(holes):
        assert set(machine.free(pfn).checks) & {"address", "struct_page", "span"}


def test_no_false_alarm_on_single_pages(machine: Machine) -> None:
    """Pages with one reference and nothing else, between pages that are in use: each is an allocation of its own."""
    form, fields = machine.judge.kernel.format, machine.fields
    plain = (
        machine.are(State.IN_USE)
        & (machine.count == 1)
        & (fields[form.mapcount] == -1)
        & (fields["mapping"] == 0)
        & (machine.flags & ~np.uint64(KPF.REFERENCED | KPF.UPTODATE | KPF.DIRTY | KPF.ACTIVE) == 0)
        & ((fields[machine.judge.kernel.charged] & np.uint64(3)) % np.uint64(2) == 0)
    )
    # A page that is not charged, or as the kernel's, and beside one that has an owner of its own.
    kmem = fields[machine.judge.kernel.charged] & np.uint64(3) == 2
    plain &= kmem | (fields[machine.judge.kernel.charged] == 0)
    owned = machine.count > 0
    beside = np.append(owned[1:], False)
    odd = np.arange(len(owned)) % 2 == 1
    pfns = machine.some(plain & (beside | odd))
    assert len(pfns) == SAMPLE
    for pfn in pfns:
        verdict = machine.free(pfn)
        if machine.judge.kernel.checked & int(fields["flags"][pfn]):
            continue
        assert verdict.right, verdict.explanation
        assert verdict.plain.fate is verdict.debug_vm.fate is Fate.FREED
        assert "CPU's list" in verdict.plain.effect


def test_no_false_alarm_on_compound_pages(machine: Machine) -> None:
    """Blocks that the kernel says are compound, with one reference and no other mark: right with their order only."""
    form, fields = machine.judge.kernel.format, machine.fields
    other = np.uint64(KPF.SLAB | KPF.LRU | KPF.HUGE | KPF.THP | KPF.ANON | KPF.MMAP)
    heads = machine.have(KPF.COMPOUND_HEAD) & (machine.count == 1) & (machine.flags & other == 0)
    heads &= (fields[form.mapcount] == -1) & (fields["mapping"] == 0) & (fields[machine.judge.kernel.charged] == 0)
    if not heads.any():
        pytest.skip("every compound page of this dump is a slab, a hugepage, or has no references of its own")
    tails = machine.have(KPF.COMPOUND_TAIL)
    checked = 0
    for pfn in machine.some(heads):
        size = 1
        while tails[pfn + size]:
            size += 1
        order = size.bit_length() - 1
        if size != 1 << order:
            continue
        verdict = machine.free(pfn, order)
        assert verdict.right, verdict.explanation
        for wrong in (0, order + 1):
            refused = machine.free(pfn, wrong)
            assert "compound_order" in refused.checks
            if wrong or machine.judge.kernel.path.asserts_single:
                assert "compound_order(page) != order" in refused.debug_vm.text
        assert "tail" in machine.free(pfn + size - 1).checks
        put = machine.judge.put_page(machine.dump.page_of(pfn + size - 1))
        assert (put.pfn, put.order, put.right) == (pfn, order, True)
        checked += 1
    assert checked > 0


def test_references_of_others_are_no_error(machine: Machine) -> None:
    for pfn in machine.some((machine.count > 1) & machine.are(State.FILE, State.ANON, State.IN_USE)):
        if machine.have(KPF.COMPOUND_HEAD)[pfn]:
            continue
        verdict = machine.free(pfn)
        assert verdict.plain.fate is Fate.KEPT
        assert set(verdict.checks) <= {"allocated_order"}
        # Of a block, the rest is freed at once.
        rest = machine.free(pfn & ~1, 1) if machine.count[pfn & ~1] > 1 else verdict
        if rest.order:
            assert "1 pages behind it all the same" in rest.plain.effect


# -- what is wrong with a page, and what each release makes of it --------------------------------------------------


class Doctored:
    """A page that could be freed, in memory that can be written."""

    def __init__(self, machine: Machine) -> None:
        dump = machine.dump
        form, fields = machine.judge.kernel.format, machine.fields
        # The last of a pair of pages is an allocation of its own, if it has a reference.
        odd = np.arange(len(machine.count)) % 2 == 1
        plain = machine.are(State.IN_USE) & (machine.count == 1) & (fields[form.mapcount] == -1) & odd
        plain &= (fields["mapping"] == 0) & (fields[machine.judge.kernel.charged] == 0)
        self.pfn = next(p for p in np.flatnonzero(plain).tolist() if machine.free(p).right)
        self.ram = Ram.from_image(dump.image)
        self.dump = dump.over(self.ram)
        self.at = self.dump.virt_to_phys(dump.page_of(self.pfn))
        self.layout = dump.layout

    def set(self, name: str, value: int) -> None:
        field = self.layout.field("page", name)
        self.ram.write(self.at + field.offset, (value % (1 << 8 * field.size)).to_bytes(field.size, "little"))

    def judge(self) -> Verdict:
        return Judge(self.dump).free_pages(self.dump.page_offset + (self.pfn << 12))


#: What is written into a field, the check that must name it, and the reason that the kernel's report gives.
DAMAGES = {
    "mapped": ("_mapcount", 0, "mapcount", "nonzero mapcount"),
    "in a file's cache": ("mapping", 0xFFFF888000001000, "mapping", "non-NULL mapping"),
    "locked": ("flags", "PG_locked", "flags", "PAGE_FLAGS_CHECK_AT_FREE flag(s) set"),
    "on an LRU list": ("flags", "PG_lru", "lru", "PAGE_FLAGS_CHECK_AT_FREE flag(s) set"),
    "charged": ("", 0xFFFF888000001000, "charged", "page still charged to cgroup"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_named_and_each_release_deals_with_it_in_its_way(machine: Machine, damage: str) -> None:
    field, value, check, reason = DAMAGES[damage]
    page = Doctored(machine)
    kernel = machine.judge.kernel
    if isinstance(value, str):
        value = int(machine.fields["flags"][page.pfn]) | kernel.format.bit(value)
    page.set(field or kernel.charged, value)
    verdict = page.judge()
    assert check in verdict.checks
    assert (verdict.debug_vm.fate, verdict.debug_vm.text) == (Fate.REFUSED, reason)
    if kernel.path.when is When.BY_KEY:
        assert (verdict.plain.fate, verdict.plain.text) == (Fate.REFUSED, reason)
        # The same kernel with its switch off looks at nothing.
        page.ram.write(page.dump.virt_to_phys(page.dump.symbols["check_pages_enabled"]), bytes(4))
        verdict = page.judge()
        assert verdict.plain.fate is Fate.FREED
        assert "nobody checks pages" in verdict.plain.later[0]
        assert verdict.debug_vm.fate is Fate.REFUSED
        assert verdict.asked[check].asked == "with DEBUG_VM"
    else:
        assert verdict.plain.fate is Fate.FREED
        later = verdict.plain.later[0]
        assert ("wiped off unseen" if "flag(s)" in reason else f"bulkfree_pcp_prepare reports pfn {page.pfn}") in later


def test_a_drivers_mapping_is_let_off_until_6_16(machine: Machine) -> None:
    """Of ``page->mapping``'s two bits the second alone was a driver's, of what can be moved all the same."""
    page = Doctored(machine)
    page.set("mapping", 0xFFFF888000001002)
    verdict = page.judge()
    if machine.dump.release < (6, 17):
        assert verdict.debug_vm.fate is Fate.FREED
        assert "mapping" not in verdict.checks
    else:
        assert (verdict.debug_vm.fate, verdict.debug_vm.text) == (Fate.REFUSED, "non-NULL mapping")


def test_a_page_without_references(machine: Machine) -> None:
    page = Doctored(machine)
    page.set("_refcount", 0)
    verdict = page.judge()
    assert verdict.checks[0] == "refcount"
    assert verdict.plain.fate is Fate.MISCOUNTED
    assert (verdict.debug_vm.fate, verdict.debug_vm.where) == (Fate.BUG, "include/linux/mm.h")
    assert "page_ref_count(page) == 0" in verdict.debug_vm.text


def test_a_guard_page_is_known(machine: Machine) -> None:
    form = machine.judge.kernel.format
    if "guard" not in form.types:
        pytest.skip("this kernel has no type for guard pages")
    page = Doctored(machine)
    mask, value = form.types["guard"]
    page.set("_refcount", 0)
    page.set("_mapcount", (value | 0xFFFFFFFF & ~mask) if mask != 0xFF000000 else value)
    page.set("private", 0)
    assert "a guard page of debug_guardpage_minorder, of order 0" in page.judge()["refcount"].detail


def test_a_release_between_two_frees_as_the_earlier_one() -> None:
    assert path_of((6, 2)).since == (6, 1)
    assert path_of((9, 0)).since == (6, 17)
    assert path_of((3, 10)).since == (4, 0)
    assert [path_of((6, minor)).asserts_single for minor in (6, 7, 8)] == [False, True, True]
    assert [path_of((6, minor)).knows_pools for minor in (7, 8)] == [False, True]
    assert [path_of((6, minor)).lets_mlocked for minor in (11, 12)] == [False, True]
    assert [path_of(release).when for release in ((4, 0), (5, 10), (6, 12))] == list(When)
