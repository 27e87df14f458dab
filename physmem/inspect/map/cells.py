# SPDX-License-Identifier: GPL-2.0-only
"""What there is to draw: each zone as cells, a cell being one page frame, or 2^shift of them if there are very many."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from physmem.dump import Dump
from physmem.inspect.map.kinds import KINDS, NOTHING, SUSPICIOUS, kinds_of
from physmem.inspect.memmap import CHUNK
from physmem.inspect.pageformat import PageFormat
from physmem.inspect.states import survey
from physmem.inspect.zones import Zone, populated_zones

__all__ = ["MAX_CELLS", "TILE", "TILE_CELLS", "Chart", "ZoneChart", "chart", "tiles"]

#: Cells that a picture may have, roughly.
MAX_CELLS = 1 << 21
#: Cells along the side of a tile, and in it.
TILE = 32
TILE_CELLS = TILE * TILE
#: A cell is part of one piece that is read at a time.
_MAX_SHIFT = CHUNK.bit_length() - 1


@dataclass
class ZoneChart:
    """A zone as cells.

    :ivar first_pfn: of the first cell: the first tile may begin before the zone does
    :ivar kinds: the kind of most pages of each cell (:data:`~physmem.inspect.map.kinds.KINDS`), NOTHING beyond the
        zone; a cell with any suspicious page is suspicious
    :ivar mobility: the migratetype of each cell's first page, -1 if it is not known
    :ivar counts: pages of each kind
    """

    node: int
    name: str
    start_pfn: int
    end_pfn: int
    first_pfn: int
    kinds: npt.NDArray[np.uint8]
    mobility: npt.NDArray[np.int8]
    counts: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Chart:
    """All zones.

    :ivar shift: log2 of the pages in a cell
    :ivar migratetypes: their names, by number
    """

    title: str
    shift: int
    migratetypes: tuple[str, ...]
    zones: list[ZoneChart]

    @property
    def counts(self) -> npt.NDArray[np.int64]:
        """Pages of each kind."""
        total: npt.NDArray[np.int64] = sum((zone.counts for zone in self.zones), np.zeros(len(KINDS), np.int64))
        return total


def chart(dump: Dump, max_cells: int = MAX_CELLS, progress: Callable[[int], None] = lambda pages: None) -> Chart:
    """Look at every page frame.

    :param max_cells: more than about so many cells are not to be drawn
    :param progress: told of the page frames that were looked at, as they are
    :raises PhysmemError: the zones or the page array cannot be read
    """
    zones = list(populated_zones(dump))
    spanned = sum(zone.spanned for zone in zones)
    shift = 0
    while spanned >> shift > max_cells and shift < _MAX_SHIFT:
        shift += 1
    charts = [_empty(zone, shift, dump.max_pfn) for zone in zones]
    for piece in survey(dump):
        kinds = kinds_of(piece.states, piece.orders)
        for zone in charts:
            _fill(zone, shift, piece.start, kinds, piece.migratetypes)
        progress(len(kinds))
    release = dump.info.get("OSRELEASE")
    title = f"{dump.image.path}: Linux {release}" if release else dump.image.path
    return Chart(title, shift, PageFormat(dump.layout).migratetypes, charts)


def _empty(zone: Zone, shift: int, limit: int) -> ZoneChart:
    tile = TILE_CELLS << shift
    start, end = min(zone.start_pfn, limit), min(zone.end_pfn, limit)
    first = start // tile * tile
    cells = -(-(end - first) // tile) * TILE_CELLS
    kinds, mobility = np.full(cells, NOTHING, np.uint8), np.full(cells, -1, np.int8)
    return ZoneChart(zone.node, zone.name, start, end, first, kinds, mobility, np.zeros(len(KINDS), np.int64))


def _fill(
    zone: ZoneChart, shift: int, start: int, kinds: npt.NDArray[np.uint8], migratetypes: npt.NDArray[np.int8]
) -> None:
    """Draw a piece of memory, as far as it is the zone's."""
    first, last = max(start, zone.start_pfn), min(start + len(kinds), zone.end_pfn)
    if first >= last:
        return
    pages = kinds[first - start : last - start]
    zone.counts += np.bincount(pages, minlength=len(KINDS))[: len(KINDS)]
    # Whole cells, of which what is beyond the zone counts for nothing.
    begin, end = first >> shift << shift, -(-last >> shift) << shift
    whole = np.full(end - begin, NOTHING, np.uint8)
    whole[first - begin : last - begin] = pages
    where = slice((begin - zone.first_pfn) >> shift, (end - zone.first_pfn) >> shift)
    zone.kinds[where] = _prevailing(whole.reshape(-1, 1 << shift)) if shift else whole
    at = np.maximum(np.arange(begin, end, 1 << shift), first)
    zone.mobility[where] = migratetypes[at - start]


def _prevailing(cells: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The kind of most pages of each cell; what is suspicious is never outvoted."""
    most, found = np.zeros(len(cells), np.int64), np.full(len(cells), NOTHING, np.uint8)
    for kind in np.unique(cells).tolist():
        if kind == NOTHING:
            continue
        votes = np.count_nonzero(cells == kind, axis=1)
        if kind == SUSPICIOUS:
            votes[votes > 0] = cells.shape[1] + 1
        found[votes > most] = kind
        np.maximum(most, votes, out=most)
    return found


def _curve() -> npt.NDArray[np.intp]:
    """Of each place in a tile (row by row), the number of the cell there: along a Z-curve, along x first."""
    number = np.zeros((TILE, TILE), np.intp)
    y, x = np.mgrid[:TILE, :TILE]
    for bit in range(TILE.bit_length() - 1):
        number |= (x >> bit & 1) << (2 * bit) | (y >> bit & 1) << (2 * bit + 1)
    return number.reshape(-1)


_CURVE = _curve()


def tiles(cells: npt.NDArray[np.uint8], across: int) -> npt.NDArray[np.uint8]:
    """Cells as rows and columns, ``across`` tiles in a row; what is left of the last row is NOTHING."""
    count = len(cells) // TILE_CELLS
    down = max(1, -(-count // across))
    padded = np.full((down * across, TILE_CELLS), NOTHING, np.uint8)
    padded[:count] = cells.reshape(count, TILE_CELLS)
    image: npt.NDArray[np.uint8] = (
        padded[:, _CURVE].reshape(down, across, TILE, TILE).swapaxes(1, 2).reshape(down * TILE, across * TILE)
    )
    return image
