# SPDX-License-Identifier: GPL-2.0-only
"""``make bench-peers``: physmem against drgn, crash and makedumpfile, whole processes, on one dump.

Each round runs every contender once on every image, one after the other; what is printed are medians over the
rounds, and ratios are taken within a round, so that a machine whose speed drifts does not spoil the comparison.
A tool that is not installed is named and left out; so are crash, and drgn's helpers, without ``--vmlinux``.
Python's contenders have their bytecode compiled beforehand, as installed programs have.
"""

from __future__ import annotations

import argparse
import importlib.util
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

ROOT = Path(__file__).resolve().parents[2]
IMAGE = ROOT / "tests" / "data" / "vmcores" / "deb61-1g-2node" / "image.vmcore.xz"
OURS = "physmem"
#: No contender may take longer, in seconds.
_LIMIT = 300
_TIMES = 10


class Failed(Exception):
    """A contender ended with an error: drgn's helpers need pages that a distilled dump has not."""


@dataclass(frozen=True)
class Run:
    """What one process took: seconds by the clock and of the processors, and the most memory it had, in KiB."""

    wall: float
    cpu: float
    rss: int


@dataclass
class Contender:
    """A command line for a task.

    :ivar task: what it is asked to do
    :ivar name: who it is
    :ivar commands: for who reads its commands from standard input
    :ivar target: how many times as long as ours it has to take; 0 if no target is set
    """

    task: str
    name: str
    line: list[str]
    commands: str = ""
    target: float = 0.0
    runs: list[Run] = field(default_factory=list)

    def run(self, environment: dict[str, str]) -> Run:
        """Run it once."""
        with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as said:
            given.write(self.commands.encode())
            given.seek(0)
            start = time.perf_counter()
            process = subprocess.Popen(
                ["timeout", str(_LIMIT), *self.line], stdin=given, stdout=said, stderr=said, env=environment
            )
            _, status, usage = os.wait4(process.pid, 0)
            wall = time.perf_counter() - start
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode:
                said.seek(0)
                text = said.read()[-400:].decode(errors="replace").strip()
                raise Failed(f"{' '.join(self.line)}: status {process.returncode}: {text.splitlines()[-1:]}")
        return Run(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss)


def contenders(image: Path, vmlinux: str | None) -> Iterator[Contender]:
    """Who can run here; what cannot is said on standard output."""
    python, ours = sys.executable, [sys.executable, "-m", "physmem"]
    drgn = [python, str(Path(__file__).with_name("with_drgn.py"))]
    has_drgn = importlib.util.find_spec("drgn") is not None
    crash = vmlinux is not None and shutil.which("crash") is not None
    yield Contender("flags", OURS, [*ours, "pages", str(image)])
    if has_drgn:
        yield Contender("flags", "drgn, raw reads, told where", [*drgn, "raw", str(image), apart(page_array, image)])
    if has_drgn and vmlinux:
        yield Contender("flags", "drgn, helpers", [*drgn, "pages", str(image), vmlinux], target=_TIMES)
    if shutil.which("makedumpfile"):
        line = ["makedumpfile", "--dry-run", "-d", "31", str(image), os.devnull + ".dump"]
        yield Contender("flags", "makedumpfile -d 31", line, target=1)
    if crash and vmlinux:
        line = ["crash", "-s", vmlinux, str(image)]
        yield Contender("flags", "crash kmem -p", line, "kmem -p\nquit\n", target=_TIMES)
    yield Contender("free lists", OURS, [*ours, "pagetypeinfo", str(image)])
    yield Contender("free lists", f"{OURS} buddyinfo", [*ours, "buddyinfo", str(image)])
    if has_drgn and vmlinux:
        yield Contender("free lists", "drgn, helpers", [*drgn, "freelists", str(image), vmlinux], target=_TIMES)
    if crash and vmlinux:
        line = ["crash", "-s", vmlinux, str(image)]
        yield Contender("free lists", "crash kmem -f", line, "kmem -f\nquit\n", target=_TIMES)
    yield Contender("one address", f"{OURS} vtop", [*ours, "vtop", str(image), "ffffffff81000000"])


