#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Everything at once on one small machine, for as long as one likes: ``python -m tools.soak --steps 100000 --seed 1``.

A :class:`World` is a machine of two nodes, two CPUs and a CMA area, with somebody to use its memory.  Each step
does one of its operations, with two numbers to choose by; after each, no page is lost and every list and counter
is right.  The tests do the same with the numbers that hypothesis thinks of.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import sys
import time
from collections import Counter

from kernelmm import Machine, gfp
from kernelmm.bringup.kernel import Zone
from kernelmm.core import fault, mmzone, pcp
from kernelmm.pressure import cpusets, isolation, owners, stat
from kernelmm.pressure.workload import Workload
from physmem import abi, address
from physmem.errors import BudgetError, PanicError, UsageError
from physmem.inspect.check import check

__all__ = ["OPERATIONS", "World"]

NOWARN = gfp.__GFP_NOWARN
MASKS = (
    gfp.GFP_KERNEL,
    gfp.GFP_ATOMIC,
    gfp.GFP_NOWAIT,
    gfp.GFP_NOFS,
    gfp.GFP_HIGHUSER_MOVABLE,
    gfp.GFP_KERNEL | gfp.__GFP_NORETRY | gfp.__GFP_COMP,
    gfp.GFP_KERNEL | gfp.__GFP_RECLAIMABLE,
    gfp.GFP_KERNEL | gfp.__GFP_DMA | gfp.__GFP_NORETRY,
    gfp.GFP_ATOMIC | gfp.__GFP_MEMALLOC,
)
#: What may end an operation: no memory, somebody killed, a wait without end, nobody to kill.
EXPECTED = (UsageError, BudgetError, PanicError)
SECTION = 32768


