# SPDX-License-Identifier: GPL-2.0-only
"""``python -m tools.oracle.judge KERNEL CASE...``: recorded runs, done again: where results or bytes differ."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from kernelmm import Machine
from kernelmm.pressure import owners
from physmem.dump import Dump
from physmem.errors import PhysmemError, UsageError
from physmem.image import open_image
from physmem.inspect.cpus import online_cpus, per_cpu

__all__ = ["Verdict", "judge"]


#: Differences of either kind that are kept: a run that went another way has no end of them.
_MOST = 1000
#: log2 of THREAD_SIZE.
_STACK_SHIFT = 14


@dataclass
class Verdict:
    """What differs.

    :ivar results: each line that does: its number in the results, ours, the kernel's
    :ivar bytes: each byte that does: its physical address, what it is, ours, the kernel's
    """

    results: list[tuple[int, str, str]] = field(default_factory=list)
    bytes: list[tuple[int, str, int, int]] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.results or self.bytes)

    def lines(self) -> Iterator[str]:
        """All of it, to be read."""
        for number, ours, theirs in self.results:
            yield f"result {number}: {ours!r} instead of {theirs!r}"
        for phys, name, got, want in self.bytes:
            yield f"{phys:#x}: {got:#04x} instead of {want:#04x}: {name}"


def judge(
    case: Path, layout: Path | None = None, symbols: Path | None = None, foreign: Collection[int] = ()
) -> Verdict:
    """Run the script of a case on its A, and compare with its B.

    What is not the page allocator's is left out: time, where interrupts were on; a variable of drain_all_pages()
    that has no name of its own and is set anew by each call; where in a frame of its stack alloc_contig_range()
    had a list, to which pages that were on it still point: the compiler chose it; where on its stack kswapd waits;
    and where a file is, which its pages say.

    :param case: folder with ``A.vmcore`` and ``B.vmcore`` (or in ``.xz``), ``script.txt``, ``result.txt``
    :param foreign: physical addresses of further bytes to leave out
    """
    verdict = Verdict()
    first, last = (image_of(case, moment) for moment in ("A", "B"))
    script = (case / "script.txt").read_text()
    with Machine.attach(first, layout=layout, symbols=symbols) as machine:
        ours = machine.run(case / "script.txt")
        theirs = (case / "result.txt").read_text().splitlines()
        if len(ours) != len(theirs):
            verdict.results.append((min(len(ours), len(theirs)), f"{len(ours)} lines", f"{len(theirs)} lines"))
        pairs = enumerate(zip(ours, theirs, strict=False), 1)
        verdict.results += [(number, one, other) for number, (one, other) in pairs if one != other][:_MOST]
        ranges = any(line.startswith("L ") for line in script.split("\n"))
        ignored = {*foreign, *_bytes_of(machine.dump, "percpu_pagelist_fraction", 4, 8)}
        if "I" in script.split("\n"):
            ignored.update(_bytes_of(machine.dump, "jiffies", 0, 8))
        ignored.update(_kswapd_wait(machine, last))
        files = _Files(next(owners.files(machine.mm), 0))
        with open_image(last) as after:
            for phys, data in after.segments():
                want = np.frombuffer(data, np.uint8)
                got = machine.ram.array(phys, np.uint8, len(want))
                for at in np.flatnonzero(got != want)[:_MOST].tolist():
                    mine, its = (int(each[at & -8 :][:8].view(np.uint64)[0]) for each in (got, want))
                    same = (ranges and _one_stack(mine, its)) or files.same(mine, its)
                    if phys + at not in ignored and not same:
                        found = (phys + at, name_of(machine.dump, phys + at), int(got[at]), int(want[at]))
                        verdict.bytes.append(found)
                del want, data, got
    return verdict


def _kswapd_wait(machine: Machine, last: Path) -> Iterator[int]:
    """Bytes of the heads of the queues on which kswapd waits, in our memory and in the kernel's."""
    offset = machine.dump.layout.offsetof("pglist_data", "kswapd_wait.task_list")
    with open_image(last) as after:
        for pgdat in machine.dump.pgdats.values():
            head = machine.dump.virt_to_phys(pgdat + offset)
            if pgdat + offset not in (after.u64(head), machine.ram.u64(head)):
                yield from range(head, head + 16)


