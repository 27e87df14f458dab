# SPDX-License-Identifier: GPL-2.0-only
"""Who has which page, by the events of a trace; and where these contradict each other.

Of every page that was mentioned one number is kept: whether it is allocated, free, or in the allocator's hands, since
which line, of what order, by whom.  Pages that a trace first mentions by freeing them were allocated before it began.
A block may be freed in parts (after split_page, as alloc_pages_exact does); at the end it shows whether all of it was.

Pages that compaction or alloc_contig_range take have no mm_page_alloc event.  Once events tell of these, or events
were lost, what contradicts an earlier line is *uncertain*.
"""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from kernelmm.validate.history import Allocation
from kernelmm.validate.tracefile import TraceFile
from physmem.errors import UsageError

__all__ = ["KINDS", "Finding", "Leak", "Ledger"]

#: What can be wrong with a trace.
KINDS = {
    "double_free": "a page is freed that was freed before, and not allocated since",
    "not_allocated": "a page is freed that is in the allocator's own hands",
    "handed_out_twice": "a page is allocated that is allocated already",
    "wrong_order": "a block is freed with another order than it was allocated with",
    "inside": "a page inside another block is freed, and the block stays in use",
    "others": "a free takes pages of another block with it",
    "misaligned": "a block begins where none of its order can",
    "impossible_order": "an order of MAX_ORDER or more",
    "listed_in_use": "the allocator lists a page as free that is allocated",
}

#: A page's number, from the lowest bit: state 2, tail 1, order 5, line 34, who 22.
UNKNOWN, LIVE, FREE, HELD = 0, 1, 2, 3
_TAIL = 1 << 2
_ORDER = 3
_LINE = 8
_WHO = 42
_LINE_MASK = (1 << 34) - 1
_MAX_WHO = (1 << 22) - 1
_STATE_MASK = 0xFF
#: Pages of one array of numbers.
_BITS = 6
_SIZE = 1 << _BITS
#: PFNs have at most this many bits: 52 of physical address.
_PFN_BITS = 40
#: MAX_ORDER of the largest kernel configuration in use.
_MAX_ORDER = 14
#: Findings that are kept; all are counted.
_MAX_FINDINGS = 10_000
#: Events that say that pages change hands without mm_page_alloc.
_BYPASS = ("mm_compaction_isolate_freepages", "mm_compaction_migratepages", "cma_alloc", "cma_alloc_finish")


@dataclass(frozen=True)
class Finding:
    """A contradiction.

    :ivar line: where it shows
    :ivar other: the line that it contradicts; 0 if it contradicts itself
    :ivar certain: no events were lost in between, and no pages taken without an event
    """

    kind: str
    line: int
    other: int
    pfn: int
    order: int
    detail: str
    certain: bool = True

    def __str__(self) -> str:
        lines = f"line {self.line}" + (f" and line {self.other}" if self.other else "")
        doubt = "" if self.certain else " (uncertain: pages changed hands unseen in between)"
        return f"{lines}: {self.kind}: pfn {self.pfn}: {self.detail}{doubt}"


@dataclass(frozen=True)
class Leak:
    """Blocks that one task allocated in one way, and that are still allocated at the end."""

    task: str
    gfp: str
    order: int
    blocks: int
    pages: int
    first_line: int


class _Cells(dict[int, "array[int]"]):
    """A number for every page, zeros at first."""

    def __missing__(self, key: int) -> array[int]:
        self[key] = cells = array("Q", bytes(8 * _SIZE))
        return cells


