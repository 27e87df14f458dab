# SPDX-License-Identifier: GPL-2.0-only
"""``make bench``: the engine against the C reference, on real scripts, interleaved.

Each round replays a script once with each contender, on fresh copies of the same memory, and
takes the ratio of the two; what is printed is the median over the rounds, so that a machine
whose speed drifts does not spoil the comparison.  The one-call row times an order-0 pair from
Python instead.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

import numpy as np

from kernelmm import gfp
from kernelmm.attach import attach
from kernelmm.core import entry, free, replay
from kernelmm.core.mm import Mm
from kernelmm.study import script
from physmem import engine
from physmem.dump import Dump, open_dump
from physmem.errors import PhysmemError
from tools.bench.reference import Reference

DATA = Path(__file__).resolve().parents[2] / "tests" / "data" / "oracle"
#: Script and what it exercises.
CASES = (
    ("n128_s3", "20,000 single pages: refill and bulk free"),
    ("n128_s1", "2,000 mixed, orders 0 to 3"),
    ("n128_s4", "48,550 around the watermarks"),
    ("n128_s7", "4,000 with get_page and put_page"),
)


class Contest:
    """One script, and the two contenders on memories of their own."""

    def __init__(self, case: str) -> None:
        self.dump: Dump = open_dump(DATA / case / "A.vmcore.xz")
        self.mm: Mm = attach(self.dump)
        self.script = script.load(DATA / case / "script.txt")
        copy = bytearray(self.mm.ram.as_u8)
        layout = json.loads(self.dump.layout.to_json())
        for enum in layout["enums"].values():
            layout["constants"] |= enum
        layout["constants"] |= {name: value for name, value in vars(gfp).items() if name.startswith("GFP_")}
        self.reference = Reference(copy, layout, dict(self.dump.symbols))
        self.fresh = [(phys, bytes(copy[phys : phys + size])) for _, phys, size in self.reference.metadata]
        self.pages, _ = script.run_numbers(self.script)
        self.ops = self.script.ops.reshape(-1).data

    def ours(self) -> int:
        """Nanoseconds of one replay by the engine, memory restored first."""
        for phys, data in self.fresh:
            self.mm.ram.as_u8[phys : phys + len(data)] = data
        self.pages[:] = 0
        results = np.zeros(0, np.int64).data
        start = time.perf_counter_ns()
        replay.replay(self.mm, self.ops, self.pages.data, results, 0, len(self.script))
        return time.perf_counter_ns() - start

    def theirs(self) -> int:
        """Nanoseconds of one replay by the C reference."""
        return int(statistics.median(self.reference.time(self.script.ops, repeat=1)))


def one_call(mm: Mm, pairs: int) -> float:
    """Nanoseconds of one order-0 alloc and free, each called from Python."""
    alloc, release = entry.alloc_pages, vars(free)["__free_pages"]
    start = time.perf_counter_ns()
    for _ in range(pairs):
        release(mm, alloc(mm, gfp.GFP_KERNEL, 0), 0)
    return (time.perf_counter_ns() - start) / pairs


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.bench", description="the engine against the C reference")
    parser.add_argument("--rounds", type=int, default=50, help="interleaved rounds a script (default 50)")
    parser.add_argument("--total", type=int, default=1000, help="replays of n128_s3 a contender (default 1000)")
    arguments = parser.parse_args()
    print(f"engine: {engine.current()}")
    print(f"{'script':8}  {'ours':>8}  {'C -O2':>8}  {'ratio':>6}   ns an operation, medians")
    for case, what in CASES:
        contest = Contest(case)
        rounds = arguments.total if case == "n128_s3" else arguments.rounds
        if engine.current() == "interpreted":
            rounds = min(rounds, 5)
        times = [(contest.ours(), contest.theirs()) for _ in range(rounds)]
        ours = statistics.median(a for a, _ in times) / len(contest.script)
        theirs = statistics.median(b for _, b in times) / len(contest.script)
        ratio = statistics.median(a / b for a, b in times)
        print(f"{case:8}  {ours:8.1f}  {theirs:8.1f}  {ratio:6.2f}   {what}; {rounds} rounds")
    contest = Contest("n128_s1")
    calls = statistics.median(one_call(contest.mm, 10000) for _ in range(9))
    print(f"{'one call':8}  {calls:8.1f}  {'':8}  {'':6}   an order-0 alloc_pages and __free_pages from Python")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except PhysmemError as error:
        sys.exit(f"bench: {error}")
