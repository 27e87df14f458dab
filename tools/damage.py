#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Run the allocator on memory that is damaged at random: ``python -m tools.damage --seconds 600 --seed 1``.

The compiled engine proves an address where it translates it and accesses memory unchecked from there on, so what is
looked for are crashes, next to hangs, and exceptions that are not this package's.  Every run is a process of its own
(a fork of one in which the machine is ready); how it ends is decided by the seed and the number of the run, and
``--run NUMBER`` runs one of them again.

There are three sorts of patients: *recorded* kernels, on which a page script goes on (half of them are damaged before
they are attached to), then ranges, hotplug and drains; *busy* machines of ours, on which everything happens that the
soak test does (reclaim, compaction, isolation, contiguous ranges, CMA, hotplug); and *later* kernels, whose frees are
judged.
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import faulthandler
import os
import random
import resource
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np

from kernelmm import Machine
from kernelmm.study import script as page_script
from kernelmm.validate.judge import Judge
from physmem import engine
from physmem.dump import Dump, open_dump
from physmem.errors import PhysmemError
from physmem.ram import Ram
from physmem.structs import linux_4_0
from tools import soak

__all__ = ["PATIENTS", "main", "run_once"]

DATA = Path(__file__).resolve().parents[1] / "tests" / "data"
#: CPU seconds that a run may take, and memory above what its process began with.
CPU_SECONDS, ROOM = 30, 1 << 30
#: Runs on one patient before the next one's turn.
IN_A_ROW = 5
_WORD = (1 << 64) - 1
_MANY = [f"a {90000 + i} -1 {i % 11} {('20', '28', '80020', '4020', '8220')[i % 5]}" for i in range(60)]


class Patient(Protocol):
    """Something to damage and to use.  It is never restored: each run has a copy."""

    def treat(self, chance: random.Random) -> None:
        """Damage and use it; raises whatever comes."""


