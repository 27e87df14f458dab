# SPDX-License-Identifier: GPL-2.0-only
"""The console: text and rate limits (the text of whole reports is compared in test_oracle.py)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kernelmm import Machine, VmBugOn
from kernelmm.gfp import __GFP_NOWARN, GFP_ATOMIC, GFP_KERNEL
from kernelmm.study.reporter import RateLimit, pointer, time_before

U64 = (1 << 64) - 1


@pytest.fixture
def machine(oracle: Callable[[str], Any]) -> Iterator[Machine]:
    with Machine.attach(oracle("n128_s1").a) as machine:
        yield machine


def advance(machine: Machine, seconds: float) -> None:
    """Let the machine's clock go on."""
    at = machine.mm.var_jiffies
    machine.ram.set_u64(at, machine.ram.u64(at) + round(seconds * machine.mm.hz))


def free_badly(machine: Machine) -> None:
    """Free a page that is mapped somewhere: one report."""
    page = machine.alloc_page(GFP_KERNEL)
    assert page is not None
    machine.ram.set_u32(machine.dump.virt_to_phys(page) + 24, 0)
    machine.free_block(page)


def reports(machine: Machine) -> int:
    return machine.dmesg().count("BUG: Bad page state in process")


def test_a_report(machine: Machine) -> None:
    machine.mm.comm = "cat"
    page = machine.alloc_page(GFP_KERNEL)
    assert page is not None
    phys = machine.dump.virt_to_phys(page)
    flags = machine.ram.u64(phys)
    machine.ram.set_u64(phys, flags | 1 << 7 | 1 << 10 | 1 << 19)
    machine.ram.set_u64(phys + 8, 0xDEAD000000000401 - 1)
    machine.ram.set_u64(phys + 16, 0x123)
    machine.free_block(page)
    assert machine.dmesg().splitlines() == [
        f"BUG: Bad page state in process cat  pfn:{machine.page_to_pfn(page):05x}",
        f"page:{page:016x} count:0 mapcount:0 mapping:dead000000000400 index:0x123",
        f"flags: {flags | 1 << 7 | 1 << 10 | 1 << 19:#x}(slab|reserved|swapbacked)",
        "page dumped because: PAGE_FLAGS_CHECK_AT_FREE flag(s) set",
        "bad because of flags:",
        "flags: 0x480(slab|reserved)",
    ]


def test_sixty_reports_a_minute(machine: Machine) -> None:
    for _ in range(65):
        free_badly(machine)
    assert reports(machine) == 60
    advance(machine, 59.99)
    free_badly(machine)
    assert reports(machine) == 60
    advance(machine, 0.01)
    free_badly(machine)
    assert reports(machine) == 61
    assert "BUG: Bad page state: 6 messages suppressed\n" in machine.dmesg()
    # A new burst of sixty has begun, and ends a minute after its first.
    for _ in range(60):
        free_badly(machine)
    assert reports(machine) == 120
    advance(machine, 60)
    free_badly(machine)
    assert machine.dmesg().count("messages suppressed") == 2


def test_a_steady_drip_is_never_silent(machine: Machine) -> None:
    for _ in range(130):
        free_badly(machine)
        advance(machine, 1.01)
    assert reports(machine) == 130
    assert "suppressed" not in machine.dmesg()


def test_a_page_that_was_reported_is_never_seen_again(machine: Machine) -> None:
    page = machine.alloc_page(GFP_KERNEL)
    assert page is not None
    machine.ram.set_u32(machine.dump.virt_to_phys(page) + 24, 5)
    machine.free_block(page)
    assert machine.page(page)._mapcount == -1, "the PageBuddy mark could do harm"
    assert page not in [machine.alloc_page(GFP_ATOMIC) for _ in range(2000)]


def test_failed_allocations_are_reported_ten_times_in_five_seconds(machine: Machine) -> None:
    order = 10
    while machine.alloc_pages(GFP_ATOMIC | __GFP_NOWARN, order):
        pass
    assert machine.dmesg() == ""
    failure = "init: page allocation failure: order:10, mode:0x20"
    for _ in range(13):
        assert machine.alloc_pages(GFP_ATOMIC, order) is None
    assert machine.dmesg().count(failure) == machine.dmesg().count("Mem-Info:") == 10
    lines = len(machine.console.lines)
    advance(machine, 5)
    machine.alloc_pages(GFP_ATOMIC, order)
    assert len(machine.console.lines) == lines
    advance(machine, 0.01)
    machine.alloc_pages(GFP_ATOMIC, order)
    assert machine.console.lines[lines : lines + 3] == [
        "warn_alloc_failed: 4 callbacks suppressed",
        failure,
        "CPU: 0 PID: 1 Comm: init Not tainted 4.0.0 #4",
    ]


def test_a_rate_limit_forgets_with_its_interval() -> None:
    limit = RateLimit(interval=100, burst=2)
    assert [limit.missed_before(1000) or limit.allows() for _ in range(4)] == [True, True, False, False]
    assert limit.missed_before(1100) == 0
    assert not limit.allows()
    assert limit.missed_before(1101) == 3
    assert limit.allows()


@pytest.mark.parametrize(
    ("a", "b", "before"),
    [(1, 2, True), (2, 1, False), (2, 2, False), (U64, 0, True), (0, U64, False), (U64 - 5, 5, True)],
)
def test_time_wraps(a: int, b: int, before: bool) -> None:
    assert time_before(a, b) is before


def test_pointers() -> None:
    assert pointer(0xFFFFEA0000140000) == "ffffea0000140000"
    assert pointer(1) == "0000000000000001"
    assert pointer(0) == "          (null)"


def test_dump_page(machine: Machine) -> None:
    # Nobody has initialised the entry of pfn 0: the first zone begins at pfn 1.
    machine.console.dump_page(machine.mm, machine.pfn_to_page(0), None)
    assert machine.dmesg().splitlines() == [
        "page:ffffea0000000000 count:0 mapcount:1 mapping:          (null) index:0x0",
        "flags: 0x0()",
    ]


def test_a_failed_assertion_carries_the_kernels_text(machine: Machine) -> None:
    machine.debug_vm = True
    page = machine.alloc_page(GFP_KERNEL)
    assert page is not None
    pfn = machine.page_to_pfn(page)
    flags = machine.page(page).flags
    machine.free_block(page)
    for number in (1, 2):
        with pytest.raises(VmBugOn) as caught:
            machine.free_block(page)
        assert caught.value.text.splitlines() == [
            f"page:{page:016x} count:0 mapcount:0 mapping:          (null) index:0x0",
            f"flags: {flags:#x}()",
            "page dumped because: VM_BUG_ON_PAGE(atomic_read(&page->_count) == 0)",
            "------------[ cut here ]------------",
            "kernel BUG at include/linux/mm.h:340!",
            f"invalid opcode: 0000 [#{number}] SMP",
        ]
        assert str(caught.value) == (
            f"pfn {pfn}: kernel BUG at include/linux/mm.h:340! VM_BUG_ON_PAGE(atomic_read(&page->_count) == 0)"
        )
        assert (caught.value.file, caught.value.line, caught.value.pfn) == ("include/linux/mm.h", 340, pfn)
        assert machine.dmesg().endswith(caught.value.text + "\n")
