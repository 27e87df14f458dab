# SPDX-License-Identifier: GPL-2.0-only
"""lockdep_trace_alloc: locks held over an allocation that may reclaim, and taken in reclaim."""

from __future__ import annotations

from kernelmm import Machine
from kernelmm.gfp import GFP_ATOMIC, GFP_KERNEL, GFP_NOFS


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
