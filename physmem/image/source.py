# SPDX-License-Identifier: GPL-2.0-only
"""The bytes of an image file, whether or not the file is compressed.

A plain file is read where it is, by ``pread``: another process may cut it short
or write to it at any time, and that has to be an error here; in a mapping it
would be a signal that ends the process.  What was read once is kept for a while,
in blocks, so that small reads are cheap.

A compressed file - told by its first bytes, never by its name - is expanded into
a temporary file without a name, which nobody else can reach, and that one is
mapped.  Either way, how much memory this takes does not depend on the image.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import stat
import struct
import weakref
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

from physmem.errors import ImageError, UsageError
from physmem.image import compression
from physmem.image.sparse import SparseFile

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
else:
    from physmem.later import np

__all__ = ["MAX_EXPANDED", "FileBytes", "Sliceable", "Source", "open_source"]

#: The default limit, in bytes, of what a compressed file may expand to.
MAX_EXPANDED = 64 << 30

# Enough of the contents to recognise any format.
_HEAD = 4096
# Of a plain file: bytes of a block that is kept, how many are, and reads from which size on go past them.
_BLOCK_SHIFT = 12
_BLOCK = 1 << _BLOCK_SHIFT
_KEPT = 2048
_LARGE = 512


class Sliceable(Protocol):
    """``data[start:end]`` for offsets inside the file."""

    def __getitem__(self, where: slice, /) -> bytes: ...

    def __len__(self) -> int: ...


class FileBytes:
    """The bytes of a file that others can change while it is open: each read notices if they have.

    :param path: the file, as the user named it
    :param file: the file, open; this keeps it open for itself
    """

    def __init__(self, path: str, file: BinaryIO) -> None:
        self._path = path
        self._descriptor = os.dup(file.fileno())
        self._finalize = weakref.finalize(self, os.close, self._descriptor)
        self._state = _state(self._descriptor)
        self._block = lru_cache(maxsize=_KEPT)(self._load)

    def __len__(self) -> int:
        return self._state[0]

    def __getitem__(self, where: slice) -> bytes:
        size = len(self)
        start = 0 if where.start is None else where.start
        end = size if where.stop is None else min(where.stop, size)
        if end - start >= _LARGE:
            return self._pread(start, end - start)
        if end <= start:
            return b""
        first = start >> _BLOCK_SHIFT
        at = start - (first << _BLOCK_SHIFT)
        data = self._block(first)[at : at + end - start]
        return data if at + end - start <= _BLOCK else data + self._block(first + 1)[: at + end - start - _BLOCK]

    def close(self) -> None:
        """Let go of the file."""
        self._finalize()
        self._block.cache_clear()

    def _load(self, number: int) -> bytes:
        start = number << _BLOCK_SHIFT
        return self._pread(start, min(_BLOCK, len(self) - start))

    def fill(self, offset: int, room: memoryview) -> None:
        """Read as many bytes as there is room for, all inside the file."""
        self._alive()
        done = 0
        try:
            # One call gives 2 GiB at most.
            while done < len(room) and (count := os.preadv(self._descriptor, [room[done:]], offset + done)):
                done += count
            state = _state(self._descriptor)
        except OSError as error:
            raise ImageError(self._path, f"cannot be read: {error.strerror or error}", offset) from error
        self._check(offset, state, whole=done == len(room))

    def data_in(self, offset: int, end: int) -> Iterator[tuple[int, int]]:
        """What is no hole in the file, of [offset, end), in ascending order; all of it where nobody can tell."""
        self._alive()
        while offset < end:
            try:
                start = os.lseek(self._descriptor, offset, os.SEEK_DATA)
                upto = os.lseek(self._descriptor, start, os.SEEK_HOLE)
            except OSError as error:
                start, upto = (end, end) if error.errno == errno.ENXIO else (offset, end)
            if start < end:
                yield start, min(upto, end)
            offset = upto
        self._check(end, _state(self._descriptor), whole=True)

    def _pread(self, offset: int, size: int) -> bytes:
        self._alive()
        try:
            data = os.pread(self._descriptor, size, offset)
            # One call returns 2 GiB at most.
            while len(data) < size and (more := os.pread(self._descriptor, size - len(data), offset + len(data))):
                data += more
            state = _state(self._descriptor)
        except OSError as error:
            raise ImageError(self._path, f"cannot be read: {error.strerror or error}", offset) from error
        self._check(offset, state, whole=len(data) == size)
        return data

    def _alive(self) -> None:
        if not self._finalize.alive:
            raise UsageError(f"{self._path}: the image is closed")

    def _check(self, offset: int, state: tuple[int, int], *, whole: bool) -> None:
        """Raise if the file is not what it was."""
        if state[0] < self._state[0]:
            reason = f"was cut short while it was open: it had {self._state[0]:#x} bytes, now {state[0]:#x}"
            raise ImageError(self._path, reason, offset)
        if state != self._state or not whole:
            raise ImageError(self._path, "was changed by somebody else while it was open", offset)


def _state(descriptor: int) -> tuple[int, int]:
    """What changes when somebody writes to a file: its size, and when that was last done."""
    found = os.fstat(descriptor)
    return found.st_size, found.st_mtime_ns


class Source:
    """The contents of an image's file.

    :ivar path: the file, as the user named it
    :ivar data: the bytes, never none: for who has checked the size
    :ivar size: how many they are
    :ivar compression: name of the compression, or "" for a plain file

    :param file: the file, or one to which it was expanded; it can be closed afterwards
    :param private: nobody else can reach it
    """

    data: mmap.mmap | FileBytes

    def __init__(self, path: str, file: BinaryIO, compression: str, *, private: bool) -> None:
        self.path = path
        self.compression = compression
        self.size = os.fstat(file.fileno()).st_size
        if self.size == 0:
            raise ImageError(path, f"{compression} stream of nothing" if compression else "is empty")
        if not private:
            self.data = FileBytes(path, file)
            self.size = len(self.data)
            return
        try:
            self.data = mmap.mmap(file.fileno(), self.size, access=mmap.ACCESS_READ)
        except (OSError, ValueError, OverflowError) as error:
            raise ImageError(path, f"cannot be mapped: {error}") from error

    def unpack(self, form: struct.Struct, offset: int) -> tuple[Any, ...]:
        """The record at ``offset``, which lies inside the file; raises ImageError as every read here does."""
        return form.unpack(self.data[offset : offset + form.size])

    def array(self, offset: int, dtype: npt.DTypeLike, count: int) -> npt.NDArray[Any]:
        """``count`` elements of ``dtype`` at ``offset``, inside the file: read-only, and no copy of a mapping."""
        kind = np.dtype(dtype)
        if isinstance(self.data, mmap.mmap) and count:
            return np.frombuffer(self.data, kind, count, offset)
        return np.frombuffer(self.data[offset : offset + kind.itemsize * count], kind)

    def view(self, offset: int, size: int) -> memoryview:
        """``size`` bytes at ``offset``, inside the file: read-only, and no copy of a mapping."""
        if isinstance(self.data, mmap.mmap):
            return memoryview(self.data)[offset : offset + size]
        return memoryview(self.data[offset : offset + size])

    def fill(self, offset: int, room: memoryview) -> None:
        """Read as many bytes as there is room for, at ``offset``, inside the file."""
        if isinstance(self.data, mmap.mmap):
            room[:] = memoryview(self.data)[offset : offset + len(room)]
        else:
            self.data.fill(offset, room)

    def data_in(self, offset: int, end: int) -> Iterator[tuple[int, int]]:
        """The parts [start, end) of the file inside [offset, end) that may be other than zeros, ascending."""
        return iter([(offset, end)]) if isinstance(self.data, mmap.mmap) else self.data.data_in(offset, end)

    def close(self) -> None:
        """Let go of the file.  Arrays and views of a mapping keep it alive until they are gone."""
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
    :raises ImageError: the file cannot be opened or read, is not a regular file, is empty, is corrupt or cut
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
                return Source(name, file, "", private=False)
            import tempfile  # for compressed files alone

            with tempfile.TemporaryFile() as expanded:
                _store(name, compression.expand(name, file, packing), expanded, max_expanded, accept)
                return Source(name, expanded, packing.name, private=True)
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
