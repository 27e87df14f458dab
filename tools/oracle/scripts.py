# SPDX-License-Identifier: GPL-2.0-only
"""Page scripts by the thousand: each is made from a seed and a few words of what it is to stress."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from kernelmm import gfp
from physmem import abi
from tools.oracle.guest import Guest

__all__ = ["RECIPES", "Recipe", "make"]

_BITS = vars(gfp)
DMA, DMA32, HIGHMEM, MOVABLE = (_BITS[f"__GFP_{name}"] for name in ("DMA", "DMA32", "HIGHMEM", "MOVABLE"))
HIGH, COLD, NOWARN, COMP, ZERO = (_BITS[f"__GFP_{name}"] for name in ("HIGH", "COLD", "NOWARN", "COMP", "ZERO"))
MEMALLOC, NOMEMALLOC, NO_KSWAPD = (_BITS[f"__GFP_{name}"] for name in ("MEMALLOC", "NOMEMALLOC", "NO_KSWAPD"))
THISNODE, RECLAIMABLE, NORETRY = (_BITS[f"__GFP_{name}"] for name in ("THISNODE", "RECLAIMABLE", "NORETRY"))
REPEAT, OTHER_NODE, WRITE = (_BITS[f"__GFP_{name}"] for name in ("REPEAT", "OTHER_NODE", "WRITE"))
HARDWALL, NOTRACK = (_BITS[f"__GFP_{name}"] for name in ("HARDWALL", "NOTRACK"))
WAIT, IO, FS = (_BITS[f"__GFP_{name}"] for name in ("WAIT", "IO", "FS"))
#: What may wait, and gives up in the end.
PATIENT = gfp.GFP_KERNEL | NO_KSWAPD | NORETRY

MOBILITIES = (0, RECLAIMABLE, MOVABLE)
ZONES = (0, 0, 0, HIGHMEM, DMA, DMA32)
ALL = (
    HIGH,
    COLD,
    COMP,
    ZERO,
    MEMALLOC,
    NOMEMALLOC,
    NO_KSWAPD,
    THISNODE,
    THISNODE | NORETRY,
    NORETRY,
    REPEAT,
    OTHER_NODE,
    WRITE,
    HARDWALL,
    NOTRACK,
)


@dataclass
class Block:
    """Pages that the script has, as far as it knows: an allocation may fail."""

    id: int
    order: int
    compound: bool = False
    extra: int = 0


@dataclass
class Writer:
    """A script under way."""

    random: random.Random
    lines: list[str] = field(default_factory=list)
    live: list[Block] = field(default_factory=list)
    next_id: int = 0

    def alloc(self, flags: int, order: int, nid: int = -1) -> Block:
        block = Block(self.next_id, order, bool(flags & COMP) and order > 0)
        self.next_id += 1
        self.lines.append(f"a {block.id} {nid} {order} {flags | NOWARN:x}")
        if order < abi.MAX_ORDER:
            self.live.append(block)
        return block

    def pop(self, which: str = "random") -> Block:
        if which == "random":
            index = self.random.randrange(len(self.live))
            self.live[index], self.live[-1] = self.live[-1], self.live[index]
            return self.live.pop()
        return self.live.pop(0 if which == "first" else -1)

    def free(self, block: Block, cold: float = 0.0) -> None:
        """Give a block back in one of the ways that fit it."""
        for _ in range(block.extra):
            self.lines.append(f"p {block.id}")
        chance = self.random.random()
        if block.order == 0 and chance < cold:
            self.lines.append(f"c {block.id}")
        elif (block.compound or block.order == 0) and chance < cold + 0.1:
            self.lines.append(f"p {block.id}")
        elif chance < cold + 0.3:
            self.lines.append(f"F {block.id} {block.order}")
        else:
            self.lines.append(f"f {block.id} {block.order}")

    def split(self, block: Block) -> None:
        """split_page: from now on the pages are blocks of their own."""
        self.lines.append(f"S {block.id} {block.order} {self.next_id}")
        self.live += [Block(self.next_id + i, 0) for i in range(1 << block.order)]
        self.next_id += 1 << block.order

    def free_all(self, which: str = "random", cold: float = 0.0) -> None:
        while self.live:
            self.free(self.pop(which), cold)

    def drain(self) -> None:
        self.lines.append(self.random.choice("dD"))


_PLAIN = Guest()


@dataclass(frozen=True)
class Recipe:
    """What is run, and where.

    :ivar count: about as many operations, in units of its own
    :ivar write: fills a script
    """

    count: int
    write: Callable[[Writer, int], None]
    guest: Guest = _PLAIN


def make(recipe: Recipe, seed: int, count: int | None = None) -> str:
    """The text of a script, of the recipe's length or another."""
    writer = Writer(random.Random(seed))
    recipe.write(writer, recipe.count if count is None else count)
    return "\n".join(["W", *writer.lines]) + "\n"


