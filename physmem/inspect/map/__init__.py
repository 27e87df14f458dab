# SPDX-License-Identifier: GPL-2.0-only
"""A picture of physical memory: what every page frame is used for, zone by zone.

:func:`~physmem.inspect.map.cells.chart` finds out what there is to draw; a room each draws it as an image
(``figure``), as a page for a browser (``html``) and for a terminal (``terminal``).  In all of them memory is laid
out in square tiles of 1024 cells, and within a tile along a Z-curve, so that every aligned block of a power of two
pages, which is what the buddy allocator deals in, is a square or two squares side by side.
"""

from __future__ import annotations

from physmem.inspect.map.cells import Chart, ZoneChart, chart
from physmem.inspect.map.kinds import KINDS, Kind

__all__ = ["KINDS", "Chart", "Kind", "ZoneChart", "chart"]
