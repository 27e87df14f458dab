# SPDX-License-Identifier: GPL-2.0-only
# room: inline
"""Which nodes a task may take memory from (include/linux/cpuset.h, kernel/cpuset.c).

The allowed nodes are the caller's (``current->mems_allowed``), guarded by a sequence count: a request
that failed while they changed is tried again.  :mod:`kernelmm.pressure.cpusets` changes them.
"""

from __future__ import annotations

from kernelmm import gfp
from kernelmm.core import current
from kernelmm.core.mm import Mm
from physmem import abi, word
from physmem.ctype import s32, u32


def node_allowed(mm: Mm, nid: s32, gfp_mask: u32) -> bool:
    """``cpuset_node_allowed``: always, while there is only the one cpuset of all tasks.

    Beyond its own nodes, a task gets those of the nearest hardwalled cpuset above unless __GFP_HARDWALL forbids it,
    and any node in an interrupt, for __GFP_THISNODE, or on its way out.
    """
    if not mm.cpusets_enabled or mm.in_interrupt or gfp_mask & gfp.__GFP_THISNODE:
        return True
    if current.mems_allowed(mm) & word.bit(nid) != 0 or current.memdie(mm):
        return True
    if gfp_mask & gfp.__GFP_HARDWALL:
        return False
    return current.flags(mm) & abi.PF_EXITING != 0 or current.hardwall_mems(mm) & word.bit(nid) != 0
