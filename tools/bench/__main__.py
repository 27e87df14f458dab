# SPDX-License-Identifier: GPL-2.0-only
"""``make bench``: the engine against the C reference, interleaved, and what is done to whole machines.

Each round takes each mix once with each contender, on fresh copies of the same memory, and the ratio of the two; what
is printed is the median over the rounds, so that a machine whose speed drifts does not spoil the comparison.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from kernelmm import Machine
from physmem import engine
from physmem.dump import open_dump
from physmem.errors import PhysmemError
from tools.bench import scans
from tools.bench.contest import CASES, Case, Contest, one_call
from tools.bench.growth import LINEAR
from tools.bench.surroundings import described

PAGE = Path(__file__).resolve().parents[2] / "docs" / "performance.md"
BEGIN, END = "<!-- written by python -m tools.bench --write -->", "<!-- end of what is written -->"
_GB = 1e9


def _against(value: float, target: float) -> str:
    """Whether a value that should be small is."""
    if value <= target:
        return "reached"
    return f"missed by {100 * (value / target - 1):.0f} %"


def _interpreted() -> dict[str, float]:
    """Nanoseconds of each mix by the interpreted engine, in a process of its own."""
    environment = {**os.environ, "PHYSMEM_ENGINE": "interpreted"}
    command = [sys.executable, "-m", "tools.bench.contest"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def paths(rounds: int, operations: int) -> Iterator[str]:
    """The table of the fast paths."""
    slow = _interpreted()
    contests = {case: Contest(case) for case in CASES}
    times: dict[Case, list[tuple[float, float]]] = {case: [] for case in CASES}
    calls = []
    for _ in range(rounds):
        for case, contest in contests.items():
            times[case].append((contest.ours(), contest.theirs()))
        calls.append(one_call(contests[CASES[0]].mm, 5000))
    yield "| mix | ours, ns an operation | C -O2 | ratio | target 2.0 | interpreted | what it does |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for case, pairs in times.items():
        yield _path(case.name, pairs, slow[case.name], case.what)
    long = next(case for case in CASES if case.name == "orders")
    repeats = max(operations // len(contests[long].ops), 1)
    pairs = [(contests[long].ours(), contests[long].theirs()) for _ in range(repeats)]
    total = repeats * len(contests[long].ops)
    yield _path("replay", pairs, slow["orders"], f"{total:,} operations in all: the random orders over and over")
    call = statistics.median(calls)
    verdict = _against(call, 500)
    yield f"| one call | {call:.0f} | | | 500 ns: {verdict} | {slow['one call']:.0f} | an order-0 pair from Python |"


def _path(name: str, pairs: list[tuple[float, float]], slow: float, what: str) -> str:
    ours = statistics.median(a for a, _ in pairs)
    theirs = statistics.median(b for _, b in pairs)
    ratio = statistics.median(a / b for a, b in pairs)
    return f"| {name} | {ours:.1f} | {theirs:.1f} | {ratio:.2f} | {_against(ratio, 2.0)} | {slow:.0f} | {what} |"


def machines(rounds: int, large: bool) -> Iterator[str]:
    """The table of what is done to whole machines."""
    yield "| what | seconds of a processor | target |"
    yield "| --- | --- | --- |"
    with tempfile.TemporaryDirectory(prefix="bench-") as directory, contextlib.ExitStack() as stack:
        path = os.path.join(directory, "image.vmcore")
        machine = Machine.boot("1G")
        scans.saved(machine, path)
        # Of a machine that has just booted the page array is made as it is read.
        dump = stack.enter_context(open_dump(path))
        array = dump.max_pfn * dump.sizeof_page
        runs: dict[str, list[float]] = {}
        for _ in range(rounds):
            for name, seconds in (
                ("boot 256 MiB", scans.boot("256M")),
                ("attach to a 1 GiB image, and allocate", scans.open_and_attach(path)),
                ("save a 1 GiB machine", scans.saved(machine, path + ".again")),
                ("check of a 1 GiB image", scans.checked_file(path)),
                ("flag histogram", scans.histogram(dump)),
                ("kpageflags and kpagecount", scans.kpageflags(dump)),
                ("numpy copies as much", scans.copied(array)),
            ):
                runs.setdefault(name, []).append(seconds)
        median = {name: statistics.median(each) for name, each in runs.items()}
        copy = median["numpy copies as much"]
        for name, seconds in median.items():
            yield f"| {name} | {seconds:.4f} | {_goal(name, seconds, copy, array)} |"
        # As the larger machine below: booted, not saved.
        per_page = statistics.median(scans.checked(machine.dump) for _ in range(3)) / dump.max_pfn
    seconds = scans.boot("64G")
    yield f"| boot 64 GiB | {seconds:.2f} | |"
    yield from terabytes(rounds)
    size = 64 if large else 8
    big = Machine.boot(size << 30).dump
    seconds = scans.checked(big)
    growth = seconds / big.max_pfn / per_page
    verdict = "linear" if growth <= LINEAR else "worse than linear"
    yield f"| check of a {size} GiB machine | {seconds:.2f} | {verdict}: a page costs {growth:.2f} of one of 1 GiB |"
    seconds, size = min(scans.validated() for _ in range(rounds))
    yield f"| a trace validated | {seconds:.4f} | {size / seconds / 1e6:.1f} MB/s |"


def terabytes(rounds: int) -> Iterator[str]:
    """What a terabyte costs, and what each further one adds: seconds, and this computer's memory."""
    sizes = (1, 2, 4)
    found = []
    for size in sizes:
        runs = [scans.boot_apart(f"{size}T") for _ in range(rounds)]
        found.append((statistics.median(each[0] for each in runs), statistics.median(each[1] for each in runs)))
    for size, (seconds, peak) in zip(sizes, found, strict=True):
        goal = f"5 s: {_against(seconds, 5)}; 1.2 GiB: {_against(peak, 1.2 * (1 << 30))}; " if size == 1 else ""
        yield f"| boot {size} TiB | {seconds:.2f} | {goal}{peak / (1 << 20):.0f} MiB resident |"
    more = sizes[-1] - sizes[0]
    seconds, peak = ((last - first) / more for first, last in zip(found[0], found[-1], strict=True))
    yield f"| each TiB more | {seconds:.3f} | {peak / (1 << 20):.1f} MiB resident more |"


