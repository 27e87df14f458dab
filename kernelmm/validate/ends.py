# SPDX-License-Identifier: GPL-2.0-only
"""A trace between two memory images: how pages were when it began, and how they are when it has ended.

Any event that is missing leaves a page otherwise than an image shows it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from kernelmm.validate import cells
from kernelmm.validate.cells import Cells
from physmem.dump import Dump
from physmem.inspect.states import State, survey

__all__ = ["Pages", "differences"]

#: Nothing is known; free, on the free lists; free, on a CPU's list; somebody's.
_UNKNOWN, _FREE, _PCP, _USED = range(4)
_NO_PAGES = (State.HOLE, State.ABSENT, State.SUSPICIOUS, State.OFFLINE)
_OF_STATE = np.array(
    [{State.FREE: _FREE, State.PCP: _PCP}.get(state, _UNKNOWN if state in _NO_PAGES else _USED) for state in State],
    np.uint8,
)
#: As the numbers of a ledger.
_CELLS = np.array([cells.UNKNOWN, cells.HELD | cells.DRAINED, cells.FREE, cells.BEFORE], np.uint64)


class Pages:
    """Which pages are free, by an image.

    :raises PhysmemError: its zones or page array cannot be read
    """

    def __init__(self, dump: Dump) -> None:
        self.name = dump.image.path
        pieces = [_OF_STATE[piece.states] for piece in survey(dump)]
        self.codes: npt.NDArray[np.uint8] = np.concatenate([np.zeros(0, np.uint8), *pieces])

    def some(self, start: int, count: int) -> npt.NDArray[np.uint8]:
        """What is known of some pages; of those beyond memory, nothing."""
        here = self.codes[start : start + count]
        return np.pad(here, (0, count - len(here)))

    def cells(self, start: int, count: int) -> npt.NDArray[np.uint64]:
        """The numbers that a ledger begins with."""
        found: npt.NDArray[np.uint64] = _CELLS[self.some(start, count)]
        return found


def differences(pages: Cells, started: Pages | None, ended: Pages) -> Iterator[tuple[int, int, str]]:
    """Pages that the image of the end shows otherwise than a trace leaves them: line of its last event, PFN, words."""
    for key in sorted(pages):
        cell = np.frombuffer(pages[key], np.uint64)
        state, line = cell & np.uint64(3), cell >> np.uint64(cells.LINE) & np.uint64(cells.LINE_MASK)
        start = key << cells.BITS
        end = ended.some(start, cells.SIZE)
        is_free = (end == _FREE) | (end == _PCP)
        was_used = cell & np.uint64(cells.STATE_MASK) == np.uint64(cells.BEFORE)
        wrong = (state == cells.LIVE) & is_free
        wrong |= ((state == cells.FREE) | (state == cells.HELD)) & (end == _USED)
        wrong |= was_used & is_free
        for at in np.flatnonzero(wrong).tolist():
            if state[at] == cells.LIVE:
                yield int(line[at]), start + at, f"allocated, and free in {ended.name}"
            elif state[at] == cells.UNKNOWN:
                yield 0, start + at, f"in use when the trace began, not freed in it, and free in {ended.name}"
            else:
                yield int(line[at]), start + at, f"free, and in use in {ended.name}"
    if started is not None:
        yield from _unmentioned(pages, started, ended)


def _unmentioned(pages: Cells, started: Pages, ended: Pages) -> Iterator[tuple[int, int, str]]:
    """Pages that are free at one end, in use at the other, and that no event mentions."""
    count = min(len(started.codes), len(ended.codes))
    before, after = started.codes[:count], ended.codes[:count]
    free = [(codes == _FREE) | (codes == _PCP) for codes in (before, after)]
    taken, given = free[0] & (after == _USED), (before == _USED) & free[1]
    for pfn in np.flatnonzero(taken | given).tolist():
        if pfn >> cells.BITS not in pages:
            was, now = ("free", "in use") if taken[pfn] else ("in use", "free")
            yield 0, pfn, f"{was} in {started.name}, and {now} in {ended.name}; no event mentions it"
