# SPDX-License-Identifier: GPL-2.0-only
"""Run the allocator on damaged memory, and tell as JSON how each run ended: for test_corruption.py, once an engine.

Usage: ``python damaged.py ORACLE NAMED SEEDS``
"""

from __future__ import annotations

import hashlib
import json
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from kernelmm import Machine
from kernelmm.study import script as page_script
from physmem import engine
from physmem.errors import CorruptionError, PhysmemError

#: Allocations of every mobility and order, after a while of the recorded script: enough to meet any list.
MANY = [f"a {90000 + i} -1 {i % 11} {('20', '28', '80020', '4020', '8220')[i % 5]}" for i in range(60)]
WORD = (1 << 64) - 1


class Patient:
    """A machine to be damaged, and restored."""

    def __init__(self, directory: Path, operations: int) -> None:
        self.machine = Machine.attach(directory / "A.vmcore.xz")
        self.mm, self.dump, self.ram = self.machine.mm, self.machine.dump, self.machine.ram
        lines = (directory / "script.txt").read_text().splitlines()[:operations]
        self.script = page_script.parse([*lines, "D", *MANY, "D"], "script")
        self.healthy = {start: self.ram.read(start, end - start) for start, end in self.ram.ranges}
        fields, _ = self.dump.pages(0, self.dump.max_pfn, ["_mapcount"])
        self.free_heads: list[int] = np.flatnonzero(fields["_mapcount"] == -128).tolist()

    def restore(self) -> None:
        for start, data in self.healthy.items():
            self.ram.write(start, data)
        self.mm.set_cpu(0)

    # -- where things are (physical addresses) -------------------------------

    def page(self, pfn: int, offset: int = 0) -> int:
        return self.dump.virt_to_phys(self.mm.mem_map + 64 * pfn) + offset

    def lru(self, pfn: int) -> int:
        """Kernel address of ``page->lru``."""
        return self.mm.mem_map + 64 * pfn + 32

    def zone(self, index: int = 1, node: int = 0) -> int:
        """Kernel address of a zone."""
        return self.dump.pgdats[node] + index * self.mm.sizeof_zone

    def zone_field(self, name: str, index: int = 1) -> int:
        return self.dump.virt_to_phys(self.zone(index) + self.dump.layout.offsetof("zone", name))

    def free_list(self, order: int, migratetype: int) -> int:
        mm = self.mm
        return self.dump.virt_to_phys(self.zone() + mm.zone_free_area + order * mm.sizeof_free_area + 16 * migratetype)

    def pageset(self, offset: int, index: int = 1) -> int:
        pointer = self.dump.field(self.zone(index), "zone", "pageset")
        return self.dump.virt_to_phys(pointer + self.mm.per_cpu_offset(0)) + offset

    def first_free(self, order: int, migratetype: int) -> int:
        """PFN of the first block of a free list."""
        return (self.ram.u64(self.free_list(order, migratetype)) - 32 - self.mm.mem_map) // 64

    # -- the run -------------------------------------------------------------

    def outcome(self, prepare: Callable[[], None]) -> list[str | int | None]:
        """Damage, run, and tell: class, message, rule, PFN, and a hash of memory."""
        self.restore()
        run = self.machine.start(self.script)
        prepare()
        ending: list[str | int | None] = ["ok", "", "", None]
        try:
            run.step()
        except CorruptionError as error:
            ending = [type(error).__name__, str(error), error.rule, error.pfn]
        except PhysmemError as error:
            ending = [type(error).__name__, str(error), "", None]
        digest = hashlib.sha256()
        for start, end in self.ram.ranges:
            digest.update(self.ram.read(start, end - start))
        return [*ending, digest.hexdigest()]


