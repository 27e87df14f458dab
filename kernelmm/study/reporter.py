# SPDX-License-Identifier: GPL-2.0-only
"""What the kernel prints about its memory: the machine's console.

The core calls a :class:`Reporter` when it finds a page in a bad state, gives up an allocation or
meets a failed assertion; the lines are those of Linux 4.0 (``bad_page`` and ``warn_alloc_failed``
of mm/page_alloc.c, ``dump_page`` of mm/debug.c, lib/ratelimit.c, lib/dump_stack.c).  Of a stack trace
there is only its first line, which says who was running: the functions that Python went through
are not the kernel's.
"""

from __future__ import annotations

from collections.abc import Iterable

from kernelmm import gfp
from kernelmm.bringup.kernel import Kernel
from kernelmm.core import fault
from kernelmm.core.mm import Mm
from kernelmm.study import meminfo
from kernelmm.study.meminfo import SHOW_MEM_FILTER_NODES
from physmem import abi, address, word
from physmem.errors import PhysmemError
from physmem.inspect.pageformat import PageFormat
from physmem.paging import Step
from physmem.structs.layout import Layout

__all__ = ["Reporter", "VmBugOn"]

#: Reports of bad pages in a burst, and how long the burst counts (mm/page_alloc.c), in seconds.
BAD_PAGE_BURST = 60
BAD_PAGE_INTERVAL = 60
#: DEFAULT_RATELIMIT_BURST, and DEFAULT_RATELIMIT_INTERVAL in seconds (include/linux/ratelimit.h).
RATELIMIT_BURST = 10
RATELIMIT_INTERVAL = 5

#: Bytes of a string of ``struct new_utsname``, and where the release is in init_uts_ns (behind a kref and two strings).
_UTS_LEN = 65
_UTS_RELEASE = 4 + 2 * _UTS_LEN

_U64 = 0xFFFF_FFFF_FFFF_FFFF
# Inside a class Python would mangle a name with two underscores.
NOWARN, NOMEMALLOC, WAIT = gfp.__GFP_NOWARN, gfp.__GFP_NOMEMALLOC, gfp.__GFP_WAIT

#: A letter for each bit of ``tainted_mask``, and what stands for a bit that is clear (kernel/panic.c).
_TAINTS = "PFSRMBUDAWCIOELK"
_UNTAINTED = "G" + 15 * " "
TAINT_BAD_PAGE, TAINT_DIE, TAINT_WARN = 5, 7, 9


class VmBugOn(PhysmemError):
    """An assertion of the kernel (VM_BUG_ON, VM_BUG_ON_PAGE) has failed; a real machine would have stopped.

    :ivar text: what the kernel prints, several lines
    :ivar file: source file of the assertion
    :ivar line: its line in Linux 4.0
    :ivar pfn: of the page concerned, if there is one
    """

    def __init__(self, text: str, condition: str, file: str, line: int, pfn: int | None) -> None:
        where = f"kernel BUG at {file}:{line}! {condition}"
        super().__init__(where if pfn is None else f"pfn {pfn}: {where}")
        self.text = text
        self.file = file
        self.line = line
        self.pfn = pfn


class RateLimit:
    """``struct ratelimit_state``: a burst of messages an interval, the others are counted.

    :param interval: jiffies
    """

    def __init__(self, interval: int, burst: int) -> None:
        self.interval = interval
        self.burst = burst
        self.begin = 0
        self.printed = 0
        self.missed = 0

    def missed_before(self, jiffies: int) -> int:
        """Begin a new interval if the old one is over; how many messages the old one has swallowed."""
        self.begin = self.begin or jiffies
        if not time_before((self.begin + self.interval) & _U64, jiffies):
            return 0
        missed = self.missed
        self.begin = self.printed = self.missed = 0
        return missed

    def allows(self) -> bool:
        """Count a message; whether it may be printed."""
        if self.printed < self.burst:
            self.printed += 1
            return True
        self.missed += 1
        return False


