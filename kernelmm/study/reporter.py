# SPDX-License-Identifier: GPL-2.0-only
"""What the kernel prints about its memory: the machine's console.

The core calls a :class:`Reporter` when it finds a page in a bad state, gives up an allocation or
meets a failed assertion; the lines are those of Linux 4.0 (``bad_page`` and ``warn_alloc_failed``
of mm/page_alloc.c, ``dump_page`` of mm/debug.c, lib/ratelimit.c), without the stack traces
that follow them there.
"""

from __future__ import annotations

from kernelmm import gfp
from kernelmm.core.mm import Mm
from physmem import abi, address
from physmem.errors import PhysmemError
from physmem.inspect.pageformat import PageFormat
from physmem.structs.layout import Layout

__all__ = ["Reporter", "VmBugOn"]

#: Reports of bad pages in a burst, and how long the burst counts (mm/page_alloc.c), in seconds.
BAD_PAGE_BURST = 60
BAD_PAGE_INTERVAL = 60
#: DEFAULT_RATELIMIT_BURST, and DEFAULT_RATELIMIT_INTERVAL in seconds (include/linux/ratelimit.h).
RATELIMIT_BURST = 10
RATELIMIT_INTERVAL = 5

_U64 = 0xFFFF_FFFF_FFFF_FFFF
# Inside a class Python would mangle a name with two underscores.
NOWARN = gfp.__GFP_NOWARN


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
    :ivar lines: what was printed
    """

    def __init__(self, layout: Layout, hz: int) -> None:
        self.lines: list[str] = []
        self.smp = layout.has("per_cpu_pageset", "stat_threshold")
        self.page_format = PageFormat(layout)
        self.bad_page_interval = BAD_PAGE_INTERVAL * hz
        self.nopage = RateLimit(RATELIMIT_INTERVAL * hz, RATELIMIT_BURST)
        self.nr_shown = 0
        self.nr_unshown = 0
        self.resume = 0
        self.die_counter = 0

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

    # -- failures ------------------------------------------------------------

    def warn_alloc_failed(self, mm: Mm, gfp_mask: int, order: int) -> None:
        """``warn_alloc_failed``: its first line, unless the caller or the rate limit forbids it."""
        if gfp_mask & NOWARN:
            return
        missed = self.nopage.missed_before(mm.as_u64[mm.var_jiffies >> 3])
        if missed:
            self.printk(f"warn_alloc_failed: {missed} callbacks suppressed")
        if self.nopage.allows():
            self.printk(f"{mm.comm}: page allocation failure: order:{order}, mode:0x{gfp_mask:x}")

    def vm_bug_on_page(self, mm: Mm, page: int, condition: str, file: str, line: int) -> None:
        """A VM_BUG_ON_PAGE whose condition is true: dump the page, then :meth:`vm_bug_on`."""
        start = len(self.lines)
        condition = f"VM_BUG_ON_PAGE({condition})"
        self.dump_page(mm, page, condition)
        self._bug(start, condition, file, line, address.page_to_pfn(mm, page))

    def vm_bug_on(self, condition: str, file: str, line: int) -> None:
        """A VM_BUG_ON whose condition is true: always raises VmBugOn."""
        self._bug(len(self.lines), f"VM_BUG_ON({condition})", file, line, None)

    def _bug(self, start: int, condition: str, file: str, line: int, pfn: int | None) -> None:
        self.die_counter += 1
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
