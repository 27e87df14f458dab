# SPDX-License-Identifier: GPL-2.0-only
"""A trace's allocations and frees, made again on a machine of our own: how does its memory fragment?

Blocks get other places than in the trace; each is freed when the trace frees its own.  What the trace allocated before
it began is not here, and frees of that are passed over.  Allocations keep their order, mobility and zone; none waits.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from kernelmm import gfp
from kernelmm.core import mmzone
from kernelmm.machine import Machine
from kernelmm.validate.tracefile import Line, TraceFile
from physmem import abi
from physmem.errors import UsageError

__all__ = ["Replay", "Sample", "gfp_mask", "memory_for"]

#: What is kept of a mask; the rest is how to wait, or what to do with the pages.
_KEPT = gfp.GFP_ZONEMASK | gfp.GFP_MOVABLE_MASK | gfp.__GFP_COLD
_ALWAYS = gfp.GFP_ATOMIC | gfp.__GFP_NOWARN
#: Our kernel and its page array take some of the memory, and no machine is smaller than this.
_SMALLEST = 64 << 20
_LARGEST = 1 << 40
#: Orders whose unusable share is told: the page allocator's costly order, and a huge page.
COSTLY, HUGE = 4, 9


@dataclass(frozen=True)
class Sample:
    """The machine after some events.

    :ivar event: how many
    :ivar time: seconds, of the trace's clock
    :ivar free: pages on the free lists; ``blocks``: how many blocks there are of each order
    :ivar allocated: pages that the trace has
    """

    event: int
    time: float
    free: int
    blocks: tuple[int, ...]
    allocated: int

    def unusable(self, order: int) -> float:
        """Share of free memory that is of no use to an allocation of this order (``unusable_free_index``)."""
        usable = sum(count << i for i, count in enumerate(self.blocks) if i >= order)
        return 1 - usable / self.free if self.free else 0.0

    @property
    def largest(self) -> int:
        """Order of the largest free block, -1 if there is none."""
        return max((order for order, count in enumerate(self.blocks) if count), default=-1)

    def as_json(self) -> dict[str, object]:
        """Plain values."""
        shares = {f"unusable_order_{order}": round(self.unusable(order), 6) for order in (COSTLY, HUGE)}
        return vars(self) | {"largest": self.largest} | shares


def gfp_mask(text: str) -> int:
    """The bits of ``gfp_flags`` as old or new kernels print them, as far as they are kept."""
    mask = 0
    for word in text.split("|"):
        name = word.removeprefix("__").removeprefix("GFP_")
        if word[:2] == "0x":
            mask |= int(word, 16) & gfp.__GFP_HIGHMEM  # other bits without a name differ between kernels
        else:
            value = getattr(gfp, f"__GFP_{name}", None) or getattr(gfp, f"GFP_{name}", 0)
            mask |= value if isinstance(value, int) else 0
    mask &= _KEPT
    if gfp.GFP_ZONE_BAD >> (mask & gfp.GFP_ZONEMASK) & 1 or mask & gfp.GFP_MOVABLE_MASK == gfp.GFP_MOVABLE_MASK:
        mask &= ~(gfp.GFP_ZONEMASK | gfp.GFP_MOVABLE_MASK)
    return mask | _ALWAYS


def memory_for(trace: TraceFile) -> int:
    """Bytes of a machine that has all the pages that a trace allocates; raises UsageError."""
    top = 0
    for _, batch in trace.batches():
        top = max(top, max((int(g[3], 0) + (1 << int(g[4])) for g in batch if g[2] == b"alloc"), default=0))
    memory = max(_SMALLEST, (top << abi.PAGE_SHIFT) * 9 // 8)
    if memory > _LARGEST:
        raise UsageError(f"{trace.path}: it allocates pages up to pfn {top - 1}: give a size with --memory")
    return -(-memory >> 25) << 25


class Replay:
    """A trace under way on a machine.

    :ivar allocated: pages that the trace has here
    :ivar failed: allocations that the trace got, and this machine had no block for
    :ivar unknown: frees of what was not allocated here
    """

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.events = self.allocs = self.frees = self.failed = self.unknown = self.allocated = 0
        self._blocks: dict[int, tuple[int, int]] = {}
        self._masks: dict[str, int] = {}

    def run(self, trace: TraceFile, every: int) -> Iterator[Sample]:
        """Perform a trace, and look at the machine after every so many events, and at the end; raises UsageError."""
        time = ""
        for line in trace.events():
            if line.event == "alloc":
                self._alloc(line)
            elif line.event == "free":
                self._free(line)
            else:
                continue
            time = line.when
            self.events += 1
            if self.events % every == 0:
                yield self.sample(time)
        if self.events % every or not self.events:
            yield self.sample(time)

    def _alloc(self, line: Line) -> None:
        if not line.pfn:
            return
        self.allocs += 1
        mask = self._masks.get(line.gfp)
        if mask is None:
            mask = self._masks[line.gfp] = gfp_mask(line.gfp)
        self._forget(line.pfn)
        page = self.machine.alloc_pages(mask, line.order)
        if page is None:
            self.failed += 1
            return
        self.allocated += 1 << line.order
        self._blocks[line.pfn] = page, line.order

    def _forget(self, pfn: int) -> None:
        """The trace hands a page out that it has: its free was lost."""
        if pfn in self._blocks:
            page, order = self._blocks.pop(pfn)
            self._give(page, order)

    def _free(self, line: Line) -> None:
        self.frees += 1
        block = self._blocks.pop(line.pfn, None)
        if block is None:
            block = self._part_of(line.pfn)
        if block is None:
            self.unknown += 1
            return
        page, order = block
        if order > line.order:
            # Freed in parts: the pages become single ones.
            self.machine.split_page(page, order)
            for i in range(1 << order):
                self._blocks[line.pfn + i] = page + i * abi.SIZEOF_PAGE, 0
            for i in range(1 << line.order):
                self._give(*self._blocks.pop(line.pfn + i))
            return
        self._give(page, order)
        if order < line.order:
            # The rest of the block, which was split before.
            for pfn in range(line.pfn + (1 << order), line.pfn + (1 << min(line.order, abi.MAX_ORDER))):
                self._forget(pfn)

    def _part_of(self, pfn: int) -> tuple[int, int] | None:
        """A page inside a block that is here: the block is split, and the page taken out."""
        for order in range(1, abi.MAX_ORDER):
            head = pfn & -(1 << order)
            block = self._blocks.get(head)
            if block is not None and head != pfn and block[1] >= order:
                page, whole = self._blocks.pop(head)
                self.machine.split_page(page, whole)
                for i in range(1 << whole):
                    self._blocks[head + i] = page + i * abi.SIZEOF_PAGE, 0
                return self._blocks.pop(pfn)
        return None

    def _give(self, page: int, order: int) -> None:
        self.allocated -= 1 << order
        self.machine.free_block(page, order)

    def sample(self, when: str) -> Sample:
        """The machine as it is."""
        mm = self.machine.mm
        blocks = [0] * abi.MAX_ORDER
        for nid in range(mm.nr_node_ids):
            for index in range(mm.max_nr_zones):
                zone = mmzone.populated_zone(mm, nid, index)
                if zone:
                    at = mmzone.zone_off(mm, zone) + mm.zone_free_area + mm.free_area_nr_free
                    for order in range(abi.MAX_ORDER):
                        blocks[order] += mm.as_u64[(at + order * mm.sizeof_free_area) >> 3]
        free = sum(count << order for order, count in enumerate(blocks))
        words = when.split()
        return Sample(self.events, float(words[-1]) if words else 0.0, free, tuple(blocks), self.allocated)
