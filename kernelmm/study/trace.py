# SPDX-License-Identifier: GPL-2.0-only
"""The tracepoints of Linux 4.0's page allocator: events, and their ftrace text.

Those of the kmem family (include/trace/events/kmem.h) are here, those of reclaim and compaction in
:mod:`~kernelmm.study.trace_pressure`.

While ``mm.tracing`` is on, the core calls the methods of ``mm.tracer`` where the kernel has its
tracepoints, under the tracepoints' names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from kernelmm import gfp
from kernelmm.core import mmzone
from kernelmm.core.mm import Mm
from kernelmm.study.reporter import pointer
from kernelmm.study.trace_pressure import FLAGS, FORMATS, PressureEvents
from physmem import abi, address

__all__ = ["Event", "Tracer"]

#: Jiffies begin five minutes before they would wrap as a 32-bit number (INITIAL_JIFFIES).
_JIFFIES_BEFORE_WRAP = 300

_HEADER = """\
# tracer: nop
#
#                              _-----=> irqs-off
#                             / _----=> need-resched
#                            | / _---=> hardirq/softirq
#                            || / _--=> preempt-depth
#                            ||| /     delay
#           TASK-PID   CPU#  ||||    TIMESTAMP  FUNCTION
#              | |       |   ||||       |         |
"""


class Event(NamedTuple):
    """One hit of a tracepoint.

    :ivar name: of the tracepoint
    :ivar page: ``struct page *``, 0 for an allocation that failed, and where the event is not about a page
    :ivar pfn: of the page, 0 for none
    :ivar fields: the other fields by name, in the order in which they are printed
    :ivar comm: name of the task
    :ivar time: microseconds since the machine was started
    """

    name: str
    page: int
    pfn: int
    fields: Mapping[str, int | str]
    comm: str
    pid: int
    cpu: int
    time: int

    @property
    def text(self) -> str:
        """Tracepoint and fields as the kernel prints them."""
        if self.name in FORMATS:
            return f"{self.name}: {FORMATS[self.name].format_map(self.fields)}"
        rest = " ".join(f"{name}={value}" for name, value in self.fields.items())
        return f"{self.name}: page={pointer(self.page)} pfn={self.pfn} {rest}"

    def __str__(self) -> str:
        """A line of ftrace's ``trace`` file; interrupts are off around events of pages, and nothing else goes on."""
        seconds, micros = divmod(self.time, 1_000_000)
        flags = FLAGS.get(self.name, "d...")
        return f"{self.comm:>16}-{self.pid:<5} [{self.cpu:03}] {flags} {seconds:5}.{micros:06}: {self.text}"


class Tracer(PressureEvents):
    """Collects events, or passes them on.

    The machine's clock is its jiffies, and those stand still: each event is dated one microsecond after
    the one before, to keep their order.

    :param sink: called with each event; by default they are collected in :attr:`events`
    """

    #: What a ``trace`` file begins with.
    header = _HEADER

    def __init__(self, sink: Callable[[Event], None] | None = None) -> None:
        self.events: list[Event] = []
        self.count = 0
        self._sink = self.events.append if sink is None else sink

    def mm_page_alloc(self, mm: Mm, page: int, order: int, gfp_flags: int, migratetype: int) -> None:
        """An allocation has ended; ``page`` is 0 if it failed."""
        names = gfp.gfp_names(gfp_flags)
        self._record("mm_page_alloc", mm, page, {"order": order, "migratetype": migratetype, "gfp_flags": names})

    def mm_page_free(self, mm: Mm, page: int, order: int) -> None:
        """A block has lost its last reference."""
        self._record("mm_page_free", mm, page, {"order": order})

    def mm_page_free_batched(self, mm: Mm, page: int, cold: bool) -> None:
        """One of several single pages that are freed together."""
        self._record("mm_page_free_batched", mm, page, {"order": 0, "cold": int(cold)})

    def mm_page_alloc_zone_locked(self, mm: Mm, page: int, order: int, migratetype: int) -> None:
        """A block was taken off the buddy lists; ``page`` is 0 if there was none."""
        fields = {"order": order, "migratetype": migratetype, "percpu_refill": int(order == 0)}
        self._record("mm_page_alloc_zone_locked", mm, page, fields)

    def mm_page_pcpu_drain(self, mm: Mm, page: int, order: int, migratetype: int) -> None:
        """A single page has gone from a per-cpu list back to the buddy lists."""
        self._record("mm_page_pcpu_drain", mm, page, {"order": order, "migratetype": migratetype})

    def mm_page_alloc_extfrag(
        self,
        mm: Mm,
        page: int,
        alloc_order: int,
        fallback_order: int,
        alloc_migratetype: int,
        fallback_migratetype: int,
    ) -> None:
        """A block of another mobility was broken up."""
        pageblock_migratetype = mmzone.pageblock_migratetype(mm, address.page_to_pfn(mm, page))
        fields = {
            "alloc_order": alloc_order,
            "fallback_order": fallback_order,
            "pageblock_order": abi.PAGEBLOCK_ORDER,
            "alloc_migratetype": alloc_migratetype,
            "fallback_migratetype": fallback_migratetype,
            "fragmenting": int(fallback_order < abi.PAGEBLOCK_ORDER),
            "change_ownership": int(alloc_migratetype == pageblock_migratetype),
        }
        self._record("mm_page_alloc_extfrag", mm, page, fields)

    def _record(self, name: str, mm: Mm, page: int, fields: Mapping[str, int | str]) -> None:
        pfn = address.page_to_pfn(mm, page) if page else 0
        ticks = (mm.as_u64[mm.var_jiffies >> 3] + _JIFFIES_BEFORE_WRAP * mm.hz) & 0xFFFF_FFFF
        time = ticks * 1_000_000 // mm.hz + self.count
        self.count += 1
        self._sink(Event(name, page, pfn, fields, mm.comm, mm.pid, mm.cpu, time))