@dataclass
class Ledger:
    """The state of all pages after the lines so far.

    :ivar allocs: allocations; ``failed``: those that got nothing
    :ivar frees: frees; ``before``: those of blocks that were allocated before the trace
    :ivar parts: blocks that were freed in parts, all of them
    :ivar trimmed: blocks whose end was freed, and whose beginning stays (alloc_pages_exact)
    :ivar lost: lines that say that events were lost
    :ivar counts: findings by kind; ``uncertain`` those that are not certain
    """

    path: str = ""
    allocs: int = 0
    failed: int = 0
    frees: int = 0
    batched: int = 0
    before: int = 0
    parts: int = 0
    trimmed: int = 0
    lost: int = 0
    events: int = 0
    findings: list[Finding] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    uncertain: int = 0

    def __post_init__(self) -> None:
        self._cells = _Cells()
        self._who: dict[tuple[bytes, bytes], int] = {}
        self._names: list[tuple[bytes, bytes]] = [(b"", b"")]
        self._broken: dict[int, int] = {}
        self._doubt = 0

    # -- reading -------------------------------------------------------------

    def read(self, trace: TraceFile) -> None:
        """Follow a trace to its end; raises UsageError."""
        self.path = trace.path
        cells, who = self._cells, self._who
        for first, batch in trace.batches():
            line = first - 1
            for task, _, event, pfn_text, order_text, gfp, other in batch:
                line += 1
                if not event:
                    if other:
                        self._other(trace, line, other)
                    continue
                pfn = int(pfn_text, 0)
                if order_text == b"0" and pfn >> _PFN_BITS == 0:
                    # The common cases, without a call.
                    if event == b"alloc" and gfp and pfn:
                        chunk = cells[pfn >> _BITS]
                        if chunk[pfn & 63] & 3 != LIVE:
                            name = who.get((task, gfp)) or self._name(task, gfp)
                            chunk[pfn & 63] = LIVE | line << _LINE | name << _WHO
                            self.allocs += 1
                            continue
                    elif event == b"free":
                        chunk = cells[pfn >> _BITS]
                        if chunk[pfn & 63] & _STATE_MASK == LIVE:
                            chunk[pfn & 63] = FREE | line << _LINE
                            self.frees += 1
                            continue
                self._event(trace, line, task, event, pfn, int(order_text), gfp)
        self.events = self.allocs + self.failed + self.frees + self.batched
        self._finish()

    def enter(self, line: int, task: bytes, pfn: int, order: int, gfp: bytes) -> None:
        """Note an allocation; raises UsageError if no machine has such a page."""
        if pfn >> _PFN_BITS:
            raise UsageError(f"{self.path}: line {line}: expected a PFN of {_PFN_BITS} bits, found {pfn:#x}")
        self.allocs += 1
        self._alloc(line, pfn, order, self._who.get((task, gfp)) or self._name(task, gfp))

    def _other(self, trace: TraceFile, number: int, text: bytes) -> None:
        line = trace.other(number, text)
        if line is None:
            return
        if line.event == "lost":
            self.lost += 1
            self._doubt = number
        elif line.event in _BYPASS:
            self._doubt = number
        elif line.pfn or line.task:
            event = line.event.encode()
            self._event(trace, number, line.task.encode(), event, line.pfn, line.order, line.gfp.encode())

    def _event(self, trace: TraceFile, line: int, task: bytes, event: bytes, pfn: int, order: int, gfp: bytes) -> None:
        if pfn >> _PFN_BITS:
            raise UsageError(f"{trace.path}: line {line}: expected a PFN of {_PFN_BITS} bits, found {pfn:#x}")
        if event == b"alloc":
            if pfn == 0:
                self.failed += 1
                return
            self.allocs += 1
            self._alloc(line, pfn, order, self._who.get((task, gfp)) or self._name(task, gfp))
        elif event == b"free":
            self.frees += 1
            self._free(line, pfn, order)
        elif event in (b"alloc_zone_locked", b"pcpu_drain"):
            if pfn:
                self._listed(line, pfn, order, event.decode())
        elif event == b"free_batched":
            # Each of these has its mm_page_free as well.
            self.batched += 1

    def _name(self, task: bytes, gfp: bytes) -> int:
        number = min(len(self._names), _MAX_WHO)
        if number < _MAX_WHO:
            self._names.append((task, gfp))
        self._who[task, gfp] = number
        return number

    # -- one page --------------------------------------------------------------

    def _get(self, pfn: int) -> int:
        chunk = self._cells.get(pfn >> _BITS)
        return 0 if chunk is None else chunk[pfn & (_SIZE - 1)]

    def _fill(self, pfn: int, order: int, value: int) -> None:
        """Give the pages of a block this number, all but the first marked as tails."""
        cells, tail = self._cells, value | _TAIL
        cells[pfn >> _BITS][pfn & (_SIZE - 1)] = value
        for page in range(pfn + 1, pfn + (1 << order)):
            cells[page >> _BITS][page & (_SIZE - 1)] = tail

    def _head(self, pfn: int, cell: int) -> int:
        """First page of the block that a page of it is in."""
        return pfn & -(1 << (cell >> _ORDER & 31)) if cell & _TAIL else pfn

    def _found(self, kind: str, line: int, other: int, pfn: int, order: int, detail: str) -> None:
        certain = self._doubt <= other or other == 0
        if certain:
            self.counts[kind] += 1
        else:
            self.uncertain += 1
        if len(self.findings) < _MAX_FINDINGS:
            self.findings.append(Finding(kind, line, other, pfn, order, detail, certain))

    def _is_block(self, line: int, pfn: int, order: int) -> bool:
        """Whether a block can begin here; a finding if not."""
        if order >= _MAX_ORDER:
            self._found("impossible_order", line, 0, pfn, order, f"order {order}")
            return False
        if pfn & ((1 << order) - 1):
            self._found("misaligned", line, 0, pfn, order, f"no multiple of {1 << order}, order {order}")
            return False
        return True

    # -- events ----------------------------------------------------------------

    def _alloc(self, line: int, pfn: int, order: int, who: int) -> None:
        if not self._is_block(line, pfn, order):
            return
        for page in range(pfn, pfn + (1 << order)):
            cell = self._get(page)
            if cell & 3 == LIVE:
                since = cell >> _LINE & _LINE_MASK
                detail = f"allocated with order {order}, and with order {cell >> _ORDER & 31} before"
                self._found("handed_out_twice", line, since, page, order, detail)
                break
        self._drop(pfn, order)
        self._fill(pfn, order, LIVE | order << _ORDER | line << _LINE | who << _WHO)

    def _drop(self, pfn: int, order: int) -> None:
        """Forget the blocks that these pages are of, as far as that is being watched."""
        if self._broken:
            for page in range(pfn, pfn + (1 << order)):
                cell = self._get(page)
                if cell & 3 == LIVE and self._head(page, cell) in self._broken:
                    del self._broken[self._head(page, cell)]

    def _free(self, line: int, pfn: int, order: int) -> None:
        if not self._is_block(line, pfn, order):
            return
        cell = self._get(pfn)
        state, since, known = cell & 3, cell >> _LINE & _LINE_MASK, cell >> _ORDER & 31
        if state == FREE:
            self._found("double_free", line, since, pfn, order, "freed already")
        elif state == HELD:
            self._found("not_allocated", line, since, pfn, order, "not allocated since the allocator had it")
        elif state == LIVE and (cell & _TAIL or order < known):
            self._part(line, pfn, order, cell)
            return
        elif state == LIVE and order > known:
            self._found("wrong_order", line, since, pfn, order, f"allocated with order {known}, freed with {order}")
        elif state == UNKNOWN:
            self.before += 1
            self._neighbours(line, pfn, order)
        self._drop(pfn, order)
        self._fill(pfn, order, FREE | order << _ORDER | line << _LINE)

    def _neighbours(self, line: int, pfn: int, order: int) -> None:
        """A block that was allocated before the trace: are all of its pages?"""
        for page in range(pfn + 1, pfn + (1 << order)):
            cell = self._get(page)
            if cell & 3:
                since = cell >> _LINE & _LINE_MASK
                what = {LIVE: "is another allocation", FREE: "is free already", HELD: "is the allocator's"}[cell & 3]
                self._found("others", line, since, page, order, f"freed with the block at pfn {pfn}, and {what}")
                return

    def _part(self, line: int, pfn: int, order: int, cell: int) -> None:
        """Some pages of a block are freed, and not all."""
        head, known = self._head(pfn, cell), cell >> _ORDER & 31
        if pfn + (1 << order) > head + (1 << known):
            since = cell >> _LINE & _LINE_MASK
            self._found("wrong_order", line, since, pfn, order, f"reaches beyond its block of order {known}")
        left = self._broken.get(head, 1 << known) - (1 << order)
        self._fill(pfn, order, FREE | order << _ORDER | line << _LINE)
        if left > 0:
            self._broken[head] = left
        else:
            self._broken.pop(head, None)
            self.parts += 1

    def _listed(self, line: int, pfn: int, order: int, event: str) -> None:
        if not self._is_block(line, pfn, order):
            return
        for page in range(pfn, pfn + (1 << order)):
            cell = self._get(page)
            if cell & 3 == LIVE:
                since = cell >> _LINE & _LINE_MASK
                self._found("listed_in_use", line, since, page, order, f"mm_page_{event}, and still allocated")
                break
        self._drop(pfn, order)
        self._fill(pfn, order, HELD | order << _ORDER | line << _LINE)

    # -- the end ---------------------------------------------------------------

    def _finish(self) -> None:
        """Blocks of which a part was freed, and the rest was not."""
        for head, left in sorted(self._broken.items()):
            first = self._get(head)
            live = next(cell for page in range(head, head + (1 << _MAX_ORDER)) if (cell := self._get(page)) & 3 == LIVE)
            order, since = live >> _ORDER & 31, live >> _LINE & _LINE_MASK
            size = 1 << order
            used = [page for page in range(head, head + size) if self._same(page, since)]
            if first & 3 != LIVE:
                line = first >> _LINE & _LINE_MASK
                freed = first >> _ORDER & 31
                detail = f"freed with order {freed}, allocated with order {order}: {left} pages are not freed"
                self._found("wrong_order", line, since, head, freed, detail)
            elif used == list(range(head, head + len(used))):
                self.trimmed += 1
            else:
                page = next(page for page in range(head, head + size) if page not in used)
                line = self._get(page) >> _LINE & _LINE_MASK
                self._found("inside", line, since, page, 0, f"of a block of order {order} at pfn {head}, still in use")

    def _same(self, page: int, since: int) -> bool:
        cell = self._get(page)
        return cell & 3 == LIVE and cell >> _LINE & _LINE_MASK == since

    @property
    def clean(self) -> bool:
        """Whether nothing certain was found."""
        return not self.counts

    def leaks(self) -> list[Leak]:
        """What is still allocated, by task, gfp and order; most pages first."""
        if not self._cells:
            return []
        cells = np.concatenate([np.frombuffer(chunk, np.uint64) for chunk in self._cells.values()])
        live = cells[(cells & np.uint64(3)) == LIVE]
        order = (live >> np.uint64(_ORDER) & np.uint64(31)).astype(np.int64)
        groups, where, pages = np.unique(
            (live >> np.uint64(_WHO)) << np.uint64(5) | order.astype(np.uint64), return_inverse=True, return_counts=True
        )
        lines = np.full(len(groups), np.iinfo(np.int64).max)
        np.minimum.at(lines, where, (live >> np.uint64(_LINE) & np.uint64(_LINE_MASK)).astype(np.int64))
        heads = np.bincount(where[(live & np.uint64(_TAIL)) == 0], minlength=len(groups))
        found = [
            Leak(*self._told(int(group) >> 5), int(group) & 31, int(blocks), int(count), int(line))
            for group, blocks, count, line in zip(groups, heads, pages, lines, strict=True)
        ]
        return sorted(found, key=lambda leak: (-leak.pages, leak.task, leak.gfp, leak.order))

    def _told(self, who: int) -> tuple[str, str]:
        task, gfp = self._names[who] if who < len(self._names) else (b"(too many)", b"")
        return task.decode(errors="replace"), gfp.decode(errors="replace")

    def allocation(self, pfn: int) -> Allocation | None:
        """As a :class:`~kernelmm.validate.history.History`: what the trace says of a page."""
        cell = self._get(pfn)
        line = cell >> _LINE & _LINE_MASK
        if cell & 3 in (UNKNOWN, HELD):
            return None
        order = cell >> _ORDER & 31
        head = self._head(pfn, cell)
        if cell & 3 == FREE:
            return Allocation(head, order, "", "", "before", f"{self.path}: line {line}")
        task, gfp = self._told(cell >> _WHO)
        return Allocation(head, order, gfp, task, f"{self.path}: line {line}")
