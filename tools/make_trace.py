# SPDX-License-Identifier: GPL-2.0-only
"""Make a large trace of kmem events, all of them right: ``python -m tools.make_trace EVENTS [-o FILE]``.

Blocks of mixed orders live for a while and are freed by the task that has them; pages go through per-cpu lists
(mm_page_alloc_zone_locked, mm_page_pcpu_drain) as a kernel's do.  The same seed makes the same trace.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from typing import TextIO

#: How each format writes a line: task, pid, CPU, seconds, microseconds, event and fields; a pfn; a page.
FORMATS = {
    "ftrace": ("{:>16}-{:<5} [{:03}] d... {:5}.{:06}: {}", "{}", "page={:016x}"),
    "modern": ("{:>16}-{:<7} [{:03}] d..2. {:5}.{:06}: {}", "0x{:x}", "page=00000000{:08x}"),
    "perf": ("{:>16} {:5} [{:03}] {:5}.{:06}: kmem:{}", "0x{:x}", "page=0x{:x}"),
    "trace-cmd": ("{:>16}-{:<5} [{:03}] {:5}.{:06}: {}", "0x{:x}", "page=0x{:x}"),
}
TASKS = [("bash", 801), ("kworker/u8:2", 34), ("Web Content", 2210), ("dd", 4001), ("<idle>", 0), ("a-b c-1", 77)]
OLD_GFP = ["GFP_KERNEL", "GFP_KERNEL|GFP_ZERO", "GFP_HIGHUSER_MOVABLE", "GFP_ATOMIC|GFP_NOWARN"]
NEW_GFP = ["GFP_KERNEL", "GFP_KERNEL|__GFP_ZERO", "GFP_HIGHUSER_MOVABLE|__GFP_COMP", "GFP_ATOMIC|__GFP_NOWARN"]
#: Blocks alive at once, at most.
LIVE = 100_000


class Memory:
    """Free blocks by order; larger ones are split when a list is empty, and freed ones used again."""

    def __init__(self, pages: int) -> None:
        self.free: list[list[int]] = [[] for _ in range(11)]
        self.free[10] = list(range(1024, pages, 1024))[::-1]

    def take(self, order: int) -> int:
        if self.free[order]:
            return self.free[order].pop()
        half = self.take(order + 1)
        self.free[order].append(half + (1 << order))
        return half

    def give(self, pfn: int, order: int) -> None:
        self.free[order].append(pfn)


def events(count: int, seed: int, form: str) -> Iterator[str]:
    """The lines of a trace of so many events."""
    line, number, page = FORMATS[form]
    gfps = OLD_GFP if form == "ftrace" else NEW_GFP
    rng = random.Random(seed)
    memory = Memory(1 << 21)
    live: list[tuple[int, int]] = []
    for i in range(count):
        comm, pid = TASKS[rng.randrange(len(TASKS))]
        cpu, (seconds, micros) = rng.randrange(4), divmod(i, 1_000_000)
        if live and (len(live) >= LIVE or rng.random() < 0.49):
            at = rng.randrange(len(live))
            pfn, order = live[at]
            live[at] = live[-1]
            live.pop()
            memory.give(pfn, order)
            what, rest = "mm_page_free", ""
        else:
            order = rng.choice((0, 0, 0, 0, 0, 0, 0, 1, 2, 3))
            pfn = memory.take(order)
            live.append((pfn, order))
            what = "mm_page_alloc"
            rest = f" migratetype={order % 3} gfp_flags={gfps[rng.randrange(len(gfps))]}"
        told = f"{what}: {page.format(0xFFFFEA0000000000 + 64 * pfn if form != 'modern' else pfn)}"
        told += f" pfn={number.format(pfn)} order={order}{rest}"
        yield line.format(comm, pid, cpu, seconds, micros, told)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("events", type=int)
    parser.add_argument("-o", "--output", metavar="FILE", help="default: standard output")
    parser.add_argument("--format", choices=FORMATS, default="ftrace")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with open(options.output, "w") if options.output else nullcontext(sys.stdout) as out:
        write(out, options.events, options.seed, options.format)


def write(out: TextIO, count: int, seed: int, form: str) -> None:
    """Write a trace, with the header of an ftrace file."""
    if form in ("ftrace", "modern"):
        out.write("# tracer: nop\n#\n#           TASK-PID   CPU#  ||||    TIMESTAMP  FUNCTION\n")
    lines: list[str] = []
    for line in events(count, seed, form):
        lines.append(line)
        if len(lines) == 1 << 14:
            out.write("\n".join(lines) + "\n")
            lines.clear()
    out.write("".join(f"{line}\n" for line in lines))


if __name__ == "__main__":
    main()
