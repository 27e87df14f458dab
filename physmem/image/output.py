# SPDX-License-Identifier: GPL-2.0-only
"""New files in the place of old ones: all of the new file, or the old one untouched."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator
from typing import BinaryIO, Protocol

from physmem.errors import ImageError
from physmem.image import compression
from physmem.image.sparse import SparseFile

__all__ = ["Output", "replacing"]


class Output(Protocol):
    """Where the bytes of a new file go, in order."""

    def write(self, data: bytes, /) -> int:
        """Append ``data``; raises OSError, which ``replacing`` turns into ImageError."""

    def close(self) -> None:
        """Finish; for ``replacing`` alone to call."""


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Output]:
    """Write a file beside ``path`` that takes its place, and its permissions, when the block ends well.

    A name that ends in .gz, .xz or .zst is compressed, any other file sparse.  Of a symbolic link, the file it leads
    to is replaced.  When anything fails, the new file is gone and an old one is as it was.

    :raises ImageError: the file cannot be written, or ``path`` is something else than a regular file
    """
    name = os.fspath(path)
    try:
        target, mode = _target(name)
        temporary, file = _create(os.path.dirname(target))
    except OSError as error:
        raise ImageError(name, f"cannot be written: {error.strerror}") from error
    try:
        with file:
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
            file.flush()
            if mode is not None:
                os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
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


def _create(directory: str) -> tuple[str, BinaryIO]:
    """A new file in ``directory``, with the permissions the umask allows; raises OSError."""
    temporary = os.path.join(directory, f".physmem-{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    return temporary, open(descriptor, "wb")
