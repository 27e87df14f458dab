# SPDX-License-Identifier: GPL-2.0-only
"""Compressed images of AVML: LiME's headers, and between them snappy frames in place of memory.

Behind the frames of a range, a u64 says how many bytes they have.  A frame file
is a row of chunks: type (u8), length (u24), data; a chunk expands to 64 KiB at
most, and its checksum is not looked at.  Formats: AVML (src/image.rs), "Snappy
framing format".

The chunks are walked once to find the ranges; a chunk is decompressed when it is
read, and a few are kept.  AVML leaves out pieces of memory that are all zeros:
nothing tells them from memory that it could not read, so they are absent.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from physmem.errors import ImageError, UsageError
from physmem.image import codecs, lime
from physmem.image.base import Image
from physmem.image.source import Source
from physmem.ranges import Ranges

__all__ = ["Avml"]

_LENGTH = struct.Struct("<Q")
_CHUNK = struct.Struct("<I")  # type in the lowest byte, length above
_COMPRESSED, _PLAIN, _STREAM = 0x00, 0x01, 0xFF
_SKIPPED = range(0x80, 0xFF)
# The bytes of a checksum, before the data of a chunk.
_CHECKSUM = 4
#: The most bytes of memory in one chunk.
_MAX_CHUNK = 1 << 16
# Chunks, and lists of a range's chunks, that are kept.
_CACHED = 128
_CACHED_RANGES = 16


class _Block(NamedTuple):
    """Physical addresses [start, end), in chunks that begin at ``offset`` of the file."""

    start: int
    end: int
    offset: int


class _Chunk(NamedTuple):
    """``size`` bytes of memory, in the file as ``length`` bytes at ``offset``."""

    kind: int
    size: int
    offset: int
    length: int


class Avml(Image):
    """A compressed AVML file as a memory image.

    :param source: the file; the image takes it over, and closing the image closes it
    :raises ImageError: the file is not such a file, is truncated, or has two contents for one address
    """

    def __init__(self, source: Source) -> None:
        self.path = source.path
        self.format = f"AVML ({source.compression})" if source.compression else "AVML"
        self.notes = ()
        self.vmcoreinfo = {}
        self._source = source
        self._closed = False
        self._blocks = sorted(self._walk())
        for before, after in pairwise(self._blocks):
            if before.end > after.start:
                raise ImageError(self.path, f"has physical {after.start:#x} twice", after.offset)
        self._starts = [block.start for block in self._blocks]
        self.ranges = Ranges((block.start, block.end) for block in self._blocks)
        self._chunks = lru_cache(maxsize=_CACHED_RANGES)(self._list_chunks)
        self._memory = lru_cache(maxsize=_CACHED)(self._decode)

    def close(self) -> None:
        self._closed = True
        self._chunks.cache_clear()
        self._memory.cache_clear()
        self._source.close()

    def read(self, phys: int, size: int) -> bytes:
        self._open()
        self._require(phys, size)
        pieces = []
        end = phys + size
        while phys < end:
            index = bisect_right(self._starts, phys) - 1
            chunks, bounds = self._chunks(index)
            number = bisect_right(bounds, phys - self._starts[index]) - 1
            start = phys - self._starts[index] - bounds[number]
            pieces.append(self._memory(chunks[number])[start : start + end - phys])
            phys += len(pieces[-1])
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def segments(self) -> Iterator[tuple[int, memoryview]]:
        self._open()
        for index, block in enumerate(self._blocks):
            phys = block.start
            for chunk in self._chunks(index)[0]:
                yield phys, memoryview(self._decode(chunk))
                phys += chunk.size

    def array(self, phys: int, dtype: npt.DTypeLike, count: int) -> npt.NDArray[Any]:
        kind = np.dtype(dtype)
        return np.frombuffer(self.read(phys, kind.itemsize * count), kind)

    def _open(self) -> None:
        if self._closed:
            raise UsageError(f"{self.path}: the image is closed")

    # -- the file ------------------------------------------------------------

    def _walk(self) -> Iterator[_Block]:
        at = count = 0
        while at < self._source.size:
            start, end = lime.read_header(self._source, at, lime.AVML_MAGIC)
            block = _Block(start, end, at + lime.HEADER.size)
            upto = block.offset
            for chunk in self._chunks_at(block):
                upto = chunk.offset + chunk.length
            if upto + _LENGTH.size > self._source.size:
                raise ImageError(self.path, "truncated: no length behind a range", upto)
            length = self._source.unpack(_LENGTH, upto)[0]
            if length != upto - block.offset:
                reason = f"range {start:#x} to {end:#x} has {upto - block.offset} bytes, and says {length}"
                raise ImageError(self.path, reason, upto)
            at = upto + _LENGTH.size
            count += 1
            if count > lime.MAX_BLOCKS:
                raise ImageError(self.path, f"more than {lime.MAX_BLOCKS} ranges", at)
            yield block

    def _list_chunks(self, index: int) -> tuple[list[_Chunk], list[int]]:
        """The chunks of block ``index``, and where in it, in bytes of memory, each begins."""
        chunks = list(self._chunks_at(self._blocks[index]))
        bounds = [0]
        for chunk in chunks[:-1]:
            bounds.append(bounds[-1] + chunk.size)
        return chunks, bounds

    def _chunks_at(self, block: _Block) -> Iterator[_Chunk]:
        """The chunks that hold memory of a block, as far as their headers say."""
        data, size = self._source.data, self._source.size
        at, left = block.offset, block.end - block.start
        while left:
            if at + _CHUNK.size > size:
                raise ImageError(self.path, f"truncated: {left} bytes of a range are not there", at)
            word = self._source.unpack(_CHUNK, at)[0]
            kind, length = word & 0xFF, word >> 8
            body = at + _CHUNK.size
            if body + length > size:
                raise ImageError(self.path, f"truncated: a chunk of {length} bytes", at)
            if kind in (_COMPRESSED, _PLAIN):
                content = length - _CHECKSUM
                held = _varint(data[body + _CHECKSUM : body + min(length, 9)]) if kind == _COMPRESSED else content
                if content < 0 or not 0 < held <= min(left, _MAX_CHUNK):
                    raise ImageError(self.path, f"a chunk of {held} bytes, where {left} are left of a range", at)
                yield _Chunk(kind, held, body + _CHECKSUM, content)
                left -= held
            elif kind != _STREAM and kind not in _SKIPPED:
                raise ImageError(self.path, f"a chunk of unknown type {kind:#x}", at)
            at = body + length

    def _decode(self, chunk: _Chunk) -> bytes:
        data = self._source.data[chunk.offset : chunk.offset + chunk.length]
        if chunk.kind == _PLAIN:
            return data
        try:
            return codecs.snappy(data, chunk.size)
        except codecs.CodecError as error:
            raise ImageError(self.path, f"a chunk cannot be read: {error}", chunk.offset) from None


def _varint(data: bytes) -> int:
    """The number in the first bytes: 7 bits in each, the lowest first, the last without the top bit; -1 if none."""
    value = 0
    for i, byte in enumerate(data):
        value |= (byte & 0x7F) << 7 * i
        if byte < 0x80:
            return value
    return -1
