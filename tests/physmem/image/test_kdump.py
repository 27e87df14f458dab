# SPDX-License-Identifier: GPL-2.0-only
"""kdump-compressed files: every version and compression, what is absent in them, and malformed ones."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import cramjam
import lzallright
import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from physmem.errors import AbsentError, ImageError, UsageError
from physmem.image import Kdump, VmcoreInfo, notes, open_image
from physmem.image.notes import Note, vmcoreinfo_note
from physmem.memory import PhysicalMemory
from physmem.ranges import Ranges

SIZE = 4096
PAGE = bytes(range(256)) * 16
OTHER = PAGE[::-1]
ZERO = bytes(SIZE)
#: Pages 1, 2, 3 in a row, of which 2 and 5 to 7 are zeros, and one far away.
PAGES = {1: PAGE, 2: ZERO, 3: OTHER, 5: ZERO, 6: ZERO, 7: ZERO, 200: PAGE[5:] + PAGE[:5]}
INFO = b"OSRELEASE=6.1.0\nPAGESIZE=4096\n"

OpenKdump = Callable[..., Kdump]


@pytest.fixture
def open_kdump(makers: ModuleType, tmp_path: Path) -> Iterator[OpenKdump]:
    """Makes a file of pages, and opens it."""
    opened: list[Kdump] = []

    def make(pages: dict[int, bytes] = PAGES, max_mapnr: int = 256, /, edit: Any = None, **how: Any) -> Kdump:
        data = makers.make_kdump(pages, max_mapnr, **how)
        if edit is not None:
            data = edit(data) or data
        path = tmp_path / f"vmcore{len(opened)}"
        path.write_bytes(data)
        image = open_image(path)
        assert isinstance(image, Kdump)
        opened.append(image)
        return image

    yield make
    for image in opened:
        image.close()


def expect(image: Kdump, pages: dict[int, bytes]) -> None:
    """All there is in the image is these pages."""
    memory: PhysicalMemory = image
    ranges = Ranges((pfn * SIZE, (pfn + 1) * SIZE) for pfn in pages)
    assert memory.ranges == ranges
    assert memory.size == ranges.end
    for pfn, page in pages.items():
        assert memory.read(pfn * SIZE, SIZE) == page
    assert b"".join(bytes(data) for _, data in image.segments()) == b"".join(pages[pfn] for pfn in sorted(pages))


# -- what is there -----------------------------------------------------------


@pytest.mark.parametrize("version", range(8))
def test_every_version(open_kdump: OpenKdump, version: int) -> None:
    image = open_kdump(version=version, vmcoreinfo=INFO)
    assert image.format == "kdump-compressed"
    assert image.ignored == ()
    assert image.vmcoreinfo == ({"OSRELEASE": "6.1.0", "PAGESIZE": "4096"} if version >= 3 else {})
    expect(image, PAGES)


@pytest.mark.parametrize(
    "compress",
    [
        lambda page: (0, page),
        lambda page: (1, zlib.compress(page)),
        lambda page: (2, lzallright.LZOCompressor().compress(page)),
        lambda page: (4, bytes(cramjam.snappy.compress_raw(page))),
        lambda page: (0x20, zstandard.ZstdCompressor().compress(page)),
    ],
    ids=["none", "zlib", "LZO", "snappy", "zstd"],
)
def test_every_compression(open_kdump: OpenKdump, compress: Callable[[bytes], tuple[int, bytes]]) -> None:
    expect(open_kdump(compress=compress), PAGES)


def test_one_bitmap_alone(open_kdump: OpenKdump) -> None:
    expect(open_kdump(one_bitmap=True), PAGES)


def test_diskdump(open_kdump: OpenKdump) -> None:
    image = open_kdump(signature=b"DISKDUMP", version=1, vmcoreinfo=INFO)
    assert image.format == "diskdump"
    assert image.vmcoreinfo == {}
    expect(image, PAGES)


def test_reads_of_all_kinds(open_kdump: OpenKdump) -> None:
    image = open_kdump()
    whole = PAGE + ZERO + OTHER
    for start, size in [(0, 1), (1, 4095), (4095, 2), (4090, 8), (100, 3 * SIZE - 100), (0, 3 * SIZE), (7, 0)]:
        assert image.read(SIZE + start, size) == whole[start : start + size]
        assert image.array(SIZE + start, np.uint8, size).tobytes() == whole[start : start + size]
    assert image.u64(SIZE + 3) == struct.unpack_from("<Q", whole, 3)[0]
    assert image.u64(2 * SIZE - 3) == struct.unpack_from("<Q", whole, SIZE - 3)[0]
    numbers = image.array(SIZE + 1, "<u4", 2000)
    assert numbers.tolist() == list(struct.unpack_from("<2000I", whole, 1))
    assert not numbers.flags.writeable
    assert image.array(0, "<u4", 0).tolist() == []


def test_what_was_excluded_is_absent(open_kdump: OpenKdump) -> None:
    image = open_kdump()
    for phys, size, gap in [
        (0, 1, 0),
        (0xFF8, 8, 0xFF8),
        (0x3FFC, 8, 0x4000),
        (0x1000, 0x4000, 0x4000),
        (256 << 12, 1, 256 << 12),
        (1 << 51, 8, 1 << 51),
        (-8, 8, -8),
    ]:
        with pytest.raises(AbsentError) as caught:
            image.read(phys, size)
        assert (caught.value.phys, caught.value.size) == (gap, size)
        with pytest.raises(AbsentError):
            image.array(phys, np.uint8, size)
    with pytest.raises(AbsentError):
        image.u64(0x3FFC)
    with pytest.raises(UsageError, match="a size is never negative"):
        image.read(0x1000, -1)


def test_a_page_is_decompressed_once(open_kdump: OpenKdump, monkeypatch: pytest.MonkeyPatch) -> None:
    image = open_kdump()
    assert image.u64(0x1000) == struct.unpack_from("<Q", PAGE)[0]
    monkeypatch.setattr("zlib.decompress", None)
    assert image.u64(0x1008) == struct.unpack_from("<Q", PAGE, 8)[0]
    assert image.read(0x1010, 16) == PAGE[16:32]


def test_a_closed_image(open_kdump: OpenKdump) -> None:
    image = open_kdump()
    image.u64(0x1000)
    image.close()
    image.close()
    for use in (
        lambda: image.read(0x1000, 1),
        lambda: image.u64(0x1000),
        lambda: image.array(0x1000, "u1", 8192),
        lambda: next(image.segments()),
    ):
        with pytest.raises(UsageError, match="the image is closed"):
            use()
    assert image.ranges.total() == len(PAGES) * SIZE


def test_segments_are_of_bounded_size(open_kdump: OpenKdump) -> None:
    pages = dict.fromkeys(range(10, 700), ZERO)
    image = open_kdump(pages, 1024)
    found = [(phys, len(data)) for phys, data in image.segments()]
    assert found == [(10 << 12, 1 << 20), (266 << 12, 1 << 20), (522 << 12, 178 << 12)]


# -- notes -------------------------------------------------------------------


def test_notes(open_kdump: OpenKdump) -> None:
    given = [Note("CORE", 1, b"registers"), vmcoreinfo_note(INFO)]
    image = open_kdump(notes=notes.encode(given))
    assert list(image.notes) == given
    assert VmcoreInfo(image.vmcoreinfo).release == "6.1.0"
    # A text of its own is the same thing as a note.
    image = open_kdump(vmcoreinfo=INFO, notes=notes.encode(given[:1]))
    assert list(image.notes) == given
    image = open_kdump(vmcoreinfo=b"OSRELEASE=5\n", notes=notes.encode(given))
    assert list(image.notes) == given
    assert VmcoreInfo(image.vmcoreinfo).release == "5"


@pytest.mark.parametrize("machine", [b"x86_64", b""])
def test_hypervisors_leave_utsname_empty(open_kdump: OpenKdump, machine: bytes) -> None:
    expect(open_kdump(machine=machine), PAGES)


# -- parts of a dump ---------------------------------------------------------


def test_one_file_of_a_split_dump(open_kdump: OpenKdump) -> None:
    first = open_kdump(split=(0, 3))
    second = open_kdump(split=(3, 256))
    expect(first, {pfn: PAGES[pfn] for pfn in (1, 2)})
    expect(second, {pfn: PAGES[pfn] for pfn in (3, 5, 6, 7, 200)})
    assert (first.span, second.span) == ((0, 0x3000), (0x3000, 256 << 12))
    assert second.ignored == ()


@pytest.mark.parametrize("version", [2, 6])
def test_all_files_of_a_split_dump(open_kdump: OpenKdump, version: int) -> None:
    files = [open_kdump(split=split, version=version, vmcoreinfo=INFO) for split in ((6, 256), (0, 2), (2, 6))]
    paths = [image.path for image in files]
    for names in (paths, ",".join(paths)):
        with open_image(names) as image:
            assert image.format == "kdump-compressed in 3 files"
            assert image.path == ", ".join(paths)
            assert image.ranges == Ranges((pfn << 12, (pfn + 1) << 12) for pfn in PAGES)
            assert image.read(0x1000, 0x3000) == PAGE + ZERO + OTHER
            assert image.array(0x1FFF, "u1", 0x1002).tobytes() == PAGE[-1:] + ZERO + OTHER[:1]
            assert image.u64(0x2FFC) == struct.unpack("<Q", bytes(4) + OTHER[:4])[0]
            assert image.size == 201 << 12
            assert image.vmcoreinfo == files[2].vmcoreinfo
            assert [phys >> 12 for phys, _ in image.segments()] == [1, 2, 5, 6, 200]
            with pytest.raises(AbsentError, match="physical 0x4000: absent"):
                image.read(0x3000, 0x3000)
            with pytest.raises(AbsentError, match="physical 0x0: absent"):
                image.read(0, 1)
        with pytest.raises(UsageError, match="the image is closed"):
            image.read(0x1000, 1)


def test_files_that_are_not_of_one_dump(open_kdump: OpenKdump) -> None:
    files = [open_kdump(split=(0, 6)), open_kdump(split=(5, 256))]
    with pytest.raises(ImageError, match="has physical 0x5000, and another of the files has it too"):
        open_image([image.path for image in files])


def test_pages_that_there_was_no_room_for(open_kdump: OpenKdump) -> None:
    image = open_kdump(status=1 | 8, missing={3, 200})
    expect(image, {pfn: page for pfn, page in PAGES.items() if pfn not in (3, 200)})
    assert image.ignored == ("2 of 7 pages are not in the file: there was no room for them",)


def test_a_file_that_was_cut_short(open_kdump: OpenKdump) -> None:
    pages = {pfn: bytes([pfn]) * SIZE for pfn in range(1, 100)}
    whole = open_kdump(pages, 128, compress=lambda page: (0, page))
    cut = open_kdump(pages, 128, compress=lambda page: (0, page), edit=lambda data: data[: -10 * SIZE - 1])
    expect(whole, pages)
    expect(cut, {pfn: page for pfn, page in pages.items() if pfn < 89})
    assert cut.ignored == ("11 of 99 pages are not in the file: the file was cut short",)


# -- malformed files ---------------------------------------------------------


def put(code: str, at: int, value: int) -> Callable[[bytearray], None]:
    return lambda data: struct.pack_into(f"<{code}", data, at, value)


DESCRIPTORS = 2 * SIZE + 2 * SIZE  # header, sub header, two bitmaps


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (lambda data: data[:300], "truncated: the header ends at 0x1d0, the file has 0x12c bytes"),
        (lambda data: data[: SIZE + 50], "truncated: the sub header ends at 0x1068"),
        (lambda data: data[: 3 * SIZE], "truncated: the bitmap ends at"),
        (lambda data: data[: 4 * SIZE + 10], "truncated: 7 descriptors of pages"),
        (put("i", 8, -1), "header_version -1"),
        (put("i", 8, 6 << 24), "is it of a big-endian machine?"),
        (lambda data: data.__setitem__(slice(272, 278), b"s390x\0"), "a dump of a machine 's390x', not x86_64"),
        (put("i", 428, 65536), "blocks of 65536 bytes"),
        (put("i", 428, 0), "blocks of 0 bytes"),
        (put("i", 432, -1), "sub header of -1 blocks"),
        (put("i", 432, 1 << 30), "truncated: the bitmap ends at"),
        (put("I", 436, 0), "bitmap of 0x0 bytes: too small for 0x100 pages"),
        (put("Q", SIZE + 96, 1 << 41), "x86-64 has at most 0x10000000000"),
        (put("Q", SIZE + 96, 1 << 40), "too small for 0x10000000000 pages"),
        (put("QQ"[0], SIZE + 32, 1 << 62), "truncated: VMCOREINFO ends at"),
        (put("Q", SIZE + 40, 1 << 30), "1073741824 bytes of VMCOREINFO: at most 1048576 are read"),
        (put("Q", SIZE + 56, 1 << 40), "1099511627776 bytes of notes: at most"),
        (put("I", 2 * SIZE + len(INFO), 1 << 20), "a note with a name of 1048576"),
    ],
)
def test_malformed(open_kdump: OpenKdump, edit: Callable[[bytearray], Any], reason: str) -> None:
    note = notes.encode([Note("CORE", 1, b"registers")])
    if "bitmap ends" in reason or "descriptors" in reason or "too small" in reason:
        # Nothing else that the file could be too short for.
        with pytest.raises(ImageError, match=reason):
            open_kdump(edit=edit)
    else:
        with pytest.raises(ImageError, match=reason):
            open_kdump(vmcoreinfo=INFO, notes=note, edit=edit)


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (put("I", DESCRIPTORS + 12, 0x40), "page 0x1 cannot be read: .* bytes, and flags 0x40"),
        (put("I", DESCRIPTORS + 12, 3), "page 0x1 cannot be read: .* flags 0x3"),
        (put("I", DESCRIPTORS + 12, 0), "page 0x1 cannot be read: .* flags 0x0"),
        (put("I", DESCRIPTORS + 12, 0x20), "page 0x1 cannot be read: not zstd data"),
        (put("I", DESCRIPTORS + 8, 0), "page 0x1: 0 bytes at"),
        (put("I", DESCRIPTORS + 8, 5000), "page 0x1: 5000 bytes at"),
        (put("I", DESCRIPTORS + 8, 20), "page 0x1 cannot be read: not zlib data"),
        (put("Q", DESCRIPTORS, 0), "page 0x1 cannot be read: not zlib data"),
    ],
)
def test_a_damaged_page_is_named_and_the_others_are_read(
    open_kdump: OpenKdump, edit: Callable[[bytearray], Any], reason: str
) -> None:
    # Enough pages behind it that the end of the file does not look cut off.
    pages = PAGES | dict.fromkeys(range(300, 1400), PAGE)
    image = open_kdump(pages, 2048, edit=edit)
    with pytest.raises(ImageError, match=reason):
        image.read(0x1000, 1)
    assert image.read(0x3000, SIZE) == OTHER


@pytest.fixture(scope="module")
def small(makers: ModuleType) -> bytes:
    return bytes(makers.make_kdump(PAGES, 256, vmcoreinfo=INFO, notes=notes.encode([Note("CORE", 1, b"registers")])))


#: Where mutations matter most: the header's numbers, the sub header, the bitmaps' used bytes, the descriptors.
PLACES = (
    st.integers(0, 12)
    | st.integers(272, 464)
    | st.integers(SIZE, SIZE + 104)
    | st.integers(2 * SIZE, 2 * SIZE + 100)
    | st.integers(4 * SIZE, 4 * SIZE + 32)
    | st.integers(5 * SIZE, 5 * SIZE + 400)
)


@settings(max_examples=300)
@given(
    edits=st.lists(st.tuples(PLACES, st.sampled_from([0, 1, 2, 0x7F, 0x80, 0xFF]) | st.integers(0, 255)), max_size=6),
    cut=st.none() | st.integers(0, 30000),
    flat=st.booleans(),
)
def test_any_file_is_read_or_refused(
    makers: ModuleType,
    small: bytes,
    tmp_path_factory: pytest.TempPathFactory,
    edits: list[tuple[int, int]],
    cut: int | None,
    flat: bool,
) -> None:
    data = bytearray(small)
    for at, value in edits:
        data[min(at, len(data) - 1)] = value
    content = bytes(data[:cut])
    if flat:
        content = makers.flatten(content, [(0, len(content)), (0, min(500, len(content)))])
    path = tmp_path_factory.getbasetemp() / "mutated.kdump"
    path.write_bytes(content)
    with makers.read_or_refused(), open_image(path) as image:
        for start, end in image.ranges:
            for phys in range(start, min(end, start + 64 * SIZE), SIZE):
                assert len(image.read(phys, SIZE)) == SIZE