def _goal(name: str, seconds: float, copy: float, array: int) -> str:
    if name.startswith("check"):
        return f"0.5 s: {_against(seconds, 0.5)}"
    if name.startswith(("flag", "kpage")):
        share = copy / seconds
        met = "reached" if share >= 0.3 else f"missed by a factor of {0.3 / share:.1f}"
        return f"30 % of a copy of the {array >> 20} MiB page array: {100 * share:.0f} %, {met}"
    return f"{array / copy / _GB:.1f} GB/s, the limit of a scan" if name.startswith("numpy") else ""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.bench", description="how fast it is, and beside what")
    parser.add_argument("--rounds", type=int, default=20, help="interleaved rounds (default 20)")
    parser.add_argument("--operations", type=int, default=1_000_000, help="of the long replay (default a million)")
    parser.add_argument("--small", action="store_true", help="leave out what takes long: 64 GiB checked")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/performance.md")
    arguments = parser.parse_args()
    rounds = arguments.rounds if engine.current() == "compiled" else min(arguments.rounds, 3)
    lines = [f"On {described()}.", "", *paths(rounds, arguments.operations), ""]
    lines += machines(min(rounds, 3), not arguments.small)
    print("\n".join(lines))
    if arguments.write:
        text = PAGE.read_text()
        before, found, rest = text.partition(BEGIN)
        _, found_end, after = rest.partition(END)
        if not found or not found_end:
            print(f"bench: {PAGE.name} has not the two marks between which to write", file=sys.stderr)
            return 2
        PAGE.write_text("\n".join([before + BEGIN, *lines, END]) + after)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except PhysmemError as error:
        sys.exit(f"bench: {error}")
