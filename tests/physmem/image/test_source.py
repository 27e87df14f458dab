# SPDX-License-Identifier: GPL-2.0-only
"""Opening files, compressed or not, well made or not."""

from __future__ import annotations

import contextlib
import errno
import gzip
import io
import lzma
import mmap
import os
import random
import struct
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from physmem.errors import ImageError, UsageError
from physmem.image import compression
from physmem.image.output import replacing
from physmem.image.source import MAX_EXPANDED, Source, open_source
from physmem.image.sparse import SparseFile

CONTENTS = random.Random(4).randbytes(100_000) + bytes(200_000) + b"the end"

COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda data: gzip.compress(data, mtime=0),
    "xz": lzma.compress,
    "zstd": zstandard.ZstdCompressor(write_checksum=True).compress,
}

compressed = pytest.mark.parametrize("name", COMPRESS)


def contents(path: Path) -> bytes:
    opened = open_source(path)
    assert opened.size == len(opened.data)
    data = opened.data[:]
    opened.close()
    return data


def refusal(path: Path, max_expanded: int = MAX_EXPANDED) -> ImageError:
    with pytest.raises(ImageError) as caught:
        open_source(path, max_expanded=max_expanded)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    return caught.value


def test_plain_file(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(CONTENTS)
    assert contents(path) == CONTENTS
    assert open_source(path).compression == ""
    assert open_source(str(path)).path == str(path)


@compressed
def test_compression_is_told_by_content_and_not_by_name(name: str, tmp_path: Path) -> None:
    for suffix in ("", ".gz", ".xz", ".zst", ".vmcore"):
        path = tmp_path / f"image{suffix}"
        path.write_bytes(COMPRESS[name](CONTENTS))
        assert contents(path) == CONTENTS
        assert open_source(path).compression == name


def test_a_plain_file_with_a_compressed_name(tmp_path: Path) -> None:
    path = tmp_path / "image.gz"
    path.write_bytes(CONTENTS)
    assert contents(path) == CONTENTS


@compressed
def test_several_streams_and_padding(name: str, tmp_path: Path) -> None:
    path = tmp_path / "image"
    pack = COMPRESS[name]
    parts = [CONTENTS[:5], b"", CONTENTS[5:70_000], CONTENTS[70_000:]]
    for padding in (0, 4, 70_000):
        path.write_bytes(b"".join(pack(part) + bytes(padding) for part in parts))
        assert contents(path) == CONTENTS


def test_many_tiny_streams(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(b"".join(COMPRESS["gzip"](CONTENTS[at : at + 1]) for at in range(20_000)))
    assert contents(path) == CONTENTS[:20_000]


def test_zstd_skippable_frames(tmp_path: Path) -> None:
    path = tmp_path / "image"
    skippable = b"\x5a\x2a\x4d\x18\x03\x00\x00\x00abc"
    path.write_bytes(skippable + COMPRESS["zstd"](CONTENTS) + skippable)
    assert contents(path) == CONTENTS


@compressed
def test_truncated_streams(name: str, tmp_path: Path) -> None:
    path = tmp_path / "image"
    whole = COMPRESS[name](CONTENTS)
    magic = 6
    for cut in {*range(magic, 40), *range(len(whole) - 40, len(whole)), len(whole) // 2}:
        path.write_bytes(whole[:cut])
        error = refusal(path)
        assert error.reason == f"truncated: the file ends inside a {name} stream"
        assert error.offset == cut


@compressed
def test_garbage_after_a_stream(name: str, tmp_path: Path) -> None:
    path = tmp_path / "image"
    whole = COMPRESS[name](CONTENTS)
    for padding in (0, 8, 200_000):
        path.write_bytes(whole + bytes(padding) + b"x")
        error = refusal(path)
        assert error.reason == f"garbage after the end of the {name} stream"
        assert error.offset == len(whole) + padding


@compressed
def test_flipped_bits_are_an_error_or_change_nothing(name: str, tmp_path: Path) -> None:
    path = tmp_path / "image"
    whole = COMPRESS[name](CONTENTS)
    rng = random.Random(name)
    refused = 0
    for at in [*range(6, 60), *(rng.randrange(6, len(whole)) for _ in range(60)), len(whole) - 1]:
        broken = bytearray(whole)
        broken[at] ^= 1 << rng.randrange(8)
        path.write_bytes(broken)
        try:
            data = contents(path)
        except ImageError as error:
            assert error.offset is not None or "expands" in error.reason
            refused += 1
        else:
            assert data == CONTENTS
    assert refused > 60


@compressed
def test_limit_of_expansion(name: str, tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(COMPRESS[name](CONTENTS))
    assert open_source(path, max_expanded=len(CONTENTS)).size == len(CONTENTS)
    error = refusal(path, max_expanded=len(CONTENTS) - 1)
    assert error.reason == f"expands to more than {len(CONTENTS) - 1} bytes, the most that is allowed"


@compressed
def test_free_space_limits_expansion(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "image"
    path.write_bytes(COMPRESS[name](CONTENTS))
    true = os.fstatvfs(0)

    def full(descriptor: int) -> os.statvfs_result:
        values = list(true)
        values[1:5] = [4096, 1000, 1000, 2]  # f_frsize, f_blocks, f_bfree, f_bavail
        return os.statvfs_result(values)

    monkeypatch.setattr(os, "fstatvfs", full)
    assert refusal(path).reason == "expands to more than the 8192 bytes free in the temporary directory"


@compressed
def test_pieces_of_a_bomb_are_small(name: str) -> None:
    size = 64 << 20
    packed = COMPRESS[name](bytes(size))
    assert len(packed) < size // 500
    packing = next(known for known in compression.FORMATS if known.name == name)
    pieces = [len(piece) for piece in compression.expand("bomb", io.BytesIO(packed), packing)]
    assert sum(pieces) == size
    assert max(pieces) <= 8 << 20


def test_an_xz_dictionary_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "image"
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 4096}]
    packed = bytearray(lzma.compress(b"x", filters=filters))
    header = packed[12:24]
    assert header[2] == lzma.FILTER_LZMA2
    # The .xz File Format, 5.3.1: a code for 3 GiB, all of which the decoder would allocate.
    header[4] = 39
    header[8:12] = zlib.crc32(header[:8]).to_bytes(4, "little")
    packed[12:24] = header
    path.write_bytes(packed)
    assert "Memory usage limit exceeded" in refusal(path).reason


@compressed
def test_the_head_is_judged_before_anything_is_stored(name: str, tmp_path: Path) -> None:
    path = tmp_path / "image"
    heads: list[bytes] = []

    def accept(head: bytes) -> None:
        heads.append(head)
        raise ImageError(path, "refused", 0)

    for data in (CONTENTS, b"short"):
        path.write_bytes(COMPRESS[name](data[:2]) + COMPRESS[name](data[2:]))
        with pytest.raises(ImageError, match="refused"):
            open_source(path, accept=accept, max_expanded=1 << 40)
        assert heads.pop().startswith(data[:2000])
        assert heads == []
        path.write_bytes(data)
        with pytest.raises(ImageError, match="refused"):
            open_source(path, accept=accept)
        assert heads.pop() == data[:4096]


@compressed
def test_streams_of_nothing(name: str, tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(COMPRESS[name](b""))
    assert refusal(path).reason == f"{name} stream of nothing"


@compressed
def test_nothing_is_left_in_the_temporary_directory(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = tmp_path / "temporary"
    directory.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(directory))
    path = tmp_path / "image"
    path.write_bytes(COMPRESS[name](CONTENTS))
    opened = open_source(path)
    assert list(directory.iterdir()) == []
    opened.close()


def test_a_full_disk_is_an_image_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: object, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(SparseFile, "write", fail)
    path = tmp_path / "image"
    path.write_bytes(COMPRESS["xz"](CONTENTS))
    assert refusal(path).reason == "cannot be read: No space left on device"


def test_what_is_no_file(tmp_path: Path) -> None:
    assert refusal(tmp_path).reason == "cannot be read: Is a directory"
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    assert refusal(fifo).reason == "is not a regular file"
    assert refusal(tmp_path / "none").reason == "cannot be read: No such file or directory"
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    assert refusal(loop).reason == "cannot be read: Too many levels of symbolic links"
    empty = tmp_path / "empty"
    empty.touch()
    assert refusal(empty).reason == "is empty"
    with pytest.raises(ImageError, match=r"a\\0b: cannot be read: a NUL"):
        open_source("a\0b")


def test_a_mapping_that_fails_is_an_image_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    path = tmp_path / "image"
    path.write_bytes(COMPRESS["xz"](CONTENTS))
    monkeypatch.setattr(mmap, "mmap", fail)
    assert "cannot be mapped" in refusal(path).reason


# -- files that others change while they are open --------------------------------


def read_all(source: Source, at: int) -> list[bytes]:
    """The bytes from ``at`` on, in every way that they can be asked for."""
    return [
        source.data[at : at + 8],
        source.data[at:],
        b"".join(source.unpack(struct.Struct("8s"), at)),
        source.array(at, "u1", source.size - at).tobytes(),
        source.view(at, source.size - at).tobytes(),
    ]


def test_every_way_to_read_gives_the_same(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(CONTENTS)
    plain = open_source(path)
    path.write_bytes(COMPRESS["zstd"](CONTENTS))
    private = open_source(path)
    for at in (0, 1, 4090, 4096, 5000, len(CONTENTS) - 8):
        rest = CONTENTS[at:]
        assert read_all(private, at) == [rest[:8], rest, rest[:8], rest, rest]
    path.write_bytes(CONTENTS)
    plain = open_source(path)
    for at in (0, 1, 4090, 4096, 5000, len(CONTENTS) - 8):
        assert read_all(plain, at) == read_all(private, at)
    for size in (0, 1, 511, 512, 4095, 4096, 4097, 9000):
        for at in (0, 3, 4093, 8191):
            assert plain.data[at : at + size] == CONTENTS[at : at + size]
    assert plain.data[len(CONTENTS) - 3 : len(CONTENTS) + 100] == CONTENTS[-3:]
    assert plain.data[9:5] == b""


@pytest.mark.parametrize("way", range(5))
def test_a_file_that_is_cut_short(tmp_path: Path, way: int) -> None:
    """In a mapping it would be SIGBUS, the end of the process."""
    path = tmp_path / "image"
    path.write_bytes(CONTENTS)
    source = open_source(path)
    os.truncate(path, 10_000)
    with pytest.raises(ImageError, match=r"was cut short while it was open: it had 0x493e7 bytes, now 0x2710$"):
        [
            lambda: source.data[20_000:20_008],
            lambda: source.data[20_000:],
            lambda: source.unpack(struct.Struct("8s"), 20_000),
            lambda: source.array(20_000, "u1", 10),
            lambda: source.view(20_000, 5000),
        ][way]()


@pytest.mark.parametrize("change", ["in place", "longer", "same size"])
def test_a_file_that_is_changed(tmp_path: Path, change: str) -> None:
    path = tmp_path / "image"
    path.write_bytes(CONTENTS)
    os.utime(path, ns=(1, 1))
    source = open_source(path)
    assert source.data[0:8] == CONTENTS[:8]
    if change == "in place":
        with path.open("r+b") as file:
            file.write(b"new")
    elif change == "longer":
        with path.open("ab") as file:
            file.write(b"more")
    else:
        path.write_bytes(CONTENTS[::-1])
    with pytest.raises(ImageError, match="was changed by somebody else while it was open"):
        source.data[100_000:100_008]


def test_a_file_that_is_replaced_stays_what_it_was(tmp_path: Path) -> None:
    """That is how images are written here, and what others should do."""
    path = tmp_path / "image"
    path.write_bytes(CONTENTS)
    source = open_source(path)
    with replacing(path) as out:
        out.write(b"another image")
    assert source.data[0:] == CONTENTS
    path.unlink()
    assert source.data[150_000:150_008] == CONTENTS[150_000:150_008]


def test_a_disk_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "image"
    path.write_bytes(CONTENTS)
    source = open_source(path)

    def fail(*args: object) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "pread", fail)
    with pytest.raises(ImageError, match="cannot be read: Input/output error"):
        source.data[0:8]


def test_reads_that_the_system_answers_in_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "image"
    path.write_bytes(CONTENTS)
    source = open_source(path)
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda descriptor, size, at: pread(descriptor, min(size, 1000), at))
    assert source.data[5:50_005] == CONTENTS[5:50_005]


def test_a_closed_source_says_so(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(CONTENTS)
    source = open_source(path)
    source.close()
    source.close()
    with pytest.raises(UsageError, match="the image is closed"):
        source.data[0:8]


def test_files_are_not_left_open(tmp_path: Path) -> None:
    path = tmp_path / "image"
    descriptors = Path("/proc/self/fd")
    before = len(list(descriptors.iterdir()))
    for pack in [*COMPRESS.values(), bytes]:
        path.write_bytes(pack(CONTENTS))
        contents(path)
        path.write_bytes(pack(CONTENTS)[:-1] + b"\0")
        with contextlib.suppress(ImageError):
            contents(path)
    assert len(list(descriptors.iterdir())) == before
