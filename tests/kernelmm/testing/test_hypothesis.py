# SPDX-License-Identifier: GPL-2.0-only
"""The strategies give what an allocator takes; the comparison finds an allocator's faults."""

from __future__ import annotations

import re
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import run_state_machine_as_test

from kernelmm import Machine, gfp
from kernelmm.testing.compare import Comparison
from kernelmm.testing.strategies import Operation, gfp_masks, machines, operations, orders, wrong_frees
from kernelmm.validate.judge import Judge
from kernelmm.validate.kinds import Kind, judge
from physmem.errors import UsageError
from physmem.inspect.check import check

SLOW = {"deadline": None, "suppress_health_check": list(HealthCheck)}


@settings(max_examples=50, **SLOW)
@given(gfp_masks(wait=True), orders())
def test_masks_and_orders_mean_something(mask: int, order: int) -> None:
    assert not gfp.GFP_ZONE_BAD >> (mask & gfp.GFP_ZONEMASK) & 1
    assert mask & gfp.GFP_MOVABLE_MASK != gfp.GFP_MOVABLE_MASK
    assert 0 <= order <= 10


@settings(max_examples=6, **SLOW)
@given(machines(), operations(largest=6))
def test_workloads_leave_a_healthy_machine(machine: Machine, workload: list[Operation]) -> None:
    blocks: list[tuple[int, int]] = []
    for name, order, mask, which in workload:
        if name == "alloc" and (page := machine.alloc_pages(mask, order)) is not None:
            blocks.append((page, order))
        elif name == "free" and blocks:
            machine.free_block(*blocks.pop(which % len(blocks)))
        elif name == "drain":
            machine.drain_all_pages()
    assert check(machine.dump).findings == []


@settings(max_examples=6, **SLOW)
@given(machines(nodes=1), wrong_frees())
def test_wrong_frees_are_recognised_on_any_machine(machine: Machine, kind: Kind) -> None:
    with suppress(UsageError):  # of one zone, for instance
        verdict = judge(Judge(machine.dump), kind.prepare(machine))
        # A machine whose CPUs keep no lists has such a page in a free block.
        assert kind.check in verdict.checks or (kind.check == "pcp" and "already_free" in verdict.checks)


class Buddy:
    """A buddy allocator on sets, right."""

    def __init__(self, pages: int, largest: int = 10) -> None:
        self.largest = largest
        self.lists: list[set[int]] = [set() for _ in range(largest + 1)]
        self.lists[largest] = set(range(0, pages, 1 << largest))

    def alloc(self, order: int) -> int | None:
        for have in range(order, self.largest + 1):
            if self.lists[have]:
                page = min(self.lists[have])
                self.lists[have].discard(page)
                for smaller in range(have - 1, order - 1, -1):
                    self.lists[smaller].add(page + (1 << smaller))
                return page
        return None

    def free(self, page: int, order: int) -> None:
        while order < self.largest and page ^ (1 << order) in self.lists[order]:
            self.lists[order].discard(page ^ (1 << order))
            page &= ~(1 << order)
            order += 1
        self.lists[order].add(page)


class NeverJoins(Buddy):
    """Buddies stay apart."""

    def free(self, page: int, order: int) -> None:
        self.lists[order].add(page)


class Forgets(Buddy):
    """What is split off is handed out again with its block."""

    def alloc(self, order: int) -> int | None:
        page = super().alloc(order)
        if page is not None and order == 0:
            self.lists[0].add(page)
        return page


class Skewed(Buddy):
    """Blocks of two pages at odd pages."""

    def alloc(self, order: int) -> int | None:
        page = super().alloc(order)
        return page + 1 if page is not None and order == 1 else page


@pytest.mark.parametrize(
    ("allocator", "fault"),
    [
        (Buddy, None),
        (NeverJoins, "all is free|no block of order"),
        (Forgets, "allocated already"),
        (Skewed, "no multiple of 2|all is free"),
    ],
)
def test_comparison(allocator: type[Buddy], fault: str | None) -> None:
    class This(Comparison):
        memory = "32M"

        def make(self, pages: int) -> Buddy:
            return allocator(pages)

    # To find a fault is enough: making it small takes long.
    phases = (Phase.generate,)
    quick = settings(max_examples=12, stateful_step_count=20, derandomize=True, database=None, phases=phases, **SLOW)
    if fault is None:
        run_state_machine_as_test(This, settings=quick)
        return
    with pytest.raises((AssertionError, ExceptionGroup)) as caught:
        run_state_machine_as_test(This, settings=quick)
    error: BaseException = caught.value
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    assert re.search(fault, str(error))


def test_orders_can_be_bounded() -> None:
    assert isinstance(orders(2), st.SearchStrategy)