class Places:
    """Words of a kernel's memory by what they are, and what may be written there.

    :param tables: names of what there is, with physical addresses and sizes
    """

    def __init__(self, ram: Ram, tables: dict[str, list[tuple[int, int]]], pointers: list[int]) -> None:
        self.ram = ram
        self.tables = {name: parts for name, parts in tables.items() if parts}
        self.pointers = pointers
        words = np.frombuffer(ram.as_u8, np.uint64)
        self.used = np.concatenate([np.flatnonzero(words[a >> 3 : b >> 3]) + (a >> 3) for a, b in ram.ranges])

    def one(self, chance: random.Random) -> int:
        """Physical address of a word that is likely to be looked at."""
        name = chance.choice([*self.tables, "used"])
        if name == "used":
            return int(self.used[chance.randrange(len(self.used))]) * 8
        start, size = chance.choice(self.tables[name])
        return (start & ~7) + 8 * chance.randrange(max(size // 8, 1))

    def damage(self, chance: random.Random) -> None:
        """Change a few words, or parts of them."""
        for _ in range(chance.choice((1, 1, 1, 2, 3, 5, 20, 200))):
            at = self.one(chance)
            if not 0 <= at <= self.ram.size - 8:
                continue
            old = self.ram.as_u64[at >> 3]
            new = chance.choice(
                (
                    lambda old=old: chance.choice((0, 1, 11, _WORD, 1 << 63, 1 << 31, 0xFFFFFFFF, 0x8000)),
                    lambda old=old: chance.getrandbits(64),
                    lambda old=old: old ^ 1 << chance.randrange(64),
                    lambda old=old: (old + chance.choice((-64, -8, -1, 1, 8, 32, 64, 4096))) & _WORD,
                    lambda old=old: chance.choice(self.pointers) + chance.choice((0, 0, 0, 4, 8, 32, 64)),
                    lambda old=old: self.ram.as_u64[self.one(chance) % (self.ram.size - 8) >> 3],
                )
            )()
            keep = chance.choice((0, 0, 0, 0xFFFFFFFF, 0xFFFFFFFF << 32, ~0xFF, ~0xFFFF))
            self.ram.as_u64[at >> 3] = (old & keep | new & ~keep) & _WORD


def places(dump: Dump, ram: Ram) -> Places:
    """Of any kernel: the page array, nodes with their zones, per-CPU lists, sections, and all that is not zero."""
    size, end = dump.sizeof_page, dump.max_pfn
    pages = []
    for pfn in random.Random(1).sample(range(end), min(end, 4000)):
        try:
            pages.append((dump.virt_to_phys(dump.page_of(pfn)), size))
        except PhysmemError:
            continue
    nodes, sets = [], []
    for pgdat in dump.pgdats.values():
        nodes.append((dump.virt_to_phys(pgdat), dump.layout.sizeof("pglist_data")))
        zone_size, at = dump.layout.sizeof("zone"), dump.layout.offsetof("pglist_data", "node_zones")
        for index in range(dump.layout.lengthof("pglist_data", "node_zones")):
            zone = pgdat + at + index * zone_size
            # The zones' own words, over and over: most of a node is something else.
            nodes += [(dump.virt_to_phys(zone), zone_size)] * 4
            name = "pageset" if dump.layout.has("zone", "pageset") else "per_cpu_pageset"
            pointer = dump.field(zone, "zone", name)
            for cpu in range(2):
                try:
                    base = dump.u64(dump.symbols["__per_cpu_offset"] + 8 * cpu)
                    sets.append((dump.virt_to_phys((pointer + base) % (1 << 64)), 256))
                except PhysmemError:
                    continue
    sections = []
    if "mem_section" in dump.symbols:
        root = dump.u64(dump.symbols["mem_section"])
        if root:
            sections = [(dump.virt_to_phys(dump.symbols["mem_section"]), 8), (dump.virt_to_phys(root), 64 * 32)]
    free = [dump.page_of(pfn) + 32 for pfn in random.Random(2).sample(range(end), 200)]
    edge = dump.page_offset + ram.size
    pointers = [*free, *dump.pgdats.values(), *(edge - 8 * n for n in (1, 2, 7, 8, 9, 16, 200)), edge]
    tables = {"pages": pages, "nodes": nodes, "per-CPU lists": sets, "sections": sections}
    return Places(ram, tables, pointers)


class Recorded:
    """A recorded kernel: its script goes on, and then rarer things happen."""

    def __init__(self, case: str) -> None:
        folder = DATA / case
        self.machine = Machine.attach(folder / "A.vmcore.xz", **_known(folder.parent / "symbols.json"))
        lines = (folder / "script.txt").read_text().splitlines()
        self.lines = [line for line in lines if line.strip()]
        self.dump = self.machine.dump
        self.places = places(self.dump, self.machine.ram)

    def treat(self, chance: random.Random) -> None:
        machine = self.machine
        first = page_script.parse([*self.lines[: chance.randrange(1, 600)], "D"], "script")
        if chance.random() < 0.5:
            with _Ours():
                machine.start(first).step()
            self.places.damage(chance)
        else:
            self.places.damage(chance)
            came = _Came(machine.ram, self.dump.image.path)
            dump = Dump(came, self.dump.info, self.dump._layout, self.dump.symbols, machine.ram)  # type: ignore[arg-type]
            machine = Machine(dump)
            _several([lambda: machine.start(first).step()])
        order = self.lines[:600]
        _several([lambda: machine.start(page_script.parse([*order, "D", *_MANY, "D"], "script")).step()])
        _several(list(_rarer(machine, chance)))


def _known(symbols: Path) -> dict[str, Path]:
    """What the kernel of our own is opened with: its symbols, and the layout of the recordings that are known here."""
    if not symbols.exists():
        return {}
    with tempfile.NamedTemporaryFile("w", suffix=".json", delete=False) as file:
        file.write(linux_4_0.layout(linux_4_0.NUMA).to_json())
    atexit.register(os.unlink, file.name)
    return {"layout": Path(file.name), "symbols": symbols}


class _Came:
    """An image that was damaged when it came: what ``attach`` wants of one."""

    def __init__(self, ram: Ram, path: str) -> None:
        self.ram, self.path, self.size, self.ranges = ram, path, ram.size, ram.ranges

    def copy_into(self, buffer: memoryview) -> None:
        for start, end in self.ranges:
            buffer[start:end] = self.ram.as_u8[start:end]


def _rarer(machine: Machine, chance: random.Random) -> Iterator[Callable[[], object]]:
    """Things to do once, in any order."""
    end = machine.dump.max_pfn
    for _ in range(chance.randrange(6, 30)):
        pfn, count = chance.randrange(end), 1 + chance.randrange(2048)
        gfp, order = chance.choice(soak.MASKS), chance.randrange(11)
        yield chance.choice(
            (
                machine.drain_all_pages,
                machine.drain_local_pages,
                lambda gfp=gfp, order=order: machine.alloc_pages(gfp | soak.NOWARN, order),
                lambda gfp=gfp, order=order: machine.alloc_pages(gfp, order, nodemask=1),
                lambda pfn=pfn: machine.free_block(machine.pfn_to_page(pfn), 0),
                lambda pfn=pfn, order=order: machine.free_block(machine.pfn_to_page(pfn & -1 << order), order),
                lambda pfn=pfn: machine.put_page(machine.pfn_to_page(pfn)),
                lambda pfn=pfn, order=order: machine.split_page(machine.pfn_to_page(pfn), order),
                lambda pfn=pfn, order=order: machine.judge_free(machine.dump.page_offset + (pfn << 12), order),
                lambda pfn=pfn, count=count: machine.alloc_contig_range(pfn, min(pfn + count, end)),
                lambda pfn=pfn, count=count: machine.free_contig_range(pfn, min(count, end - pfn)),
                lambda pfn=pfn: machine.offline_memory(pfn & -1024, 1024),
                lambda pfn=pfn: machine.online_memory(pfn & -1024, 1024),
                lambda pfn=pfn: machine.is_memory_removable(pfn & -1024, 1024),
                lambda: machine.offline_cpu(machine.mm.nr_cpus - 1),
                lambda count=count, order=order: machine.cma_alloc(count, order),
                lambda order=order: machine.alloc_pages_exact(3000 << order, soak.MASKS[0]),
            )
        )


class Busy:
    """A machine of ours that is in use in every way."""

    def __init__(self, memory: str = "128M") -> None:
        self.world = soak.World(memory)
        chance = random.Random(memory)
        for _ in range(150):
            self.world.step(chance.choice(soak.OPERATIONS), chance.randrange(1 << 20), chance.randrange(1 << 20))
        self.places = places(self.world.m.dump, self.world.m.ram)

    def treat(self, chance: random.Random) -> None:
        world = self.world
        for number in range(chance.randrange(20, 90)):
            if number == 0 or chance.random() < 0.05:
                self.places.damage(chance)
            name, a, b = chance.choice(soak.OPERATIONS), chance.randrange(1 << 20), chance.randrange(1 << 20)

            def step(name: str = name, a: int = a, b: int = b) -> None:
                with world.m._operation(name):
                    world.step(name, a, b)

            _several([step])


class Later:
    """A kernel of today, on which frees are judged."""

    def __init__(self, name: str) -> None:
        with open_dump(DATA / "vmcores" / name / "image.vmcore.xz") as dump:
            self.ram = Ram.from_image(dump.image)
            self.dump = dump
            self.places = places(dump.over(self.ram), self.ram)

    def treat(self, chance: random.Random) -> None:
        self.places.damage(chance)
        dump = self.dump.over(self.ram)
        judge = Judge(dump)
        for _ in range(40):
            pfn, order = chance.randrange(dump.max_pfn), chance.choice((0, 0, 1, 3, 9, 10))
            with _Ours():
                judge.free_pages(dump.page_offset + (pfn << 12), order)
            with _Ours():
                judge.put_page(dump.page_of(pfn))


def _several(what: list[Callable[[], object]]) -> None:
    """Do one thing after the other, whatever becomes of each."""
    for each in what:
        with _Ours():
            each()


class _Ours:
    """Lets the package's own errors pass, in one line each, and those of the books of the soak test."""

    endings: ClassVar[Counter[str]] = Counter()

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        if error is None:
            return False
        if isinstance(error, PhysmemError):
            if len(str(error).splitlines()) != 1:
                raise AssertionError(f"not one line: {str(error)!r}") from error
        elif not isinstance(error, AssertionError) or not _in_books(error):
            return False
        _Ours.endings[type(error).__name__] += 1
        return True


def _in_books(error: BaseException) -> bool:
    """Whether an assertion is the soak test's, which knows what it allocated, and not the package's."""
    return traceback.extract_tb(error.__traceback__)[-1].filename == soak.__file__


_CASES = (
    "oracle/n128_s15_compound",
    "oracle/n256x2_s6n",
    "oracle/u128_s1",
    "oracle/n128_s1",
    "oracle/n128_s11_isolate",
    "oracle/n128cma_s17_contig",
    "oracle404/cma_pressure",
    "oracle404/everything_nodes",
)
PATIENTS: dict[str, Callable[[], Patient]] = {
    **{case: lambda case=case: Recorded(case) for case in _CASES},  # type: ignore[misc]
    **{f"busy {size}": lambda size=size: Busy(size) for size in ("128M", "256M")},  # type: ignore[misc]
    **{f"later {name}": lambda name=name: Later(name) for name in ("deb510-512m", "deb612-256m", "deb618-512m-2node")},  # type: ignore[misc]
}


# -- one run, in a process of its own ------------------------------------------------------------------------------

_HEAD = struct.Struct("<I")


def run_once(patient: Patient, name: str) -> tuple[str, str, float]:
    """Treat a copy of a patient: "" or what is wrong with the way it ended, how it ended, and its CPU seconds."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.close(reader)
        _child(patient, name, writer)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        said = file.read().decode(errors="replace")
    _, status, usage = os.wait4(child, 0)
    seconds = usage.ru_utime + usage.ru_stime
    if os.WIFSIGNALED(status):
        killed = signal.Signals(os.WTERMSIG(status)).name
        what = f"no end in {CPU_SECONDS} seconds" if killed in ("SIGXCPU", "SIGALRM") else f"killed by {killed}"
        return what + (f": {said.strip()}" if said else ""), killed, seconds
    return ("", said, seconds) if os.WEXITSTATUS(status) == 0 else (said.strip() or "it ended", "found", seconds)


def _child(patient: Patient, name: str, writer: int) -> None:
    """What the process of a run does; it does not return."""
    status = 1
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 5))
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + ROOM
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        signal.alarm(20 * CPU_SECONDS)
        # Where it crashed, or is: to be read with the rest.
        faulthandler.enable(writer, all_threads=False)
        for end in (signal.SIGXCPU, signal.SIGALRM):
            faulthandler.register(end, writer, all_threads=False, chain=True)
        _Ours.endings.clear()
        with _Ours():
            patient.treat(random.Random(name))
        said = " ".join(f"{kind}={count}" for kind, count in sorted(_Ours.endings.items()))
        os.write(writer, (said or "ok").encode())
        status = 0
    except BaseException:
        os.write(writer, traceback.format_exc()[-4000:].encode())
    finally:
        os._exit(status)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.damage", description="The allocator on damaged memory.")
    parser.add_argument("--seconds", type=float, default=60, help="CPU seconds of all runs (default 60)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--patient", action="append", choices=tuple(PATIENTS), help="only this one (may be repeated)")
    parser.add_argument("--run", type=int, help="only the run of this number, for one --patient")
    args = parser.parse_args()
    names = args.patient or list(PATIENTS)
    if args.run is not None:
        wrong, ending, seconds = run_once(PATIENTS[names[0]](), f"{args.seed} {names[0]} {args.run}")
        print(wrong or f"{ending} in {seconds:.2f} s")
        return bool(wrong)
    print(f"{engine.current()} engine, seed {args.seed}", flush=True)
    begun, spent, number = time.monotonic(), 0.0, 0
    patients: dict[str, Patient] = {}
    table = {name: Counter[str]() for name in names}
    found = 0
    # Whoever has seen enough is told what there was.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt):
        while spent < args.seconds:
            for name in names:
                if name not in patients:
                    patients[name] = PATIENTS[name]()
                for run in range(number, number + IN_A_ROW):
                    wrong, ending, seconds = run_once(patients[name], f"{args.seed} {name} {run}")
                    spent += seconds
                    table[name]["runs"] += 1
                    table[name]["went on as if nothing were"] += ending == "ok"
                    if wrong:
                        found += 1
                        print(f"FOUND: --seed {args.seed} --patient '{name}' --run {run}: {wrong}", flush=True)
                if spent >= args.seconds:
                    break
                if sys.stderr.isatty():
                    print(f"\r{spent:6.0f} of {args.seconds:.0f} s, {found} found", end="", file=sys.stderr)
            number += IN_A_ROW
    signal.signal(signal.SIGTERM, before)
    for name, counts in table.items():
        print(f"{name:28} {counts['runs']:6} runs, {counts['went on as if nothing were']} without an error")
    total = sum(counts["runs"] for counts in table.values())
    print(f"{total} runs, {spent:.0f} CPU seconds in {time.monotonic() - begun:.0f} s: {found or 'nothing'} found")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
