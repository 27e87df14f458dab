# SPDX-License-Identifier: GPL-2.0-only
"""lockdep_trace_alloc: locks held over an allocation that may reclaim, and taken in reclaim."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from kernelmm import Machine, gfp
from kernelmm.gfp import GFP_ATOMIC, GFP_KERNEL, GFP_NOFS, GFP_NOWAIT
from kernelmm.pressure.workload import Workload

NOWARN = vars(gfp)["__GFP_NOWARN"]


def test_held_over_reclaim_and_taken_in_it() -> None:
    with Machine.boot("32M") as machine:
        start = len(machine.console.lines)
        machine.lockdep = True
        for gfp in (GFP_ATOMIC, GFP_NOFS, GFP_KERNEL):
            with machine.holding("&inode->i_mutex"):
                assert machine.alloc_page(gfp)
            with machine.reclaiming(GFP_KERNEL), machine.holding(f"&other->{gfp:x}"):
                assert machine.alloc_page(GFP_KERNEL), "PF_MEMALLOC: this guy won't enter reclaim"
        assert machine.console.lines[start:] == []
        with machine.reclaiming(GFP_KERNEL), machine.holding("&inode->i_mutex"):
            pass
        lines = machine.console.lines[start:]
        assert lines[1:8:1][:2] == ["=" * 33, "[ INFO: inconsistent lock state ]"]
        assert lines[5:7] == [
            "inconsistent {RECLAIM_FS-ON-W} -> {IN-RECLAIM_FS-W} usage.",
            "init/1 [HC0[0]:SC0[0]:HE1:SE1] takes:",
        ]
        assert lines[7].startswith(" (&inode->i_mutex){+.+.?.}, at: [<ffffffffa")
        assert lines[8] == "{RECLAIM_FS-ON-W} state was registered at:"
        assert "test_held_over_reclaim_and_taken_in_it" in lines[9]
        assert "no locks held by init/1." in lines
        with machine.reclaiming(GFP_KERNEL), machine.holding("&inode->i_mutex"):
            pass
        assert machine.console.lines[start:] == lines, "silent after the first"


def pressed(machine: Machine) -> Workload:
    """A machine full of clean page cache that a task has mapped."""
    work = Workload(machine.mm)
    file = work.open()
    file.read(0, 2000)
    work.fork("reader").mmap_file(file, 2000)
    work.switch_to(None)
    while machine.alloc_page(GFP_NOWAIT | NOWARN):
        pass
    return work


@pytest.mark.parametrize(
    ("lock", "access", "marks"),
    [
        ("&mapping->i_mmap_rwsem", "R", "+.+.?+"),
        ("&(&zone->lru_lock)->rlock", "W", "..-..."),
    ],
)
def test_reclaim_itself_takes_locks_that_must_not_be_held_over_it(lock: str, access: str, marks: str) -> None:
    """An allocation with GFP_KERNEL under a lock that reclaim takes: reported when reclaim comes to take it."""
    with Machine.boot("32M") as machine:
        machine.lockdep = True
        pressed(machine)
        start = len(machine.console.lines)
        with machine.holding(lock):
            assert machine.alloc_page(GFP_KERNEL)
        lines = machine.console.lines[start:]
        assert lines[2] == "[ INFO: inconsistent lock state ]"
        assert lines[5] == f"inconsistent {{RECLAIM_FS-ON-W}} -> {{IN-RECLAIM_FS-{access}}} usage."
        assert re.fullmatch(r"(kswapd0|init)/1 \[HC0\[0\]:SC0\[0\]:HE[01]:SE1\] takes:", lines[6])
        assert lines[7].startswith(f" ({lock}){{")
        assert f"  lock({lock});" in lines
        assert " *** DEADLOCK ***" in lines


def test_no_report_of_locks_that_are_used_as_they_should_be() -> None:
    with Machine.boot("32M") as machine:
        machine.lockdep = True
        work = pressed(machine)
        start = len(machine.console.lines)
        with machine.holding("&inode->i_mutex"):
            assert machine.alloc_page(GFP_KERNEL)
        with machine.holding("&mapping->i_mmap_rwsem"):
            machine.alloc_page(GFP_NOFS | NOWARN)
        work.run_kswapd()
        assert machine.console.lines[start:] == []
        assert machine.mm.aids.lockdep.classes["&(&zone->lru_lock)->rlock"].usage
        assert machine.mm.aids.lockdep.classes["&mapping->i_mmap_rwsem"].usage


def test_each_task_has_its_own_locks() -> None:
    """What one task holds is not held by another, nor by kswapd, whatever they allocate."""
    with Machine.boot("32M") as machine:
        machine.lockdep = True
        work = Workload(machine.mm)
        a, b = work.fork("a"), work.fork("b")
        lockdep = machine.mm.aids.lockdep
        work.switch_to(a)
        with machine.holding("mine"):
            work.switch_to(b)
            assert machine.alloc_page(GFP_KERNEL)
            assert [each.held for each in lockdep.tasks.values() if each is lockdep.current(machine.mm)] == [[]]
            work.run_kswapd()
            work.switch_to(a)
        assert not lockdep.classes["mine"].usage >> 10 & 1, "not held over anybody's reclaim"
        with machine.holding("mine"):
            assert machine.alloc_page(GFP_KERNEL)
        assert lockdep.classes["mine"].usage >> 10 & 1


@pytest.mark.parametrize("name", ["n128_s1", "n128_s4", "n256x2_s6n", "n128cma_s17_contig"])
def test_no_false_report_over_what_a_kernel_did(name: str, oracle: Callable[[str], Any]) -> None:
    case = oracle(name)
    with Machine.attach(case.a) as machine:
        machine.lockdep = True
        machine.run(case.script)
        assert not any("INFO:" in line or "WARNING" in line for line in machine.console.lines)


def test_interrupts_off() -> None:
    with Machine.boot("32M") as machine:
        machine.lockdep = True
        machine.mm.irqs_off = True
        machine.alloc_page(GFP_KERNEL)
        assert "DEBUG_LOCKS_WARN_ON(irqs_disabled_flags(flags))" in machine.console.lines


def test_off_costs_nothing() -> None:
    with Machine.boot("32M") as machine:
        with machine.holding("a"), machine.reclaiming(GFP_KERNEL):
            assert machine.alloc_page(GFP_KERNEL)
        assert not machine.mm.debug_alloc