def named(p: Patient) -> Iterator[tuple[str, Callable[[], None]]]:
    """Damages of one word, chosen to be met."""
    u64, u32 = p.ram.set_u64, p.ram.set_u32
    largest = p.first_free(10, 2)
    # Some other list, of whichever order and mobility.
    other = next(head for order in range(10) for mt in range(3) if (head := p.first_free(order, mt)) in p.free_heads)
    nowhere, user, odd = 0xFFFFC90000000000, 0x7FFF12345678, p.lru(largest) + 4
    for what, value in (
        ("NULL", 0),
        ("user space", user),
        ("unmapped", nowhere),
        ("odd", odd),
        ("all ones", WORD),
        # There is memory, but not for the struct that should be there.
        ("the last word", p.mm.page_offset + p.mm.size - 8),
    ):
        yield f"free list head leads to {what}", lambda value=value: u64(p.free_list(10, 2), value)
        yield f"free page's next leads to {what}", lambda value=value: u64(p.page(largest, 32), value)
        yield f"free page's prev leads to {what}", lambda value=value: u64(p.page(largest, 40), value)
        yield f"per-cpu list leads to {what}", lambda value=value: u64(p.pageset(16), value)
        yield (
            f"zonelist leads to {what}",
            lambda value=value: u64(
                p.dump.virt_to_phys(p.dump.pgdats[0] + p.mm.pgdat_node_zonelists + p.mm.zonelist_zonerefs), value
            ),
        )
        yield f"zone's pageset leads to {what}", lambda value=value: u64(p.zone_field("pageset"), value)
        yield f"zone's pgdat leads to {what}", lambda value=value: u64(p.zone_field("zone_pgdat"), value)
        yield f"node_data leads to {what}", lambda value=value: u64(p.mm.var_node_data, value)
        yield f"mem_section leads to {what}", lambda value=value: u64(p.mm.var_mem_section, value)
        yield (
            f"pageblock flags lead to {what}",
            lambda value=value: u64(
                p.dump.virt_to_phys(p.ram.u64(p.mm.var_mem_section) + p.mm.section_pageblock_flags), value
            ),
        )
    yield "free list head leads to a page in use", lambda: u64(p.free_list(10, 2), p.lru(20000))
    yield "free list head leads to another list's page", lambda: u64(p.free_list(10, 2), p.lru(other))
    yield "free list leads to itself", lambda: u64(p.page(largest, 32), p.lru(largest))
    yield "order 11", lambda: u64(p.page(largest, 48), 11)
    yield "order 2^40", lambda: u64(p.page(largest, 48), 1 << 40)
    yield (
        "pageblocks of migratetype 7",
        lambda: p.ram.write(
            p.dump.virt_to_phys(p.dump.field(p.ram.u64(p.mm.var_mem_section), "mem_section", "pageblock_flags")),
            b"\xff" * 32,
        ),
    )
    for count in (0, -1, 1 << 30, -(1 << 31)):
        yield f"per-cpu count {count}", lambda count=count: u32(p.pageset(0), count)
        yield f"per-cpu high mark {count}", lambda count=count: u32(p.pageset(4), count)
        yield f"per-cpu batch {count}", lambda count=count: u32(p.pageset(8), count)
    yield (
        "zonelist without an end",
        lambda: p.ram.write(
            p.dump.virt_to_phys(p.dump.pgdats[0] + p.mm.pgdat_node_zonelists + p.mm.zonelist_zonerefs),
            (p.zone(0).to_bytes(8, "little") + (99).to_bytes(8, "little")) * p.mm.max_zonerefs,
        ),
    )
    yield (
        "zoneref of a zone before the first",
        lambda: u32(p.dump.virt_to_phys(p.dump.pgdats[0] + p.mm.pgdat_node_zonelists + p.mm.zonelist_zonerefs) + 8, -1),
    )
    yield "zone on node -1", lambda: u32(p.zone_field("node"), -1)
    yield "zone on node 2^30", lambda: u32(p.zone_field("node"), 1 << 30)
    yield (
        "watermarks of 2^63",
        lambda: [u64(p.zone_field("watermark", i) + 8 * w, 1 << 63) for i in (0, 1) for w in (0, 1, 2)],
    )
    yield "spans all memory there could be", lambda: u64(p.zone_field("spanned_pages"), WORD)


def at_random(p: Patient, seed: int) -> Callable[[], None]:
    """A few words of the page array or of a zone, changed in some way that is likely to matter."""
    choose = random.Random(seed)
    places = [p.page(pfn, offset) for pfn in choose.sample(p.free_heads, 40) for offset in range(0, 64, 8)]
    node = p.dump.virt_to_phys(p.dump.pgdats[0])
    places += choose.sample(range(node, node + 4 * p.mm.sizeof_zone, 8), 200)
    places += [p.pageset(offset) for offset in range(0, 64, 8) for _ in range(4)]
    changes = []
    for at in choose.sample(places, choose.choice([1, 1, 2, 5])):
        old = p.ram.u64(at)
        values = (0, 1, 11, WORD, 1 << 63, choose.getrandbits(64), old ^ 1 << choose.randrange(64), old + 64)
        pointers = (
            p.lru(choose.choice(p.free_heads)),
            p.lru(choose.randrange(40000)),
            p.zone() + 8 * choose.randrange(200),
            p.mm.page_offset + p.mm.size - 8 * choose.randrange(1, 200),
        )
        changes.append((at, choose.choice(values + pointers)))
    return lambda: [p.ram.set_u64(at, value) for at, value in changes] and None


def main() -> None:
    oracle, seeds = Path(sys.argv[1]), int(sys.argv[2])
    patient = Patient(oracle / "n128_s1", 600)
    told = {name: patient.outcome(damage) for name, damage in named(patient)}
    for case in ("n128_s15_compound", "n256x2_s6n", "u128_s1"):
        patient = Patient(oracle / case, 600)
        for seed in range(seeds):
            patient.restore()
            told[f"{case} {seed}"] = patient.outcome(at_random(patient, seed))
    print(json.dumps([engine.current(), told]))


main()
