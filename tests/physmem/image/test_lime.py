# SPDX-License-Identifier: GPL-2.0-only
"""LiME images, and the compressed ones of AVML."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import cramjam
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from physmem.errors import AbsentError, ImageError, UsageError
from physmem.image import Avml, Image, Lime, open_image
from physmem.ranges import Ranges

PAGE = bytes(range(256)) * 16
#: More than one chunk of snappy has, of which some is not worth compressing.
LARGE = PAGE * 20 + random.Random(1).randbytes(100000) + PAGE * 3
BLOCKS = [(0x1000, PAGE), (0x100000, LARGE), (0x2000, PAGE[::-1])]

OpenBytes = Callable[[bytes], Image]


def header(magic: bytes, version: int, start: int, size: int) -> bytes:
    return struct.pack("<4sIQQQ", magic, version, start, start + size - 1, 0)


def make_lime(blocks: list[tuple[int, bytes]]) -> bytes:
    return b"".join(header(b"EMiL", 1, start, len(data)) + data for start, data in blocks)


def make_avml(blocks: list[tuple[int, bytes]]) -> bytes:
    out = b""
    for start, data in blocks:
        frames = bytes(cramjam.snappy.compress(data))
        out += header(b"AVML", 2, start, len(data)) + frames + struct.pack("<Q", len(frames))
    return out


@pytest.fixture
def open_bytes(tmp_path: Path) -> Iterator[OpenBytes]:
    opened: list[Image] = []

    def open_data(data: bytes) -> Image:
        path = tmp_path / "memory"
        path.write_bytes(data)
        opened.append(open_image(path))
        return opened[-1]

    yield open_data
    for image in opened:
        image.close()


@pytest.mark.parametrize(("make", "kind"), [(make_lime, Lime), (make_avml, Avml)])
def test_ranges_in_any_order(make: Any, kind: type[Image], open_bytes: OpenBytes) -> None:
    image = open_bytes(make(BLOCKS))
    assert isinstance(image, kind)
    assert image.format == kind.__name__.replace("Avml", "AVML").replace("Lime", "LiME")
    assert image.ranges == Ranges([(0x1000, 0x3000), (0x100000, 0x100000 + len(LARGE))])
    assert image.size == 0x100000 + len(LARGE)
    assert (image.notes, image.vmcoreinfo) == ((), {})
    assert image.read(0x1FFF, 2) == PAGE[-1:] + PAGE[-1:]
    assert image.read(0x1000, 0x2000) == PAGE + PAGE[::-1]
    for start, size in [(0, len(LARGE)), (65535, 2), (1, 150000), (len(LARGE) - 1, 1), (0, 0)]:
        assert image.read(0x100000 + start, size) == LARGE[start : start + size]
    assert image.u64(0x100000 + 65532) == struct.unpack_from("<Q", LARGE, 65532)[0]
    assert image.array(0x100001, "<u2", 70000).tobytes() == LARGE[1:140001]
    assert not image.array(0x100000, np.uint8, 10).flags.writeable
    joined = b"".join(bytes(data) for _, data in image.segments())
    assert joined == PAGE + PAGE[::-1] + LARGE
    with pytest.raises(AbsentError) as caught:
        image.read(0x2FFF, 2)
    assert caught.value.phys == 0x3000
    image.close()
    for use in (lambda: image.read(0x1000, 1), lambda: next(image.segments()), lambda: image.u64(0x1000)):
        with pytest.raises(UsageError, match="the image is closed"):
            use()


def test_odd_chunks(open_bytes: OpenBytes) -> None:
    """Padding and chunks to be skipped, a second beginning of the stream, memory that was not compressed."""
    packed = bytes(cramjam.snappy.compress_raw(PAGE))
    frames = b"\xff\x06\0\0sNaPpY" + b"\xfe\x03\0\0pad" + b"\x80\x01\0\0?" + b"\xff\x06\0\0sNaPpY"
    frames += b"\0" + struct.pack("<I", 4 + len(packed))[:3] + b"sum?" + packed
    frames += b"\1" + struct.pack("<I", 4 + len(PAGE))[:3] + b"sum?" + PAGE[::-1]
    image = open_bytes(header(b"AVML", 2, 0, 8192) + frames + struct.pack("<Q", len(frames)))
    assert image.read(0, 8192) == PAGE + PAGE[::-1]


LIME = make_lime([(0x1000, PAGE), (0x3000, PAGE)])
AVML = make_avml([(0x1000, PAGE), (0x3000, PAGE)])


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (LIME[:-1], "truncated: range 0x3000 to 0x4000 ends at 0x2040, the file has 0x203f bytes"),
        (LIME[:4138], "truncated: 10 bytes are left, a header has 32"),
        (LIME[:4128] + b"EMIL" + LIME[4132:], "45 4d 49 4c is not its magic"),
        (LIME[:4] + b"\2" + LIME[5:], "version 2: only 1 is known"),
        (header(b"EMiL", 1, 0x1000, 0) + PAGE, "range 0x1000 to 0xfff: not physical addresses"),
        (header(b"EMiL", 1, 1 << 52, 4096) + PAGE, "not physical addresses of x86-64"),
        (make_lime([(0x1000, PAGE), (0x1FFF, PAGE)]), "has physical 0x1fff twice"),
        (AVML[:4] + b"\1" + AVML[5:], "version 1: only 2 is known"),
        (AVML[:-1], "truncated: no length behind a range"),
        (AVML[:36], "truncated: a chunk of 6 bytes"),
        (AVML[:42], "truncated: 4096 bytes of a range are not there"),
        (AVML[:-8] + b"\1" + AVML[-7:], "and says"),
        (AVML[:42] + b"\x02" + AVML[43:], "a chunk of unknown type 0x2"),
        (AVML[:50] + b"\xff\xff\x7f" + AVML[53:], "where 4096 are left of a range"),
        (make_avml([(0x1000, PAGE), (0x1FFF, PAGE)]), "has physical 0x1fff twice"),
    ],
)
def test_malformed(open_bytes: OpenBytes, data: bytes, reason: str) -> None:
    with pytest.raises(ImageError, match=reason):
        open_bytes(data)


def test_a_damaged_chunk_is_named(open_bytes: OpenBytes) -> None:
    data = bytearray(AVML)
    data[54] ^= 0xFF
    image = open_bytes(bytes(data))
    with pytest.raises(ImageError, match="a chunk cannot be read: not snappy data"):
        image.read(0x1000, 8)
    assert image.read(0x3000, 4096) == PAGE


def test_many_ranges_are_refused(open_bytes: OpenBytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("physmem.image.lime.MAX_BLOCKS", 1)
    for data in (LIME, AVML):
        with pytest.raises(ImageError, match="more than 1 ranges"):
            open_bytes(data)


@settings(max_examples=200)
@given(
    kind=st.sampled_from([LIME, AVML]),
    edits=st.lists(st.tuples(st.integers(0, 4200), st.integers(0, 255)), max_size=5),
    cut=st.none() | st.integers(0, 9000),
)
def test_any_file_is_read_or_refused(
    makers: ModuleType,
    tmp_path_factory: pytest.TempPathFactory,
    kind: bytes,
    edits: list[tuple[int, int]],
    cut: int | None,
) -> None:
    data = bytearray(kind)
    for at, value in edits:
        data[min(at, len(data) - 1)] = value
    path = tmp_path_factory.getbasetemp() / "mutated.lime"
    path.write_bytes(data[:cut])
    with makers.read_or_refused(), open_image(path) as image:
        for phys, size in image.ranges:
            image.read(phys, min(size - phys, 1 << 20))
