# SPDX-License-Identifier: GPL-2.0-only
"""Who has which page, by the events of a trace; and where these contradict each other.

Of every page that was mentioned one number is kept: whether it is allocated, free, or in the allocator's hands, since
which line, of what order, by whom.  Pages that a trace first mentions by freeing them were allocated before it began.
A block may be freed in parts (after split_page, as alloc_pages_exact does); at the end it shows whether all of it was.

Where a trace records how the allocator's own lists change (mm_page_alloc_zone_locked, mm_page_pcpu_drain), an event
that X
Pages that compaction or alloc_contig_range take have no mm_page_alloc event.  Once events tell of these, or events
were lost, what contradicts an earlier line is *uncertain*.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

import numpy as np

from kernelmm.validate.cells import (
    BEFORE,
    BITS,
    DRAINED,
    FREE,
    HELD,
    LINE,
    LINE_MASK,
    LIVE,
    MAX_WHO,
    ORDER,
    ORDER_MASK,
    SIZE,
    STATE_MASK,
    TAIL,
    UNKNOWN,
    WHO,
    Cells,
)
from kernelmm.validate.ends import Pages, differences
from kernelmm.validate.findings import KINDS, Finding, Leak
from kernelmm.validate.history import Allocation
from kernelmm.validate.origin import Origin
from kernelmm.validate.tracefile import TraceFile, named
from physmem.errors import UsageError

__all__ = ["Ledger"]

#: What only seems so if frees, or allocations, are not recorded.
_NEEDS_FREES = ("handed_out_twice", "listed_in_use")
_NEEDS_ALLOCS = ("double_free", "not_allocated")
#: What is found by comparing the beginning or the end with what has happened in between.
_BY_THE_END = ("other_start", "other_end")

#: What comes after mm_page_free_batched so soon before the end need not be in the trace any more.
_CUT = 16
#: PFNs have at most this many bits: 52 of physical address.
_PFN_BITS = 40
#: MAX_ORDER of the largest kernel configuration in use.
_MAX_ORDER = 14
#: So many events of one sort, and none of the other: those are not recorded.
_MANY = 64
#: Findings that are kept; all are counted.
_MAX_FINDINGS = 10_000
#: Events that say that pages change hands without mm_page_alloc.
_BYPASS = ("mm_compaction_isolate_freepages", "mm_compaction_migratepages", "cma_alloc", "cma_alloc_finish")


@dataclass
class Ledger:
    """The state of all pages after the lines so far.

    :ivar allocs: allocations; ``failed``: those that got nothing
    :ivar frees: frees; ``before``: those of blocks that were allocated before the trace
    :ivar parts: blocks that were freed in parts, all of them
    :ivar trimmed: blocks whose end was freed, and whose beginning stays (alloc_pages_exact)
    :ivar lost: lines that say that events were lost
    :ivar started: pages as an image shows them that was made when the trace began; ``ended``: and when it ended
    :ivar warnings: what the trace lacks, so that less can be told, or less surely
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
    started: Pages | None = None
    ended: Pages | None = None
    warnings: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    uncertain: int = 0

    def __post_init__(self) -> None:
        self._cells = Cells(self.started)
        self._who: dict[tuple[bytes, bytes], int] = {}
        self._names: list[tuple[bytes, bytes]] = [(b"", b"")]
        self._broken: dict[int, int] = {}
        self._doubt = 0
        self._batch: dict[int, int] = {}
        self._unfreed: list[tuple[int, int, int]] = []
        self._origin = Origin(self._cells, self._found)

    # -- reading -------------------------------------------------------------

    def read(self, trace: TraceFile) -> None:
        """Follow a trace to its end; raises UsageError."""
        self.path = named(trace.path)
        cells, who, batched = self._cells, self._who, self._batch
        last = before = b""
        blank = 0
        for first, batch in trace.batches():
            line = first - 1
            for task, when, event, pfn_text, order_text, gfp, other in batch:
                line += 1
                if not event:
                    if other:
                        self._other(trace, line, other)
                    else:
                        blank += 1
                    continue
                # Times are padded: as a rule they compare as text.
                stamp = when[-12:]
                if stamp < last:
                    self._clock(line, when, before)
                last, before = stamp, when
                pfn = int(pfn_text, 0)
                if order_text == b"0" and pfn >> _PFN_BITS == 0 and not (batched and pfn in batched):
                    # The common cases, without a call.
                    if event == b"alloc" and gfp and pfn:
                        chunk = cells[pfn >> BITS]
                        cell = chunk[pfn & 63]
                        if not cell or (cell & STATE_MASK in (FREE, HELD) and not cell >> WHO):
                            name = who.get((task, gfp)) or self._name(task, gfp)
                            chunk[pfn & 63] = LIVE | line << LINE | name << WHO
                            self.allocs += 1
                            continue
                    elif event == b"free":
                        chunk = cells[pfn >> BITS]
                        if chunk[pfn & 63] & STATE_MASK == LIVE:
                            chunk[pfn & 63] = FREE | line << LINE
                            self.frees += 1
                            continue
                if pfn_text[:2] == b"0x":
                    self._origin.is_modern = True
                self._event(trace, line, task, event, pfn, int(order_text), gfp)
        self.events = self.allocs + self.failed + self.frees + self.batched
        self._finish(trace.lines)
        found = trace.lines - trace.silent - blank
        if trace.header and trace.is_whole and found != trace.entries:
            missing = f"the header tells of {trace.entries} entries, and there are {found}"
            self._found("incomplete", trace.header, 0, -1, 0, missing)

    def _clock(self, line: int, when: bytes, before: bytes) -> None:
        """The clock seems to go back."""
        stamp, last = when.rpartition(b" ")[2], before.rpartition(b" ")[2]
        try:
            is_back = float(stamp) < float(last)
        except ValueError:
            return
        # Of several CPUs' buffers, one may come after the other.
        if is_back and when.partition(b"]")[0] == before.partition(b"]")[0]:
            self._found("out_of_order", line, 0, -1, 0, f"{stamp.decode()} comes after {last.decode()}")

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
            self._unsure(number)
        elif line.event in _BYPASS:
            self._unsure(number)
        elif line.pfn or line.task:
            event = line.event.encode()
            self._event(trace, number, line.task.encode(), event, line.pfn, line.order, line.gfp.encode())

    def _unsure(self, line: int) -> None:
        """From here on nothing is sure that needs what was before."""
        self._doubt = line
        self._origin.is_sure = False
        self._batch.clear()

    def _event(self, trace: TraceFile, line: int, task: bytes, event: bytes, pfn: int, order: int, gfp: bytes) -> None:
        if pfn >> _PFN_BITS:
            raise UsageError(f"{named(trace.path)}: line {line}: expected a PFN of {_PFN_BITS} bits, found {pfn:#x}")
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
            # Each of these has its mm_page_free as well: soon after, and since 4.15 before.
            self.batched += 1
            if self._cells.at(pfn) & 3 != FREE:
                self._batch[pfn] = line

    def _name(self, task: bytes, gfp: bytes) -> int:
        number = min(len(self._names), MAX_WHO)
        if number < MAX_WHO:
            self._names.append((task, gfp))
        self._who[task, gfp] = number
        return number

    # -- one page --------------------------------------------------------------

    def _head(self, pfn: int, cell: int) -> int:
        """First page of the block that a page of it is in."""
        return pfn & -(1 << (cell >> ORDER & ORDER_MASK)) if cell & TAIL else pfn

    def _found(self, kind: str, line: int, other: int, pfn: int, order: int, detail: str) -> None:
        certain = self._doubt <= other or (other == 0 and not (self._doubt and kind in _BY_THE_END))
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
        self._expect_freed(line, pfn, order)
        for page in range(pfn, pfn + (1 << order)):
            cell = self._cells.at(page)
            if cell & STATE_MASK == BEFORE:
                self._found("other_start", line, 0, page, order, "allocated, and in use already when the trace began")
                break
            if cell & 3 == LIVE:
                since = cell >> LINE & LINE_MASK
                detail = f"allocated with order {order}, and with order {cell >> ORDER & ORDER_MASK} before"
                self._found("handed_out_twice", line, since, page, order, detail)
                break
        else:
            self._origin.allocated(line, pfn, order)
        self._drop(pfn, order)
        self._cells.fill(pfn, order, LIVE | order << ORDER | line << LINE | who << WHO)

    def _expect_freed(self, line: int, pfn: int, order: int) -> None:
        """Pages that were freed in a batch, and whose mm_page_free did not come."""
        if self._batch:
            for page in range(pfn, pfn + (1 << order)):
                since = self._batch.pop(page, 0)
                if since:
                    self._unfreed.append((line, since, page))
                    self._cells[page >> BITS][page & (SIZE - 1)] = FREE | since << LINE

    def _drop(self, pfn: int, order: int) -> None:
        """Forget the blocks that these pages are of, as far as that is being watched."""
        if self._broken:
            for page in range(pfn, pfn + (1 << order)):
                cell = self._cells.at(page)
                if cell & 3 == LIVE and self._head(page, cell) in self._broken:
                    del self._broken[self._head(page, cell)]

    def _free(self, line: int, pfn: int, order: int) -> None:
        if not self._is_block(line, pfn, order):
            return
        batch = self._batch.pop(pfn, 0) if self._batch else 0
        if batch and order:
            self._found("wrong_order", line, batch, pfn, order, f"freed in a batch of single pages, with order {order}")
        cell = self._cells.at(pfn)
        state, since, known = cell & 3, cell >> LINE & LINE_MASK, cell >> ORDER & ORDER_MASK
        if state in (FREE, HELD) and not since:
            self._found("other_start", line, 0, pfn, order, "freed, and free already when the trace began")
        elif state == FREE:
            self._found("double_free", line, since, pfn, order, "freed already")
        elif state == HELD:
            self._found("not_allocated", line, since, pfn, order, "not allocated since the allocator had it")
        elif state == LIVE and (cell & TAIL or order < known):
            self._part(line, pfn, order, cell)
            return
        elif state == LIVE and order > known:
            self._found("wrong_order", line, since, pfn, order, f"allocated with order {known}, freed with {order}")
        elif state == UNKNOWN:
            self.before += 1
            self._neighbours(line, pfn, order)
        self._drop(pfn, order)
        self._cells.fill(pfn, order, FREE | order << ORDER | line << LINE)

    def _neighbours(self, line: int, pfn: int, order: int) -> None:
        """A block that was allocated before the trace: are all of its pages?"""
        for page in range(pfn + 1, pfn + (1 << order)):
            cell = self._cells.at(page)
            if cell & 3:
                since = cell >> LINE & LINE_MASK
                what = {LIVE: "is another allocation", FREE: "is free already", HELD: "is the allocator's"}[cell & 3]
                self._found("others", line, since, page, order, f"freed with the block at pfn {pfn}, and {what}")
                return

    def _part(self, line: int, pfn: int, order: int, cell: int) -> None:
        """Some pages of a block are freed, and not all."""
        head, known = self._head(pfn, cell), cell >> ORDER & ORDER_MASK
        if pfn + (1 << order) > head + (1 << known):
            since = cell >> LINE & LINE_MASK
            self._found("wrong_order", line, since, pfn, order, f"reaches beyond its block of order {known}")
        left = self._broken.get(head, 1 << known) - (1 << order)
        self._cells.fill(pfn, order, FREE | order << ORDER | line << LINE)
        if left > 0:
            self._broken[head] = left
        else:
            self._broken.pop(head, None)
            self.parts += 1

    def _listed(self, line: int, pfn: int, order: int, event: str) -> None:
        if not self._is_block(line, pfn, order):
            return
        self._expect_freed(line, pfn, order)
        for page in range(pfn, pfn + (1 << order)):
            cell = self._cells.at(page)
            if cell & STATE_MASK == BEFORE:
                detail = f"mm_page_{event}, and in use when the trace began"
                self._found("other_start", line, 0, page, order, detail)
                break
            if cell & 3 == LIVE:
                since = cell >> LINE & LINE_MASK
                self._found("listed_in_use", line, since, page, order, f"mm_page_{event}, and still allocated")
                break
        else:
            self._origin.listed(line, pfn, order, drained=event == "pcpu_drain")
        self._drop(pfn, order)
        drained = DRAINED if event == "pcpu_drain" else 0
        self._cells.fill(pfn, order, HELD | order << ORDER | line << LINE | drained)

    # -- the end ---------------------------------------------------------------

    def _finish(self, lines: int) -> None:
        """What is known only once all lines are."""
        if self.frees:
            missing = [*self._unfreed, *((0, since, pfn) for pfn, since in self._batch.items() if since + _CUT < lines)]
            for line, since, pfn in missing:
                first, second = (since, line) if line else (since, 0)
                self._found("free_missing", first, second, pfn, 0, KINDS["free_missing"])
        else:
            for pfn, line in self._batch.items():
                self._cells.fill(pfn, 0, FREE | line << LINE)
        self._parts()
        if not self.frees and (self.batched or self.allocs > _MANY):
            so = "only what is freed in batches is known" if self.batched else "what is freed is not known"
            self._lacks("mm_page_free", f"{so}, the rest looks still allocated", _NEEDS_FREES)
        elif not self.allocs and self.frees > _MANY:
            self._lacks("mm_page_alloc", "a page may have been allocated between two frees", _NEEDS_ALLOCS)
        if self.ended is not None:
            for line, pfn, detail in differences(self._cells, self.started, self.ended):
                self._found("other_end", line, 0, pfn, 0, detail)

    def _lacks(self, event: str, so: str, kinds: tuple[str, ...]) -> None:
        """Events of a sort are not in the trace: some findings are not certain then."""
        self.warnings.append(f"{event} was not recorded: {so}")
        for kind in kinds:
            self.uncertain += self.counts.pop(kind, 0)
        self.findings = [replace(each, certain=False) if each.kind in kinds else each for each in self.findings]

    def _parts(self) -> None:
        """Blocks of which a part was freed, and the rest was not."""
        for head, left in sorted(self._broken.items()):
            first = self._cells.at(head)
            live = next(
                cell for page in range(head, head + (1 << _MAX_ORDER)) if (cell := self._cells.at(page)) & 3 == LIVE
            )
            order, since = live >> ORDER & ORDER_MASK, live >> LINE & LINE_MASK
            size = 1 << order
            used = [page for page in range(head, head + size) if self._same(page, since)]
            if first & 3 != LIVE:
                line = first >> LINE & LINE_MASK
                freed = first >> ORDER & ORDER_MASK
                detail = f"freed with order {freed}, allocated with order {order}: {left} pages are not freed"
                self._found("wrong_order", line, since, head, freed, detail)
            elif used == list(range(head, head + len(used))):
                self.trimmed += 1
            else:
                page = next(page for page in range(head, head + size) if page not in used)
                line = self._cells.at(page) >> LINE & LINE_MASK
                self._found("inside", line, since, page, 0, f"of a block of order {order} at pfn {head}, still in use")

    def _same(self, page: int, since: int) -> bool:
        cell = self._cells.at(page)
        return cell & 3 == LIVE and cell >> LINE & LINE_MASK == since

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
        order = (live >> np.uint64(ORDER) & np.uint64(31)).astype(np.int64)
        groups, where, pages = np.unique(
            (live >> np.uint64(WHO)) << np.uint64(5) | order.astype(np.uint64), return_inverse=True, return_counts=True
        )
        lines = np.full(len(groups), np.iinfo(np.int64).max)
        np.minimum.at(lines, where, (live >> np.uint64(LINE) & np.uint64(LINE_MASK)).astype(np.int64))
        heads = np.bincount(where[(live & np.uint64(TAIL)) == 0], minlength=len(groups))
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
        cell = self._cells.at(pfn)
        line = cell >> LINE & LINE_MASK
        if cell & 3 in (UNKNOWN, HELD):
            return None
        order = cell >> ORDER & ORDER_MASK
        head = self._head(pfn, cell)
        if cell & 3 == FREE:
            return Allocation(head, order, "", "", "before", f"{self.path}: line {line}")
        task, gfp = self._told(cell >> WHO)
        return Allocation(head, order, gfp, task, f"{self.path}: line {line}")
