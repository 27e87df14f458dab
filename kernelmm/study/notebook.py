# SPDX-License-Identifier: GPL-2.0-only
"""A machine and its pages as a notebook shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from physmem.inspect.explain.show import Section, html
from physmem.inspect.zones import populated_zones

if TYPE_CHECKING:
    from kernelmm.machine import Machine
    from kernelmm.page_view import PageView

__all__ = ["machine_html", "page_html"]

#: The fields of struct page that the allocator uses.
_FIELDS = ("flags", "_count", "_mapcount", "mapping", "index", "private", "lru.next", "lru.prev")
_COUNTS = frozenset({"_count", "_mapcount"})


def machine_html(machine: Machine) -> str:
    """Its zones: free pages, watermarks, and free blocks by order."""
    zones = list(populated_zones(machine.dump))
    orders = range(len(zones[0].nr_free)) if zones else range(0)
    rows = [
        (
            str(zone),
            str(zone.managed),
            str(zone.vm_stat["NR_FREE_PAGES"]),
            "/".join(map(str, zone.watermark)),
            *map(str, zone.nr_free),
        )
        for zone in zones
    ]
    columns = ("zone", "managed", "free", "min/low/high", *(f"2^{order}" for order in orders))
    title = repr(machine).strip("<>")
    return html(title, [Section("Pages, and free blocks of each order", columns=columns, rows=tuple(rows))])


def page_html(view: PageView) -> str:
    """The fields of a ``struct page``, and what they say."""
    rows = []
    for name in _FIELDS:
        value = view[name]
        text = str(value) if name in _COUNTS else f"{value & (1 << 64) - 1:#x}"
        rows.append((name, text, "|".join(view.flag_names) if name == "flags" else ""))
    order = "" if view.order is None else f", order {view.order}"
    notes = (f"node {view.nid}, zone {view.zone}, migratetype of its pageblock {view.migratetype}{order}",)
    title = f"struct page {view.page:#x} of pfn {view.pfn}"
    return html(title, [Section("Fields", rows=tuple(rows), notes=notes)])
