# SPDX-License-Identifier: GPL-2.0-only
"""What is done to a whole machine: boot, save, attach, check, and scans of its page array."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from kernelmm import Machine
from kernelmm.validate.ledger import Ledger
from kernelmm.validate.tracefile import TraceFile
from physmem.dump import Dump, open_dump
from physmem.inspect.check import check
from physmem.inspect.kpage import KPages
from physmem.inspect.pagetypes import Histogram

__all__ = [
    "boot",
    "boot_apart",
    "checked",
    "checked_file",
    "copied",
    "histogram",
    "kpageflags",
    "open_and_attach",
    "saved",
    "timed",
    "validated",
]

TRACE = Path(__file__).resolve().parents[2] / "tests" / "data" / "oracle" / "n128_s1_trace" / "trace.txt"


def timed(act: Callable[[], object]) -> float:
    """Seconds of a processor that something takes: on a machine that others use too, the only ones to compare."""
    start = time.process_time()
    act()
    return time.process_time() - start


def boot(size: str | int) -> float:
    """Seconds to boot a machine."""
    return timed(lambda: Machine.boot(size))


#: Boots a machine; seconds of a processor, and the most bytes that the process has had in memory.
_APART = """
import sys, time
from kernelmm import Machine

start = time.process_time()
machine = Machine.boot(sys.argv[1])
seconds = time.process_time() - start
with open("/proc/self/status") as status:
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
print(seconds, peak << 10)
"""


def boot_apart(size: str) -> tuple[float, int]:
    """Seconds to boot a machine in a process of its own, and the most bytes that this had in memory."""
    done = subprocess.run([sys.executable, "-c", _APART, size], capture_output=True, text=True, check=True)
    seconds, peak = done.stdout.split()
    return float(seconds), int(peak)


def saved(machine: Machine, path: str) -> float:
    """Seconds to save a machine."""
    return timed(lambda: machine.save(path))


def open_and_attach(path: str | os.PathLike[str]) -> float:
    """Seconds from a file to a machine that allocates."""
    return timed(lambda: Machine.attach(path).alloc_pages(0, 0))


def checked(dump: Dump) -> float:
    """Seconds of a check that finds nothing."""
    start = time.process_time()
    report = check(dump)
    seconds = time.process_time() - start
    assert report.clean, report.counts
    return seconds


def checked_file(path: str) -> float:
    """Seconds to open an image and check it."""

    def act() -> None:
        with open_dump(path) as dump:
            checked(dump)

    return timed(act)


def kpageflags(dump: Dump) -> float:
    """Seconds to tell the flags and the map count of every page."""
    return timed(lambda: [piece.flags.sum() for piece in KPages(dump, reuse=True)])


def histogram(dump: Dump) -> float:
    """Seconds to count all pages by their flags."""

    def act() -> None:
        found = Histogram([], False)
        for piece in KPages(dump, reuse=True):
            found.add(piece)

    return timed(act)


def copied(size: int) -> float:
    """Seconds in which numpy copies so many bytes of memory that is there: the limit of a scan."""
    source, target = np.ones(size, np.uint8), np.ones(size, np.uint8)
    return timed(lambda: np.copyto(target, source))


def validated(path: Path = TRACE) -> tuple[float, int]:
    """Seconds to validate a trace, and its bytes."""

    return timed(lambda: Ledger().read(TraceFile(os.fspath(path)))), path.stat().st_size
