# SPDX-License-Identifier: GPL-2.0-only
"""Changing the nodes that a task may use (kernel/cpuset.c, include/linux/cpuset.h).

A task has its allowed nodes and their sequence count in its record (:mod:`kernelmm.core.task`), as the kernel has
them in ``struct task_struct``.  An allocation looks at the count when it begins, and begins again if it failed
and the count is another.
"""

from __future__ import annotations

from kernelmm.core import task
from kernelmm.core.mm import Mm
from kernelmm.pressure import codes
from physmem import word
from physmem.errors import UsageError

__all__ = ["cpuset_change_task_nodemask", "cpuset_dec", "cpuset_inc", "set_mems_allowed"]


def cpuset_inc(mm: Mm, hardwall_mems: int) -> None:
    """``cpuset_inc``: one cpuset more; the nearest hardwalled one above the running task's has these nodes."""
    word.add_s32(mm, mm.first_task + task.NR_CPUSETS, 1)
    mm.cpusets_enabled = True
    mm.hardwall_mems = hardwall_mems


def cpuset_dec(mm: Mm) -> None:
    """``cpuset_dec``: one cpuset less; without any, no allocation looks at allowed nodes."""
    at = (mm.first_task + task.NR_CPUSETS) >> 2
    mm.as_s32[at] = max(mm.as_s32[at] - 1, 0)
    mm.cpusets_enabled = mm.as_s32[at] > 0


def write_seqcount(mm: Mm) -> None:
    """``write_seqcount_begin`` and ``write_seqcount_end``: the count is odd in between."""
    at = (mm.task + task.MEMS_ALLOWED_SEQ) >> 2
    mm.as_u32[at] = mm.as_u32[at] + 1 & 0xFFFFFFFF


def check_nodes(mm: Mm, nodes: int) -> None:
    """Refuse a set of nodes none of which has memory; raises UsageError."""
    if not nodes & mm.as_u64[mm.var_node_states_memory >> 3]:
        raise UsageError(f"mems_allowed {nodes:#x}: no node with memory is among them")


def set_mems_allowed(mm: Mm, nodes: int) -> None:
    """``set_mems_allowed``: the running task itself chooses the nodes that it may use, a bit each.

    :raises UsageError: no node with memory at all
    """
    check_nodes(mm, nodes)
    write_seqcount(mm)
    mm.as_u64[(mm.task + task.MEMS_ALLOWED) >> 3] = nodes
    write_seqcount(mm)


def cpuset_change_task_nodemask(mm: Mm, nodes: int) -> None:
    """``cpuset_change_task_nodemask``: its cpuset gives the running task other nodes.

    The count moves only if none of the nodes stays: otherwise there is a node at any time that was allowed
    before and is after, and an allocation that fails has failed for another reason.  A task on its way out keeps what
    it has.

    :raises UsageError: no node with memory at all
    """
    check_nodes(mm, nodes)
    if mm.memdie or mm.task_flags & codes.PF_EXITING:
        return
    at = (mm.task + task.MEMS_ALLOWED) >> 3
    need_loop = not nodes & mm.as_u64[at]
    if need_loop:
        write_seqcount(mm)
    mm.as_u64[at] = mm.as_u64[at] | nodes
    mm.as_u64[at] = nodes
    if need_loop:
        write_seqcount(mm)
