# SPDX-License-Identifier: GPL-2.0-only
"""What a machine can do besides allocating: ranges, hotplug, and whose task it is that calls.

:class:`Hardware` is a part of :class:`~kernelmm.machine.Machine`.  Results are the kernel's: 0 or a negative errno.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from kernelmm.bringup.kernel import Kernel
from kernelmm.core import task as fields
from kernelmm.core.mm import Mm
from kernelmm.pressure import cma, contig, cpu_hotplug, cpusets, hotplug
from physmem import abi
from physmem.errors import UsageError

__all__ = ["Hardware"]


class Hardware:
    """Contiguous ranges, memory and CPUs that come and go, and the context of the caller."""

    mm: Mm

    @property
    def kernel(self) -> Kernel:
        """The kernel's structures, which the machine has by name."""
        raise NotImplementedError

    def _operation(self, name: str) -> AbstractContextManager[None]:
        """Errors of Python's or C's making, inside, become our own; the machine's."""
        raise NotImplementedError

    # -- ranges --------------------------------------------------------------

    def alloc_contig_range(self, start_pfn: int, end_pfn: int, migratetype: int = abi.MIGRATE_MOVABLE) -> int:
        """``alloc_contig_range``: take exactly these pages, moving what is in use; 0 or a negative errno."""
        with self._operation("alloc_contig_range"):
            hotplug.check_block(self.kernel, start_pfn, end_pfn - start_pfn)
            hotplug.check_block(self.kernel, end_pfn - 1, 1)
            return contig.alloc_contig_range(self.mm, start_pfn, end_pfn, migratetype)

    def free_contig_range(self, pfn: int, nr_pages: int) -> int:
        """``free_contig_range``: drop a reference of each page; how many are still in use."""
        with self._operation("free_contig_range"):
            hotplug.check_block(self.kernel, pfn, nr_pages)
            hotplug.check_block(self.kernel, pfn + nr_pages - 1, 1)
            return contig.free_contig_range(self.mm, pfn, nr_pages)

    def cma_alloc(self, count: int, align: int = 0, area: int = 0) -> int | None:
        """``cma_alloc``: adjacent pages of a CMA area, aligned to 2^align pages; ``struct page *``, or None.

        :raises UsageError: there is no such area
        """
        if not 0 <= align < abi.MAX_ORDER:
            raise UsageError(f"align {align}: must be from 0 to {abi.MAX_ORDER - 1}")
        with self._operation("cma_alloc"):
            return cma.cma_alloc(self.kernel, self._cma_area(area), count, align) or None

    def cma_release(self, page: int, count: int, area: int = 0) -> bool:
        """``cma_release``: give pages back; False if they are not the area's."""
        with self._operation("cma_release"):
            return cma.cma_release(self.kernel, self._cma_area(area), page, count)

    def _cma_area(self, number: int) -> int:
        areas = cma.cma_areas(self.kernel)
        if not 0 <= number < len(areas):
            raise UsageError(f"the machine has no CMA area {number}: boot it with cma=")
        return areas[number]

    # -- hotplug -------------------------------------------------------------

    def offline_memory(self, start_pfn: int, nr_pages: int) -> int:
        """``offline_pages``: empty a block of memory and take it out of use; 0, -EBUSY, -EAGAIN, -EINVAL or -EINTR."""
        with self._operation("offline_pages"):
            return hotplug.offline_pages(self.kernel, start_pfn, nr_pages)

    def online_memory(self, start_pfn: int, nr_pages: int) -> int:
        """``online_pages``: put it into use again; 0, or -EBUSY if it is."""
        with self._operation("online_pages"):
            return hotplug.online_pages(self.kernel, start_pfn, nr_pages)

    def is_memory_removable(self, start_pfn: int, nr_pages: int) -> bool:
        """``is_mem_section_removable``: as /sys/devices/system/memory/memoryN/removable says."""
        with self._operation("is_mem_section_removable"):
            return hotplug.is_mem_section_removable(self.kernel, start_pfn, nr_pages)

    def offline_cpu(self, cpu: int) -> None:
        """``cpu_down``; raises UsageError if the CPU is not online, or the last one."""
        with self._operation("cpu_down"):
            cpu_hotplug.cpu_down(self.kernel, cpu)

    def online_cpu(self, cpu: int) -> None:
        """``cpu_up``; raises UsageError if there is no such CPU, or it is online."""
        with self._operation("cpu_up"):
            cpu_hotplug.cpu_up(self.kernel, cpu)

    # -- the caller ----------------------------------------------------------

    @contextmanager
    def task(
        self,
        *,
        flags: int | None = None,
        realtime: bool | None = None,
        memdie: bool | None = None,
        fatal_signal: bool | None = None,
        mems_allowed: int | None = None,
        oom_score_adj: int | None = None,
        in_interrupt: bool | None = None,
        serving_softirq: bool | None = None,
    ) -> Iterator[None]:
        """Let the running task, or the CPU, be like this for a while: ``with m.task(flags=abi.PF_MEMALLOC): ...``.

        :param flags: PF_* (``current->flags``)
        :param memdie: the OOM killer has chosen it (TIF_MEMDIE)
        :param mems_allowed: its allowed nodes, a bit each; there is a cpuset then
        :param in_interrupt: the CPU is in an interrupt, ``serving_softirq`` in a softirq
        """
        mm = self.mm
        new = {"task_flags": flags, "rt_task": realtime, "memdie": memdie, "fatal_signal": fatal_signal}
        new |= {"in_interrupt": in_interrupt, "serving_softirq": serving_softirq}
        before = {name: getattr(mm, name) for name in new}
        adj, nodes, walls = (mm.task + fields.OOM_SCORE_ADJ) >> 2, mm.mems_allowed, mm.hardwall_mems
        score = mm.as_s32[adj]
        if mems_allowed is not None:
            cpusets.set_mems_allowed(mm, mems_allowed)
            cpusets.cpuset_inc(mm, walls)
        for name, value in new.items():
            if value is not None:
                setattr(mm, name, value)
        if oom_score_adj is not None:
            mm.as_s32[adj] = oom_score_adj
        try:
            yield
        finally:
            for name, value in before.items():
                setattr(mm, name, value)
            mm.as_s32[adj] = score
            if mems_allowed is not None:
                cpusets.cpuset_dec(mm)
                cpusets.set_mems_allowed(mm, nodes)

    @contextmanager
    def when_failing(self, hook: Callable[[int, int], None]) -> Iterator[None]:
        """Let something happen in the middle of allocations: whenever one is about to fail, before it looks whether its
        allowed nodes have changed meanwhile (and begins again if so).

        :param hook: called with the allocation's gfp mask and order: ``lambda gfp, order: m.set_mems_allowed(0b11)``
        """
        before, self.mm.failing = self.mm.failing, hook
        try:
            yield
        finally:
            self.mm.failing = before

    def set_mems_allowed(self, nodes: int) -> None:
        """``cpuset_change_task_nodemask``: the running task's cpuset gives it these nodes, a bit each.

        :raises UsageError: none of them has memory
        """
        cpusets.cpuset_change_task_nodemask(self.mm, nodes)
