# SPDX-License-Identifier: GPL-2.0-only
"""What every memory image offers, and the kind whose memory lies in its file as it is."""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from physmem.errors import AbsentError, UsageError
from physmem.image.notes import Note
from physmem.image.source import Source
from physmem.ranges import Ranges

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
else:
    from physmem.later import np

__all__ = ["MAX_PHYS", "Extent", "Image", "MappedImage"]

#: One past the highest physical address that x86-64 can have (Intel SDM 4.1.4, MAXPHYADDR).
MAX_PHYS = 1 << 52

# Bytes of memory that segments() yields at most, and that copy_into() has in hand.
_PIECE = 4 << 20
_ROOM = 1 << 18
_PAGE = 4096

_U64 = struct.Struct("<Q")


class Image(ABC):
    """A memory image that is open for reading: a ``PhysicalMemory``, and a context manager that closes it.

    Nothing here changes the image.  An access to memory that the image does not have raises ``AbsentError``
    naming the first absent address; an access to a closed image raises ``UsageError``.

    :ivar path: the file, as the user named it
    :ivar format: the name of the file format, with the compression if there is one
    :ivar ranges: the physical byte addresses that are present
    :ivar notes: the notes of the image, in order; none if the format has none
    :ivar vmcoreinfo: the entries of the kernel's VMCOREINFO; empty if the image has none
    :ivar frames: the physical memory that the machine had, present or not; None if the format does not tell
    :ivar span: the physical addresses that the file is for, present or not, if it may be one of several
    """

    path: str
    format: str
    ranges: Ranges
    notes: tuple[Note, ...]
    vmcoreinfo: dict[str, str]
    frames: Ranges | None = None
    span: tuple[int, int] | None = None

    @property
    def size(self) -> int:
        """One past the highest present physical address, in bytes; 0 if there is no memory in the image."""
        return self.ranges.end

    @abstractmethod
    def read(self, phys: int, size: int) -> bytes:
        """``size`` bytes at physical address ``phys``; nothing, wherever that is, if ``size`` is 0."""

    @abstractmethod
    def segments(self) -> Iterator[tuple[int, memoryview]]:
        """All present memory, once, in ascending order: pairs (physical address, bytes) of any lengths.

        The bytes are read-only, and an image is closed for good only when they have been let go.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of the file.  Closing twice is nothing."""

    def u64(self, phys: int) -> int:
        """The little-endian u64 at physical address ``phys``, which needs no alignment."""
        return int.from_bytes(self.read(phys, 8), "little")

    def array(self, phys: int, dtype: npt.DTypeLike, count: int) -> npt.NDArray[Any]:
        """``count`` elements of ``dtype`` at physical address ``phys``, read-only.

        No copy is made where the file holds them in one piece; such an array is as (un)aligned as the file is.
        """
        kind = np.dtype(dtype)
        return np.frombuffer(self.read(phys, kind.itemsize * count), kind)

    def copy_into(self, target: memoryview) -> None:
        """Copy all present memory to where it belongs in ``target``, which is zeros and as large as the image.

        Pages of zeros are not touched: memory that nobody has touched costs nothing.
        """
        for phys, data in self.segments():
            copy_pages(phys, data, target)

    def fill(self, phys: int, room: memoryview) -> None:
        """Read as many bytes as there is room for from physical address ``phys`` on, into memory that is there."""
        room[:] = self.read(phys, len(room))

    def _require(self, phys: int, size: int) -> None:
        """Raise unless all of [phys, phys + size) is present."""
        if size < 0:
            raise UsageError(f"{self.path}: {size} bytes at physical {phys:#x}: a size is never negative")
        gap = self.ranges.first_gap(phys, phys + size)
        if gap is not None:
            raise AbsentError(gap, size)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def copy_pages(phys: int, data: memoryview, target: memoryview) -> None:
    """Copy bytes from physical ``phys`` on into memory that is zeros, but for whole pages of zeros."""
    # What is no whole page, at both ends.
    first = min(-phys % _PAGE, len(data))
    last = first + (len(data) - first) // _PAGE * _PAGE
    octets = np.frombuffer(data[first:last], np.uint8)
    words = octets.reshape(-1, _PAGE).view(np.uint64) if octets.ctypes.data % 8 == 0 else octets.reshape(-1, _PAGE)
    used = np.flatnonzero(np.diff(words.any(axis=1), prepend=False, append=False)).reshape(-1, 2) * _PAGE + first
    for start, end in [(0, first), *used.tolist(), (last, len(data))]:
        target[phys + start : phys + end] = data[start:end]


