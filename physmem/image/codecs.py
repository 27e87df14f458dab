# SPDX-License-Identifier: GPL-2.0-only
"""Compression of single pages: zlib, LZO1X, snappy, zstd.

zlib comes with Python and zstd with this package.  LZO and snappy are extras:
without them an image opens, and a page that needs one says what to install.
A page is small, and a decoder here is never asked for more than a little above
its size.
"""

from __future__ import annotations

import importlib
import zlib
from collections.abc import Callable
from functools import cache
from typing import Any

import zstandard

__all__ = ["CodecError", "lzo", "lzo_encoder", "snappy", "snappy_encoder", "unzlib", "unzstd"]

Data = bytes | memoryview
Decoder = Callable[[Data, int], bytes]

_NAMES = {"snappy": "snappy", "lzo": "LZO"}
_ZSTD = zstandard.ZstdDecompressor()


class CodecError(ValueError):
    """The data cannot be decompressed, and why."""


def unzlib(data: Data, size: int) -> bytes:
    """The ``size`` bytes that zlib compressed to ``data``."""
    try:
        return _exactly(zlib.decompress(data, bufsize=size), size)
    except zlib.error as error:
        raise CodecError(f"not zlib data: {error}") from None


def unzstd(data: Data, size: int) -> bytes:
    """The ``size`` bytes that zstd compressed to ``data``."""
    try:
        # The decoder makes room for what the frame says, so that has to be seen first.
        said = zstandard.frame_content_size(data)
        if said not in (-1, size):
            raise CodecError(f"zstd data of {said} bytes, not {size}")
        return _exactly(_ZSTD.decompress(data, max_output_size=size), size)
    except zstandard.ZstdError as error:
        raise CodecError(f"not zstd data: {error}") from None


def snappy(data: Data, size: int) -> bytes:
    """The ``size`` bytes that snappy compressed to ``data``, in its raw form."""
    return _snappy()(data, size)


def lzo(data: Data, size: int) -> bytes:
    """The ``size`` bytes that LZO1X compressed to ``data``."""
    return _lzo()(data, size)


def _exactly(data: bytes, size: int) -> bytes:
    if len(data) != size:
        raise CodecError(f"{len(data)} bytes, not {size}")
    return data


def snappy_encoder() -> Callable[[bytes], bytes]:
    """What compresses a page as ``snappy`` decompresses it; CodecError if that cannot be done here."""
    codec = _module("cramjam", "snappy").snappy
    return lambda page: bytes(codec.compress_raw(page))


def lzo_encoder() -> Callable[[bytes], bytes]:
    """What compresses a page as ``lzo`` decompresses it; CodecError if that cannot be done here."""
    compress: Callable[[bytes], bytes] = _module("lzallright", "lzo").LZOCompressor().compress
    return compress


def _module(name: str, extra: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise CodecError(f'{_NAMES[extra]} data: needs the module {name} (pip install "physmem[{extra}]")') from None


@cache
def _snappy() -> Decoder:
    module = _module("cramjam", "snappy")
    codec = module.snappy

    def decode(data: Data, size: int) -> bytes:
        try:
            # Snappy data begins with its length, and the decoder makes room for that.
            said = codec.decompress_raw_len(data)
            if said != size:
                raise CodecError(f"snappy data of {said} bytes, not {size}")
            return bytes(codec.decompress_raw(data))
        except module.DecompressionError as error:
            raise CodecError(f"not snappy data: {error}") from None

    return decode


@cache
def _lzo() -> Decoder:
    module = _module("lzallright", "lzo")

    def decode(data: Data, size: int) -> bytes:
        try:
            return _exactly(module.LZOCompressor.decompress(data, size), size)
        except module.LZOError as error:
            raise CodecError(f"not LZO data: {error}") from None

    return decode
