# SPDX-License-Identifier: GPL-2.0-only
"""A machine under pressure: a real Linux 4.0's memory, and what the tests ask of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from kernelmm import gfp
from kernelmm.attach import attach
from kernelmm.core import entry, free, mmzone, pcp
from kernelmm.core.mm import Mm
from kernelmm.pressure import lru, stat
from kernelmm.pressure.workload import Workload
from physmem import abi, address
from physmem.dump import Dump, open_dump

NOWARN = vars(gfp)["__GFP_NOWARN"]


class Console:
    """Stands for the reporter: keeps what the kernel prints."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.failures: list[tuple[int, int]] = []
        self.on_failure: Callable[[], None] = lambda: None

    def printk(self, line: str) -> None:
        self.lines.append(line)

    def warn_order(self, mm: Mm, gfp_mask: int) -> None:
        self.lines.append("WARNING")

    def dump_stack(self, mm: Mm) -> None:
        self.lines.append(f"CPU: {mm.cpu}")

    def oom_ratelimit(self, mm: Mm) -> bool:
        return True

    def show_mem(self, mask: int) -> None:
        self.lines.append("Mem-Info:")

    def warn_alloc_failed(self, mm: Mm, gfp_mask: int, order: int) -> None:
        self.failures.append((gfp_mask, order))
        self.on_failure()

    def bad_page(self, mm: Mm, page: int, reason: str, bad_flags: int) -> None:
        raise AssertionError(f"bad page: {reason}")


class Lab:
    """One machine, and shorthands for looking at it."""

    def __init__(self, dump: Dump) -> None:
        self.dump = dump
        self.mm = attach(dump)
        self.console = Console()
        self.mm.reporter = self.console
        self.work = Workload(self.mm)
        self.exact_counters()

    def exact_counters(self) -> None:
        """Let every change of a statistic reach its zone at once, so that rules about counters can be exact."""
        stat.refresh_cpu_vm_stats(self.mm)
        for z in stat.populated_zones(self.mm):
            for cpu in range(self.mm.nr_cpus):
                self.mm.as_s8[mmzone.pageset_of(self.mm, z, cpu) + self.mm.pageset_stat_threshold] = 0

    @property
    def zones(self) -> list[int]:
        """Physical addresses of the populated zones."""
        return list(stat.populated_zones(self.mm))

    def alloc(self, gfp_mask: int, order: int = 0) -> int:
        return entry.alloc_pages(self.mm, gfp_mask, order)

    def free(self, page: int, order: int = 0) -> None:
        vars(free)["__free_pages"](self.mm, page, order)

    def exhaust(self, gfp_mask: int = gfp.GFP_NOWAIT) -> list[tuple[int, int]]:
        """Take all that a caller gets who may not wait (three quarters of the min mark remain); the blocks."""
        taken = []
        for order in range(abi.MAX_ORDER - 1, -1, -1):
            while page := self.alloc(gfp_mask | NOWARN, order):
                taken.append((page, order))
        self.console.failures.clear()
        return taken

    def event(self, name: str) -> int:
        """A VM event's count; of a per-zone event the sum."""
        kinds = ("DMA", "DMA32", "NORMAL", "MOVABLE")
        item = self.dump.layout.enum("vm_event_item")
        names = [name] if name in item else [f"{name}_{kind}" for kind in kinds]
        return sum(self.mm.as_u64[(self.mm.vm_events >> 3) + item[each]] for each in names)

    def stat(self, name: str, z: int | None = None) -> int:
        """A zone statistic, of one zone or of all."""
        item = self.dump.layout.enumerator(name)
        return sum(stat.snapshot(self.mm, each, item) for each in ([z] if z else self.zones))

    def free_pages(self) -> int:
        """Free pages of all zones, per-cpu lists included."""
        pcp_pages = sum(
            self.mm.as_s32[(mmzone.pageset_of(self.mm, z, cpu) + abi.PCP_COUNT) >> 2]
            for z in self.zones
            for cpu in range(self.mm.nr_cpus)
        )
        return self.stat("NR_FREE_PAGES") + pcp_pages

    def watermark(self, z: int, which: int) -> int:
        return self.mm.as_u64[(z + self.mm.zone_watermark + 8 * which) >> 3]

    def zone_of(self, page: int) -> int:
        return stat.zone_of(self.mm, page)

    def list(self, page: int, which: int) -> list[int]:
        """The pages on an LRU list of the page's zone, from head to tail."""
        return list(lru.lru_list(self.mm, lru.zone_of(self.mm, page), which))

    def on_lists(self) -> int:
        """Pages on LRU lists, counted by walking them."""
        total = 0
        for nid in range(self.mm.nr_node_ids):
            pgdat = mmzone.node_data(self.mm, nid)
            for index in range(self.mm.max_nr_zones):
                zone = pgdat + self.mm.pgdat_node_zones + index * self.mm.sizeof_zone
                if mmzone.populated(self.mm, address.off(self.mm, zone)):
                    total += sum(len(list(lru.lru_list(self.mm, zone, which))) for which in range(5))
        return total

    def drain(self) -> None:
        pcp.drain_all_pages(self.mm, 0)


@pytest.fixture
def lab(oracle: Callable[[str], object]) -> Iterator[Lab]:
    """128 MiB, one node, one CPU, hardly anything on its LRU lists."""
    case = oracle("n128_s1")
    dump = open_dump(case.a, symbols=case.file("symbols.json"))  # type: ignore[attr-defined]
    yield Lab(dump)
    dump.close()


@pytest.fixture
def two_nodes(oracle: Callable[[str], object]) -> Iterator[Lab]:
    """Two nodes of 128 MiB."""
    case = oracle("n256x2_s6n")
    dump = open_dump(case.a, symbols=case.file("symbols.json"))  # type: ignore[attr-defined]
    yield Lab(dump)
    dump.close()