class Reporter:
    """The console of one machine.

    How many bad pages were reported, and since when, the kernel keeps in static variables whose
    addresses no symbol tells; they are kept here.

    :param layout: names of the page flags
    :param hz: jiffies a second
    :param kernel: the kernel's structures, for reports on all of memory; without, there are none
    :param release: the kernel's, as its dump says
    :ivar lines: what was printed
    :ivar tainted: ``tainted_mask``: what has happened that makes later reports doubtful
    """

    def __init__(self, layout: Layout, hz: int, kernel: Kernel | None = None, release: str = "4.0.0") -> None:
        self.lines: list[str] = []
        self._release = release
        self.kernel = kernel
        self.tainted = 0
        self.smp = layout.has("per_cpu_pageset", "stat_threshold")
        self.page_format = PageFormat(layout)
        self.bad_page_interval = BAD_PAGE_INTERVAL * hz
        self.nopage = RateLimit(RATELIMIT_INTERVAL * hz, RATELIMIT_BURST)
        self.oom = RateLimit(RATELIMIT_INTERVAL * hz, RATELIMIT_BURST)
        self.nr_shown = 0
        self.nr_unshown = 0
        self.resume = 0
        self.die_counter = 0
        self.warnings = 0
        self.warned_order = False

    def printk(self, line: str) -> None:
        """Print one line."""
        self.lines.append(line)

    # -- one page ------------------------------------------------------------

    def dump_page(self, mm: Mm, page: int, reason: str | None, bad_flags: int = 0) -> None:
        """``dump_page``, ``dump_page_badflags``: a page's fields, and why they are printed."""
        at = address.page_off(mm, page)
        flags = mm.as_u64[(at + abi.PAGE_FLAGS) >> 3]
        count = mm.as_s32[(at + abi.PAGE_COUNT) >> 2]
        mapcount = mm.as_s32[(at + abi.PAGE_MAPCOUNT) >> 2] + 1
        mapping = pointer(mm.as_u64[(at + abi.PAGE_MAPPING) >> 3])
        index = mm.as_u64[(at + abi.PAGE_INDEX) >> 3]
        self.printk(f"page:{pointer(page)} count:{count} mapcount:{mapcount} mapping:{mapping} index:{index:#x}")
        self.printk(f"flags: {self.flags(flags)}")
        if reason:
            self.printk(f"page dumped because: {reason}")
        if flags & bad_flags:
            self.printk("bad because of flags:")
            self.printk(f"flags: {self.flags(flags & bad_flags)}")
        if mm.aids is not None:
            # As kernels since 4.6 do: 4.0 knows, but does not say.
            self.lines += mm.aids.owner_of(mm, page)

    def flags(self, flags: int) -> str:
        """A flags word as ``dump_flags`` prints it: the number, and the names of its page flags."""
        return f"{flags:#x}({'|'.join(self.page_format.flag_names(flags))})"

    def bad_page(self, mm: Mm, page: int, reason: str, bad_flags: int) -> None:
        """``bad_page``: at most 60 reports in a burst, then silence until a minute after its first."""
        jiffies = mm.as_u64[mm.var_jiffies >> 3]
        if self.nr_shown == BAD_PAGE_BURST:
            if time_before(jiffies, self.resume):
                self.nr_unshown += 1
                return
            if self.nr_unshown:
                self.printk(f"BUG: Bad page state: {self.nr_unshown} messages suppressed")
                self.nr_unshown = 0
            self.nr_shown = 0
        if self.nr_shown == 0:
            self.resume = (jiffies + self.bad_page_interval) & _U64
        self.nr_shown += 1
        self.printk(f"BUG: Bad page state in process {mm.comm}  pfn:{address.page_to_pfn(mm, page):05x}")
        self.dump_page(mm, page, reason, bad_flags)
        self.tainted |= 1 << TAINT_BAD_PAGE

    # -- failures ------------------------------------------------------------

    def warn_alloc_failed(self, mm: Mm, gfp_mask: int, order: int) -> None:
        """``warn_alloc_failed``: who got no memory, and how memory is; unless the caller or the rate forbids it."""
        if gfp_mask & NOWARN or not self.nopage_ratelimit(mm):
            return
        if mm.guard_minorder:
            # With so much memory lying idle on purpose, failures are to be expected.
            return
        mask = SHOW_MEM_FILTER_NODES
        if not gfp_mask & NOMEMALLOC and (mm.memdie or mm.task_flags & (abi.PF_MEMALLOC | abi.PF_EXITING)):
            mask = 0
        if mm.in_interrupt or not gfp_mask & WAIT:
            mask = 0
        self.printk(f"{mm.comm}: page allocation failure: order:{order}, mode:0x{gfp_mask:x}")
        self.dump_stack(mm)
        if not self.should_suppress_show_mem(mm):
            self.show_mem(mask)

    def should_suppress_show_mem(self, mm: Mm) -> bool:
        """``should_suppress_show_mem``: an interrupt has no time to report on more than 256 nodes."""
        return mm.in_interrupt and mm.cold is not None and mm.cold.nodes_shift > 8

    def show_mem(self, mask: int) -> None:
        """``show_mem``: how memory is.

        :param mask: SHOW_MEM_FILTER_*
        """
        if self.kernel is not None:
            self.lines += meminfo.show_mem(self.kernel, mask)

    def ratelimit(self, mm: Mm, limit: RateLimit, caller: str) -> bool:
        """``__ratelimit``: count a message of the function ``caller``; whether it may be printed."""
        missed = limit.missed_before(mm.as_u64[mm.var_jiffies >> 3])
        if missed:
            self.printk(f"{caller}: {missed} callbacks suppressed")
        return limit.allows()

    def fail_dump(self, mm: Mm, attr: int) -> None:
        """``fail_dump``: an allocation is made to fail; probability and interval under each other's name, as in 4.0.

        :param attr: physical address of ``fail_page_alloc``
        """
        verbose = mm.as_u64[(attr + fault.VERBOSE) >> 3]
        if not verbose or not self.ratelimit_in_memory(mm, attr + fault.RATELIMIT, "fail_dump"):
            return
        # The name is that of a directory in debugfs, and there is just this one.
        name = "fail_page_alloc" if mm.as_u64[(attr + fault.DNAME - (0 if mm.smp else 8)) >> 3] else pointer(0)
        self.printk("FAULT_INJECTION: forcing a failure.")
        self.printk(
            f"name {name}, interval {mm.as_u64[(attr + fault.PROBABILITY) >> 3]}, "
            f"probability {mm.as_u64[(attr + fault.INTERVAL) >> 3]}, "
            f"space {mm.as_s32[(attr + fault.SPACE) >> 2]}, times {mm.as_s32[(attr + fault.TIMES) >> 2]}"
        )
        if verbose > 1:
            self.dump_stack(mm)

    def ratelimit_in_memory(self, mm: Mm, state: int, caller: str) -> bool:
        """:meth:`ratelimit` by the ``struct ratelimit_state`` at physical ``state``, which has no lock on UP."""
        lock = 4 if mm.smp else 0
        interval, burst, *counts = (state + lock + at >> 2 for at in (0, 4, 8, 12))
        begin = state + (24 if mm.smp else 16) >> 3
        if mm.as_s32[interval] == 0:
            return True
        if mm.smp:
            # Its lock, taken and released: a ticket each.
            for ticket in (state + 1, state):
                word.add_u8(mm, ticket, mm.ticket_lock_inc)
        limit = RateLimit(mm.as_s32[interval], mm.as_s32[burst])
        limit.begin, limit.printed, limit.missed = mm.as_u64[begin], *(mm.as_s32[at] for at in counts)
        allowed = self.ratelimit(mm, limit, caller)
        mm.as_u64[begin] = limit.begin
        mm.as_s32[counts[0]], mm.as_s32[counts[1]] = limit.printed, limit.missed
        return allowed

    def nopage_ratelimit(self, mm: Mm) -> bool:
        """:meth:`ratelimit` of failed allocations; our own kernels have its state in memory."""
        if self.kernel is not None and "nopage_rs" in self.kernel.symbols:
            return self.ratelimit_in_memory(mm, self.kernel.phys(self.kernel.symbols["nopage_rs"]), "warn_alloc_failed")
        return self.ratelimit(mm, self.nopage, "warn_alloc_failed")

    def oom_ratelimit(self, mm: Mm) -> bool:
        """:meth:`ratelimit` of the OOM killer's reports."""
        return self.ratelimit(mm, self.oom, "oom_kill_process")

    def warn_order(self, mm: Mm, gfp_mask: int) -> None:
        """``WARN_ON_ONCE`` of the slow path: an order that no block has, and no __GFP_NOWARN."""
        if not gfp_mask & NOWARN and not self.warned_order:
            self.warned_order = True
            self.warn(mm, "mm/page_alloc.c", 2621, "__alloc_pages_slowpath")

    def warn(self, mm: Mm, file: str, line: int, function: str, message: str = "") -> None:
        """``warn_slowpath_common``: a WARN_ON whose condition is true; the machine goes on."""
        self.printk("------------[ cut here ]------------")
        self.printk(f"WARNING: CPU: {mm.cpu} PID: {mm.pid} at {file}:{line} {function}()")
        if message:
            self.printk(message)
        self.printk("Modules linked in:")
        self.dump_stack(mm)
        self.warnings += 1
        self.printk(f"---[ end trace {self.warnings:016x} ]---")
        self.tainted |= 1 << TAINT_WARN

    # -- who is running ------------------------------------------------------

    def dump_stack(self, mm: Mm) -> None:
        """The first line of ``dump_stack``: CPU, task and kernel."""
        self.printk(f"CPU: {mm.cpu} PID: {mm.pid} Comm: {mm.comm[:20]} {self.print_tainted()} {self.release()}")

    def print_tainted(self) -> str:
        """``print_tainted``."""
        if not self.tainted:
            return "Not tainted"
        letters = (_TAINTS[i] if self.tainted >> i & 1 else _UNTAINTED[i] for i in range(len(_TAINTS)))
        return "Tainted: " + "".join(letters)

    def release(self) -> str:
        """Release and build number of the kernel, as far as the memory has them (``init_utsname()``)."""
        kernel = self.kernel
        if kernel is None or "init_uts_ns" not in kernel.symbols:
            return self._release
        at = kernel.phys(kernel.symbols["init_uts_ns"]) + _UTS_RELEASE
        if not kernel.ram.ranges.covers(at, at + 2 * _UTS_LEN):
            return self._release
        names = (kernel.ram.read(at + i * _UTS_LEN, _UTS_LEN).split(b"\0")[0].decode("latin-1") for i in range(2))
        return " ".join(name.split(" ")[0] for name in names)

    def vm_bug_on_page(self, mm: Mm, page: int, condition: str, file: str, line: int) -> None:
        """A VM_BUG_ON_PAGE whose condition is true: dump the page, then :meth:`vm_bug_on`."""
        start = len(self.lines)
        condition = f"VM_BUG_ON_PAGE({condition})"
        self.dump_page(mm, page, condition)
        self._bug(start, condition, file, line, address.page_to_pfn(mm, page))

    def vm_bug_on(self, condition: str, file: str, line: int) -> None:
        """A VM_BUG_ON whose condition is true: always raises VmBugOn."""
        self._bug(len(self.lines), f"VM_BUG_ON({condition})", file, line, None)

    def oops(self, addr: int, steps: Iterable[Step], error: int) -> str:
        """``show_fault_oops`` and ``__die``: the kernel has touched an address that is not mapped; what it prints.

        :param steps: how the address was looked up
        :param error: the page fault's error code
        """
        start = len(self.lines)
        what = "NULL pointer dereference" if addr < abi.PAGE_SIZE else "paging request"
        self.printk(f"BUG: unable to handle kernel {what} at {pointer(addr)}")
        self.printk(" ".join(f"{step.level} {step.entry:x}" for step in steps))
        debug = ""
        if self.kernel is not None and "page_owner_inited" in self.kernel.symbols and not self.kernel.mm.kmemcheck:
            debug = " DEBUG_PAGEALLOC"
        self.die_counter += 1
        self.printk(f"Oops: {error:04x} [#{self.die_counter}]{' SMP' if self.smp else ''}{debug}")
        self.tainted |= 1 << TAINT_DIE
        return "\n".join(self.lines[start:])

    def _bug(self, start: int, condition: str, file: str, line: int, pfn: int | None) -> None:
        self.die_counter += 1
        self.tainted |= 1 << TAINT_DIE
        self.printk("------------[ cut here ]------------")
        self.printk(f"kernel BUG at {file}:{line}!")
        self.printk(f"invalid opcode: 0000 [#{self.die_counter}]{' SMP' if self.smp else ''}")
        raise VmBugOn("\n".join(self.lines[start:]), condition, file, line, pfn)


def time_before(a: int, b: int) -> bool:
    """``time_before``: of two readings of jiffies, whether ``a`` is the earlier; they may have wrapped."""
    return (a - b) & _U64 >= 1 << 63


def pointer(value: int) -> str:
    """``%p``: 16 hexadecimal digits, or NULL in as many columns."""
    return f"{value:016x}" if value else f"{'(null)':>16}"
