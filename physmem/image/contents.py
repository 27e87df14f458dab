# SPDX-License-Identifier: GPL-2.0-only
"""The bytes of an image file by their offset, wherever in the file on disk they are.

Formats that are looked up here and there read through this: a plain file is one
kind of it, a flattened one (``physmem.image.flattened``) the other.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from physmem.errors import ImageError
from physmem.image.source import Sliceable, Source

__all__ = ["Contents"]


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

    def close(self) -> None:
        """Let go of the file."""
        self._source.close()

    def _check(self, offset: int, size: int, what: str) -> None:
        if offset + size > self.size:
            reason = f"truncated: {what} ends at {offset + size:#x}, the file has {self.size:#x} bytes"
            raise ImageError(self.path, reason, offset)
