# SPDX-License-Identifier: GPL-2.0-only
"""A picture of memory for a terminal: two cells a character, in colour."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from rich.style import Style
from rich.text import Text

from physmem.inspect.map.cells import TILE, Chart, tiles
from physmem.inspect.map.kinds import KINDS, NOTHING

__all__ = ["CELLS", "draw", "legend"]

#: About so many cells are drawn.
CELLS = 1 << 14
_HALF = "▀"


def draw(chart: Chart, width: int) -> Iterator[Text]:
    """The zones as lines of text of at most ``width`` characters."""
    across = max(1, width // TILE)
    pages = 1 << chart.shift
    yield Text(f"{chart.title}; a cell is {pages} page{'s' if pages > 1 else ''}")
    for zone in chart.zones:
        yield Text()
        yield Text(f"node {zone.node} zone {zone.name}: pfn {zone.start_pfn} to {zone.end_pfn - 1}", Style(bold=True))
        image = tiles(zone.kinds, across)
        used = np.flatnonzero((image != NOTHING).any(axis=1))
        rows = image[used[0] // 2 * 2 : used[-1] + 2] if len(used) else image[:0]
        for upper, lower in zip(rows[::2].tolist(), rows[1::2].tolist(), strict=False):
            line = Text()
            for above, below in zip(upper, lower, strict=True):
                line.append(" " if above == below == NOTHING else _HALF, _style(above, below))
            line.rstrip()
            yield line
    yield Text()
    yield legend(chart)


def _style(above: int, below: int) -> Style:
    return Style(
        color=None if above == NOTHING else KINDS[above].colour,
        bgcolor=None if below == NOTHING else KINDS[below].colour,
    )


def legend(chart: Chart) -> Text:
    """The kinds that there are, each with its colour and its pages."""
    line = Text()
    for kind, count in zip(KINDS, chart.counts.tolist(), strict=True):
        if count:
            line.append("██ ", Style(color=kind.colour)).append(f"{kind.name} {count}   ")
    return line
