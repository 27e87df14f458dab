# SPDX-License-Identifier: GPL-2.0-only
"""Decompression of pages: what was compressed, what was not, and what is not installed."""

from __future__ import annotations

import contextlib
import sys
import zlib
from collections.abc import Callable

import cramjam
import lzallright
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from physmem.image import codecs

PAGE = bytes(range(256)) * 16

Decode = Callable[[bytes, int], bytes]


def _raw_snappy(data: bytes) -> bytes:
    return bytes(cramjam.snappy.compress_raw(data))


CODECS: list[tuple[Decode, Callable[[bytes], bytes]]] = [
    (codecs.unzlib, zlib.compress),
    (codecs.unzstd, zstandard.ZstdCompressor().compress),
    (codecs.snappy, _raw_snappy),
    (codecs.lzo, lzallright.LZOCompressor().compress),
]
NAMES = ["zlib", "zstd", "snappy", "LZO"]


@pytest.mark.parametrize(("decode", "encode"), CODECS, ids=NAMES)
def test_round_trip(decode: Decode, encode: Callable[[bytes], bytes]) -> None:
    assert decode(encode(PAGE), 4096) == PAGE


@pytest.mark.parametrize(("decode", "encode"), CODECS, ids=NAMES)
@pytest.mark.parametrize("size", [4095, 4097])
def test_another_size_than_a_page(decode: Decode, encode: Callable[[bytes], bytes], size: int) -> None:
    with pytest.raises(codecs.CodecError, match="4096"):
        decode(encode(bytes(size)), 4096)


@pytest.mark.parametrize(("decode", "encode"), CODECS, ids=NAMES)
@given(data=st.data())
def test_anything_else(decode: Decode, encode: Callable[[bytes], bytes], data: st.DataObject) -> None:
    packed = bytearray(encode(PAGE))
    for _ in range(data.draw(st.integers(0, 4))):
        packed[data.draw(st.integers(0, len(packed) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(packed)))
    with contextlib.suppress(codecs.CodecError):
        assert len(decode(bytes(packed[:cut]), 4096)) == 4096


@pytest.mark.parametrize(
    ("decode", "claim"),
    [(codecs.unzstd, b"\x28\xb5\x2f\xfd\xe0" + b"\xff" * 8), (codecs.snappy, b"\xff\xff\xff\xff\x0f" + bytes(8))],
)
def test_no_room_is_made_for_what_data_claims(decode: Decode, claim: bytes) -> None:
    with pytest.raises(codecs.CodecError):
        decode(claim, 4096)


@pytest.mark.parametrize(
    ("decode", "module", "extra"), [(codecs.snappy, "cramjam", "snappy"), (codecs.lzo, "lzallright", "lzo")]
)
def test_what_to_install(monkeypatch: pytest.MonkeyPatch, decode: Decode, module: str, extra: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    for find in (codecs._snappy, codecs._lzo):
        find.cache_clear()
    with pytest.raises(codecs.CodecError, match=rf'{module} \(pip install "physmem\[{extra}\]"\)'):
        decode(b"data", 4096)
