# SPDX-License-Identifier: GPL-2.0-only
"""What every physical memory offers: an image on disk as well as emulated RAM.

Code that only looks (address translation, inspection, the image writer) asks
for a `PhysicalMemory` and works on both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from physmem.ranges import Ranges

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["UNMAPPED", "PhysicalMemory"]

#: In the place of a physical address: no memory there.
UNMAPPED = 0xFFFFFFFFFFFFFFFF


class PhysicalMemory(Protocol):
    """Bytes at physical addresses, some of which may be absent.

    Every access raises `AbsentError`, naming the first absent address, if any
    byte of it is absent: absent is not zero.
    """

    @property
    def ranges(self) -> Ranges:
        """The physical byte addresses that are present."""

    @property
    def size(self) -> int:
        """One past the highest present physical address, in bytes; 0 if all is absent."""

    def read(self, phys: int, size: int) -> bytes:
        """`size` bytes at physical address `phys`."""

    def u64(self, phys: int) -> int:
        """The little-endian u64 at physical address `phys`, which needs no alignment."""

    def array(self, phys: int, dtype: npt.DTypeLike, count: int) -> npt.NDArray[Any]:
        """`count` elements at physical address `phys`: read-only, and not a copy where that is possible."""
