# SPDX-License-Identifier: GPL-2.0-only
"""The memory images among files and under directories."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from physmem.errors import ImageError, UsageError
from physmem.image import is_image
from physmem.image.raw import parse_segment

__all__ = ["Found", "find"]


@dataclass(frozen=True)
class Found:
    """An image, before anything of it is read.

    :ivar path: its absolute name; several files that are one image have commas between them
    :ivar size: bytes of its files; -1 if they cannot be asked for
    :ivar mtime_ns: when the last of them was written, nanoseconds since the epoch
    """

    path: str
    size: int
    mtime_ns: int


def find(paths: Iterable[str | os.PathLike[str]]) -> list[Found]:
    """Images by what they are called, and those in directories and all below them, in order, each once.

    Below a directory, files are told by their first bytes, compressed or not; what may be one and cannot be read is
    found too, so that somebody hears of it.  Raw memory, which has no such bytes, has to be called by its name.

    :raises UsageError: there is nothing of this name
    """
    found: dict[str, Found] = {}
    for path in [os.fspath(each) for each in paths]:
        if os.path.isdir(path):
            names = _below(path)
        elif all(map(_is_there, _files(path))):
            names = iter([path])
        else:
            raise UsageError(f"{path}: no such file or directory")
        for name in names:
            absolute = ",".join(map(os.path.abspath, [name] if os.path.exists(name) else name.split(",")))
            if absolute not in found:
                found[absolute] = _found(absolute)
    return list(found.values())


def _files(name: str) -> list[str]:
    """The files that an image is made of."""
    if os.path.lexists(name):
        return [name]
    segments = [(parse_segment(part), part) for part in name.split(",")]
    return [part if segment is None else segment[0] for segment, part in segments]


def _is_there(name: str) -> bool:
    return "\0" not in name and os.path.lexists(name)


def _found(name: str) -> Found:
    try:
        each = [os.stat(file) for file in _files(name)]
    except OSError:
        return Found(name, -1, 0)
    return Found(name, sum(file.st_size for file in each), max(file.st_mtime_ns for file in each))


def _below(directory: str) -> Iterator[str]:
    """The files under a directory that are images, or may be; links to directories are not followed."""
    unreadable: list[str] = []
    for parent, inner, names in os.walk(directory, onerror=lambda error: unreadable.append(str(error.filename))):
        inner.sort()
        for name in sorted(names):
            path = os.path.join(parent, name)
            if os.path.isfile(path) and os.path.getsize(path) and _may_be_image(path):
                yield path
    yield from unreadable


def _may_be_image(path: str) -> bool:
    try:
        return is_image(path)
    except ImageError:
        return True
