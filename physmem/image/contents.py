# SPDX-License-Identifier: GPL-2.0-only
"""The bytes of an image file by their offset, wherever in the file on disk they are.

Formats that are looked up here and there read through this: a plain file is one
kind of it, a flattened one (``physmem.image.flattened``) the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from physmem.errors import ImageError
from physmem.image.source import Sliceable, Source

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
else:
    from physmem.later import np

__all__ = ["Contents", "Part"]


class Part:
    """Some bytes of a file, as if they were all."""

    def __init__(self, contents: Contents, offset: int, size: int) -> None:
        self._contents, self._offset, self._size = contents, offset, size

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, where: slice) -> bytes:
        """Bytes in this part."""
        return self._contents.data[self._offset + where.start : self._offset + where.stop]

    def data(self) -> Iterator[tuple[int, int]]:
        """Where there may be other bytes than zeros."""
        for start, end in self._contents.data_in(self._offset, self._offset + self._size):
            yield start - self._offset, end - self._offset


class Contents:
    """The bytes of a file.

    :ivar path: the file, as the user named it
    :ivar kind: what to add to the name of the format: the compression, or that the file is flattened
    :ivar size: bytes in the file
    :ivar data: the bytes, for who has checked the size
    """

    data: Sliceable

    def __init__(self, source: Source) -> None:
        self._source = source
        self.path = source.path
        self.kind = source.compression
        self.size = source.size
        self.data = source.data

    def read(self, offset: int, size: int, what: str) -> bytes:
        """``size`` bytes at ``offset``, which are ``what``; ImageError if the file ends before."""
        self._check(offset, size, what)
        return self.data[offset : offset + size]

    def array(self, offset: int, dtype: npt.DTypeLike, count: int, what: str) -> npt.NDArray[Any]:
        """``count`` elements of ``dtype`` at ``offset``, read-only; ImageError if the file ends before."""
        kind = np.dtype(dtype)
        return np.frombuffer(self.read(offset, kind.itemsize * count, what), kind)

    def part(self, offset: int, size: int, what: str) -> Part:
        """The same as :meth:`read`, to be read as it is needed."""
        self._check(offset, size, what)
        return Part(self, offset, size)

    def data_in(self, offset: int, end: int) -> Iterator[tuple[int, int]]:
        """The parts [start, end) inside [offset, end) that may be other than zeros, ascending."""
        return self._source.data_in(offset, end)

    def close(self) -> None:
        """Let go of the file."""
        self._source.close()

    def _check(self, offset: int, size: int, what: str) -> None:
        if offset + size > self.size:
            reason = f"truncated: {what} ends at {offset + size:#x}, the file has {self.size:#x} bytes"
            raise ImageError(self.path, reason, offset)
