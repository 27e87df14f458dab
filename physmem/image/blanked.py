# SPDX-License-Identifier: GPL-2.0-only
"""A memory of which some bytes are to be seen: the others of their pages are zeros, all other pages are absent."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from physmem.errors import AbsentError
from physmem.memory import PhysicalMemory
from physmem.ranges import Ranges

__all__ = ["Blanked"]

_PAGE = 4096


class Blanked:
    """Some bytes of a memory.

    :param memory: the whole
    :param shown: the physical addresses of the bytes to be seen
    :ivar shown: those of them that the memory has
    :ivar ranges: the pages that they are in
    """

    def __init__(self, memory: PhysicalMemory, shown: Ranges) -> None:
        self._memory = memory
        self.shown = Ranges(piece for start, end in shown for piece in memory.ranges.clip(start, end))
        self.ranges = Ranges((start & -_PAGE, -(-end // _PAGE) * _PAGE) for start, end in self.shown)

    @property
    def size(self) -> int:
        return self.ranges.end

    def read(self, phys: int, size: int) -> bytes:
        gap = self.ranges.first_gap(phys, phys + size)
        if gap is not None:
            raise AbsentError(gap, size)
        data = bytearray(size)
        for start, end in self.shown.clip(phys, phys + size):
            data[start - phys : end - phys] = self._memory.read(start, end - start)
        return bytes(data)

    def u64(self, phys: int) -> int:
        return int.from_bytes(self.read(phys, 8), "little")

    def array(self, phys: int, dtype: npt.DTypeLike, count: int) -> npt.NDArray[Any]:
        kind = np.dtype(dtype)
        return np.frombuffer(self.read(phys, kind.itemsize * count), kind)