@dataclass
class _Files:
    """Which file of the kernel's is ours.

    :ivar ours: kernel address of our record, or 0
    :ivar theirs: of its ``struct address_space``, once a page has told
    """

    ours: int
    theirs: int = 0

    def same(self, ours: int, theirs: int) -> bool:
        """Whether two words are both the file."""
        if not self.ours or ours != self.ours or not theirs:
            return False
        self.theirs = self.theirs or theirs
        return theirs == self.theirs


def _one_stack(ours: int, theirs: int) -> bool:
    """Whether a word is a pointer into one kernel stack in both."""
    return ours >> _STACK_SHIFT == theirs >> _STACK_SHIFT and ours >> 47 == (1 << 17) - 1


def image_of(case: Path, moment: str) -> Path:
    """The image of moment A or B, compressed or not.

    :raises UsageError: there is none
    """
    found = [case / f"{moment}.vmcore{suffix}" for suffix in (".xz", "")]
    for path in found:
        if path.exists():
            return path
    raise UsageError(f"{found[0]}: there is no such file")


def _bytes_of(dump: Dump, symbol: str, start: int, end: int) -> Iterator[int]:
    """Physical addresses of some bytes of a variable."""
    for at in range(dump.symbols[symbol] + start, dump.symbols[symbol] + end):
        yield dump.virt_to_phys(at)


def name_of(dump: Dump, phys: int) -> str:
    """What is at a physical address: a field of a page, zone or node, or a variable."""
    layout = dump.layout
    size, zones = layout.sizeof("zone"), layout.lengthof("pglist_data", "node_zones")
    for nid, pgdat in dump.pgdats.items():
        at = phys - dump.virt_to_phys(pgdat)
        if 0 <= at < size * zones:
            return f"node {nid} zone {at // size} {_field(dump, 'zone', at % size)}"
        if 0 <= at < layout.sizeof("pglist_data"):
            return f"node {nid} {_field(dump, 'pglist_data', at)}"
    chunks, shift = dump.memmap
    for number, chunk in enumerate(chunks.tolist()):
        if chunk <= phys < chunk + (1 << shift):
            pfn, rest = divmod((number << shift) + phys - chunk, dump.sizeof_page)
            return f"page {pfn} {_field(dump, 'page', rest)}"
    return _variable(dump, phys)


def _field(dump: Dump, tag: str, offset: int) -> str:
    """The last field that begins at or before an offset, and how far it is from there."""
    layout = dump.layout
    start, name = max(
        (layout.offsetof(tag, name), name) for name in layout.struct(tag).fields if layout.offsetof(tag, name) <= offset
    )
    return f"{name} + {offset - start}"


def _variable(dump: Dump, phys: int) -> str:
    """The symbol closest below."""
    nearest, name = 4096, "?"
    for symbol, address in dump.symbols.items():
        places = [(address, "")]
        if address < dump.symbols.find("__per_cpu_end"):
            places = [(per_cpu(dump, address, cpu), f" of CPU {cpu}") for cpu in online_cpus(dump)]
        for place, whose in places:
            with contextlib.suppress(PhysmemError):
                distance = phys - dump.virt_to_phys(place)
                if 0 <= distance < nearest:
                    nearest, name = distance, f"{symbol} + {distance}{whose}"
    return name


def main() -> int:
    """Print the differences; 1 if there are any."""
    kernel, *cases = (Path(argument) for argument in sys.argv[1:])
    different = False
    for case in cases:
        verdict = judge(case, kernel / "layout.json", kernel / "symbols.json")
        for line in verdict.lines():
            print(f"{case.name}: {line}")
        different |= bool(verdict)
    return int(different)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except PhysmemError as error:
        print(f"judge: {error}", file=sys.stderr)
        sys.exit(2)