class Extent(NamedTuple):
    """Physical addresses [start, end) lie in the file from ``offset`` on, in order.  All in bytes."""

    start: int
    end: int
    offset: int


class MappedImage(Image):
    """An image whose file holds memory in the clear, so that reading memory is reading the file.

    :param source: the file; closing the image closes it
    :param extents: where the memory lies: sorted, disjoint, inside the file
    """

    def __init__(self, source: Source, extents: Iterable[Extent], notes: Iterable[Note], info: dict[str, str]) -> None:
        self.path = source.path
        self.notes = tuple(notes)
        self.vmcoreinfo = info
        self._source = source
        self._extents = tuple(extents)
        self._starts = [extent.start for extent in self._extents]
        self._closed = False
        self.ranges = Ranges((extent.start, extent.end) for extent in self._extents)

    def close(self) -> None:
        self._closed = True
        self._source.close()

    def read(self, phys: int, size: int) -> bytes:
        offset = self._place(phys, size)
        if offset is not None:
            return self._source.data[offset : offset + size]
        self._require(phys, size)
        return b"".join(self._source.data[begin:end] for begin, end in self._places(phys, phys + size))

    def u64(self, phys: int) -> int:
        offset = self._place(phys, 8)
        if offset is None:
            return super().u64(phys)
        value: int = self._source.unpack(_U64, offset)[0]
        return value

    def array(self, phys: int, dtype: npt.DTypeLike, count: int) -> npt.NDArray[Any]:
        kind = np.dtype(dtype)
        offset = self._place(phys, kind.itemsize * count)
        if offset is None or count == 0:
            return super().array(phys, kind, count)
        return self._source.array(offset, kind, count)

    def fill(self, phys: int, room: memoryview) -> None:
        self._require(phys, len(room))
        done = 0
        for begin, end in self._places(phys, phys + len(room)):
            self._source.fill(begin, room[done : done + end - begin])
            done += end - begin

    def segments(self) -> Iterator[tuple[int, memoryview]]:
        self._open()
        for start, end, offset in self._extents:
            upto = start
            while upto < end:
                # Cut at multiples of the piece, so that no page is in two.
                phys, upto = upto, min(end, (upto // _PIECE + 1) * _PIECE)
                yield phys, self._source.view(offset + phys - start, upto - phys)

    def copy_into(self, target: memoryview) -> None:
        self._open()
        room = memoryview(bytearray(_ROOM))
        for start, end, offset in self._extents:
            for begin, upto in self._source.data_in(offset, offset + end - start):
                while begin < upto:
                    phys = start + begin - offset
                    # Cut at multiples of the room, so that no page is in two.
                    size = min(upto - begin, _ROOM - phys % _ROOM)
                    self._source.fill(begin, room[:size])
                    copy_pages(phys, room[:size], target)
                    begin += size

    def _open(self) -> None:
        if self._closed:
            raise UsageError(f"{self.path}: the image is closed")

    def _place(self, phys: int, size: int) -> int | None:
        """Where in the file [phys, phys + size) begins, or None if it is not there in one piece."""
        self._open()
        index = bisect_right(self._starts, phys) - 1
        if index < 0 or size < 0:
            return None
        start, end, offset = self._extents[index]
        return offset + phys - start if phys + size <= end else None

    def _places(self, phys: int, end: int) -> Iterator[tuple[int, int]]:
        """The pieces [begin, end) of the file that hold physical [phys, end), which is all present."""
        index = bisect_right(self._starts, phys) - 1
        while phys < end:
            extent = self._extents[index]
            upto = min(end, extent.end)
            yield extent.offset + phys - extent.start, extent.offset + upto - extent.start
            phys = upto
            index += 1
