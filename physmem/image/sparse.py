# SPDX-License-Identifier: GPL-2.0-only
"""Writing files that are mostly zeros: nothing is stored for the zeros."""

from __future__ import annotations

import os
from typing import BinaryIO

__all__ = ["SparseFile"]

_BLOCK = 1 << 16
_ZEROS = bytes(_BLOCK)


class SparseFile:
    """Appends to a file that is open for writing, and leaves holes for whole blocks of zeros.

    :param file: a seekable file; it stays open when this is closed
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, data: bytes) -> int:
        """Append ``data``; raises OSError."""
        for start in range(0, len(data), _BLOCK):
            block = data[start : start + _BLOCK]
            if block == _ZEROS:
                self._file.seek(_BLOCK, os.SEEK_CUR)
            else:
                self._file.write(block)
        return len(data)

    def skip(self, size: int) -> None:
        """Append ``size`` zeros; raises OSError."""
        self._file.seek(size, os.SEEK_CUR)

    def close(self) -> None:
        """Give the file its length, in case it ends in a hole; raises OSError."""
        self._file.truncate(self._file.tell())
