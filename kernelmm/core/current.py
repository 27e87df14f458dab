# SPDX-License-Identifier: GPL-2.0-only
# room: inline
"""``current``: what the allocator asks about the running task (include/linux/sched.h, include/linux/cpuset.h)."""

from __future__ import annotations

from kernelmm.core import task
from kernelmm.core.mm import Mm
from physmem.ctype import u32, u64


def gfp_allowed_mask(mm: Mm) -> u32:
    """``gfp_allowed_mask``: what may be asked for yet, early in the boot or on the way to sleep."""
    return mm.as_u32[mm.var_gfp_allowed_mask >> 2]


def flags(mm: Mm) -> u32:
    """``current->flags``: PF_*."""
    return mm.as_u32[(mm.task + task.FLAGS) >> 2]


def memdie(mm: Mm) -> bool:
    """``test_thread_flag(TIF_MEMDIE)``: the OOM killer has chosen this task."""
    return mm.as_u32[(mm.task + task.TIF) >> 2] & task.TIF_MEMDIE != 0


def rt_task(mm: Mm) -> bool:
    """``rt_task``: a realtime one."""
    return mm.as_u32[(mm.task + task.RT_PRIORITY) >> 2] != 0


def mems_allowed(mm: Mm) -> u64:
    """``cpuset_current_mems_allowed``: a bit for each node that the task may use."""
    return mm.as_u64[(mm.task + task.MEMS_ALLOWED) >> 3]


def hardwall_mems(mm: Mm) -> u64:
    """The nodes of the nearest hardwalled cpuset above the task's."""
    return mm.as_u64[(mm.task + task.HARDWALL_MEMS) >> 3]


def read_mems_allowed_begin(mm: Mm) -> u32:
    """``read_mems_allowed_begin``: the sequence count; BudgetError if a change is under way, which would not end."""
    if mm.as_u32[(mm.task + task.MEMS_ALLOWED_SEQ) >> 2] & 1:
        mm.endless_change()
    return mm.as_u32[(mm.task + task.MEMS_ALLOWED_SEQ) >> 2]


def read_mems_allowed_retry(mm: Mm, cookie: u32) -> bool:
    """``read_mems_allowed_retry``: the allowed nodes have changed since."""
    return mm.as_u32[(mm.task + task.MEMS_ALLOWED_SEQ) >> 2] != cookie
