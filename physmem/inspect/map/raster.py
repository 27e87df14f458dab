# SPDX-License-Identifier: GPL-2.0-only
"""Cells as pixels, for matplotlib: what its own ``imshow`` does takes sixteen bytes for each pixel of the picture."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.image import AxesImage

__all__ = ["Raster"]

#: Rows of pixels that are made at a time.
_STRIP = 64


class Raster(AxesImage):
    """An image that fills its axes, with hard edges between cells.

    :param colours: red, green, blue and opacity of each cell
    """

    def __init__(self, axes: Any, colours: npt.NDArray[np.uint8]) -> None:
        super().__init__(axes, interpolation="nearest", origin="upper")
        self.set_data(colours)
        self.set_extent((-0.5, colours.shape[1] - 0.5, colours.shape[0] - 0.5, -0.5))
        self._colours = colours

    def draw(self, renderer: Any, *arguments: Any, **options: Any) -> None:
        """Onto pixels a strip at a time; onto anything else as every image is."""
        if not isinstance(renderer, RendererAgg):
            super().draw(renderer, *arguments, **options)
            return
        box = self.axes.bbox
        left, bottom, right, top = (round(edge) for edge in (box.x0, box.y0, box.x1, box.y1))
        rows, columns = _cells(top - bottom, self._colours.shape[0]), _cells(right - left, self._colours.shape[1])
        context = renderer.new_gc()
        for first in range(0, len(rows), _STRIP):
            strip = self._colours[rows[first : first + _STRIP][:, None], columns]
            # From the bottom up, as the renderer counts.
            renderer.draw_image(context, left, top - first - len(strip), np.ascontiguousarray(strip[::-1]))
        context.restore()
        self.stale = False


def _cells(pixels: int, cells: int) -> npt.NDArray[np.intp]:
    """Of each pixel along an edge, the cell that its middle is in."""
    found: npt.NDArray[np.intp] = (2 * np.arange(pixels) + 1) * cells // (2 * pixels)
    return found
