# SPDX-License-Identifier: GPL-2.0-only
"""Where a kernel keeps what every kernel has of a node, a zone, a CPU's pages: chosen once, from its layout.

==============================  ==================================================================================
until 4.0                       today
==============================  ==================================================================================
``zone.watermark``              ``_watermark`` (5.0), and a ``watermark_boost`` on top; a fourth, promo (5.18)
``zone.pageset``, which has     ``per_cpu_pageset`` for the lists and ``per_cpu_zonestats`` for the statistics (5.14)
lists and statistics
three lists of single pages     lists by order and mobility, and one or two for huge pages (5.14, 6.11)
``NUMA_HIT`` among ``vm_stat``  ``vm_numa_stat`` (4.14), ``vm_numa_event`` (5.14)
all statistics in the zone      most of them in the node (4.8)
==============================  ==================================================================================
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from physmem.structs.layout import Layout

__all__ = ["ListKind", "ZoneFormat", "stat_names"]

#: PAGE_ALLOC_COSTLY_ORDER: the highest order that has per-cpu lists of its own, besides that of huge pages.
_COSTLY_ORDER = 3


class ListKind(NamedTuple):
    """What is on a per-cpu list.

    :ivar order: of the blocks on it
    :ivar migratetype: of them; None if it is not one alone
    :ivar name: of the mobility, given the names of the migratetypes
    """

    order: int
    migratetype: int | None
    name: str


class ZoneFormat:
    """The names that a kernel has for these things.

    :ivar watermark: field of zone
    :ivar pageset: field of zone: per-cpu pointer to the struct with the lists
    :ivar pageset_tag: that struct
    :ivar pcp: field of that struct which is the ``per_cpu_pages``; empty if it is one
    :ivar counters: field of zone: per-cpu pointer to the struct with the statistics
    :ivar counters_tag: that struct
    :ivar numa: field of zone with the NUMA statistics; empty if they are among the others, or there are none
    :ivar numa_diff: field of the counters with what a CPU has not folded in of them
    """

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        apart = layout.has("zone", "per_cpu_pageset")
        self.watermark = "_watermark" if layout.has("zone", "_watermark") else "watermark"
        self.pageset = "per_cpu_pageset" if apart else "pageset"
        self.pageset_tag = "per_cpu_pages" if apart else "per_cpu_pageset"
        self.pcp = "" if apart else "pcp"
        self.counters = "per_cpu_zonestats" if apart else "pageset"
        self.counters_tag = "per_cpu_zonestat" if apart else "per_cpu_pageset"
        self.numa = next((name for name in ("vm_numa_event", "vm_numa_stat") if layout.has("zone", name)), "")
        diffs = ("vm_numa_event", "vm_numa_stat_diff")
        self.numa_diff = next((name for name in diffs if layout.has(self.counters_tag, name)), "")

    def pcp_kinds(self, migratetypes: tuple[str, ...], count: int) -> tuple[ListKind, ...]:
        """What is on each of ``count`` per-cpu lists (order_to_pindex)."""
        types = self.layout.enumerator("MIGRATE_PCPTYPES")
        low = types * (_COSTLY_ORDER + 1)
        huge = self.layout.constant("pageblock_order") if count > types else 0
        kinds = []
        for index in range(count):
            order, kind = divmod(index, types)
            if index >= low and count < low + types:
                # One list of huge pages, or one of all that are not movable and one of those that are.
                movable = self.layout.enumerator("MIGRATE_MOVABLE") if index > low else None
                name = migratetypes[movable] if movable is not None else "other" if count > low + 1 else "any"
                kinds.append(ListKind(huge, movable, name))
            else:
                kinds.append(ListKind(huge if index >= low else order, kind, migratetypes[kind]))
        return tuple(kinds)

    def zone_stats(self) -> tuple[str, ...]:
        """The zone's statistics, in order."""
        return stat_names(self.layout, "zone_stat_item", self.layout.lengthof("zone", "vm_stat"))

    def numa_stats(self) -> tuple[str, ...]:
        """The zone's NUMA statistics, in order, if they are apart from the others."""
        return stat_names(self.layout, "numa_stat_item", self.layout.lengthof("zone", self.numa)) if self.numa else ()

    def node_stats(self) -> tuple[str, ...]:
        """The node's statistics, in order; none before 4.8."""
        if not self.layout.has("pglist_data", "vm_stat"):
            return ()
        return stat_names(self.layout, "node_stat_item", self.layout.lengthof("pglist_data", "vm_stat"))


def stat_names(layout: Layout, enum: str, count: int) -> tuple[str, ...]:
    """The statistics that an enum numbers, without the names that only mark a place."""
    return _stat_names(enum, tuple(layout.enum(enum).items()), count)


@cache
def _stat_names(enum: str, enumerators: tuple[tuple[str, int], ...], count: int) -> tuple[str, ...]:
    # NR_LRU_BASE is another name of the first list's counter, which comes after it.
    names = {value: name for name, value in enumerators}
    return tuple(names.get(i, f"{enum} {i}") for i in range(count))
