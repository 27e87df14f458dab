# SPDX-License-Identifier: GPL-2.0-only
"""LiME images: ranges of memory one after the other, each behind a header of 32 bytes.

The header: magic and version (u32 each), first and last physical address (u64),
8 reserved bytes.  Written by the LiME module, and by AVML unless it compresses.
Format: doc/README.md of LiME.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import pairwise

from physmem.errors import ImageError
from physmem.image.base import MAX_PHYS, Extent, MappedImage
from physmem.image.source import Source

__all__ = ["AVML_MAGIC", "HEADER", "MAGIC", "MAX_BLOCKS", "VERSION", "Lime", "read_header"]

MAGIC = b"EMiL"
#: What AVML writes in its place when it compresses.
AVML_MAGIC = b"AVML"
#: magic, version, first and last address, reserved
HEADER = struct.Struct("<4sIQQ8x")
#: The most ranges that are read; a machine has a few dozen, and AVML cuts them in pieces of 16 MiB.
MAX_BLOCKS = 1 << 22

#: That of MAGIC.
VERSION = 1

_VERSIONS = {MAGIC: VERSION, AVML_MAGIC: 2}


class Lime(MappedImage):
    """A LiME file as a memory image.

    :param source: the file; the image takes it over, and closing the image closes it
    :raises ImageError: the file is not such a file, is truncated, or has two contents for one address
    """

    def __init__(self, source: Source) -> None:
        super().__init__(source, _extents(source), (), {})
        self.format = f"LiME ({source.compression})" if source.compression else "LiME"


def read_header(source: Source, at: int, magic: bytes) -> tuple[int, int]:
    """The physical addresses [start, end) that the header at ``at`` is for; ImageError if it is none with ``magic``."""
    if at + HEADER.size > source.size:
        raise ImageError(source.path, f"truncated: {source.size - at} bytes are left, a header has {HEADER.size}", at)
    found, version, first, last = source.unpack(HEADER, at)
    if found != magic:
        raise ImageError(source.path, f"no header of a range here: {found.hex(' ')} is not its magic", at)
    if version != _VERSIONS[magic]:
        raise ImageError(source.path, f"version {version}: only {_VERSIONS[magic]} is known", at + 4)
    if not first <= last < MAX_PHYS:
        raise ImageError(source.path, f"range {first:#x} to {last:#x}: not physical addresses of x86-64", at + 8)
    return first, last + 1


def _extents(source: Source) -> list[Extent]:
    extents = sorted(_blocks(source))
    for before, after in pairwise(extents):
        if before.end > after.start:
            reason = f"has physical {after.start:#x} twice"
            raise ImageError(source.path, reason, max(before.offset, after.offset) - HEADER.size)
    return extents


def _blocks(source: Source) -> Iterator[Extent]:
    at = count = 0
    while at < source.size:
        start, end = read_header(source, at, MAGIC)
        offset = at + HEADER.size
        at = offset + end - start
        if at > source.size:
            reason = f"truncated: range {start:#x} to {end:#x} ends at {at:#x}, the file has {source.size:#x} bytes"
            raise ImageError(source.path, reason, offset - HEADER.size)
        count += 1
        if count > MAX_BLOCKS:
            raise ImageError(source.path, f"more than {MAX_BLOCKS} ranges", at)
        yield Extent(start, end, offset)