def _orders(w: Writer, highest: int) -> int:
    """Small ones mostly."""
    return min(int(w.random.expovariate(0.8)), highest)


def mix(
    *,
    keep: int = 600,
    zones: Sequence[int] = ZONES,
    more: Sequence[int] = (0, 0, 0, HIGH, COMP, ZERO, COLD),
    highest: int = 4,
    nodes: int = 1,
    cpus: int = 1,
    cold: float = 0.2,
    wait: bool = False,
) -> Callable[[Writer, int], None]:
    """Everything at random.

    :param keep: about as many blocks are held
    :param cpus: how many take turns
    :param wait: __GFP_WAIT too, which needs interrupts
    """

    def write(w: Writer, count: int) -> None:
        rng = w.random
        if wait:
            w.lines.append("I")
        for _ in range(count):
            chance = rng.random()
            if chance < 0.02:
                w.drain()
            elif cpus > 1 and chance < 0.06:
                w.lines.append(f"T {rng.randrange(cpus)}")
            elif w.live and chance < 0.10:
                block = rng.choice(w.live)
                if block.compound or block.order == 0:
                    block.extra += 1
                    w.lines.append(f"g {block.id}")
            elif w.live and chance < 0.14:
                block = w.pop()
                if block.order and not block.compound and not block.extra:
                    w.split(block)
                else:
                    w.live.append(block)
            elif w.live and rng.random() < len(w.live) / (2 * keep):
                w.free(w.pop(rng.choice(("random", "first", "last"))), cold)
            else:
                flags = rng.choice(zones) | rng.choice(MOBILITIES) | rng.choice(more) | rng.choice(more)
                if wait and rng.random() < 0.7:
                    flags |= gfp.GFP_KERNEL
                nid = rng.randrange(-1, nodes) if nodes > 1 else rng.choice((-1, 0))
                if nodes > 1 and nid >= 0 and rng.random() < 0.2:
                    flags |= THISNODE
                w.alloc(flags, _orders(w, highest), nid)

    return write


