# SPDX-License-Identifier: GPL-2.0-only
"""kmemcheck's hook in the page allocator: each rule of the kernel, its shadows and page table entries byte for byte."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernelmm import Debug, Machine
from kernelmm.debug.kmemcheck import INITIALIZED, UNINITIALIZED
from kernelmm.gfp import (
    __GFP_COMP,
    __GFP_HIGHMEM,
    __GFP_NOTRACK,
    __GFP_NOWARN,
    __GFP_ZERO,
    GFP_ATOMIC,
    GFP_HIGHUSER_MOVABLE,
    GFP_KERNEL,
)
from kernelmm.pressure import migrate
from physmem import engine
from physmem.errors import CorruptionError, SymbolError, UsageError
from physmem.inspect.check import check
from physmem.structs.linux_4_0 import NUMA, SMP

#: PTE of a frame of the direct map: present, writable, accessed, dirty, global, not executable; and tracked: bit 11
#: instead of bit 0.
MAPPED, TRACKED = 1 << 63 | 0x163, 1 << 63 | 0x962
ADDRESS = 0xFFFFFFFFFF000


def boot(mode: int = 1, **options: Any) -> Machine:
    return Machine.boot("32M", debug=Debug(kmemcheck=mode), **options)


def flags(machine: Machine, page: int) -> int:
    return list(machine.dump.steps(machine.page_address(page)))[-1].entry & ~ADDRESS


def pages(page: int, order: int) -> list[int]:
    return [page + 64 * i for i in range(1 << order)]


def alloc(machine: Machine, gfp: int = GFP_KERNEL, order: int = 0) -> int:
    page = machine.alloc_pages(gfp, order)
    assert page is not None
    return page


def shadow(machine: Machine, page: int) -> int:
    """``struct page *`` of the shadow."""
    return machine.virt_to_page(int(machine.page(page)["shadow"]))


def states(machine: Machine, page: int) -> set[int]:
    return set(machine.ram.read(machine.mm.aids.kmemcheck.shadow_lookup(machine.mm, machine.page_address(page)), 4096))


def in_use(machine: Machine) -> int:
    """Pages that are neither free nor on a per-cpu list nor reserved."""
    found, exists = machine.dump.pages(0, machine.dump.max_pfn, ["_count"])
    return int(np.count_nonzero(np.asarray(found["_count"]).reshape(-1)[exists] == 1))


def errors(machine: Machine) -> list[str]:
    return [line for line in machine.console.lines if line.startswith("WARNING: kmemcheck:")]


# -- the build --------------------------------------------------------------------


def test_off_by_default() -> None:
    with Machine.boot("32M") as machine:
        assert machine.mm.aids is None
        assert not any((machine.mm.kmemcheck, machine.mm.debugging, machine.mm.debug_alloc))
        with pytest.raises(UsageError, match="the kernel was built without it"):
            machine.sysctl("kmemcheck", 1)


def test_the_direct_map_has_small_pages_only() -> None:
    """probe_page_size_mask: with CONFIG_KMEMCHECK neither 2 MiB nor 1 GiB."""
    with boot() as machine:
        for phys in (2 << 20, 8 << 20, 20 << 20):
            assert list(machine.dump.steps(machine.mm.page_offset + phys))[-1].level == "PTE"
        assert machine.dump.layout.sizeof("page") == 64
        assert machine.dump.layout.offsetof("page", "shadow") == 56


def test_one_cpu_is_brought_up() -> None:
    with boot(cpus=4) as machine:
        assert machine.kernel.online_cpus() == [0]
        assert list(machine.kernel.possible_cpus()) == [0, 1, 2, 3]
        assert machine.console.lines[-2:] == ["kmemcheck: Limiting number of CPUs to 1.", "kmemcheck: Initialized"]
    with boot() as machine:
        assert machine.console.lines[-1] == "kmemcheck: Initialized"
        assert "Limiting" not in machine.dmesg()


@pytest.mark.parametrize("value", ["1", "0x1", "01", "2", "0", "-1", "+1"])
def test_on_the_command_line(value: str) -> None:
    with Machine.boot("32M", cmdline=f"kmemcheck={value}") as machine:
        assert machine.kernel.var("kmemcheck_enabled") == int(value, 0 if value != "01" else 8)
        assert (flags(machine, alloc(machine)) == TRACKED) == (value != "0")


def test_options_that_cannot_be() -> None:
    with pytest.raises(UsageError, match="either that or debug_pagealloc"):
        Machine.boot("32M", debug=Debug(kmemcheck=1, debug_pagealloc=True))
    for value in ("yes", "1_0", "08", "0x", "9" * 11, "1x"):
        with pytest.raises(UsageError, match=f"kmemcheck={value}: not a number"):
            Machine.boot("32M", cmdline=f"kmemcheck={value}")
    with pytest.raises(UsageError, match="must be an int"):
        Machine.boot("32M", debug=Debug(kmemcheck=1 << 31))


# -- allocating and freeing -------------------------------------------------------


@pytest.mark.parametrize("order", [0, 1, 3])
def test_a_block_has_a_shadow_and_no_mapping(order: int) -> None:
    with boot() as machine:
        block = alloc(machine, order=order)
        its = shadow(machine, block)
        assert [shadow(machine, page) for page in pages(block, order)] == pages(its, order)
        assert {flags(machine, page) for page in pages(block, order)} == {TRACKED}
        assert {flags(machine, page) for page in pages(its, order)} == {MAPPED}
        assert {machine.page(page)["shadow"] for page in pages(its, order)} == {0}
        assert all(states(machine, page) == {UNINITIALIZED} for page in pages(block, order))


def test_zeroed_pages_are_tracked_too() -> None:
    with boot() as machine:
        block = alloc(machine, GFP_KERNEL | __GFP_ZERO, 1)
        assert {flags(machine, page) for page in pages(block, 1)} == {TRACKED}
        assert all(states(machine, page) == {INITIALIZED} for page in pages(block, 1))
        assert machine.read(machine.page_address(block), 8192) == bytes(8192)
        assert errors(machine) == []


@pytest.mark.parametrize("gfp", [GFP_KERNEL | __GFP_NOTRACK, GFP_KERNEL | __GFP_HIGHMEM, GFP_HIGHUSER_MOVABLE])
def test_who_is_not_tracked(gfp: int) -> None:
    with boot() as machine:
        used = in_use(machine)
        page = alloc(machine, gfp)
        assert flags(machine, page) == MAPPED
        assert machine.page(page)["shadow"] == 0
        assert in_use(machine) == used + 1


def test_the_shadow_is_the_same_request_but_not_tracked() -> None:
    """kmemcheck_alloc_shadow: as large, with __GFP_NOTRACK; its event is told before that of the block."""
    with boot() as machine:
        with machine.trace() as tracer:
            block = alloc(machine, GFP_ATOMIC | __GFP_COMP, 2)
            its = shadow(machine, block)
            machine.free_block(block, 2)
        told = [event for event in tracer.events if event.name in ("mm_page_alloc", "mm_page_free")]
        seen = [(event.name, event.pfn, event.fields["order"], "GFP_NOTRACK" in event.text) for event in told]
        pfn, its_pfn = machine.page_to_pfn(block), machine.page_to_pfn(its)
        assert seen == [
            ("mm_page_alloc", its_pfn, 2, True),
            ("mm_page_alloc", pfn, 2, False),
            ("mm_page_free", pfn, 2, False),
            ("mm_page_free", its_pfn, 2, False),
        ]


def test_a_freed_block_is_shown_and_its_shadow_freed() -> None:
    with boot() as machine:
        used = in_use(machine)
        block = alloc(machine, order=2)
        its = shadow(machine, block)
        assert in_use(machine) == used + 2
        machine.free_block(block, 2)
        assert {flags(machine, page) for page in pages(block, 2)} == {MAPPED}
        assert {machine.page(page)["shadow"] for page in pages(block, 2)} == {0}
        assert in_use(machine) == used
        assert machine.page(its)["_count"] == 0
        assert not check(machine.dump).findings


def test_a_bad_page_loses_its_shadow_all_the_same() -> None:
    """free_pages_prepare: kmemcheck_free_shadow comes before the checks."""
    with boot() as machine:
        page = alloc(machine)
        its = shadow(machine, page)
        machine.ram.set_u32(machine.dump.virt_to_phys(page) + 24, 3)
        machine.free_block(page)
        assert "BUG: Bad page state" in machine.dmesg()
        assert machine.page(its)["_count"] == 0
        assert flags(machine, page) == MAPPED


def test_a_split_block_has_split_shadows() -> None:
    """split_page: each page frees a shadow of its own; alloc_pages_exact relies on it."""
    with boot() as machine:
        used = in_use(machine)
        block = alloc(machine, order=2)
        its = shadow(machine, block)
        machine.split_page(block, 2)
        assert [machine.page(page)["_count"] for page in pages(its, 2)] == [1] * 4
        machine.free_block(block)
        assert [machine.page(page)["_count"] for page in pages(its, 2)] == [0, 1, 1, 1]
        for page in pages(block, 2)[1:]:
            assert flags(machine, page) == TRACKED
            machine.free_block(page)
        assert in_use(machine) == used
        addr = machine.alloc_pages_exact(3 * 4096, GFP_KERNEL)
        assert addr is not None
        assert in_use(machine) == used + 6
        machine.free_pages_exact(addr, 3 * 4096)
        assert in_use(machine) == used


def test_without_a_shadow_a_block_is_not_tracked() -> None:
    """The shadow's allocation fails: a line, at most ten of them in five seconds, and nothing is hidden."""
    with boot() as machine:
        # Every second allocation: the shadow's.
        machine.fail_page_alloc("2,100,0,-1", min_order=0, ignore_gfp_wait=0, verbose=0)
        for _ in range(12):
            page = alloc(machine, GFP_KERNEL | __GFP_NOWARN)
            assert flags(machine, page) == MAPPED
            assert machine.page(page)["shadow"] == 0
        machine.fail_page_alloc(probability=0)
        assert machine.console.lines.count("kmemcheck: failed to allocate shadow bitmap") == 10
        machine.kernel.set_var("jiffies_64", machine.kernel.var("jiffies_64") + 6 * 250)
        machine.fail_page_alloc(probability=100)
        alloc(machine, GFP_KERNEL | __GFP_NOWARN)
        assert machine.console.lines[-2:] == [
            "kmemcheck_alloc_shadow: 2 callbacks suppressed",
            "kmemcheck: failed to allocate shadow bitmap",
        ]


