# SPDX-License-Identifier: GPL-2.0-only
"""might_sleep_if(gfp_mask & __GFP_WAIT): who may not wait, how often it is said, and that it is off by default."""

from __future__ import annotations

import pytest

from kernelmm import Machine
from kernelmm.gfp import GFP_ATOMIC, GFP_KERNEL


@pytest.mark.parametrize(
    ("context", "told"),
    [
        ({"in_interrupt": True}, "in_atomic(): 1, irqs_disabled(): 0"),
        ({"preempt_count": 2}, "in_atomic(): 1, irqs_disabled(): 0"),
        ({"irqs_off": True}, "in_atomic(): 0, irqs_disabled(): 1"),
        ({}, ""),
    ],
)
def test_who_may_not_wait(context: dict[str, int], told: str) -> None:
    with Machine.boot("32M") as machine:
        lines = len(machine.console.lines)
        for name, value in context.items():
            setattr(machine.mm, name, value)
        assert machine.alloc_page(GFP_KERNEL)
        assert len(machine.console.lines) == lines, "off by default"
        machine.debug_atomic_sleep = True
        assert machine.alloc_page(GFP_ATOMIC)
        assert len(machine.console.lines) == lines
        assert machine.alloc_page(GFP_KERNEL)
        expected = [
            "BUG: sleeping function called from invalid context at mm/page_alloc.c:2819",
            f"{told}, pid: 1, name: init",
            "CPU: 0 PID: 1 Comm: init Not tainted 4.0.0-kernelmm #1",
        ]
        assert machine.console.lines[lines:] == (expected if told else [])
        # ___might_sleep: at most once a second.
        machine.alloc_page(GFP_KERNEL)
        assert len(machine.console.lines) == lines + (3 if told else 0)
        at = machine.mm.var_jiffies
        machine.ram.set_u64(at, machine.ram.u64(at) + machine.mm.hz)
        machine.alloc_page(GFP_KERNEL)
        assert len(machine.console.lines) == lines + (6 if told else 0)
        machine.debug_atomic_sleep = False
        assert not machine.mm.debug_alloc