def apart(function: Callable[[Path], T], image: Path) -> T:
    """Call a function in a process of its own: what contenders start from counts among their memory, and is small."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, image).result()


def page_array(image: Path) -> str:
    """Where in physical memory the page array is, for who cannot find it."""
    from physmem.dump import open_dump
    from physmem.inspect.memmap import PageArray

    with open_dump(image) as dump:
        array = PageArray(dump)
        size = dump.sizeof_page
        places = [(at.phys, (at.end - at.start) * size) for at in array._segments]
    return ",".join(f"{start:x}:{length:x}" for start, length in places)


def kpageflags(image: Path, repeat: int = 60) -> tuple[float, float, int]:
    """Nanoseconds of the processor for a page of kpageflags and kpagecount, in process: median, least; and pages."""
    from physmem.dump import open_dump
    from physmem.inspect.kpage import KPages

    with open_dump(image) as dump:
        pages = KPages(dump, reuse=True)
        times = []
        for _ in range(repeat):
            start = time.process_time_ns()
            for _piece in pages:
                pass
            times.append((time.process_time_ns() - start) / pages.end)
    return statistics.median(times), min(times), pages.end


def report(name: str, found: list[Contender]) -> None:
    """Print the table of an image."""
    print(f"\n{name}")
    print(f"  {'task':12} {'contender':29} {'wall s':>8} {'cpu s':>8} {'RSS MiB':>8} {'cpu/ours':>9}  target")
    for each in found:
        ours = next(one for one in found if one.task == each.task)
        wall, cpu = (statistics.median(getattr(run, what) for run in each.runs) for what in ("wall", "cpu"))
        ratio = statistics.median(b.cpu / a.cpu for a, b in zip(ours.runs, each.runs, strict=True))
        rss = max(run.rss for run in each.runs) / 1024
        targets = []
        if each.target:
            targets.append(f"{each.target:g}x: {'reached' if ratio >= each.target else 'missed'}")
        if each.name.startswith(OURS):
            targets.append(f"RSS < 150 MiB: {'reached' if rss < 150 else 'missed'}")
        if each.task == "one address":
            targets.append(f"< 0.3 s: {'reached' if cpu < 0.3 else 'missed'}")
        shown = f"{ratio:9.1f}" if each is not ours else f"{'':9}"
        print(
            f"  {each.task:12} {each.name:29} {wall:8.3f} {cpu:8.3f} {rss:8.1f} {shown}  {', '.join(targets)}".rstrip()
        )


def main() -> None:
    """Run the contest."""
    parser = argparse.ArgumentParser(prog="python -m tools.bench.peers", description=__doc__.partition("\n")[0])
    parser.add_argument("images", nargs="*", metavar="IMAGE", type=Path, help="a dump; by default one of the tests")
    parser.add_argument("--vmlinux", metavar="FILE", help="its kernel with debug information, for drgn and crash")
    parser.add_argument("--rounds", type=int, default=5, help="how many (default 5)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        images: list[Path] = arguments.images
        if not images:
            images = [Path(scratch, name) for name in ("image.elf", "image.kdump")]
            for image in images:
                line = [sys.executable, "-m", "physmem", "convert", str(IMAGE), "-o", str(image)]
                subprocess.run(line, check=True, stdout=subprocess.DEVNULL)
        environment = dict(os.environ, PYTHONPYCACHEPREFIX=str(Path(scratch, "bytecode")))
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        load = os.getloadavg()[0]
        print(f"{os.cpu_count()} processors, load {load:.1f} at the start: {'loaded' if load > 0.5 else 'idle'}")
        print(f"{arguments.rounds} rounds; medians; ratios are of processor time, within a round")
        if importlib.util.find_spec("drgn") is None:
            print("drgn is not installed: pip install drgn")
        if shutil.which("makedumpfile") is None:
            print("makedumpfile is not installed")
        if arguments.vmlinux is None:
            print("crash, and drgn's helpers, need --vmlinux: left out")
        elif shutil.which("crash") is None:
            print("crash is not installed")
        contests = [(image, list(contenders(image, arguments.vmlinux))) for image in images]
        for number in range(arguments.rounds + 1):
            for _, found in contests:
                for each in list(found):
                    # The first round is to warm up what there is of caches.
                    if number == 0 and not each.name.startswith((OURS, "drgn, raw")):
                        continue
                    try:
                        run = each.run(environment)
                    except Failed as error:
                        if each.name.startswith(OURS):
                            raise SystemExit(str(error)) from None
                        print(f"{each.name}, {each.task}: left out: {error}")
                        found.remove(each)
                        continue
                    if number:
                        each.runs.append(run)
        for image, found in contests:
            report(image.name, found)
            median, least, pages = apart(kpageflags, image)
            verdict = "reached" if median <= 15 else "missed"
            # Where pages are compressed, most of it is that.
            text = f"{median:.1f} ns a page of {pages} (the least disturbed time: {least:.1f})"
            print(f"  kpageflags in process: {text}; target 15 (of an ELF): {verdict}")


if __name__ == "__main__":
    main()
