# SPDX-License-Identifier: GPL-2.0-only
"""An explanation as a row of steps, each with what it did to the free lists and the pages.

Memory is taken back to where the explanation begins, and the recorded words are written again,
step by step: so the lists and pages that a step shows are read from memory as it was then.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kernelmm.core import mmzone
from kernelmm.study.explain_model import Call, Change, Explanation, Line
from kernelmm.study.explain_values import Names
from physmem import abi, address
from physmem.inspect.pageformat import PageFormat
from physmem.inspect.zones import nodes

if TYPE_CHECKING:
    from kernelmm.machine import Machine

__all__ = ["MAX_STEPS", "Step", "film", "steps"]

#: A page is not to be larger than a browser can hold: further steps are left out.
MAX_STEPS = 4000
#: Pages in a row of the page array, rows that are shown at most, entries of a list that are shown at most.
ROW = 32
_MAX_ROWS = 48
_FEW_ROWS = 6
_MAX_ENTRIES = 10
#: A list of free pages is followed no further than this.
_MAX_WALK = 500


@dataclass(slots=True)
class Step:
    """A moment: a function begins, a decision falls, something is written.

    :ivar operation: number of the operation
    :ivar path: numbers of the calls under way, the outermost first
    :ivar kind: ``call``, ``list``, or what the line is
    :ivar text: what happens
    :ivar where: file and line
    :ivar note: what the source says about it
    """

    operation: int
    path: tuple[int, ...]
    kind: str
    text: str
    where: str
    note: str
    changes: list[Change] = field(default_factory=list)


def steps(explanation: Explanation) -> tuple[list[Step], list[tuple[int, str]]]:
    """The steps, and the calls that they are in: depth and name of each."""
    maker = _Steps()
    for number, operation in enumerate(explanation.operations):
        maker.operation = number
        for call in operation.calls:
            maker.call(call, ())
    return maker.steps, maker.calls


class _Steps:
    def __init__(self) -> None:
        self.operation = 0
        self.steps: list[Step] = []
        self.calls: list[tuple[int, str]] = []

    def call(self, call: Call, path: tuple[int, ...]) -> None:
        """A call and all that it did."""
        if not call.detail:
            path = (*path, len(self.calls))
            self.calls.append((len(path) - 1, call.kernel))
            arguments = ", ".join(f"{name} {value}" for name, value in call.arguments)
            where = f"{call.file}:{call.line}"
            self.steps.append(Step(self.operation, path, "call", f"{call.kernel}({arguments})", where, call.about))
        for line in call.lines:
            self._line(call, line, path)

    def _line(self, call: Call, line: Line, path: tuple[int, ...]) -> None:
        pending: list[Change] = []
        where = f"{call.file}:{line.number}"
        for part in line.parts:
            if isinstance(part, Change):
                pending.append(part)
            elif part.module == "physmem.list_head" and any(part.changes()):
                self._flush(line, where, path, pending)
                arguments = ", ".join(value for _, value in part.arguments)
                step = Step(self.operation, path, "list", f"{part.kernel}({arguments})", where, line.comment)
                step.changes = list(part.changes())
                self.steps.append(step)
            elif any(not each.detail for _, each in part.walk()):
                self._flush(line, where, path, pending)
                self.call(part, path)
            else:
                pending += part.changes()
        self._flush(line, where, path, pending, decisive=not call.detail and line.decisive and bool(line.worked))

    def _flush(
        self, line: Line, where: str, path: tuple[int, ...], pending: list[Change], *, decisive: bool = False
    ) -> None:
        if not pending and not decisive:
            return
        mark = "?" if line.kind == "decision" else ":"
        text = f"{line.code or line.source}{mark} {line.worked}" if line.worked else line.code or line.source
        step = Step(self.operation, path, line.kind, text, where, line.comment, list(pending))
        pending.clear()
        self.steps.append(step)


# -- the film -----------------------------------------------------------------------


def film(machine: Machine, explanation: Explanation) -> dict[str, Any]:
    """Everything that the page needs to show the steps back and forth: plain data.

    The machine must be as the explanation left it, and is so afterwards.
    """
    found, calls = steps(explanation)
    left_out = max(0, len(found) - MAX_STEPS)
    scene = _Scene(machine, found)
    for step in reversed(found):
        for change in reversed(step.changes):
            scene.put(change, back=True)
    start = scene.look()
    frames: list[dict[str, Any]] = []
    before = start
    for step in found:
        for change in step.changes:
            scene.put(change)
        if len(frames) >= MAX_STEPS:
            continue
        now = scene.look(before, step.changes) if any(map(_is_shown, step.changes)) else before
        frames.append(
            {
                "o": step.operation,
                "c": list(step.path),
                "k": step.kind,
                "t": step.text,
                "w": step.where,
                "n": step.note,
                "m": [[str(c.what), c.field, c.before, c.after, c.kind, c.pfn] for c in step.changes],
                "d": _difference(before, now),
            }
        )
        before = now
    return {
        "image": explanation.image.replace("\\", "/").rpartition("/")[2],
        "kernel": explanation.kernel,
        "operations": [
            {"text": o.text, "call": o.call, "result": o.result, "error": o.error, "printed": o.printed}
            for o in explanation.operations
        ],
        "calls": [list(call) for call in calls[: max((max(f["c"], default=-1) for f in frames), default=-1) + 1]],
        "steps": frames,
        "left_out": left_out + explanation.missed,
        "rows": scene.rows,
        "row": ROW,
        "hidden": scene.hidden,
        "lists": scene.titles,
        "migratetypes": list(scene.migratetypes),
        "page_offset": f"{machine.mm.page_offset:#x}",
        "start": start,
    }


def _is_shown(change: Change) -> bool:
    """Whether a word is one that the lists and pages are read from."""
    return change.kind == "page" or change.field.startswith(("free_area", "pcp"))


def _difference(before: dict[str, Any], now: dict[str, Any]) -> list[list[Any]]:
    """What is not the same: key, old value, new value."""
    if before is now:
        return []
    return [[key, before[key], now[key]] for key in now if before[key] != now[key]]


class _Scene:
    """The part of the machine that is shown.

    :ivar rows: first PFN of each row of pages
    :ivar titles: the lists: key, what they belong to, label
    :ivar hidden: rows that there is no room for
    """

    def __init__(self, machine: Machine, found: list[Step]) -> None:
        self._mm = mm = machine.mm
        self._names = Names(mm, machine.dump)
        self.migratetypes = PageFormat(machine.dump.layout).migratetypes
        written: dict[int, int] = {}
        for change in (change for step in found for change in step.changes):
            if change.pfn is not None and change.kind == "page":
                row = change.pfn // ROW * ROW
                written[row] = written.get(row, 0) + 1
        most = sorted(written, key=lambda row: -written[row])[:_MAX_ROWS]
        if len(most) <= _FEW_ROWS:
            # There is room for their neighbours.
            last = (machine.dump.max_pfn - 1) // ROW * ROW
            most = list({near for row in most for near in (row - ROW, row, row + ROW) if 0 <= near <= last})
        self.rows = sorted(most)
        self.hidden = len(set(written) - set(most))
        self._pages = {
            pfn: address.page_off(mm, address.pfn_to_page(mm, pfn))
            for row in self.rows
            for pfn in range(row, row + ROW)
            if pfn < machine.dump.max_pfn and address.pfn_has_page(mm, pfn)
        }
        self._max_pfn = machine.dump.max_pfn
        self._lists: list[tuple[str, int, int]] = []
        self._counts: list[tuple[str, int]] = []
        self.titles: list[list[Any]] = []
        changes = [change for step in found for change in step.changes]
        lists = {c.what for c in changes if c.field.startswith(("free_area", "pcp"))}
        # Zones of which only statistics have changed are shown if there are no others.
        self._find_lists(machine, lists or {c.what for c in changes})

    def _find_lists(self, machine: Machine, touched: set[str]) -> None:
        mm = self._mm
        for nid in machine.dump.pgdats:
            for index in range(mm.max_nr_zones):
                zone = mmzone.populated_zone(mm, nid, index)
                name = f"node {nid} zone {_zone_name(machine, nid, index)}"
                if not zone or not any(what == name or what.startswith(f"{name} CPU") for what in touched):
                    continue
                z = mmzone.zone_off(mm, zone)
                for order in reversed(range(abi.MAX_ORDER)):
                    self._counts.append((f"n{nid}.{index}.{order}", z + self._nr_free(order)))
                    for mt in range(mm.migrate_types):
                        key = f"f{nid}.{index}.{order}.{mt}"
                        head = mmzone.free_list(mm, order, mt)
                        self._lists.append((key, zone + head, z + head))
                        self.titles.append([key, name, order, mt])
                for cpu in range(mm.nr_cpus):
                    if not mmzone.cpu_online(mm, cpu) or (f"{name} CPU {cpu}" not in touched and cpu):
                        continue
                    pset, at = mmzone.pageset_va(mm, z, cpu), mmzone.pageset_of(mm, z, cpu)
                    self._counts.append((f"c{nid}.{index}.{cpu}", at + abi.PCP_COUNT))
                    for mt in range(abi.MIGRATE_PCPTYPES):
                        key = f"p{nid}.{index}.{cpu}.{mt}"
                        offset = abi.PCP_LISTS + mt * abi.SIZEOF_LIST_HEAD
                        self._lists.append((key, pset + offset, at + offset))
                        self.titles.append([key, f"{name} CPU {cpu}", -1, mt])

    def _nr_free(self, order: int) -> int:
        mm = self._mm
        return mm.zone_free_area + order * mm.sizeof_free_area + mm.free_area_nr_free

    def put(self, change: Change, *, back: bool = False) -> None:
        """Write a recorded word again, or take it back."""
        at, size, before, after = change.raw
        if size <= 8:
            self._mm.as_u8[at : at + size] = (before if back else after).to_bytes(size, "little")

    def look(self, before: dict[str, Any] | None = None, changes: Sequence[Change] = ()) -> dict[str, Any]:
        """All that is shown, as it is in memory now.

        :param before: what was shown before some words were written; None: look at everything
        """
        seen: dict[str, Any] = {} if before is None else dict(before)
        percpu: set[int] = set()
        for key, head, at in self._lists:
            seen[key] = self._walk(head, at, percpu if key[0] == "p" else None)
        for key, at in self._counts:
            if key[0] == "n":
                seen[key] = self._mm.as_s64[at >> 3]
            else:
                seen[key] = [self._mm.as_s32[(at + offset) >> 2] for offset in (0, 4, 8)]
        pages = self._pages if before is None else self._affected(before, changes)
        for pfn, at in pages.items():
            seen[str(pfn)] = self._page(pfn, at, percpu)
        return seen

    def _affected(self, before: dict[str, Any], changes: Sequence[Change]) -> dict[int, int]:
        """The pages that words written to some of them can make look different: the blocks that they head, too."""
        mm = self._mm
        found: dict[int, int] = {}
        for pfn in {change.pfn for change in changes if change.kind == "page" and change.pfn is not None}:
            at = address.page_off(mm, address.pfn_to_page(mm, pfn))
            orders = [mm.as_u64[(at + abi.PAGE_PRIVATE) >> 3]]
            orders += [int(c.raw[2]) for c in changes if c.pfn == pfn and c.field == "private"]
            orders += [before[str(pfn)][1]] if str(pfn) in before else []
            if any(c.pfn == pfn and c.field in ("_mapcount", "private") for c in changes):
                count = 1 << max((order for order in orders if 0 < order < abi.MAX_ORDER), default=0)
            else:
                count = 1
            found |= {each: self._pages[each] for each in range(pfn, pfn + count) if each in self._pages}
        return found

    def _walk(self, head: int, at: int, percpu: set[int] | None) -> list[Any]:
        """First entries of a list by PFN, how many there are, and ``broken`` or ``more`` if it was not seen whole."""
        mm = self._mm
        first: list[int] = []
        total = 0
        link = mm.as_u64[at >> 3]
        while link != head:
            if total >= _MAX_WALK:
                return [first, total, "more"]
            page = self._names.page_of(link)
            if page is None or page[1] != abi.PAGE_LRU:
                return [first, total, "broken"]
            total += 1
            if len(first) < _MAX_ENTRIES:
                first.append(page[0])
            if percpu is not None:
                percpu.add(page[0])
            link = mm.as_u64[address.lookup(mm, link) >> 3]
        return [first, total, ""]

    def _page(self, pfn: int, at: int, percpu: set[int]) -> list[Any]:
        """State and order of a page, and the fields that tell it."""
        mm = self._mm
        flags = mm.as_u64[at >> 3]
        mapcount, count = mm.as_s32[(at + abi.PAGE_MAPCOUNT) >> 2], mm.as_s32[(at + abi.PAGE_COUNT) >> 2]
        private = mm.as_u64[(at + abi.PAGE_PRIVATE) >> 3]
        state, order, head = self._state(pfn, at, flags, count, percpu)
        index = mm.as_u64[(at + abi.PAGE_INDEX) >> 3]
        links = [self._link(mm.as_u64[(at + offset) >> 3]) for offset in (abi.PAGE_LRU, abi.PAGE_LRU_PREV)]
        where = f"{address.pfn_to_page(mm, pfn):#x}"
        return [state, order, head, f"{flags:#x}", count, mapcount, f"{private:#x}", f"{index:#x}", *links, where]

    def _state(self, pfn: int, at: int, flags: int, count: int, percpu: set[int]) -> tuple[str, int, int]:
        mm = self._mm
        for order in range(abi.MAX_ORDER):
            head = pfn & -(1 << order)
            step = at - ((pfn - head) << abi.SIZEOF_PAGE_SHIFT)
            if mm.as_s32[(step + abi.PAGE_MAPCOUNT) >> 2] == abi.PAGE_BUDDY_MAPCOUNT_VALUE:
                of = mm.as_u64[(step + abi.PAGE_PRIVATE) >> 3]
                if order <= of < abi.MAX_ORDER:
                    return ("head" if head == pfn else "inside"), of, head
        if pfn in percpu:
            return "pcp", 0, pfn
        if flags >> abi.PG_reserved & 1:
            return "reserved", -1, pfn
        return ("used" if count > 0 else "none"), -1, pfn

    def _link(self, link: int) -> str:
        page = self._names.page_of(link)
        return f"pfn {page[0]}" if page is not None and page[1] == abi.PAGE_LRU else f"{link:#x}"


def _zone_name(machine: Machine, nid: int, index: int) -> str:
    return next(node.zones[index].name for node in nodes(machine.dump) if node.id == nid)