def test_pages_from_before_it_was_switched_off_are_freed_with_their_shadow() -> None:
    with boot() as machine:
        used = in_use(machine)
        page = alloc(machine)
        machine.sysctl("kmemcheck", 0)
        other = alloc(machine)
        assert flags(machine, other) == MAPPED
        machine.free_block(page)
        machine.free_block(other)
        assert flags(machine, page) == MAPPED
        assert in_use(machine) == used


def test_exhaustion_takes_half_of_memory_for_shadows() -> None:
    with boot() as machine:
        held = []
        while (page := machine.alloc_pages(GFP_ATOMIC | __GFP_NOWARN, 0)) is not None:
            held.append(page)
        tracked = [page for page in held if flags(machine, page) == TRACKED]
        assert len(held) - len(tracked) <= 1
        assert len({shadow(machine, page) for page in tracked} | set(held)) == len(tracked) + len(held)
        for page in held:
            machine.free_block(page)
        assert not check(machine.dump).findings


# -- accesses ---------------------------------------------------------------------


def load(machine: Machine, addr: int, size: int) -> bytes:
    return machine.read(addr, size)


def test_a_read_of_what_nobody_wrote_is_reported() -> None:
    with boot() as machine:
        addr = machine.page_address(alloc(machine))
        machine.ram.write(machine.dump.virt_to_phys(addr + 0x20), bytes(range(32)))
        machine.write(addr + 0x20, b"ab")
        before = len(machine.console.lines)
        assert load(machine, addr + 0x28, 4) == bytes(range(8, 12))
        assert errors(machine) == [
            f"WARNING: kmemcheck: Caught 32-bit read from uninitialized memory ({addr + 0x28:016x})"
        ]
        report = machine.console.lines[before:]
        assert report[1] == "6162" + bytes(range(2, 32)).hex()
        assert report[2] == " i i" + " u" * 30
        assert report[3] == " " * 17 + "^"
        symbol = r"load\+0x[0-9a-f]+/0x[0-9a-f]+ \[.*test_kmemcheck\]"
        assert re.fullmatch(rf"RIP: 0010:\[<(f{{8}}a\w{{7}})>\]  \[<\1>\] {symbol}", report[4])
        # Its callers.
        caller = symbol.replace("load", "test_a_read_of_what_nobody_wrote_is_reported")
        assert re.fullmatch(rf" \[<f{{8}}a\w{{7}}>\] {caller}", report[5])
        # As many as there is room for; if there is more, they have an end.
        assert len(report) == 5 + 32 or report[-1] == " [<ffffffffffffffff>] 0xffffffffffffffff"
        # It is known by now, and still hidden.
        assert set(machine.mm.aids.kmemcheck.states(machine.mm, addr + 0x28, 4)) == {INITIALIZED}
        assert flags(machine, machine.virt_to_page(addr)) == TRACKED


