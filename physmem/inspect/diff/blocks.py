# SPDX-License-Identifier: GPL-2.0-only
"""What became of free blocks: which are new, were split, merged, or taken as a whole."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from physmem.inspect.freelist import FreeLists
from physmem.inspect.states import Blocks

__all__ = ["BlockChanges", "compare_blocks"]

_Pfns = npt.NDArray[np.int64]


@dataclass
class BlockChanges:
    """Free blocks of the zones (per-cpu lists aside) that are in one image alone, counted by zone and order.

    :ivar born: blocks of memory of which nothing was free as a block before
    :ivar parts: blocks that were part of a larger one, which was split
    :ivar merged: blocks that have smaller ones in them which were free before
    :ivar split: the larger ones that were split, of which some is still free
    :ivar taken: blocks of which nothing is free any more
    """

    born: Counter[tuple[str, int]] = field(default_factory=Counter)
    parts: Counter[tuple[str, int]] = field(default_factory=Counter)
    merged: Counter[tuple[str, int]] = field(default_factory=Counter)
    split: Counter[tuple[str, int]] = field(default_factory=Counter)
    taken: Counter[tuple[str, int]] = field(default_factory=Counter)

    def kinds(self) -> dict[str, Counter[tuple[str, int]]]:
        """Each of them, by name."""
        names = ("born", "parts", "merged", "split", "taken")
        return {name: getattr(self, name) for name in names}

    def __bool__(self) -> bool:
        return any(self.kinds().values())


def compare_blocks(a: FreeLists, b: FreeLists) -> BlockChanges:
    """Compare the free blocks of two images."""
    old, new = _free(a), _free(b)
    gone, come = _without(old, new), _without(new, old)
    found = BlockChanges()
    # Blocks of one image do not overlap: two that do have one inside the other.
    inside = _inside(come, gone)
    around = _overlap(come, gone) & ~inside
    for where, counter in ((inside, found.parts), (around, found.merged), (~inside & ~around, found.born)):
        counter.update(_named(b, come[where]))
    touched = _overlap(gone, come)
    larger = touched & ~_inside(gone, come)
    for where, counter in ((larger, found.split), (~touched, found.taken)):
        counter.update(_named(a, gone[where]))
    return found


def _free(lists: FreeLists) -> Blocks:
    blocks = Blocks.of(lists)
    zones = np.array([each.cpu is None for each in lists.lists] or [False])
    return blocks[(blocks.owner >= 0) & zones[blocks.owner]]


def _without(blocks: Blocks, others: Blocks) -> Blocks:
    """Those that are not, with the same order, among the others."""
    return blocks[~np.isin(blocks.pfn << 8 | blocks.order, others.pfn << 8 | others.order)]


def _reach(blocks: Blocks, others: Blocks) -> tuple[_Pfns, _Pfns]:
    """Of each block the last of the others that does not begin behind its own beginning, and the first that does."""
    after = np.searchsorted(others.pfn, blocks.pfn, "right")
    return after - 1, after


def _inside(blocks: Blocks, others: Blocks) -> npt.NDArray[np.bool_]:
    """Which blocks are wholly in one of the others."""
    if not len(others.pfn):
        return np.zeros(len(blocks.pfn), bool)
    before, _ = _reach(blocks, others)
    found: npt.NDArray[np.bool_] = (before >= 0) & (others.end[np.maximum(before, 0)] >= blocks.end)
    return found


def _overlap(blocks: Blocks, others: Blocks) -> npt.NDArray[np.bool_]:
    """Which blocks have pages of any of the others."""
    if not len(others.pfn):
        return np.zeros(len(blocks.pfn), bool)
    before, after = _reach(blocks, others)
    reaches = (before >= 0) & (others.end[np.maximum(before, 0)] > blocks.pfn)
    begins = (after < len(others.pfn)) & (others.pfn[np.minimum(after, len(others.pfn) - 1)] < blocks.end)
    found: npt.NDArray[np.bool_] = reaches | begins
    return found


def _named(lists: FreeLists, blocks: Blocks) -> list[tuple[str, int]]:
    owners, orders = blocks.owner.tolist(), blocks.order.tolist()
    return [(str(lists.lists[owner].zone), order) for owner, order in zip(owners, orders, strict=True)]
