# SPDX-License-Identifier: GPL-2.0-only
"""CONFIG_DEBUG_ATOMIC_SLEEP: an allocation that may wait, by one who must not (kernel/sched/core.c).

Who must not wait: an interrupt, a task that cannot be preempted (it holds a spinlock, say), and
whoever has interrupts off.  The caller's context is in :class:`~kernelmm.core.mm.Mm`, as its CPU is.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kernelmm import gfp
from kernelmm.bringup.kernel import Kernel
from kernelmm.core.mm import Mm
from kernelmm.debug.callers import Callers
from kernelmm.study.reporter import time_before

__all__ = ["AtomicSleep", "NoAids"]

# Inside a class Python would mangle a name with two underscores.
WAIT = gfp.__GFP_WAIT
#: The ``might_sleep_if`` of __alloc_pages_nodemask in Linux 4.0.
_PLACE = "mm/page_alloc.c:2819"


class AtomicSleep:
    """``___might_sleep``: reports, one a second at most."""

    def __init__(self) -> None:
        self.prev_jiffy = 0

    def might_sleep_if(self, mm: Mm, gfp_mask: int) -> None:
        """``might_sleep_if(gfp_mask & __GFP_WAIT)``."""
        atomic = mm.in_interrupt or mm.preempt_count != 0
        if not gfp_mask & WAIT or not (atomic or mm.irqs_off) or mm.reporter is None:
            return
        jiffies = mm.as_u64[mm.var_jiffies >> 3]
        if self.prev_jiffy and time_before(jiffies, self.prev_jiffy + mm.hz):
            return
        self.prev_jiffy = jiffies
        mm.reporter.printk(f"BUG: sleeping function called from invalid context at {_PLACE}")
        context = f"in_atomic(): {atomic:d}, irqs_disabled(): {mm.irqs_off:d}"
        mm.reporter.printk(f"{context}, pid: {mm.pid}, name: {mm.comm}")
        mm.reporter.dump_stack(mm)


class NoAids:
    """What is hung on ``mm.aids`` of a kernel whose aids keep nothing by page (no ``page_ext``).

    :ivar kmemcheck: what notes which bytes were written, on a kernel that was built with it
    """

    owner: Any = None

    def __init__(self) -> None:
        self.atomic_sleep: AtomicSleep | None = None
        self.lockdep: Any = None
        self.kmemcheck: Any = None
        self._callers: Callers | None = None

    def callers(self, kernel: Kernel) -> Callers:
        """Who has called the allocator: one table for all aids."""
        if self._callers is None:
            self._callers = Callers(kernel)
        return self._callers

    def alloc_begins(self, mm: Mm, gfp_mask: int) -> None:
        """An allocation begins."""
        if self.lockdep is not None:
            self.lockdep.trace_alloc(mm, gfp_mask)
        if self.atomic_sleep is not None:
            self.atomic_sleep.might_sleep_if(mm, gfp_mask)

    def owner_of(self, mm: Mm, pg: int) -> Iterator[str]:
        """Nobody knows a page's owner."""
        yield from ()