def test_an_instruction_is_reported_once_in_a_row() -> None:
    """kmemcheck_error_save: prev_ip."""
    with boot() as machine:
        addr = machine.page_address(alloc(machine))
        for i in range(3):
            load(machine, addr + 64 * i, 8)
        assert len(errors(machine)) == 1
        machine.read(addr + 1024, 1)
        load(machine, addr + 2048, 8)
        assert len(errors(machine)) == 3
        assert "Caught 8-bit read" in errors(machine)[1]


def test_one_byte_that_was_written_is_enough() -> None:
    """CONFIG_KMEMCHECK_PARTIAL_OK: compilers read neighbours; what is not aligned is read in pieces."""
    with boot() as machine:
        addr = machine.page_address(alloc(machine))
        machine.write(addr + 7, b"x")
        machine.read(addr, 8)
        assert errors(machine) == []
        machine.read(addr + 6, 10)
        assert len(errors(machine)) == 1
        assert f"64-bit read from uninitialized memory ({addr + 8:016x})" in errors(machine)[0]


def test_reads_and_writes_go_across_pages() -> None:
    with boot() as machine:
        addr = machine.page_address(alloc(machine, order=1))
        machine.write(addr + 4090, b"0123456789ab")
        assert machine.read(addr + 4090, 12) == b"0123456789ab"
        assert errors(machine) == []
        states = [machine.mm.aids.kmemcheck.states(machine.mm, addr + at, 8) for at in (4088, 4096)]
        assert states == [b"\1\1" + b"\2" * 6, b"\2" * 6 + b"\1\1"]


