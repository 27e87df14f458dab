# SPDX-License-Identifier: GPL-2.0-only
"""Flattened files: read through the index of their records, as if they had been written in place."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from physmem.errors import ImageError
from physmem.image import ElfCore, Kdump, open_image
from physmem.image.flattened import Flattened
from physmem.image.source import open_source

BuildElf = Callable[..., bytearray]
PAGE = bytes(range(256)) * 16

HEADER = struct.pack(">16sqq", b"makedumpfile", 1, 1).ljust(4096, b"\0")
END = struct.pack(">qq", -1, -1)


def record(offset: int, data: bytes) -> bytes:
    return struct.pack(">qq", offset, len(data)) + data


@pytest.fixture(scope="module")
def flatten_file(tmp_path_factory: pytest.TempPathFactory) -> Callable[[bytes], Flattened]:
    path = tmp_path_factory.mktemp("flat") / "stream"

    def open_stream(stream: bytes) -> Flattened:
        path.write_bytes(stream)
        return Flattened(open_source(path))

    return open_stream


WRITES = st.lists(st.tuples(st.integers(0, 200), st.binary(max_size=60)), max_size=12)


@given(WRITES, st.integers(0, 300), st.integers(0, 300))
def test_reads_what_was_written_last(
    flatten_file: Callable[[bytes], Flattened], writes: list[tuple[int, bytes]], start: int, size: int
) -> None:
    meant = bytearray()
    stream = HEADER
    for number, (offset, data) in enumerate(writes):
        data = bytes(b ^ number for b in data)  # no two records are the same
        stream += record(offset, data)
        if data:
            meant.extend(bytes(max(0, offset + len(data) - len(meant))))
            meant[offset : offset + len(data)] = data
    flat = flatten_file(stream + END + b"what follows the end does not matter")
    assert flat.size == len(meant)
    start = min(start, len(meant))
    size = min(size, len(meant) - start)
    assert flat.read(start, size, "a test") == bytes(meant[start : start + size])
    assert flat.read(0, len(meant), "a test") == bytes(meant)
    if meant:
        restored = flat.restored(1000)
        assert bytes(restored.data) == bytes(meant)
        restored.close()
    flat.close()


def test_reading_beyond_the_end(flatten_file: Callable[[bytes], Flattened]) -> None:
    flat = flatten_file(HEADER + record(4, b"four") + END)
    with pytest.raises(ImageError, match="truncated: the header ends at 0x9, the file has 0x8 bytes"):
        flat.read(4, 5, "the header")
    assert flat.array(4, "<u2", 2, "numbers").tobytes() == b"four"


@pytest.mark.parametrize(
    ("stream", "reason"),
    [
        (HEADER[:4000], "truncated: a flattened file begins with 4096 bytes of header"),
        (HEADER[:23] + b"\2" + HEADER[24:] + END, "type 2, version 1"),
        (HEADER[:31] + b"\2" + HEADER[32:] + END, "type 1, version 2"),
        (HEADER, "the flattened stream has no end"),
        (HEADER + record(0, b"data"), "the flattened stream has no end"),
        (HEADER + record(0, b"data") + END[:15], "the flattened stream has no end"),
        (HEADER + record(0, b"data")[:-1], "a flattened record ends at 0x1014, the file has 0x1013 bytes"),
        (HEADER + struct.pack(">qq", -2, 1) + b"x" + END, "record for 1 bytes at -2: nonsense"),
        (HEADER + struct.pack(">qq", 1, -2) + END, "record for -2 bytes at 1: nonsense"),
        (HEADER + struct.pack(">qq", (1 << 63) - 1, 1) + b"x" + END, "nonsense"),
    ],
)
def test_malformed(flatten_file: Callable[[bytes], Flattened], stream: bytes, reason: str) -> None:
    with pytest.raises(ImageError, match=reason):
        flatten_file(stream)


def test_a_flattened_kdump(makers: ModuleType, tmp_path: Path) -> None:
    data = bytes(makers.make_kdump({1: PAGE, 2: PAGE[::-1], 7: bytes(4096)}, 64))
    cuts = [(0, 100), (100, 9000), (9000, len(data)), (0, 464)]
    path = tmp_path / "vmcore"
    path.write_bytes(makers.flatten(data, cuts))
    with open_image(path) as image:
        assert isinstance(image, Kdump)
        assert image.format == "kdump-compressed (flattened)"
        assert image.read(0x1000, 8192) == PAGE + PAGE[::-1]
        assert image.read(0x7000, 4096) == bytes(4096)


def test_a_flattened_elf_core(makers: ModuleType, build_elf: BuildElf, tmp_path: Path) -> None:
    data = bytes(build_elf([(0x1000, PAGE)]))
    path = tmp_path / "vmcore"
    path.write_bytes(makers.flatten(data, [(64, len(data)), (0, 64)]))
    with open_image(path) as image:
        assert isinstance(image, ElfCore)
        assert image.format == "ELF core (flattened)"
        assert image.read(0x1000, 4096) == PAGE
    with pytest.raises(ImageError, match="at most 100 are allowed"):
        open_image(path, max_expanded=100)


@pytest.mark.parametrize("content", [b"", b"neither nor"])
def test_a_flattened_stranger(makers: ModuleType, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "stream"
    path.write_bytes(makers.flatten(content, [(0, len(content))]))
    with pytest.raises(ImageError):
        open_image(path)
