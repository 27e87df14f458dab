# SPDX-License-Identifier: GPL-2.0-only
"""A picture of memory as PNG or SVG, by matplotlib (extra ``[plot]``)."""

from __future__ import annotations

import math
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from physmem.errors import UnsupportedError
from physmem.inspect.map.cells import TILE, TILE_CELLS, Chart, tiles
from physmem.inspect.map.kinds import KINDS, NOTHING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["figure", "picture"]

_WIDTH, _DPI = 12.0, 150
#: Inches: a zone's heading, a line of the legend, the title and the edges.
_HEADING, _LINE, _TITLE, _EDGE = 0.42, 0.22, 0.45, 0.25
_COLUMNS = 5


def _palette() -> npt.NDArray[np.uint8]:
    """Colour and opacity of each kind."""
    table = np.zeros((256, 4), np.uint8)
    for number, kind in enumerate(KINDS):
        table[number] = (*bytes.fromhex(kind.colour[1:]), 255)
    return table


def _across(chart: Chart) -> int:
    """Tiles in a row, so that the picture is not much higher than it is wide."""
    count = sum(len(zone.kinds) // TILE_CELLS for zone in chart.zones)
    return max(8, 1 << max(0, math.ceil(math.log2(max(1, count)) / 2)))


def figure(chart: Chart) -> Figure:
    """The picture.

    :raises UnsupportedError: matplotlib is not installed
    """
    try:
        from matplotlib.figure import Figure
        from matplotlib.patches import Patch
    except ImportError:
        raise UnsupportedError("a picture as PNG or SVG needs matplotlib: pip install 'physmem[plot]'") from None
    from physmem.inspect.map.raster import Raster

    across = _across(chart)
    images = [tiles(zone.kinds, across) for zone in chart.zones]
    inner = _WIDTH - 2 * _EDGE
    heights = [inner * image.shape[0] / image.shape[1] for image in images]
    present = [(kind, count) for kind, count in zip(KINDS, chart.counts.tolist(), strict=True) if count]
    lines = -(-len(present) // _COLUMNS)
    height = _TITLE + sum(heights) + _HEADING * len(images) + _LINE * lines + 3 * _EDGE
    fig = Figure(figsize=(_WIDTH, height), dpi=_DPI, facecolor="white")
    pages = 1 << chart.shift
    fig.text(_EDGE / _WIDTH, 1 - _EDGE / height, chart.title, fontsize=13, weight="bold", va="top")
    note = f"{chart.counts.sum():,} page frames; a cell is {pages} page{'s' if pages > 1 else ''}"
    fig.text(1 - _EDGE / _WIDTH, 1 - _EDGE / height, note, fontsize=10, va="top", ha="right", color="#555555")
    top = height - _TITLE - _EDGE / 2
    palette = _palette()
    for zone, image, inches in zip(chart.zones, images, heights, strict=True):
        heading = f"Node {zone.node}, zone {zone.name}"
        span = f"pfn {zone.start_pfn:,} to {zone.end_pfn - 1:,}"
        baseline = (top - _HEADING + 0.08) / height
        fig.text(_EDGE / _WIDTH, baseline, heading, fontsize=11, weight="bold")
        fig.text(1 - _EDGE / _WIDTH, baseline, span, fontsize=9, ha="right", color="#555555")
        top -= _HEADING + inches
        axes = fig.add_axes((_EDGE / _WIDTH, top / height, inner / _WIDTH, inches / height))
        axes.add_image(Raster(axes, palette[image]))
        _grid(axes, image)
    handles = [Patch(facecolor=kind.colour, label=f"{kind.name}: {count:,}") for kind, count in present]
    fig.legend(handles=handles, loc="lower left", ncols=_COLUMNS, frameon=False, fontsize=8.5, bbox_to_anchor=(0.01, 0))
    return fig


def _grid(axes: Any, image: npt.NDArray[np.uint8]) -> None:
    """A fine line around each tile that has anything."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    used = (image != NOTHING).reshape(image.shape[0] // TILE, TILE, image.shape[1] // TILE, TILE).any(axis=(1, 3))
    if used.size <= 4096:
        rows, columns = np.nonzero(used)
        corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]]) * TILE - 0.5
        for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
            x, y = (corners + np.array([column, row]) * TILE).T
            axes.plot(x, y, color="white", linewidth=0.8)
    axes.set_xlim(-0.5, image.shape[1] - 0.5)
    axes.set_ylim(image.shape[0] - 0.5, -0.5)


def picture(chart: Chart, kind: str) -> bytes:
    """The picture as a file; ``kind`` is ``png`` or ``svg``.  The same chart gives the same bytes."""
    drawn = figure(chart)
    from matplotlib import rc_context

    file = BytesIO()
    with rc_context({"svg.hashsalt": "physmem"}):
        drawn.savefig(file, format=kind, metadata={"Date": None} if kind == "svg" else {"Software": None})
    return file.getvalue()