def test_once_only() -> None:
    """kmemcheck=2: after the first error it is off, and pages stay visible once they were touched."""
    with boot(2) as machine:
        one, other = alloc(machine), alloc(machine)
        machine.read(machine.page_address(one), 8)
        assert len(errors(machine)) == 1
        assert machine.kernel.var("kmemcheck_enabled") == 0
        # Still tracked (bit 11), but present again.
        assert flags(machine, one) == TRACKED | 1
        assert flags(machine, other) == TRACKED
        load(machine, machine.page_address(other), 8)
        assert flags(machine, other) == TRACKED | 1
        assert len(errors(machine)) == 1
        machine.free_block(one)
        assert flags(machine, one) == MAPPED


def test_what_moves_takes_its_shadow_along() -> None:
    """kmemcheck_copy, of eight bytes at a time: from page to page what is known; where nothing is, an error."""
    with boot() as machine:
        mm = machine.mm
        old, new, plain = alloc(machine), alloc(machine), alloc(machine, GFP_KERNEL | __GFP_NOTRACK)
        machine.write(machine.page_address(old) + 16, b"written!")
        migrate.copy_highpage(mm, new, old)
        assert mm.aids.kmemcheck.states(mm, machine.page_address(new), 32) == b"\1" * 16 + b"\2" * 8 + b"\1" * 8
        assert errors(machine) == []
        migrate.copy_highpage(mm, plain, new)
        assert errors(machine) == [
            f"WARNING: kmemcheck: Caught 64-bit read from uninitialized memory ({machine.page_address(new):016x})"
        ]
        migrate.copy_highpage(mm, new, plain)
        assert states(machine, new) == {INITIALIZED}


