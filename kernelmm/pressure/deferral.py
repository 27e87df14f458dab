# SPDX-License-Identifier: GPL-2.0-only
"""Leaving a zone alone where compaction was in vain (mm/compaction.c).

Each failure doubles the number of requests that are turned away before the next try, from 1 up to 64
(``compact_defer_shift``); a success resets it.  Only orders from ``compact_order_failed`` on are turned away.
"""

from __future__ import annotations

from kernelmm.core.mm import Mm
from kernelmm.pressure.fields import Fields

__all__ = ["compaction_defer_reset", "compaction_deferred", "compaction_restarting", "defer_compaction"]

COMPACT_MAX_DEFER_SHIFT = 6


def defer_compaction(mm: Mm, z: int, order: int) -> None:
    """``defer_compaction``: it was in vain: leave the zone alone for twice as many requests as last time."""
    fields: Fields = mm.cold
    mm.as_u32[(z + fields.zone_compact_considered) >> 2] = 0
    shift = mm.as_u32[(z + fields.zone_compact_defer_shift) >> 2] + 1
    if order < mm.as_s32[(z + fields.zone_compact_order_failed) >> 2]:
        mm.as_s32[(z + fields.zone_compact_order_failed) >> 2] = order
    mm.as_u32[(z + fields.zone_compact_defer_shift) >> 2] = min(shift, COMPACT_MAX_DEFER_SHIFT)
    if mm.tracing:
        mm.tracer.mm_compaction_defer_compaction(mm, z, order)


def defer_limit(mm: Mm, z: int) -> int:
    """How many requests a deferred zone is left alone for."""
    fields: Fields = mm.cold
    return 1 << min(mm.as_u32[(z + fields.zone_compact_defer_shift) >> 2], 31)


def compaction_deferred(mm: Mm, z: int, order: int) -> bool:
    """``compaction_deferred``: count the request; whether it is one of those to be turned away."""
    fields: Fields = mm.cold
    if order < mm.as_s32[(z + fields.zone_compact_order_failed) >> 2]:
        return False
    limit = defer_limit(mm, z)
    considered = min(mm.as_u32[(z + fields.zone_compact_considered) >> 2] + 1, limit)
    mm.as_u32[(z + fields.zone_compact_considered) >> 2] = considered
    if considered >= limit:
        return False
    if mm.tracing:
        mm.tracer.mm_compaction_deferred(mm, z, order)
    return True


def compaction_defer_reset(mm: Mm, z: int, order: int, alloc_success: bool) -> None:
    """``compaction_defer_reset``: blocks of this order can be had again."""
    fields: Fields = mm.cold
    if alloc_success:
        mm.as_u32[(z + fields.zone_compact_considered) >> 2] = 0
        mm.as_u32[(z + fields.zone_compact_defer_shift) >> 2] = 0
    if order >= mm.as_s32[(z + fields.zone_compact_order_failed) >> 2]:
        mm.as_s32[(z + fields.zone_compact_order_failed) >> 2] = order + 1
    if mm.tracing:
        mm.tracer.mm_compaction_defer_reset(mm, z, order)


def compaction_restarting(mm: Mm, z: int, order: int) -> bool:
    """``compaction_restarting``: the longest deferral has just ended."""
    fields: Fields = mm.cold
    return (
        order >= mm.as_s32[(z + fields.zone_compact_order_failed) >> 2]
        and mm.as_u32[(z + fields.zone_compact_defer_shift) >> 2] == COMPACT_MAX_DEFER_SHIFT
        and mm.as_u32[(z + fields.zone_compact_considered) >> 2] >= 1 << COMPACT_MAX_DEFER_SHIFT
    )