def exhaust(
    *,
    orders: Sequence[int] = (0,),
    zones: Sequence[int] = (0, HIGHMEM, DMA, DMA32),
    mobilities: Sequence[int] = MOBILITIES,
    nodes: int = 1,
    cpus: int = 1,
    rounds: int = 2,
) -> Callable[[Writer, int], None]:
    """Until nothing is left: by one kind of request after the other, then again with other rights; then all back."""

    def write(w: Writer, count: int) -> None:
        rng = w.random
        for _ in range(rounds):
            rights = [0, 0, HIGH, NO_KSWAPD, HIGH | NORETRY, MEMALLOC | NOMEMALLOC, MEMALLOC]
            for right in rights:
                flags = [rng.choice(zones) | rng.choice(mobilities) | right for _ in range(3)]
                for i in range(count // len(rights)):
                    if cpus > 1 and i % 97 == 96:
                        w.lines.append(f"T {rng.randrange(cpus)}")
                    nid = rng.randrange(-1, nodes) if nodes > 1 else -1
                    w.alloc(rng.choice(flags), rng.choice(orders), nid)
                    if rng.random() < 0.05:
                        w.free(w.pop(), 0.3)
            if rng.random() < 0.5:
                w.drain()
            keep = len(w.live) // 4 if rng.random() < 0.5 else 0
            order = rng.choice(("random", "first", "last"))
            while len(w.live) > keep:
                w.free(w.pop(order), 0.3)
                if cpus > 1 and rng.random() < 0.01:
                    w.lines.append(f"T {rng.randrange(cpus)}")
            if rng.random() < 0.5:
                w.drain()
        w.free_all()

    return write


def everything(*, nodes: int = 1, cpus: int = 1, keep: int = 800) -> Callable[[Writer, int], None]:
    """All flags, all orders (one too many is among them), and the rare operations between."""

    def write(w: Writer, count: int) -> None:
        rng = w.random
        ordinary = mix(keep=keep, nodes=nodes, cpus=cpus, more=(0, *ALL), highest=11, cold=0.3)
        for _ in range(count // 20):
            ordinary(w, 20)
            chance = rng.random()
            if chance < 0.1:
                w.lines.append(f"n {rng.choice((0, 1, 1))} {rng.choice((1, 31, 32, 33, 1000, -5))}")
            elif chance < 0.2:
                numbers = (rng.choice((0, 100)), rng.choice((1, 1, 3, 7)), rng.choice((-1, -1, 0, 5, 40)))
                bits = (rng.choice((0, 0, 60)), rng.randrange(3), rng.randrange(2), rng.randrange(2))
                w.lines.append(" ".join(["k", *map(str, numbers), *map(str, bits)]))
            elif chance < 0.4:
                block = w.alloc(COMP | rng.choice(ZONES), rng.randrange(1, 5))
                for _ in range(3):
                    k = rng.randrange(1 << block.order)
                    w.lines += [f"G {block.id} {k}", f"P {block.id} {k}"]
        w.lines.append("k 0 1 -1 0 0 1 1")
        w.free_all(cold=0.2)

    return write


#: What bad_page() objects to, by the letter of the field; a mapping is not followed.
_BAD = ("m 3", "m 0", "m -2", "p 0x1", "p 0x10000", "c 1", "c 3", "s 0x1", "s 0x800", "s 0x20", "s 0x1000", "s 0x8")


def bad() -> Callable[[Writer, int], None]:
    """Pages are freed in a bad state, or get into one while they are free."""

    def write(w: Writer, count: int) -> None:
        rng = w.random
        for _ in range(count):
            chance = rng.random()
            if w.live and chance < 0.05:
                block = w.pop()
                k = rng.randrange(1 << block.order)
                w.lines.append(f"x {block.id} {k} {rng.choice(_BAD)}")
                w.lines.append(f"f {block.id} {block.order}")
            elif w.live and chance < 0.08:
                block = w.pop()
                w.lines.append(f"f {block.id} {block.order}")
                w.lines.append(f"x {block.id} {rng.randrange(1 << block.order)} {rng.choice(_BAD[3:])}")
            elif w.live and chance < 0.10:
                w.lines.append(f"B {w.pop().id}")
            elif chance < 0.12:
                w.drain()
            elif w.live and rng.random() < len(w.live) / 300:
                w.free(w.pop(), 0.2)
            else:
                w.alloc(rng.choice(MOBILITIES) | rng.choice((0, COMP)), _orders(w, 3))

    return write


def split(highest: int = 6) -> Callable[[Writer, int], None]:
    """Blocks are split, and their pages freed in every order."""

    def write(w: Writer, count: int) -> None:
        rng = w.random
        for _ in range(count):
            for _ in range(rng.randrange(1, 6)):
                w.alloc(rng.choice(MOBILITIES) | rng.choice((0, ZERO, HIGH)), rng.randrange(1, highest))
                w.split(w.live.pop())
            way = rng.choice(("random", "first", "last", "evens"))
            if way == "evens":
                w.live = w.live[1::2] + w.live[::2]
                way = "first"
            keep = rng.randrange(1, 200)
            while len(w.live) > keep:
                w.free(w.pop(way), 0.3)
            if rng.random() < 0.2:
                w.drain()
        w.free_all()

    return write


def cma(first: int, pages: int, *, pressure: int = 0) -> Callable[[Writer, int], None]:
    """Ranges are taken from a CMA area and given back, while movable pages come and go in it.

    :param first: PFN of the area, ``pages`` long
    :param pressure: movable blocks that are held: enough of them fill the area
    """

    def write(w: Writer, count: int) -> None:
        rng = w.random
        w.lines.append("I")
        taken: list[tuple[int, int, int]] = []
        for _ in range(count):
            chance = rng.random()
            if chance < 0.06:
                length = min(int(rng.expovariate(1 / 80)) + 1, pages)
                start = first + rng.randrange(pages - length + 1)
                if all(start + length <= begin or end <= start for _, begin, end in taken):
                    w.lines.append(f"L {w.next_id} {start} {start + length} 4")
                    taken.append((w.next_id, start, start + length))
                    w.next_id += 1
            elif chance < 0.10 and taken:
                ident, begin, end = taken.pop(rng.randrange(len(taken)))
                w.lines.append(f"R {ident} 0 {end - begin}")
            elif chance < 0.13:
                w.drain()
            elif w.live and rng.random() < len(w.live) / (2 * max(pressure, 100)):
                w.free(w.pop(), 0.2)
            else:
                w.alloc(
                    rng.choice((MOVABLE, MOVABLE | HIGHMEM, 0, RECLAIMABLE)) | rng.choice((0, 0, HIGH)), _orders(w, 3)
                )

    return write


def isolate(first: int, pages: int) -> Callable[[Writer, int], None]:
    """Pageblocks are isolated and let go amid allocations and frees."""

    def write(w: Writer, count: int) -> None:
        rng = w.random
        ranges: list[tuple[int, int]] = []
        for _ in range(count):
            chance = rng.random()
            if chance < 0.02 and len(ranges) < 4:
                start = first + 1024 * rng.randrange(pages // 1024)
                if all(start != begin for begin, _ in ranges):
                    ranges.append((start, start + 1024))
                    w.lines.append(f"i {start} {start + 1024}")
            elif chance < 0.04 and ranges:
                start, end = ranges.pop(rng.randrange(len(ranges)))
                w.lines.append(f"u {start} {end}")
            elif chance < 0.05:
                w.drain()
            elif w.live and rng.random() < len(w.live) / 800:
                w.free(w.pop(), 0.2)
            else:
                w.alloc(rng.choice(ZONES) | rng.choice(MOBILITIES) | rng.choice((0, HIGH)), min(_orders(w, 9), 10))
        w.free_all()

    return write


#: Who may wait for what.
_WAITERS = (
    PATIENT,
    PATIENT | MOVABLE,
    PATIENT | COMP,
    PATIENT & ~IO,
    PATIENT & ~FS,
    gfp.GFP_TRANSHUGE,
    gfp.GFP_TRANSHUGE & ~NORETRY,
    PATIENT | HIGH,
    PATIENT | NOMEMALLOC,
)


def wait(
    *, taken: int = 0, cached: int = 0, pinned: float = 1.0, zones: Sequence[int] = (0, 0, DMA, DMA32)
) -> Callable[[Writer, int], None]:
    """Memory is used up and partly freed again, here and there; then comes who may wait for larger blocks.

    Nobody wakes kswapd, which would have its turn as soon as somebody waits.

    :param taken: blocks of 32 pages that are used up once and for all, so that the rest is not long
    :param cached: pages of a file
    :param pinned: as many of them can neither be reclaimed nor moved: with too few pages on the LRU lists for the
        counters to be exact, reclaim and compaction wait for others, but on these guests no time passes.  Nor is
        there __GFP_REPEAT then: with pages that are scanned in vain it has no end (``should_continue_reclaim``)
    """

    def write(w: Writer, count: int) -> None:
        rng = w.random
        w.lines.append("t 200000")
        if cached:
            w.lines.append("M")
        for index in range(cached):
            # The last place of each leaf of the radix tree is taken (driver.c).
            if index % 16 != 15:
                block = w.alloc(NO_KSWAPD | MOVABLE, 0)
                w.live.pop()
                if rng.random() < pinned:
                    w.lines.append(f"g {block.id}")
                w.lines.append(f"C {block.id} {index}")
            for _ in range(rng.randrange(5)):
                w.alloc(NO_KSWAPD | rng.choice(MOBILITIES), 0)
        held = w.live
        w.live = []
        for _ in range(taken):
            w.alloc(NO_KSWAPD, 5)
        w.live = held
        for _ in range(3):
            mobility = rng.choice(MOBILITIES)
            for _ in range(count):
                w.alloc(NO_KSWAPD | rng.choice((mobility, MOVABLE)) | rng.choice(zones), 0)
            for _ in range(count // 20):
                for _ in range(int(rng.expovariate(1 / 60))):
                    if w.live:
                        w.free(w.pop(), 0.3)
                if rng.random() < 0.2:
                    w.drain()
                order = rng.choice((0, 1, 2, 3, 4, 5, 7, 9, 10))
                for _ in range(rng.choice((1, 2, 5, 70))):
                    flags = rng.choice(_WAITERS) | rng.choice(zones)
                    if order > 3 and not cached and rng.random() < 0.2:
                        flags = (flags & ~NORETRY) | REPEAT
                    elif order <= 3:
                        flags |= NORETRY
                    w.alloc(flags, order)
            w.free_all(cold=0.2)

    return write


def compact(*, taken: int, cached: int) -> Callable[[Writer, int], None]:
    """What is left of memory is pages of a file and gaps between them; blocks are had by moving those together."""

    def write(w: Writer, count: int) -> None:
        rng = w.random
        w.lines += ["t 200000", "M"]
        for _ in range(taken):
            w.alloc(NO_KSWAPD, 5)
        w.live = []
        index = 0
        for i in range(5 * cached):
            block = w.alloc(NO_KSWAPD | MOVABLE, 0)
            if i % 5 == 0:
                w.live.pop()
                index += index % 16 == 15
                w.lines.append(f"C {block.id} {index}")
                index += 1
        # What the other zone still has is not to be used instead.
        for _ in range(60):
            w.alloc(NO_KSWAPD | DMA, 5)
            w.live.pop()
        w.free_all(cold=0.3)
        w.lines.append("d")
        for _ in range(count):
            flags = rng.choice((PATIENT, PATIENT | MOVABLE, PATIENT | COMP, gfp.GFP_TRANSHUGE)) | NORETRY
            w.alloc(flags, rng.choice((1, 2, 3, 3, 4, 4, 5, 6, 9)))
            while w.live and rng.random() < 0.45:
                w.free(w.pop())

    return write


_TWO = Guest(cpus=2)
_NORMAL = Guest(nodes=(128,), below=64)
_NODES = Guest(nodes=(96, 160), cpus=2)
_HOLES = Guest(nodes=(64, 128), cpus=2, below=128, append="memmap=6M$40M memmap=3M$0x100200000")
#: The area is from PFN 0x6c00 on: the kernel's log says so.
_CMA = Guest(append="cma=16M")
_SMALL = Guest(nodes=(48,))
#: Node 1, where CPU 1 is, has addresses and no memory.
_MEMORYLESS = Guest(nodes=(64, 64, 64), cpus=2, append="memmap=64M$64M")
#: For a kernel with CONFIG_KMEMCHECK=y, of which it is the least memory to boot with.
_KMEMCHECK = Guest(nodes=(64,), append="kmemcheck=1")

RECIPES: dict[str, Recipe] = {
    "mix": Recipe(2000, mix(zones=(0,), more=(0, 0, 0, HIGH))),
    "exhaust": Recipe(9000, exhaust(), _SMALL),
    "exhaust_orders": Recipe(6000, exhaust(orders=(0, 0, 0, 1, 2, 3)), _SMALL),
    "exhaust_large": Recipe(800, exhaust(orders=(3, 4, 5, 8, 10)), _SMALL),
    "dma": Recipe(8000, mix(zones=(DMA, DMA32, DMA, DMA32, 0), keep=1500)),
    "cpus": Recipe(8000, mix(cpus=2, cold=0.4), _TWO),
    "cpus_exhaust": Recipe(4000, exhaust(cpus=2, orders=(0, 1, 2, 4, 6)), Guest(nodes=(48,), cpus=2)),
    "split": Recipe(150, split()),
    "normal": Recipe(8000, mix(keep=2000), _NORMAL),
    "normal_exhaust": Recipe(20000, exhaust(orders=(0, 0, 0, 1)), Guest(nodes=(64,), below=32)),
    "nodes": Recipe(10000, mix(nodes=2, cpus=2, keep=2000), _NODES),
    "nodes_exhaust": Recipe(5000, exhaust(nodes=2, cpus=2, orders=(0, 1, 2, 4, 6)), Guest(nodes=(48, 64), cpus=2)),
    "holes": Recipe(8000, mix(nodes=2, cpus=2, keep=2000), _HOLES),
    "holes_exhaust": Recipe(40000, exhaust(nodes=2, cpus=2, orders=(0, 0, 1)), _HOLES),
    "memoryless": Recipe(4000, mix(nodes=3, cpus=2, keep=500), _MEMORYLESS),
    "interrupts": Recipe(1500, mix(wait=True)),
    "everything": Recipe(8000, everything()),
    "everything_nodes": Recipe(8000, everything(nodes=2, cpus=2), _NODES),
    "everything_cpus": Recipe(8000, everything(cpus=2), Guest(nodes=(64,), cpus=2, below=40)),
    "bad": Recipe(900, bad()),
    "gigabytes": Recipe(8000, mix(keep=3000, highest=10), Guest(nodes=(5120,))),
    "cma": Recipe(700, cma(0x6C00, 4096), _CMA),
    "cma_pressure": Recipe(5000, cma(0x6C00, 4096, pressure=3000), _CMA),
    "cma_mix": Recipe(4000, mix(keep=1500), _CMA),
    "wait": Recipe(300, wait(taken=230), _SMALL),
    "wait_pinned": Recipe(300, wait(taken=215, cached=400), _SMALL),
    "wait_cached": Recipe(300, wait(taken=215, cached=400, pinned=0.6), _SMALL),
    "wait_compact": Recipe(150, compact(taken=190, cached=300), _SMALL),
    "isolate": Recipe(3000, isolate(8192, 16384)),
    "kmemcheck": Recipe(1500, mix(more=(0, 0, ZERO, COMP, NOTRACK), keep=300), _KMEMCHECK),
    "kmemcheck_exhaust": Recipe(3000, exhaust(orders=(0, 0, 1, 2)), _KMEMCHECK),
    "kmemcheck_split": Recipe(40, split(4), _KMEMCHECK),
    "kmemcheck_everything": Recipe(3000, everything(keep=300), _KMEMCHECK),
}