# -- memory that is damaged, saved, or of another kernel ---------------------------


def test_a_shadow_that_cannot_be() -> None:
    for wrong in (0, 1 << 40, 0xFFFF888000000000, 0xFFFFEA0000000000):
        with boot() as machine:
            page = alloc(machine)
            machine.ram.set_u64(machine.dump.virt_to_phys(page) + 56, wrong)
            with pytest.raises(CorruptionError, match="kmemcheck_shadow"):
                machine.free_block(page)
    with boot() as machine:
        one, other = alloc(machine), alloc(machine)
        machine.ram.set_u64(machine.dump.virt_to_phys(one) + 56, machine.page_address(other))
        with pytest.raises(CorruptionError, match="is tracked itself"):
            machine.split_page(one, 0)
        machine.ram.set_u64(machine.dump.virt_to_phys(one) + 56, 0)
        with pytest.raises(CorruptionError, match="it has no shadow"):
            machine.read(machine.page_address(one))


def test_an_image_goes_on_where_it_was(tmp_path: Path) -> None:
    with boot(kernel=SMP.with_model("flatmem")) as machine:
        page = alloc(machine, order=1)
        its = shadow(machine, page)
        load(machine, machine.page_address(page), 8)
        machine.save(tmp_path / "A.vmcore")
    with Machine.attach(tmp_path / "A.vmcore") as other:
        assert other.dump.info["OSRELEASE"] == "4.0.0-kernelmm-flatmem-kmemcheck"
        # The very instruction that made the last error.
        load(other, other.page_address(page) + 64, 8)
        assert errors(other) == []
        other.read(other.page_address(page) + 128, 8)
        assert len(errors(other)) == 1
        other.free_block(page, 1)
        assert other.page(its)["_count"] == 0


def test_whether_it_is_on_must_be_known(tmp_path: Path) -> None:
    from kernelmm.debug.aids import install

    with boot() as machine:
        kernel = machine.kernel
        machine.mm.aids = None
        kernel.symbols = type(kernel.symbols)(
            {name: at for name, at in kernel.symbols.items() if name != "kmemcheck_enabled"}, "here"
        )
        with pytest.raises(SymbolError, match="kmemcheck_enabled"):
            install(kernel)


def test_with_an_owner() -> None:
    """Both at once: one table of callers."""
    with Machine.boot("32M", debug=Debug(kmemcheck=1, page_owner=True)) as machine:
        page = alloc(machine, order=1)
        load(machine, machine.page_address(page), 8)
        assert "] load+" in machine.dmesg()
        owners = machine.page_owner()
        assert f"PFN {machine.page_to_pfn(page)} " in owners
        assert f"PFN {machine.page_to_pfn(shadow(machine, page))} " in owners
        assert machine.mm.aids.owner.callers is machine.mm.aids.kmemcheck.callers


def test_builds() -> None:
    build = NUMA.with_debug().with_kmemcheck()
    assert (build.page_owner, build.debug_pagealloc, build.kmemcheck, build.small_pages) == (True, False, True, True)
    assert build.with_kmemcheck() is build


# -- whatever is done -------------------------------------------------------------

MASKS = (
    GFP_KERNEL,
    GFP_ATOMIC | __GFP_ZERO,
    GFP_KERNEL | __GFP_COMP,
    GFP_KERNEL | __GFP_NOTRACK,
    GFP_HIGHUSER_MOVABLE,
)


