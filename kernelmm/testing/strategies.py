# SPDX-License-Identifier: GPL-2.0-only
"""Strategies for hypothesis: what may be asked of an allocator, and how it may be abused."""

from __future__ import annotations

from typing import Any, NamedTuple

from kernelmm import gfp
from kernelmm.machine import Machine
from kernelmm.validate.kinds import KINDS, Kind
from physmem import abi
from physmem.errors import UsageError

try:
    from hypothesis import strategies as st
except ImportError:
    raise UsageError("kernelmm.testing.strategies needs hypothesis: pip install hypothesis") from None

__all__ = ["Operation", "gfp_masks", "machines", "operations", "orders", "wrong_frees"]

_URGENCY = [0, gfp.__GFP_HIGH, gfp.__GFP_HIGH | gfp.__GFP_MEMALLOC, gfp.__GFP_NO_KSWAPD, gfp.__GFP_NOMEMALLOC]
_MOBILITY = [0, gfp.__GFP_RECLAIMABLE, gfp.__GFP_MOVABLE, gfp.__GFP_MOVABLE | gfp.__GFP_HIGHMEM]
_PLACE = [0, 0, 0, gfp.__GFP_DMA, gfp.__GFP_DMA32]
_MANNER = [0, 0, gfp.__GFP_COLD, gfp.__GFP_ZERO, gfp.__GFP_COMP, gfp.__GFP_COMP | gfp.__GFP_ZERO]
_WAIT = [gfp.__GFP_WAIT, gfp.GFP_KERNEL]


class Operation(NamedTuple):
    """A step of a workload.

    :ivar name: ``alloc``, ``free`` (of the ``which``-th block, modulo how many there are) or ``drain``
    """

    name: str
    order: int = 0
    gfp: int = 0
    which: int = 0


def gfp_masks(*, wait: bool = False) -> st.SearchStrategy[int]:
    """``gfp_t`` masks that mean something; with ``wait``, those too that may reclaim."""
    urgency = _URGENCY + (_WAIT if wait else [])
    parts = [st.sampled_from(choice) for choice in (urgency, _MOBILITY, _PLACE, _MANNER)]

    def combine(bits: tuple[int, ...]) -> int:
        mask = gfp.__GFP_NOWARN
        for each in bits:
            mask |= each
        # Movable and reclaimable at once, or two zones at once, mean nothing.
        return mask & ~gfp.__GFP_HIGHMEM if mask & (gfp.__GFP_DMA | gfp.__GFP_DMA32) else mask

    return st.tuples(*parts).map(combine)


def orders(largest: int = abi.MAX_ORDER - 1) -> st.SearchStrategy[int]:
    """Orders, mostly small ones."""
    return st.one_of(st.just(0), st.integers(0, min(3, largest)), st.integers(0, largest))


def operations(*, wait: bool = False, largest: int = abi.MAX_ORDER - 1) -> st.SearchStrategy[list[Operation]]:
    """Workloads: lists of operations, about as many frees as allocations."""
    alloc = st.builds(Operation, st.just("alloc"), orders(largest), gfp_masks(wait=wait))
    free = st.builds(lambda which: Operation("free", which=which), st.integers(0, 1 << 16))
    return st.lists(st.one_of(alloc, free, alloc, free, st.just(Operation("drain"))), max_size=60)


def machines(**options: Any) -> st.SearchStrategy[Machine]:
    """Machines of our own, of 32 to 128 MiB, one or two nodes and CPUs; options are those of :meth:`Machine.boot`."""

    def boot(mib: int, nodes: int, cpus: int) -> Machine:
        return Machine.boot(f"{mib * nodes}M", **({"nodes": nodes, "cpus": cpus} | options))

    return st.builds(boot, st.sampled_from([32, 48, 64]), st.integers(1, 2), st.integers(1, 2))


def wrong_frees() -> st.SearchStrategy[Kind]:
    """Kinds of wrong free (:mod:`kernelmm.validate.kinds`), to be prepared on a machine and performed."""
    return st.sampled_from(list(KINDS.values()))
