# SPDX-License-Identifier: GPL-2.0-only
"""Any sequence of operations leaves a healthy machine: every list and counter right, no page lost, none given twice."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from kernelmm import Machine
from kernelmm import gfp as g
from physmem.inspect.check import check
from physmem.inspect.zones import pagesets, populated_zones

ORACLE = Path(__file__).parents[1] / "data" / "oracle"
# Inside a class Python would mangle a name with two underscores.
COMP, QUIET = g.__GFP_COMP, g.GFP_ATOMIC | g.__GFP_NOWARN
#: Nothing that may wait: reclaim is not these tests' subject.
URGENCY = st.sampled_from([0, g.__GFP_HIGH, g.__GFP_HIGH | g.__GFP_MEMALLOC, g.__GFP_NO_KSWAPD, g.__GFP_NOMEMALLOC])
MOBILITY = st.sampled_from([0, g.__GFP_RECLAIMABLE, g.__GFP_MOVABLE, g.__GFP_MOVABLE | g.__GFP_HIGHMEM])
PLACE = st.sampled_from([0, 0, 0, g.__GFP_DMA, g.__GFP_DMA32, g.__GFP_THISNODE])
MANNER = st.sampled_from([0, 0, g.__GFP_COLD, g.__GFP_ZERO, g.__GFP_COMP, g.__GFP_COMP | g.__GFP_ZERO])
GFP = st.builds(lambda *bits: sum(set(bits)) | g.__GFP_NOWARN, URGENCY, MOBILITY, PLACE, MANNER)
ORDER = st.one_of(st.just(0), st.integers(0, 3), st.integers(0, 11))


@dataclass
class Block:
    """Something that was allocated.

    :ivar references: how many there are
    """

    page: int
    order: int
    is_compound: bool
    references: int = 1


class Allocator(RuleBasedStateMachine):
    """Allocations and frees against a model that knows only who has which page."""

    image: ClassVar[str]
    machine: ClassVar[Machine]
    healthy: ClassVar[dict[int, bytes]]

    blocks = Bundle("blocks")

    @initialize()
    def begin(self) -> None:
        """The memory of the image; it is opened once for all runs."""
        cls = type(self)
        if "machine" not in cls.__dict__:
            cls.machine = Machine.attach(ORACLE / cls.image / "A.vmcore.xz")
            cls.healthy = {start: cls.machine.ram.read(start, end - start) for start, end in cls.machine.ram.ranges}
        for start, data in cls.healthy.items():
            cls.machine.ram.write(start, data)
        cls.machine.console.lines.clear()
        self.held: dict[int, Block] = {}
        self.total = self.free_pages()

    # -- operations --------------------------------------------------------------------

    @rule(target=blocks, gfp=GFP, order=ORDER, nid=st.sampled_from([None, 0, -1, "last"]), some=st.booleans())
    def alloc(self, gfp: int, order: int, nid: Any, some: bool) -> Any:
        nodes = sorted(self.machine.dump.pgdats)
        nid = nodes[-1] if nid == "last" else nid
        page = self.machine.alloc_pages(gfp, order, nid, nodemask=nodes if some else None)
        if page is None:
            return multiple()
        return self.hold(Block(page, order, bool(gfp & COMP) and order > 0))

    @rule(target=blocks, size=st.integers(1, 40 * 4096))
    def alloc_exact(self, size: int) -> Any:
        addr = self.machine.alloc_pages_exact(size, QUIET)
        if addr is None:
            return multiple()
        first = self.machine.virt_to_page(addr)
        return multiple(*(self.hold(Block(first + 64 * i, 0, False)) for i in range(-(-size // 4096))))

    @rule(block=consumes(blocks))
    def free(self, block: Block) -> None:
        while block.references:
            block.references -= 1
            self.machine.free_block(block.page, block.order)
        self.release(block)

    @rule(block=consumes(blocks))
    def free_by_address(self, block: Block) -> None:
        while block.references:
            block.references -= 1
            self.machine.free_pages(self.machine.page_address(block.page), block.order)
        self.release(block)

    @rule(block=blocks)
    def get(self, block: Block) -> None:
        if block.references:
            self.machine.get_page(block.page)
            block.references += 1

    @rule(block=blocks)
    def put(self, block: Block) -> None:
        """put_page frees by the page's own order: only a single or a compound page may lose its last reference so."""
        if block.references > 1 or (block.references and (block.order == 0 or block.is_compound)):
            self.machine.put_page(block.page)
            block.references -= 1
            if not block.references:
                self.release(block)

    @rule(target=blocks, block=consumes(blocks))
    def split(self, block: Block) -> Any:
        if not block.references or block.is_compound or block.references > 1:
            return block
        self.release(block)
        self.machine.split_page(block.page, block.order)
        return multiple(*(self.hold(Block(block.page + 64 * i, 0, False)) for i in range(1 << block.order)))

    @rule()
    def drain_local(self) -> None:
        self.machine.drain_local_pages()
        assert sum(p.count for z in populated_zones(self.machine.dump) for p in pagesets(self.machine.dump, z)) == 0

    @rule(cpu=st.sampled_from(range(8)))
    def drain_all_from_a_cpu(self, cpu: int) -> None:
        with self.machine.on_cpu(cpu % self.machine.mm.nr_cpus):
            self.machine.drain_all_pages()

    @rule(target=blocks, gfp=GFP, order=st.integers(5, 10))
    def exhaust(self, gfp: int, order: int) -> Any:
        taken = []
        while (page := self.machine.alloc_pages(gfp, order)) is not None:
            taken.append(self.hold(Block(page, order, bool(gfp & COMP))))
        return multiple(*taken)

    # -- the model ---------------------------------------------------------------------

    def hold(self, block: Block) -> Block:
        for i in range(1 << block.order):
            assert block.page + 64 * i not in self.held, "a page that somebody has"
            self.held[block.page + 64 * i] = block
        return block

    def release(self, block: Block) -> None:
        # A block that was freed through another name of it may come twice.
        for i in range(1 << block.order):
            if self.held.get(block.page + 64 * i) is block:
                del self.held[block.page + 64 * i]
        block.references = 0

    def free_pages(self) -> int:
        """Pages on free lists and per-cpu lists, by the counts of both."""
        dump = self.machine.dump
        zones = list(populated_zones(dump))
        listed = sum(count << order for zone in zones for order, count in enumerate(zone.nr_free))
        return listed + sum(pageset.count for zone in zones for pageset in pagesets(dump, zone))

    # -- what is always true -----------------------------------------------------------

    @invariant()
    def memory_is_healthy(self) -> None:
        report = check(self.machine.dump)
        assert report.findings == []
        assert report.not_checked == {}

    @invariant()
    def no_page_is_lost(self) -> None:
        assert self.free_pages() + len(self.held) == self.total

    @invariant()
    def references_are_counted(self) -> None:
        for page in list(self.held)[::17]:
            block = self.held[page]
            if page == block.page:
                assert self.machine.page(page)._count == block.references

    @invariant()
    def the_kernel_is_content(self) -> None:
        assert self.machine.dmesg() == ""

    def teardown(self) -> None:
        if hasattr(self, "held"):
            for block in {id(block): block for block in self.held.values()}.values():
                self.free(block)
            assert self.free_pages() == self.total


class OneNode(Allocator):
    image = "n128_s1"


class TwoNodes(Allocator):
    image = "n256x2_s6n"


class WithoutSmp(Allocator):
    image = "u128_s1"


PROFILE = settings(
    max_examples=12,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=False,
)
TestOneNode = OneNode.TestCase
TestTwoNodes = TwoNodes.TestCase
TestWithoutSmp = WithoutSmp.TestCase
TestOneNode.settings = TestTwoNodes.settings = TestWithoutSmp.settings = PROFILE