def tracked_pages(machine: Machine) -> set[int]:
    """PFNs of tracked pages, once all that must be so of them and their shadows is found to be."""
    found, exists = machine.dump.pages(0, machine.dump.max_pfn, ["shadow", "_count"])
    shadows, counts = (np.asarray(found[field]).reshape(-1) for field in ("shadow", "_count"))
    kmemcheck, offset = machine.mm.aids.kmemcheck, machine.mm.page_offset
    entries = {pfn for pfn in np.flatnonzero(exists).tolist() if kmemcheck.pte_lookup(machine.mm, offset + 4096 * pfn)}
    assert entries == set(np.flatnonzero(shadows).tolist())
    frames = [int(shadows[pfn]) - offset >> 12 for pfn in entries]
    assert len(set(frames)) == len(frames)
    assert not entries & set(frames)
    assert {int(counts[pfn]) for pfn in frames} <= {0, 1}
    return entries


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("alloc"), st.integers(0, 3), st.sampled_from(MASKS)),
            st.tuples(st.just("free"), st.integers(0, 99), st.just(0)),
            st.tuples(st.just("split"), st.integers(0, 99), st.just(0)),
            st.tuples(st.just("switch"), st.integers(0, 1), st.just(0)),
            st.tuples(st.just("fail"), st.integers(0, 3), st.just(0)),
            st.tuples(st.just("touch"), st.integers(0, 99), st.integers(0, 4000)),
        ),
        max_size=40,
    )
)
def test_pages_and_shadows_go_together(operations: list[tuple[str, int, int]]) -> None:
    with boot() as machine:
        used = in_use(machine)
        held: list[tuple[int, int, bool]] = []
        for what, number, more in operations:
            if what == "alloc":
                page = machine.alloc_pages(more | __GFP_NOWARN, number)
                if page is not None:
                    held.append((page, number, bool(more & __GFP_COMP)))
            elif what == "switch":
                machine.sysctl("kmemcheck", number)
            elif what == "fail":
                machine.fail_page_alloc(f"{number or 1},{100 * (number > 0)},0,-1", ignore_gfp_wait=0, min_order=0)
            elif held:
                page, order, compound = held.pop(number % len(held))
                if what == "free":
                    machine.free_block(page, order)
                elif what == "split" and not compound:
                    machine.split_page(page, order)
                    held += [(each, 0, False) for each in pages(page, order)]
                else:
                    held.append((page, order, compound))
                    machine.write(machine.page_address(page) + more, b"written")
                    machine.read(machine.page_address(page) + more // 2, 16)
        mine = {machine.page_to_pfn(each) for page, order, _ in held for each in pages(page, order)}
        assert tracked_pages(machine) <= mine
        for page, order, _ in held:
            machine.free_block(page, order)
        assert tracked_pages(machine) == set()
        assert in_use(machine) == used
        assert not check(machine.dump).findings


# -- both engines -----------------------------------------------------------------

SCRIPT = """
import hashlib, random, sys
from kernelmm import Debug, Machine
from kernelmm.gfp import *
from kernelmm import gfp
m = Machine.boot("32M", debug=Debug(kmemcheck=1))
rng, held = random.Random(1), []
kinds = (GFP_KERNEL, GFP_ATOMIC | gfp.__GFP_ZERO, GFP_HIGHUSER_MOVABLE, GFP_KERNEL | gfp.__GFP_COMP)
for _ in range(400):
    if held and rng.random() < 0.45:
        m.free_block(*held.pop(rng.randrange(len(held))))
    else:
        order = rng.choice((0, 0, 0, 1, 2, 3))
        kind = rng.choice(kinds)
        page = m.alloc_pages(kind, order)
        if page is not None and order and kind == GFP_KERNEL:
            m.split_page(page, order)
            held += ((page + 64 * i, 0) for i in range(1 << order))
        elif page is not None:
            held.append((page, order))
    if held:
        m.write(m.page_address(rng.choice(held)[0]) + rng.randrange(4000), b"something")
print(hashlib.sha256(b"".join(m.ram.read(a, b - a) for a, b in m.ram.ranges)).hexdigest())
print(m.dmesg())
"""


def test_both_engines_leave_the_same_bytes(project_environment: dict[str, str]) -> None:
    if engine.why_interpreted() is not None:
        pytest.skip(engine.why_interpreted() or "")
    seen = set()
    for name in engine.ENGINES:
        environment = {**project_environment, "PHYSMEM_ENGINE": name}
        command = [sys.executable, "-c", SCRIPT]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        seen.add(done.stdout)
    assert len(seen) == 1
