# SPDX-License-Identifier: GPL-2.0-only
"""Memory pressure on one screen: kswapd, direct reclaim, compaction and the OOM killer at work on a machine."""

from __future__ import annotations

from collections.abc import Iterator

import click

from kernelmm import gfp
from kernelmm.core import entry, mmzone, pcp, watermark
from kernelmm.core.mm import Mm
from kernelmm.machine import Machine
from kernelmm.pressure import kswapd, lru, shrink, stat
from kernelmm.pressure.workload import File, Task, Workload
from physmem import abi, address

__all__ = ["show_pressure", "story"]

_NORETRY = gfp.__GFP_NORETRY
_QUIET = gfp.GFP_NOWAIT | gfp.__GFP_NOWARN
#: Order of the block that memory in pieces has none of.
_BLOCK = 9
_EVENTS = (
    ("PGSCAN_DIRECT_NORMAL", "PGSTEAL_DIRECT_NORMAL"),
    ("PGSCAN_KSWAPD_NORMAL", "PGSTEAL_KSWAPD_NORMAL"),
)


def show_pressure(machine: Machine) -> None:
    """Print the story; the machine is not good for much else afterwards."""
    for line in story(machine):
        click.echo(line)


def story(machine: Machine) -> Iterator[str]:
    """The lines: what is done to the machine, and how it copes.

    :raises UsageError: the machine is too small for the tasks of the story
    """
    mm = machine.mm
    work = Workload(mm)
    free = free_pages(mm)
    yield f"a machine with {free} free pages; its zones' marks (min, low, high): {marks(mm)}"
    file = work.open()
    small, big = work.fork("small"), work.fork("big")
    small.mmap_anon(free // 50)
    big.mmap_anon(free // 10)
    yield f"two tasks map anonymous memory: small {small.rss} pages, big {big.rss} pages (there is no swap)"
    file.read(0, free // 3)
    yield f"a file of {file.nrpages} pages is read: they are in the page cache, clean, on the inactive list"
    exhaust(mm)
    yield f"and the kernel takes all the rest: {free_pages(mm)} pages are free"
    yield ""
    yield from kswapd_line(mm, file)
    yield from direct_lines(mm, file)
    yield from compaction_lines(mm, file)
    yield from oom_lines(machine, big, small)


def kswapd_line(mm: Mm, file: File) -> Iterator[str]:
    """kswapd, which the kernel's last requests have woken."""
    before = file.nrpages
    kswapd.let_others_run(mm)
    scanned, stolen = scanned_and_stolen(mm, 1)
    yield (
        f"kswapd     was woken, looked at {scanned} pages, reclaimed {stolen}: the file has {file.nrpages} of {before},"
    )
    yield f"           {free_pages(mm)} pages are free, all zones are above their high marks"


def direct_lines(mm: Mm, file: File) -> Iterator[str]:
    """A request that reclaims for itself."""
    exhaust(mm)
    before, stalls = file.nrpages, stalled(mm)
    scanned, stolen = scanned_and_stolen(mm, 0)
    page = entry.alloc_pages(mm, gfp.GFP_KERNEL, 0)
    now = scanned_and_stolen(mm, 0)
    yield (
        f"reclaim    alloc_pages(GFP_KERNEL, 0) found nothing, stalled {stalled(mm) - stalls} times, looked at "
        f"{now[0] - scanned} pages,"
    )
    yield f"           reclaimed {now[1] - stolen}, the file has {file.nrpages} of {before}: it got {name(mm, page)}"


def compaction_lines(mm: Mm, file: File) -> Iterator[str]:
    """Free memory in pieces, put together."""
    for index, page in file.pages().items():
        if index % 8 and not lru.page_mapped(mm, page):
            shrink.delete_from_page_cache(mm, page, file.va, 0)
            lru.put_page(mm, page)
    pcp.drain_all_pages(mm, 0)
    yield (
        f"compaction 7 of 8 pages of the file are dropped: {free_pages(mm)} are free, the largest block: {largest(mm)}"
    )
    before = file.pages()
    moved = count(mm, mm.cold.PGMIGRATE_SUCCESS)
    page = entry.alloc_pages(mm, gfp.GFP_KERNEL | _NORETRY, _BLOCK)
    after = file.pages()
    moves = [(before[i], after[i]) for i in before if i in after and before[i] != after[i]]
    example = f", for example {name(mm, moves[0][0])} to {name(mm, moves[0][1])}" if moves else ""
    yield (
        f"           alloc_pages(GFP_KERNEL, {_BLOCK}) moved "
        f"{count(mm, mm.cold.PGMIGRATE_SUCCESS) - moved} pages{example}: "
        f"it got {name(mm, page)}"
    )


def oom_lines(machine: Machine, big: Task, small: Task) -> Iterator[str]:
    """Nothing is left to reclaim."""
    mm = machine.mm
    printed = len(machine.console.lines)
    requests = 0
    while big.alive and entry.alloc_pages(mm, gfp.GFP_KERNEL, 0):
        requests += 1
    yield f"oom        {requests} requests later nothing is left to reclaim:"
    report = False
    for line in machine.console.lines[printed:]:
        # The report on all of memory would not fit on the screen.
        report = report or line == "Mem-Info:"
        if not report:
            yield f"           {line}"
        report = report and not line.endswith("cma reserved")
    yield f"           {free_pages(mm)} pages are free again; small lives on with {small.rss}"


# -- what the story tells --------------------------------------------------------------


def exhaust(mm: Mm) -> None:
    """Take all that a caller gets who may not wait."""
    for order in range(abi.MAX_ORDER - 1, -1, -1):
        while entry.alloc_pages(mm, _QUIET, order):
            pass


def free_pages(mm: Mm) -> int:
    """Free pages of all zones."""
    return sum(stat.snapshot(mm, z, abi.NR_FREE_PAGES) for z in stat.populated_zones(mm))


def marks(mm: Mm) -> str:
    """The three watermarks of each zone."""
    zones = ([watermark.wmark_pages(mm, z, which) for which in range(3)] for z in stat.populated_zones(mm))
    return ", ".join("/".join(str(mark) for mark in zone) for zone in zones)


def largest(mm: Mm) -> str:
    """The largest free block of any zone."""
    orders = [o for z in stat.populated_zones(mm) for o in range(abi.MAX_ORDER) if mmzone.nr_free(mm, z, o)]
    return f"{1 << max(orders)} pages" if orders else "none"


def count(mm: Mm, event: int) -> int:
    """An event of the running CPU."""
    return mm.as_u64[(mm.vm_events >> 3) + event]


def stalled(mm: Mm) -> int:
    """How often somebody had to reclaim for himself."""
    return count(mm, mm.cold.ALLOCSTALL)


def scanned_and_stolen(mm: Mm, by_kswapd: int) -> tuple[int, int]:
    """Pages looked at and reclaimed, in zones of every kind."""
    scanned, stolen = (getattr(mm.cold, each) for each in _EVENTS[by_kswapd])
    kinds = range(-gfp.ZONE_NORMAL, mm.max_nr_zones - gfp.ZONE_NORMAL)
    return sum(count(mm, scanned + kind) for kind in kinds), sum(count(mm, stolen + kind) for kind in kinds)


def name(mm: Mm, page: int) -> str:
    """A page by its PFN."""
    return f"pfn {address.page_to_pfn(mm, page)}" if page else "nothing"
