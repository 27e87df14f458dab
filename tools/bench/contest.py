# SPDX-License-Identifier: GPL-2.0-only
"""The allocator's fast paths: the engine against the C reference, on recorded scripts and on made ones.

Run as a program, it prints the engine's own times as JSON: how another engine is timed, in a process of its own.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from kernelmm import gfp
from kernelmm.attach import attach
from kernelmm.core import entry, free, replay
from kernelmm.core.mm import Mm
from kernelmm.study import script
from physmem.dump import Dump, open_dump
from tools.bench.reference import Reference

DATA = Path(__file__).resolve().parents[2] / "tests" / "data" / "oracle"

Ops = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Case:
    """A mix of operations.

    :ivar name: what it is called: of a recording, if there is one
    :ivar what: what it exercises
    """

    name: str
    what: str

    def ops(self) -> Ops:
        """The operations, which are right on the memory of n128_s1."""
        if self.name == "hit":
            return operations([("a", 0, 0), ("f", 0, 0)] * 5000)
        if self.name == "bursts":
            once = [("a", i, 0) for i in range(512)] + [("f", i, 0) for i in range(512)]
            return operations(once * 10)
        if self.name == "orders":
            return operations(list(random_orders(10_000, 3)))
        return script.load(DATA / self.name / "script.txt").ops

    @property
    def image(self) -> Path:
        folder = DATA / self.name
        return (folder if folder.is_dir() else DATA / "n128_s1") / "A.vmcore.xz"


CASES = (
    Case("hit", "order 0: a page taken and given back"),
    Case("bursts", "order 0: 512 taken, 512 given back"),
    Case("orders", "orders 0 to 3 at random, some 300 pages held"),
    Case("n128_s3", "recorded: 20,000 single pages, refill and bulk free"),
    Case("n128_s1", "recorded: 2,000 mixed, orders 0 to 3"),
    Case("n128_s4", "recorded: 48,550 around the watermarks"),
    Case("n128_s7", "recorded: 4,000 with get_page and put_page"),
)


def operations(steps: list[tuple[str, int, int]]) -> Ops:
    """Operations of (letter, id, order)."""
    rows = [
        (ord(code), page, 0, order, gfp.GFP_KERNEL) if code == "a" else (ord(code), page, order, 0, 0)
        for code, page, order in steps
    ]
    return np.array(rows, np.int64)


def random_orders(count: int, top: int) -> Iterator[tuple[str, int, int]]:
    """``count`` operations at random; in the end all is given back."""
    random = np.random.default_rng(4)
    held: list[tuple[int, int]] = []
    spare = list(range(count))
    for left in range(count, 0, -1):
        if len(held) < left - 1 and (not held or random.random() < (0.5 if len(held) >= 300 else 0.7)):
            block = (spare.pop(), int(random.integers(top + 1)))
            held.append(block)
            yield ("a", *block)
        elif held:
            block = held.pop(int(random.integers(len(held))))
            spare.append(block[0])
            yield ("f", *block)


class Contest:
    """One mix, and the contenders on memories of their own.

    :param reference: compile the C reference too, without which the memory is never put back
    :param ops: other operations than those of the case
    """

    def __init__(self, case: Case, reference: bool = True, ops: Ops | None = None) -> None:
        self.dump: Dump = open_dump(case.image)
        self.mm: Mm = attach(self.dump)
        self.ops = np.ascontiguousarray(case.ops() if ops is None else ops, np.int64)
        self.pages = np.zeros(int(self.ops[:, 1].max()) + 1, np.uint64)
        if (DATA / case.name).is_dir():
            self.pages, _ = script.run_numbers(script.load(DATA / case.name / "script.txt"))
        #: The memory of the reference.
        self.copy = bytearray(self.mm.ram.as_u8)
        layout = json.loads(self.dump.layout.to_json())
        for enum in layout["enums"].values():
            layout["constants"] |= enum
        layout["constants"] |= {name: value for name, value in vars(gfp).items() if name.startswith("GFP_")}
        self.reference = Reference(self.copy, layout, dict(self.dump.symbols)) if reference else None
        self.fresh = [] if self.reference is None else self._metadata(self.copy, self.reference)

    @staticmethod
    def _metadata(copy: bytearray, reference: Reference) -> list[tuple[int, bytes]]:
        return [(phys, bytes(copy[phys : phys + size])) for _, phys, size in reference.metadata]

    def restore(self) -> None:
        """Put the engine's memory back as it was, with no page taken."""
        for phys, data in self.fresh:
            self.mm.ram.as_u8[phys : phys + len(data)] = data
        self.pages[:] = 0

    def ours(self, limit: int | None = None) -> float:
        """Nanoseconds an operation of one replay by the engine, memory restored first."""
        self.restore()
        count = len(self.ops) if limit is None else min(limit, len(self.ops))
        results = np.zeros(0, np.int64).data
        start = time.process_time_ns()
        replay.replay(self.mm, self.ops.reshape(-1).data, self.pages.data, results, 0, count)
        return (time.process_time_ns() - start) / count

    def theirs(self) -> float:
        """Nanoseconds an operation of one replay by the C reference."""
        assert self.reference is not None
        return self.reference.time(self.ops, repeat=1)[0] / len(self.ops)


def one_call(mm: Mm, pairs: int = 10_000) -> float:
    """Nanoseconds of one order-0 alloc and free, each called from Python."""
    alloc, release = entry.alloc_pages, vars(free)["__free_pages"]
    start = time.process_time_ns()
    for _ in range(pairs):
        release(mm, alloc(mm, gfp.GFP_KERNEL, 0), 0)
    return (time.process_time_ns() - start) / pairs


def main() -> int:
    found = {}
    for case in CASES:
        contest = Contest(case, reference=False)
        # Without the reference the memory is not put back, so one replay on each.
        found[case.name] = contest.ours(4000)
    found["one call"] = statistics.median(one_call(Contest(CASES[0], reference=False).mm, 500) for _ in range(3))
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
