# SPDX-License-Identifier: GPL-2.0-only
"""Compare an allocator of one's own with Linux's: a state machine for hypothesis.

Subclass :class:`Comparison`, make your allocator in :meth:`~Comparison.make`, and give its ``TestCase`` to pytest.
"""

from __future__ import annotations

from typing import ClassVar, Protocol

from kernelmm import gfp
from kernelmm.machine import Machine
from physmem import abi
from physmem.errors import UsageError
from physmem.inspect.zones import populated_zones

try:
    from hypothesis import strategies as st
    from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
except ImportError:
    raise UsageError("kernelmm.testing.compare needs hypothesis: pip install hypothesis") from None

__all__ = ["Allocator", "Comparison"]

_QUIET = gfp.GFP_ATOMIC | gfp.__GFP_NOWARN


class Allocator(Protocol):
    """An allocator under test: of pages 0 up to the number that it was made for."""

    def alloc(self, order: int) -> int | None:
        """First page of 2^order adjacent pages, a multiple of that; or None."""

    def free(self, page: int, order: int) -> None:
        """Give back what ``alloc`` gave."""


class Comparison(RuleBasedStateMachine):
    """The same requests to both: pages must be in range, aligned and nobody else's, and no request may fail too soon.

    :cvar memory: of Linux's machine
    :cvar largest: order that is asked for at most
    :cvar slack: the allocator may fail where Linux does not, once less than this share of its pages is free
    """

    memory: ClassVar[str] = "32M"
    largest: ClassVar[int] = abi.MAX_ORDER - 1
    slack: ClassVar[float] = 0.25

    def make(self, pages: int) -> Allocator:
        """Your allocator, of so many pages."""
        raise NotImplementedError

    @initialize()
    def begin(self) -> None:
        """A machine, and an allocator of as many pages as it has to give."""
        self.linux = Machine.boot(self.memory)
        self.pages = sum(zone.vm_stat["NR_FREE_PAGES"] for zone in populated_zones(self.linux.dump))
        self.pages &= -(1 << self.largest)
        self.theirs = self.make(self.pages)
        self.blocks: list[tuple[int, int, int]] = []
        self.owned: set[int] = set()

    @rule(order=st.one_of(st.just(0), st.integers(0, 3), st.integers(0, abi.MAX_ORDER - 1)))
    def alloc(self, order: int) -> None:
        """Ask both for a block."""
        order = min(order, self.largest)
        page, ours = self.theirs.alloc(order), self.linux.alloc_pages(_QUIET, order)
        if page is None:
            free = self.pages - len(self.owned)
            assert ours is None or free < self.slack * self.pages, (
                f"no block of order {order} with {free} of {self.pages} pages free; Linux has one"
            )
            if ours is not None:
                self.linux.free_block(ours, order)
            return
        block = range(page, page + (1 << order))
        assert page >= 0, f"page {page}"
        assert block.stop <= self.pages, f"page {page}, order {order}: there are {self.pages} pages"
        assert page % (1 << order) == 0, f"page {page} is no multiple of {1 << order}"
        assert self.owned.isdisjoint(block), f"page {page}, order {order}: some of it is allocated already"
        self.owned.update(block)
        self.blocks.append((page, order, ours or 0))

    @precondition(lambda self: self.blocks)
    @rule(which=st.integers(0, 1 << 16))
    def free(self, which: int) -> None:
        """Give a block back to both."""
        page, order, ours = self.blocks.pop(which % len(self.blocks))
        self.owned.difference_update(range(page, page + (1 << order)))
        self.theirs.free(page, order)
        if ours:
            self.linux.free_block(ours, order)

    @invariant()
    def accounts_agree(self) -> None:
        """What is allocated is what the blocks have."""
        assert len(self.owned) == sum(1 << order for _, order, _ in self.blocks)

    def teardown(self) -> None:
        """Once all is given back, all the largest blocks must be there again."""
        if not hasattr(self, "theirs"):
            return
        for page, order, _ in self.blocks:
            self.theirs.free(page, order)
        wanted = self.pages >> self.largest
        got = sum(self.theirs.alloc(self.largest) is not None for _ in range(wanted))
        assert got == wanted, f"all is free, and of {wanted} blocks of order {self.largest} there are {got}"
