# SPDX-License-Identifier: GPL-2.0-only
"""The bytes of an image file, mapped read-only, whether or not the file is compressed.

A plain file is mapped as it is.  A compressed one - told by its first bytes,
never by its name - is expanded into a temporary file without a name, and that
one is mapped: how much memory this takes does not depend on the image.

The mapping is as long as the file is when it is opened.  A file that another
process cuts short afterwards is beyond what a mapping can report.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import stat
import tempfile
from collections.abc import Callable, Iterable
from typing import BinaryIO

from physmem.errors import ImageError
from physmem.image import compression
from physmem.image.sparse import SparseFile

__all__ = ["MAX_EXPANDED", "Source", "open_source"]

#: The default limit, in bytes, of what a compressed file may expand to.
MAX_EXPANDED = 64 << 30

# Enough of the contents to recognise any format.
_HEAD = 4096


class Source:
    """A read-only mapping of an image's contents.

    :ivar path: the file, as the user named it
    :ivar data: the mapping, never empty
    :ivar size: bytes in the mapping
    :ivar compression: name of the compression, or "" for a plain file
    """

    def __init__(self, path: str, file: BinaryIO, compression: str) -> None:
        self.path = path
        self.compression = compression
        self.size = os.fstat(file.fileno()).st_size
        if self.size == 0:
            raise ImageError(path, f"{compression} stream of nothing" if compression else "is empty")
        try:
            self.data = mmap.mmap(file.fileno(), self.size, access=mmap.ACCESS_READ)
        except (OSError, ValueError, OverflowError) as error:
            raise ImageError(path, f"cannot be mapped: {error}") from error

    def close(self) -> None:
        """Let go of the mapping.  Arrays that look into it keep it alive until they are gone."""
        with contextlib.suppress(BufferError):
            self.data.close()


def open_source(
    path: str | os.PathLike[str],
    *,
    max_expanded: int = MAX_EXPANDED,
    accept: Callable[[bytes], object] | None = None,
) -> Source:
    """Open the regular file ``path``, expanding it if it is compressed.

    :param max_expanded: the most bytes that a compressed file may expand to; what is free in the temporary
        directory is a limit as well
    :param accept: called with the first bytes of the contents before any are expanded to disk; it raises to
        refuse the file
    :raises ImageError: the file cannot be opened or mapped, is not a regular file, is empty, is corrupt or cut
        short as a compressed stream, has garbage after it, or expands to too much
    """
    name = os.fspath(path)
    if "\0" in name:
        raise ImageError(name.replace("\0", "\\0"), "cannot be read: a NUL in its name")
    try:
        with open(name, "rb", buffering=0, opener=_open_at_once) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ImageError(name, "is not a regular file")
            head = file.read(_HEAD)
            file.seek(0)
            packing = compression.detect(head)
            if packing is None:
                if accept is not None and head:
                    accept(head)
                return Source(name, file, "")
            with tempfile.TemporaryFile() as expanded:
                _store(name, compression.expand(name, file, packing), expanded, max_expanded, accept)
                return Source(name, expanded, packing.name)
    except OSError as error:
        raise ImageError(name, f"cannot be read: {error.strerror or error}") from error


def _open_at_once(path: str, flags: int) -> int:
    # A FIFO must be refused, not waited for.
    return os.open(path, flags | os.O_NONBLOCK)


def _store(
    path: str,
    pieces: Iterable[bytes],
    file: BinaryIO,
    max_expanded: int,
    accept: Callable[[bytes], object] | None,
) -> None:
    """Write ``pieces``, within the limits of ``open_source``."""
    space = os.fstatvfs(file.fileno())
    free = space.f_bavail * space.f_frsize
    out = SparseFile(file)
    size = 0
    head = b""
    for piece in pieces:
        size += len(piece)
        if len(head) < _HEAD:
            head += piece[:_HEAD]
            if accept is not None and len(head) >= _HEAD:
                accept(head)
        if size > max_expanded:
            raise ImageError(path, f"expands to more than {max_expanded} bytes, the most that is allowed")
        if size > free:
            raise ImageError(path, f"expands to more than the {free} bytes free in the temporary directory")
        out.write(piece)
    out.close()
    if accept is not None and 0 < size < _HEAD:
        accept(head)
