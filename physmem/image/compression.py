# SPDX-License-Identifier: GPL-2.0-only
"""gzip, xz and zstd streams, read and written in pieces of bounded size.

Formats: RFC 1952 (gzip), "The .xz File Format" (xz), RFC 8878 (zstd).  Each may
be several streams in a row, as parallel compressors write them.  The decoders
here are stricter than the file objects of the standard library, which pass over
garbage after an xz stream, or a zstd stream that was cut short, in silence.

A library is loaded when there is a file for it: most have none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, BinaryIO, Protocol, cast

from physmem.errors import ImageError

__all__ = ["FORMATS", "Compression", "detect", "expand"]

# The most bytes of a piece of gzip or xz.
_CHUNK = 1 << 20
# Read at a time.  Small, because what follows the end of a stream is copied, and hostile files have many ends.
_READ = 1 << 16
# No format's magic is longer.
_MAGIC = 8
# What an xz stream may ask for its dictionary; the presets of xz need at most 65 MiB.
_XZ_MEMORY = 256 << 20
# A zstd block is at least 4 bytes long, expands to at most 128 KiB, and the decoder cannot be told to stop
# half-way: feeding it this much at a time bounds what comes out at once to 8 MiB.
_ZSTD_STEP = 256


class _Decoder(Protocol):
    """One stream being decoded.

    :ivar error: what :meth:`feed` raises for corrupt data
    """

    error: type[Exception]

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Decode ``data``, yielding pieces of bounded size."""

    @property
    def eof(self) -> bool:
        """True once the stream has ended."""

    @property
    def unused(self) -> bytes:
        """The part of the data fed last that lies after the end of the stream."""


class _GzipDecoder:
    def __init__(self) -> None:
        import zlib

        self.error: type[Exception] = zlib.error
        self._stream = zlib.decompressobj(wbits=31)

    def feed(self, data: bytes) -> Iterator[bytes]:
        while data and not self._stream.eof:
            piece = self._stream.decompress(data, _CHUNK)
            data = self._stream.unconsumed_tail
            if piece:
                yield piece

    @property
    def eof(self) -> bool:
        return self._stream.eof

    @property
    def unused(self) -> bytes:
        return self._stream.unused_data


class _XzDecoder:
    def __init__(self) -> None:
        import lzma

        self.error: type[Exception] = lzma.LZMAError
        self._stream = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)

    def feed(self, data: bytes) -> Iterator[bytes]:
        while not self._stream.eof:
            piece = self._stream.decompress(data, _CHUNK)
            data = b""
            if piece:
                yield piece
            if self._stream.needs_input:
                return

    @property
    def eof(self) -> bool:
        return self._stream.eof

    @property
    def unused(self) -> bytes:
        return self._stream.unused_data


class _ZstdDecoder:
    def __init__(self) -> None:
        import zstandard

        self.error: type[Exception] = zstandard.ZstdError
        self._stream = zstandard.ZstdDecompressor().decompressobj()
        self.unused = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        for start in range(0, len(data), _ZSTD_STEP):
            piece = self._stream.decompress(data[start : start + _ZSTD_STEP])
            if piece:
                yield piece
            if self._stream.eof:
                self.unused = self._stream.unused_data + data[start + _ZSTD_STEP :]
                return

    @property
    def eof(self) -> bool:
        return self._stream.eof


@dataclass(frozen=True)
class Compression:
    """A compressed file format.

    :ivar name: what people call it
    :ivar suffix: how the names of such files end
    :ivar magic: how a stream begins
    :ivar decoder: makes the decoder of one stream
    :ivar writer: wraps a file open for writing; closing the wrapper finishes the stream and not the file
    """

    name: str
    suffix: str
    magic: bytes
    decoder: Callable[[], _Decoder]
    writer: Callable[[BinaryIO], IO[bytes]]


def _gzip_writer(file: BinaryIO) -> IO[bytes]:
    import gzip

    # No name and no time in the header: the same image gives the same file.
    return cast(IO[bytes], gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=file, mtime=0))


def _xz_writer(file: BinaryIO) -> IO[bytes]:
    import lzma

    return lzma.LZMAFile(file, "wb")


def _zstd_writer(file: BinaryIO) -> IO[bytes]:
    import zstandard

    return cast(IO[bytes], zstandard.ZstdCompressor(write_checksum=True).stream_writer(file, closefd=False))


FORMATS = (
    Compression("gzip", ".gz", b"\x1f\x8b", _GzipDecoder, _gzip_writer),
    Compression("xz", ".xz", b"\xfd7zXZ\x00", _XzDecoder, _xz_writer),
    Compression("zstd", ".zst", b"\x28\xb5\x2f\xfd", _ZstdDecoder, _zstd_writer),
)


def detect(head: bytes) -> Compression | None:
    """The compression of a file that begins with ``head``, if it has one."""
    return next((known for known in FORMATS if _begins_stream(head, known)), None)


def expand(path: str, file: BinaryIO, compression: Compression) -> Iterator[bytes]:
    """Decode all of ``file``, which lies at ``path`` and is open at its beginning, in pieces of bounded size.

    Zero bytes between and after streams are padding.

    :raises ImageError: the data is corrupt, ends in the middle of a stream, or something else follows a stream
    """
    data = file.read(_READ)
    while data:
        decoder = compression.decoder()
        while data and not decoder.eof:
            here = file.tell() - len(data)
            try:
                yield from decoder.feed(data)
            except decoder.error as error:
                reason = f"corrupt {compression.name} stream within the {len(data)} bytes from here: {error}"
                raise ImageError(path, reason, here) from error
            if not decoder.eof:
                data = file.read(_READ)
        if not decoder.eof:
            raise ImageError(path, f"truncated: the file ends inside a {compression.name} stream", file.tell())
        data = _next_stream(file, decoder.unused)
        if data and not _begins_stream(data, compression):
            raise ImageError(path, f"garbage after the end of the {compression.name} stream", file.tell() - len(data))


def _next_stream(file: BinaryIO, data: bytes) -> bytes:
    """What is left from the next non-zero byte on, with its magic whole unless the file ends."""
    data = data.lstrip(b"\0")
    while len(data) < _MAGIC and (more := file.read(_READ)):
        data = (data + more).lstrip(b"\0")
    return data


def _begins_stream(data: bytes, compression: Compression) -> bool:
    # Skippable zstd frames (RFC 8878, 3.1.2), magic 0x184d2a50 to 0x184d2a5f, decode to nothing; pzstd begins with one.
    skippable = compression.name == "zstd" and data[1:4] == b"\x2a\x4d\x18" and data[0] & 0xF0 == 0x50
    return skippable or data.startswith(compression.magic)
