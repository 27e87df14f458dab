# SPDX-License-Identifier: GPL-2.0-only
"""What a page can be in a picture, and in which colour.

Free memory is green, the darker the larger its block; what belongs to people is blue and violet, what belongs to the
kernel warm; what is not there is grey, and what contradicts itself is red.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from physmem.inspect.classes import CODE, State

__all__ = ["FREE", "KINDS", "NOTHING", "SUSPICIOUS", "Kind", "kinds_of"]

#: Larger orders than this are drawn as this one.
_MAX_ORDER = 10


class Kind(NamedTuple):
    """A sort of page frame: its name, and the colour of it (``#rrggbb``)."""

    name: str
    colour: str


def _free(order: int) -> Kind:
    light, dark = (0xCD, 0xEF, 0xC3), (0x06, 0x52, 0x2E)
    part = order / _MAX_ORDER
    red, green, blue = (round(a + (b - a) * part) for a, b in zip(light, dark, strict=True))
    return Kind(f"free, order {order}", f"#{red:02x}{green:02x}{blue:02x}")


_OTHERS: dict[State, Kind] = {
    State.PCP: Kind("per-cpu list", "#b8d432"),
    State.ANON: Kind("anonymous", "#3b6fd4"),
    State.FILE: Kind("file", "#6fb7e9"),
    State.LRU: Kind("other on LRU", "#9aa8e8"),
    State.HUGEPAGE: Kind("hugepage", "#7a3fc0"),
    State.SLAB: Kind("slab", "#f0a030"),
    State.PAGE_TABLE: Kind("page table", "#e8d44d"),
    State.COMPOUND: Kind("other compound", "#c98a5a"),
    State.IN_USE: Kind("other in use", "#d9b38c"),
    State.RESERVED: Kind("reserved", "#7d5a4f"),
    State.UNREFERENCED: Kind("unreferenced", "#b9c4ae"),
    State.OFFLINE: Kind("offline", "#8a8f98"),
    State.HOLE: Kind("hole", "#e6e8eb"),
    State.ABSENT: Kind("absent", "#c3c8cf"),
    State.SUSPICIOUS: Kind("suspicious", "#e0182d"),
}

#: Every kind, by number; the first ones are free blocks by order.
KINDS: tuple[Kind, ...] = (*(_free(order) for order in range(_MAX_ORDER + 1)), *_OTHERS.values())
#: The number of free blocks of order 0; those of other orders follow.
FREE = 0
SUSPICIOUS = len(KINDS) - 1
#: Of a cell where there is nothing to draw: beyond the zone.
NOTHING = 255

_NUMBER = np.full(len(CODE), NOTHING, np.uint8)
for _i, _state in enumerate(_OTHERS):
    _NUMBER[CODE[_state]] = _MAX_ORDER + 1 + _i


def kinds_of(states: npt.NDArray[np.uint8], orders: npt.NDArray[np.int8]) -> npt.NDArray[np.uint8]:
    """The kind of each page, given what :func:`physmem.inspect.states.survey` tells of it."""
    kinds = _NUMBER[states]
    free = states == CODE[State.FREE]
    kinds[free] = FREE + np.clip(orders[free], 0, _MAX_ORDER).astype(np.uint8)
    return kinds