class World:
    """A machine and its users."""

    def __init__(self, memory: str = "128M") -> None:
        self.m = Machine.boot(memory, nodes=2, cpus=2, cma=8 << 20)
        self.mm = self.m.mm
        self.mm.step_budget = 64
        self.held: list[tuple[int, int]] = []
        self.ranges: list[tuple[int, int]] = []
        self.cma: list[tuple[int, int]] = []
        self.isolated: list[int] = []
        self.offline: list[int] = []
        self.ended: Counter[str] = Counter()
        pcp.drain_all_pages(self.mm, 0)
        self.total = self.free()
        # What a zone has that is neither free nor in the books: what boot has taken from the allocator.
        self.boot = {zone.at: self.managed(zone.at) - self.free_of(zone.at) for zone in self.zones()}
        self.work = Workload(self.mm)
        cpusets.cpuset_inc(self.mm, 0b11)

    # -- operations ------------------------------------------------------------------

    def op_alloc(self, a: int, b: int) -> None:
        order = (0, 0, 0, 1, 2, 3, 5, 9, 10)[b % 9]
        for _ in range(1 + a % 40 if order < 5 else 1):
            page = self.m.alloc_pages(MASKS[a % len(MASKS)] | NOWARN, order, nid=(None, 0, 1)[b % 3])
            if page is None:
                break
            self.held.append((page, order))

    def op_free(self, a: int, b: int) -> None:
        for _ in range(min(1 + b % 60, len(self.held))):
            page, order = self.held.pop(a % len(self.held))
            self.m.free_block(page, order)

    def op_exhaust(self, a: int, b: int) -> None:
        for order in (10, 8, 4):
            while page := self.m.alloc_pages(gfp.GFP_NOWAIT | NOWARN, order):
                self.held.append((page, order))

    def op_read(self, a: int, b: int) -> None:
        self.file(a).read(b % 3000, 1 + a % 300)

    def op_write(self, a: int, b: int) -> None:
        self.file(a).write(b % 3000, 1 + a % 100)

    def op_truncate(self, a: int, b: int) -> None:
        self.file(a).truncate()

    def op_mmap(self, a: int, b: int) -> None:
        task = self.task(a)
        free = [vpn for vpn in range(2000) if not task.pte(vpn)][: 1 + b % 100]
        for vpn in free:
            task.mmap_anon(1, vpn, locked=b % 7 == 0)

    def op_munmap(self, a: int, b: int) -> None:
        self.task(a).munmap(b % 2000, 1 + a % 200)

    def op_touch(self, a: int, b: int) -> None:
        self.task(a).touch(range(b % 2000, b % 2000 + 100), write=bool(a % 2))

    def op_exit(self, a: int, b: int) -> None:
        if b % 3 == 0:
            self.task(a).exit()

    def op_kswapd(self, a: int, b: int) -> None:
        self.work.run_kswapd(a % 2)

    def op_compact(self, a: int, b: int) -> None:
        self.work.compact(a % 2)

    def op_sync(self, a: int, b: int) -> None:
        self.work.set_congested(bool(a % 3 == 0))
        self.work.sync()

    def op_isolate(self, a: int, b: int) -> None:
        pfn = a % (self.pages // 1024) * 1024
        self.m.drain_all_pages()  # see op_contig
        free = pfn not in self.isolated and not any(low < pfn + 1024 and pfn < high for low, high in self.ranges)
        free = free and pfn not in self.offline
        if free and isolation.start_isolate_page_range(self.mm, pfn, pfn + 1024, abi.MIGRATE_MOVABLE) == 0:
            self.isolated.append(pfn)

    def op_undo(self, a: int, b: int) -> None:
        if self.isolated:
            pfn = self.isolated.pop(a % len(self.isolated))
            isolation.undo_isolate_page_range(self.mm, pfn, pfn + 1024, abi.MIGRATE_MOVABLE)

    def op_contig(self, a: int, b: int) -> None:
        # A page that comes back while only half of a pair of pageblocks is isolated joins both halves: a flaw of 4.0,
        # which these tests keep out of the way of.
        self.m.drain_all_pages()
        start = 4096 + a % (self.pages - 8192)
        end = start + 1 + b % 700
        outer = range(start // 1024 * 1024, end, 1024)
        if not any(pfn in (*self.isolated, *self.offline) for pfn in outer) and not self.m.alloc_contig_range(
            start, end
        ):
            self.ranges.append((start, end))

    def op_contig_free(self, a: int, b: int) -> None:
        if self.ranges:
            start, end = self.ranges.pop(a % len(self.ranges))
            self.m.free_contig_range(start, end - start)

    def op_cma(self, a: int, b: int) -> None:
        count = 1 + a % 600
        self.m.drain_all_pages()  # see op_contig
        if not self.isolated and (page := self.m.cma_alloc(count, b % 6)):
            self.cma.append((page, count))

    def op_cma_release(self, a: int, b: int) -> None:
        if self.cma:
            assert self.m.cma_release(*self.cma.pop(a % len(self.cma)))

    def op_offline(self, a: int, b: int) -> None:
        pfn = a % (self.pages // 1024) * 1024
        self.m.drain_all_pages()  # see op_contig
        taken = [*self.isolated, *self.offline]
        cma = self.mm.migrate_cma in (mmzone.pageblock_migratetype(self.mm, block) for block in (pfn, pfn + 512))
        if pfn in taken or cma or any(low < pfn + 1024 and pfn < high for low, high in self.ranges):
            return
        before = self.m.kernel.var("totalram_pages")
        if self.m.offline_memory(pfn, 1024) == 0:
            self.offline.append(pfn)
            self.total += self.m.kernel.var("totalram_pages") - before

    def op_online(self, a: int, b: int) -> None:
        if self.offline:
            before = self.m.kernel.var("totalram_pages")
            assert self.m.online_memory(self.offline.pop(a % len(self.offline)), 1024) == 0
            self.total += self.m.kernel.var("totalram_pages") - before

    def op_faults(self, a: int, b: int) -> None:
        self.faults(interval=1 + a % 20, times=b % 10)

    def op_cpuset(self, a: int, b: int) -> None:
        cpusets.cpuset_change_task_nodemask(self.mm, 1 + a % 3)

    def op_drain(self, a: int, b: int) -> None:
        self.m.drain_all_pages() if a % 2 else self.m.drain_local_pages()

    def op_cpu(self, a: int, b: int) -> None:
        if mmzone.cpu_online(self.mm, a % 2):
            self.mm.set_cpu(a % 2)

    def op_cpu_hotplug(self, a: int, b: int) -> None:
        if mmzone.cpu_online(self.mm, 1):
            self.m.offline_cpu(1)
        else:
            self.m.online_cpu(1)

    # -- whoever there is ----------------------------------------------------------------

    @property
    def pages(self) -> int:
        """PFNs of the machine."""
        return self.m.dump.max_pfn

    def file(self, a: int):  # type: ignore[no-untyped-def]
        """One of up to three files."""
        files = self.work.files
        return files[a % len(files)] if len(files) > a % 3 else self.work.open(migratepage=bool(a % 2))

    def task(self, a: int):  # type: ignore[no-untyped-def]
        """One of up to three tasks."""
        tasks = self.work.tasks
        return tasks[a % len(tasks)] if len(tasks) > a % 3 else self.work.fork(f"task{a % 3}")

    def faults(self, interval: int, times: int) -> None:
        """Let every ``interval``-th allocation fail, ``times`` times."""
        attr, ram = self.mm.var_fail_page_alloc, self.mm.ram
        for offset, size, value in (
            (fault.PROBABILITY, 8, 100 if times else 0),
            (fault.INTERVAL, 8, interval),
            (fault.TIMES, 4, times),
            (fault.SPACE, 4, 0),
            (fault.COUNT, 8, 0),
            (fault.IGNORE_GFP_WAIT, 4, 0),
            (fault.IGNORE_GFP_HIGHMEM, 4, 0),
            (fault.MIN_ORDER, 4, 0),
        ):
            ram.write(attr + offset, value.to_bytes(size, "little"))

    def step(self, name: str, a: int, b: int) -> None:
        """One operation; what ends it early is counted."""
        try:
            getattr(self, f"op_{name}")(a, b)
        except EXPECTED as error:
            self.ended[type(error).__name__] += 1

    # -- what is always true -----------------------------------------------------------------

    def zones(self) -> list[Zone]:
        """The populated zones."""
        return list(self.m.kernel.populated_zones())

    def free(self) -> int:
        """Pages on free lists and per-cpu lists."""
        return sum(self.free_of(zone.at) for zone in self.zones())

    def free_of(self, zone: int) -> int:
        """The same of one zone."""
        z = address.off(self.mm, zone)
        free = sum(mmzone.nr_free(self.mm, z, order) << order for order in range(abi.MAX_ORDER))
        return free + sum(self.pcp(z, cpu) for cpu in range(self.mm.nr_cpus))

    def managed(self, zone: int) -> int:
        """Pages of a zone that the allocator has: those present, without those that are reserved."""
        return self.m.kernel.get(zone, "zone.managed_pages")

    def pcp(self, z: int, cpu: int) -> int:
        """Pages on a CPU's lists of a zone."""
        return self.mm.as_s32[(mmzone.pageset_of(self.mm, z, cpu) + abi.PCP_COUNT) >> 2]

    def owned(self) -> int:
        """Pages that somebody has, by the books of those who have them."""
        mm = self.mm
        total = 1 + sum(1 << order for _, order in self.held) + sum(high - low for low, high in self.ranges)
        total += sum(count for _, count in self.cma)
        for owner in (*owners.files(mm), *owners.tasks(mm)):
            leaves = (mm.as_u64[owners.leaf(mm, owner, i * owners.LEAF_WORDS) >> 3] for i in range(owners.NR_LEAVES))
            total += 1 + sum(1 for leaf in leaves if leaf)
        total += sum(file.nrpages for file in self.work.files)
        return total + sum(mm.as_u64[(address.off(mm, task) + owners.TASK_ANON_RSS) >> 3] for task in owners.tasks(mm))

    def owned_by_zone(self) -> Counter[int]:
        """The same page by page: in which zones they are."""
        mm = self.mm
        pages: list[int] = []
        for block, order in self.held:
            pages += range(block, block + (abi.SIZEOF_PAGE << order), abi.SIZEOF_PAGE)
        for low, high in self.ranges:
            pages += (self.m.pfn_to_page(pfn) for pfn in range(low, high))
        for first, count in self.cma:
            pages += range(first, first + abi.SIZEOF_PAGE * count, abi.SIZEOF_PAGE)
        vas = [self.work.root]
        for owner in (*owners.files(mm), *owners.tasks(mm)):
            leaves = (mm.as_u64[owners.leaf(mm, owner, i * owners.LEAF_WORDS) >> 3] for i in range(owners.NR_LEAVES))
            vas += [owner, *filter(None, leaves)]
        pages += (address.virt_to_page(mm, va) for va in vas)
        for file in self.work.files:
            pages += file.pages().values()
        for task in owners.tasks(mm):
            for _, pte in owners.words(mm, task):
                entry = mm.as_u64[pte >> 3]
                page = address.pfn_to_page(mm, (entry & owners.PTE_PFN_MASK) >> owners.PTE_PFN_SHIFT)
                if owners.page_anon(mm, page):
                    pages.append(page)
        return Counter(mmzone.page_zone(mm, address.page_off(mm, page)) for page in pages)

    def verify(self, *, whole: bool = True) -> None:
        """Nothing is lost: free, per-cpu and owned pages are all there were; and ``physmem check`` is clean."""
        free, owned = self.free(), self.owned()
        assert free + owned == self.total, f"{free} free + {owned} owned, there were {self.total}"
        for zone in self.zones():
            z = address.off(self.mm, zone.at)
            assert stat.snapshot(self.mm, z, self.mm.cold.NR_ISOLATED_ANON) == 0
        if whole:
            mine = self.owned_by_zone()
            for zone in self.zones():
                free, managed = self.free_of(zone.at), self.managed(zone.at)
                assert free + mine[zone.at] + self.boot[zone.at] == managed, f"{zone}: {free} {mine[zone.at]} {managed}"
            report = check(self.m.dump)
            assert report.findings == [], report.findings[:5]

    def finish(self, *, whole: bool = True) -> None:
        """Everybody gives everything back."""
        self.faults(1, 0)
        while self.isolated:
            self.op_undo(0, 0)
        while self.offline:
            self.op_online(0, 0)
        for task in self.work.tasks:
            task.exit()
        for file in self.work.files:
            file.truncate()
        self.op_free(0, 0)
        while self.held:
            self.op_free(0, 59)
        while self.ranges:
            self.op_contig_free(0, 0)
        while self.cma:
            self.op_cma_release(0, 0)
        pcp.drain_all_pages(self.mm, 0)
        self.verify(whole=whole)

    def digest(self) -> str:
        """SHA-256 of all memory."""
        return hashlib.sha256(b"".join(self.m.ram.read(a, b - a) for a, b in self.m.ram.ranges)).hexdigest()


def scenario(world: World) -> None:
    """Some of everything that allocates."""
    world.op_alloc(3, 0)
    world.op_read(40, 7)
    world.op_mmap(0, 20)
    world.op_write(20, 100)
    world.op_contig(9000, 300)
    world.op_cma(100, 2)
    world.op_mmap(1, 5)
    world.op_compact(0, 0)


def fail_nth(n: int, *, whole: bool, hashed: bool = False) -> tuple[bool, bool, str]:
    """Let the n-th allocation of :func:`scenario` fail; nothing is lost.

    :returns: whether there was such an allocation, whether it ended the scenario early, a hash of memory at the end
    """
    world, ended = World(), False
    world.faults(interval=n, times=1)
    try:
        scenario(world)
    except EXPECTED:
        ended = True
    fired = world.mm.ram.u32(world.mm.var_fail_page_alloc + fault.TIMES) == 0
    world.verify(whole=whole)
    digest = world.digest() if hashed else ""
    world.finish(whole=whole)
    return fired, ended, digest


def cpu_dead() -> str:
    """A CPU with pages, events and differentials of its own goes; a hash of memory afterwards."""
    world = World()
    world.mm.set_cpu(1)
    for a in range(1, 9):
        world.op_alloc(a, a)
        world.op_read(a, 100 * a)
        world.op_free(a, 3)
    world.m.offline_cpu(1)
    world.verify()
    return world.digest()


OPERATIONS = tuple(name.removeprefix("op_") for name in vars(World) if name.startswith("op_"))


def main() -> int:
    """Run, and tell how it went."""
    parser = argparse.ArgumentParser(description="Everything at once on one small machine.")
    parser.add_argument("--steps", type=int, default=10000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=0, help="stop after so long")
    parser.add_argument("--check-every", type=int, default=20, help="steps between two full checks")
    parser.add_argument("--digest", action="store_true", help="print a hash of all memory at the end")
    parser.add_argument("--fail-nth", type=int, metavar="N", help="instead: a scenario whose n-th allocation fails")
    parser.add_argument("--fail-each", type=int, metavar="STEP", help="the same for every STEP-th of its allocations")
    parser.add_argument("--cpu-dead", action="store_true", help="instead: a CPU goes offline")
    args = parser.parse_args()
    if args.fail_nth or args.cpu_dead:
        print(*fail_nth(args.fail_nth, whole=True, hashed=True) if args.fail_nth else [cpu_dead()])
        return 0
    if args.fail_each:
        fired, n = True, 1
        while fired:
            fired, ended, digest = fail_nth(n, whole=False, hashed=True)
            print(n, ended, digest)
            n += args.fail_each
        return 0
    chance, world, begun = random.Random(args.seed), World(), time.monotonic()
    done: Counter[str] = Counter()
    for i in range(args.steps):
        name, a, b = chance.choice(OPERATIONS), chance.randrange(1 << 20), chance.randrange(1 << 20)
        try:
            world.step(name, a, b)
            world.verify(whole=i % args.check_every == 0)
        except Exception:
            print(f"seed {args.seed}, step {i}: {name} {a} {b}", file=sys.stderr)
            raise
        done[name] += 1
        if args.seconds and time.monotonic() - begun > args.seconds:
            break
    world.finish()
    print(f"{sum(done.values())} steps, seed {args.seed}: nothing lost; ended early: {dict(world.ended)}")
    if args.digest:
        print(world.digest())
    return 0


if __name__ == "__main__":
    sys.exit(main())
