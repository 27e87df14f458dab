# SPDX-License-Identifier: GPL-2.0-only
"""New files in the place of old ones: all of the new file, or the old one untouched.

Where the file system can (``O_TMPFILE``), a new file has no name until it is
complete: whatever happens, even to the whole process, nothing is left of it.
Elsewhere, and for the moment in which it takes the place of an old file, it is
called ``.physmem-`` and some digits, and is locked (``flock``).  A process that is
killed then leaves it behind, without the lock: the next one that writes into the
same directory removes it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import stat
from collections.abc import Iterator
from typing import BinaryIO, Protocol

from physmem.errors import ImageError
from physmem.image import compression
from physmem.image.sparse import SparseFile

__all__ = ["Output", "replacing", "replacing_file", "write_zeros"]

_TEMPORARY = re.compile(r"\.physmem-[0-9a-f]{16}")
_TMPFILE = getattr(os, "O_TMPFILE", 0)
_ZEROS = bytes(1 << 20)
_DESCRIPTORS = "/proc/self/fd"
# What a file system or a kernel without O_TMPFILE may answer.
_UNSUPPORTED = {errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL}


class Output(Protocol):
    """Where the bytes of a new file go, in order."""

    def write(self, data: bytes, /) -> int:
        """Append ``data``; raises OSError, which ``replacing`` turns into ImageError."""

    def close(self) -> None:
        """Finish; for ``replacing`` alone to call."""


def write_zeros(out: Output, size: int) -> None:
    """Append ``size`` zeros, without writing them where they need not be; raises OSError."""
    if isinstance(out, SparseFile):
        out.skip(size)
        return
    for done in range(0, size, len(_ZEROS)):
        out.write(_ZEROS[: size - done])


class _NewFile:
    """A file that has, for now, no name or a temporary one.

    :ivar file: what is written to
    :raises OSError: it cannot be created
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._name: str | None = None
        _remove_leftovers(directory)
        try:
            if not _TMPFILE or not os.path.isdir(_DESCRIPTORS):
                raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
            descriptor = os.open(directory, _TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o666)
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
            descriptor = self._create()
        self.file = _writer(descriptor)

    def _create(self) -> int:
        """A file with a temporary name."""
        while True:
            name = self._temporary()
            descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            self._name = name
            _lock(descriptor)
            # Before it was locked, somebody else may have taken it for a leftover.
            if os.fstat(descriptor).st_nlink:
                return descriptor
            os.close(descriptor)

    def _temporary(self) -> str:
        return os.path.join(self._directory, f".physmem-{os.urandom(8).hex()}")

    def take_place(self, target: str) -> None:
        """Be complete, and ``target`` from now on, in the place of what was there; raises OSError."""
        # The descriptor keeps the file alive, and locked; closing the file is the last chance to hear of an error.
        descriptor = os.dup(self.file.fileno())
        try:
            self.file.close()
            if self._name is None:
                self._appear(descriptor, target)
            if self._name is not None:
                os.replace(self._name, target)
                self._name = None
        finally:
            os.close(descriptor)

    def _appear(self, descriptor: int, target: str) -> None:
        """Get a name: ``target``, or if that is somebody's, a temporary one."""
        here = os.open(self._directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            # With a directory, Python tells linkat to follow symbolic links, such as the one of an open file.
            source = f"{_DESCRIPTORS}/{descriptor}"
            try:
                os.link(source, os.path.basename(target), src_dir_fd=here, dst_dir_fd=here)
            except FileExistsError:
                _lock(descriptor)
                self._name = self._temporary()
                os.link(source, os.path.basename(self._name), src_dir_fd=here, dst_dir_fd=here)
        finally:
            os.close(here)

    def discard(self) -> None:
        """Leave nothing of it."""
        if self._name is not None:
            with contextlib.suppress(OSError):
                os.unlink(self._name)


def _writer(descriptor: int) -> BinaryIO:
    return open(descriptor, "wb")


def _lock(descriptor: int) -> None:
    """Mark a file as one that a process is at work on, where the file system has locks."""
    with contextlib.suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX)


def _remove_leftovers(directory: str) -> None:
    """Remove the temporary files of processes that were killed."""
    with contextlib.suppress(OSError), os.scandir(directory) as entries:
        for entry in entries:
            if _TEMPORARY.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                _remove_if_left(entry.path)


def _remove_if_left(name: str) -> None:
    with contextlib.suppress(OSError):
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(name)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Output]:
    """Write a file that takes the place of ``path``, and its permissions, when the block ends well.

    A name that ends in .gz, .xz or .zst is compressed, any other file sparse.  Of a symbolic link, the file it leads
    to is replaced.  When anything fails, the new file is gone and an old one is as it was.

    :raises ImageError: the file cannot be written, or ``path`` is something else than a regular file
    """
    with _replacing(path) as (name, file):
        packing = next((known for known in compression.FORMATS if name.endswith(known.suffix)), None)
        out: Output = packing.writer(file) if packing else SparseFile(file)
        try:
            yield out
        except BaseException:
            # A compressor left open would report, when it is collected, that its file is gone.
            with contextlib.suppress(Exception):
                out.close()
            raise
        out.close()


@contextlib.contextmanager
def replacing_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """As :func:`replacing`, a file that is written to here and there, never compressed."""
    with _replacing(path) as (_, file):
        yield file


@contextlib.contextmanager
def _replacing(path: str | os.PathLike[str]) -> Iterator[tuple[str, BinaryIO]]:
    name = os.fspath(path)
    try:
        target, mode = _target(name)
        new = _NewFile(os.path.dirname(target))
    except OSError as error:
        raise ImageError(name, f"cannot be written: {error.strerror}") from error
    try:
        with new.file as file:
            yield name, file
            file.flush()
            if mode is not None:
                os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
            new.take_place(target)
    except BaseException as error:
        new.discard()
        if isinstance(error, OSError):
            raise ImageError(name, f"cannot be written: {error.strerror or error}") from error
        raise


def _target(name: str) -> tuple[str, int | None]:
    """The file that ``name`` stands for, and its permissions or None if there is none yet; raises OSError."""
    if "\0" in name:
        raise ImageError(name.replace("\0", "\\0"), "cannot be written: a NUL in its name")
    target = os.path.realpath(name)
    try:
        mode = os.stat(name).st_mode
    except FileNotFoundError:
        if not os.path.basename(name):
            raise
        return target, None
    if not stat.S_ISREG(mode):
        raise ImageError(name, "cannot be written: is not a regular file")
    # A rename needs no permission on the old file, but its owner may have taken it away to keep the file.
    if not os.access(name, os.W_OK):
        raise ImageError(name, "cannot be written: the file is read-only")
    return target, mode & 0o777
