# SPDX-License-Identifier: GPL-2.0-only
"""How broken up the free memory of a zone is (mm/vmstat.c: /sys/kernel/debug/extfrag).

Both indexes are thousandths.  The unusable index of an order is the part of the free memory that is in smaller blocks.
The fragmentation index says why an allocation of an order would fail: near 0 for want of memory, near 1000 because
memory is broken up; -1000 if it would not fail.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from physmem.inspect.zones import Zone

__all__ = ["extfrag_text", "fragmentation_index", "unusable_index", "unusable_text"]


def unusable_index(nr_free: Sequence[int], order: int) -> int:
    """unusable_free_index, given the free blocks of each order."""
    pages, _, suitable = _count(nr_free, order)
    return (pages - (suitable << order)) * 1000 // pages if pages else 1000


def fragmentation_index(nr_free: Sequence[int], order: int) -> int:
    """fragmentation_index, given the free blocks of each order."""
    pages, blocks, suitable = _count(nr_free, order)
    if not blocks:
        return 0
    if suitable:
        return -1000
    return 1000 - (1000 + (pages * 1000 >> order)) // blocks


def _count(nr_free: Sequence[int], order: int) -> tuple[int, int, int]:
    """Free pages, free blocks, and blocks of this order that could be had."""
    pages = sum(blocks << each for each, blocks in enumerate(nr_free))
    suitable = sum(blocks << each - order for each, blocks in enumerate(nr_free) if each >= order)
    return pages, sum(nr_free), suitable


def _thousandths(index: int) -> str:
    """As the kernel prints it: C divides towards zero, and -1000 is ``-1.000``."""
    whole, rest = divmod(abs(index), 1000)
    if index >= 0:
        return f"{whole}.{rest:03} "
    # Both quotient and remainder have the sign; %03d counts it.
    return f"{'-' if whole else ''}{whole}.{-rest:03} "


def unusable_text(zones: Iterable[Zone]) -> str:
    """The text of ``unusable_index``, byte for byte, given the populated zones."""
    return "".join(_line(zone, [unusable_index(zone.nr_free, o) for o in range(len(zone.nr_free))]) for zone in zones)


def extfrag_text(zones: Iterable[Zone]) -> str:
    """The text of ``extfrag_index``, byte for byte, given the populated zones."""
    return "".join(
        _line(zone, [fragmentation_index(zone.nr_free, o) for o in range(len(zone.nr_free))]) for zone in zones
    )


def _line(zone: Zone, indexes: list[int]) -> str:
    return f"Node {zone.node}, zone {zone.name:>8} {''.join(map(_thousandths, indexes))}\n"
