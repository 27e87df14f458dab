# SPDX-License-Identifier: GPL-2.0-only
"""A task that waits, and how long it may (mm/backing-dev.c).

A kernel may wait for ever, an emulation must not: every wait, and every retry before which nothing was
reclaimed, takes one step from ``mm.steps_left``, which each allocation that gets this far sets to
``mm.step_budget``.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from kernelmm.core.mm import Mm
from kernelmm.pressure import owners, stat, writeback
from physmem import abi, address, word
from physmem.errors import BudgetError

__all__ = ["charge", "congestion_wait", "reclaim_state", "throttle_vm_writeout", "wait_iff_congested"]


def reclaim_state(mm: Mm, gfp_mask: int) -> AbstractContextManager[None]:
    """``lockdep_set_current_reclaim_state``: the running task reclaims memory for such a request, if lockdep is on."""
    lockdep = mm.aids and mm.aids.lockdep
    return lockdep.reclaim_state(mm, gfp_mask) if lockdep else nullcontext()


def charge(mm: Mm, what: str) -> None:
    """One more step of a loop that the kernel does not bound.

    :raises BudgetError: there have been enough
    """
    if mm.steps_left <= 0:
        raise BudgetError(f"{what}: no end after {mm.step_budget} steps; a real kernel would go on")
    mm.steps_left -= 1
    if mm.steps_left == mm.step_budget // 2:
        # The vmstat worker has long come by: that there is no end may be due to counters that lag.
        stat.refresh_cpu_vm_stats(mm)


def congested(mm: Mm) -> bool:
    """Whether the backing device has more to write than it can take (``bdi_write_congested``)."""
    root = mm.owners_root
    return bool(root and mm.as_u64[(address.off(mm, root) + owners.ROOT_CONGESTED) >> 3])


def congestion_wait(mm: Mm, timeout: int) -> None:
    """``congestion_wait``: sleep for ``timeout`` jiffies, in which the flusher and the device do their work."""
    charge(mm, "waiting for writeback")
    second = mm.as_u64[mm.var_jiffies >> 3] // mm.hz
    word.add_u64(mm, mm.var_jiffies, timeout)
    if mm.as_u64[mm.var_jiffies >> 3] // mm.hz != second:
        stat.refresh_cpu_vm_stats(mm)
    writeback.flush(mm)
    writeback.complete_writeback(mm)


def wait_iff_congested(mm: Mm, z: int, timeout: int) -> None:
    """``wait_iff_congested``: sleep only if the zone is full of pages that wait for a congested device."""
    if congested(mm) and mm.as_u64[(z + mm.zone_flags) >> 3] >> mm.cold.ZONE_CONGESTED & 1:
        congestion_wait(mm, timeout)


def throttle_vm_writeout(mm: Mm, may_do_io: bool) -> None:
    """``throttle_vm_writeout``: too much is being written already; ``may_do_io``: the caller's gfp has IO and FS."""
    while True:
        available = stat.global_state(mm, abi.NR_FREE_PAGES)
        if mm.cold.var_dirty_balance_reserve:
            available -= min(available, mm.as_u64[mm.cold.var_dirty_balance_reserve >> 3])
        available += stat.global_state(mm, mm.cold.NR_INACTIVE_FILE) + stat.global_state(mm, mm.cold.NR_ACTIVE_FILE) + 1
        limit = writeback.VM_DIRTY_RATIO * available // 100
        if mm.task_flags & writeback.PF_LESS_THROTTLE or mm.rt_task:
            limit += limit // 4
        limit += limit // 10
        pending = stat.global_state(mm, mm.cold.NR_UNSTABLE_NFS) + stat.global_state(mm, mm.cold.NR_WRITEBACK)
        if pending <= limit:
            return
        congestion_wait(mm, mm.hz // 10)
        if not may_do_io:
            return
