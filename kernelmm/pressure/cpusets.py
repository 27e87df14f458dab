# SPDX-License-Identifier: GPL-2.0-only
"""Changing the nodes that a task may use (kernel/cpuset.c, include/linux/cpuset.h).

The caller's context on :class:`~kernelmm.core.mm.Mm` has its allowed nodes, as ``current`` has, and their
sequence count; a task of a workload keeps its own in its record meanwhile.
"""

from __future__ import annotations

from kernelmm.core.mm import Mm
from physmem.errors import UsageError

__all__ = ["cpuset_inc", "set_mems_allowed"]


def cpuset_inc(mm: Mm, hardwall_mems: int) -> None:
    """``cpuset_inc``: there are cpusets from now on; the nearest hardwalled one above the caller's has these nodes."""
    mm.cpusets_enabled = True
    mm.hardwall_mems = hardwall_mems


def set_mems_allowed(mm: Mm, nodes: int) -> None:
    """``cpuset_change_task_nodemask``: the caller may use these nodes, a bit each, from now on.

    The count is odd while they change; allocations that began before and fail look at it and try again.

    :raises UsageError: no node at all
    """
    if not nodes & mm.as_u64[mm.var_node_states_memory >> 3]:
        raise UsageError(f"mems_allowed {nodes:#x}: no node with memory is among them")
    mm.mems_allowed_seq = (mm.mems_allowed_seq + 1) & 0xFFFFFFFF
    mm.mems_allowed = nodes
    mm.mems_allowed_seq = (mm.mems_allowed_seq + 1) & 0xFFFFFFFF
