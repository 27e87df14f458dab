# SPDX-License-Identifier: GPL-2.0-only
"""Reading ELF cores: real ones, the odd ones other tools write, and malformed ones."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from physmem.errors import AbsentError, ImageError, UsageError
from physmem.image import ElfCore, VmcoreInfo, elf_format, notes, open_image, vmcoreinfo
from physmem.image.notes import Note, vmcoreinfo_note
from physmem.memory import PhysicalMemory
from physmem.ranges import Ranges

BuildElf = Callable[..., bytearray]
OpenElf = Callable[[bytes | bytearray], ElfCore]

PAGE = bytes(range(256)) * 16
OTHER = PAGE[::-1]


@pytest.fixture
def open_elf(tmp_path: Path) -> Iterator[OpenElf]:
    """Opens the bytes of a file as an image."""
    opened: list[ElfCore] = []

    def open_bytes(data: bytes | bytearray) -> ElfCore:
        path = tmp_path / "small.vmcore"
        path.write_bytes(data)
        image = open_image(path)
        assert isinstance(image, ElfCore)
        opened.append(image)
        return image

    yield open_bytes
    for image in opened:
        image.close()


def put(image: bytearray, number: int, **fields: int) -> bytearray:
    """Change fields of program header ``number`` of an image whose headers are at byte 64."""
    places = {"type": ("I", 0), "offset": ("Q", 8), "paddr": ("Q", 24), "filesz": ("Q", 32), "memsz": ("Q", 40)}
    for field, value in fields.items():
        code, at = places[field]
        struct.pack_into(f"<{code}", image, 64 + number * elf_format.PHDR.size + at, value)
    return image


# -- a real one --------------------------------------------------------------


def test_a_real_linux_4_0(oracle_case: Path) -> None:
    with open_image(oracle_case / "A.vmcore.xz") as image:
        memory: PhysicalMemory = image
        assert image.format == "ELF core (xz)"
        assert memory.size == memory.ranges.end == 0x7EE4000
        assert len(memory.ranges) == 23
        assert memory.ranges.total() == 0x230000
        assert [(note.name, note.type) for note in image.notes] == [("VMCOREINFO", 0)]
        info = VmcoreInfo(image.vmcoreinfo)
        assert info.release == "4.0.0"
        assert info.number("PAGE_BUDDY_MAPCOUNT_VALUE") == -128
        assert info.encode() == image.notes[0].desc
        # init_level4_pgt, in the kernel's text mapping: its last entry maps the text itself.
        table = info.symbol("init_level4_pgt") - 0xFFFFFFFF80000000
        assert memory.u64(table + 511 * 8) & 1
        # The page array: a struct page of 64 bytes for each of the 32768 pages; _count is never below 0 here.
        counts = memory.array(0x7400000, "<i4", 32768 * 16)[7::16]
        assert counts.min() == 0
        assert counts.max() > 0


def test_the_segments_of_a_real_image_are_its_memory(oracle_case: Path) -> None:
    with open_image(oracle_case / "B.vmcore.xz") as image:
        copied = list(image.segments())
        assert Ranges((phys, phys + len(data)) for phys, data in copied) == image.ranges
        for phys, data in copied:
            assert data.readonly
            assert data.tobytes() == image.read(phys, len(data))


# -- what other tools write --------------------------------------------------


@pytest.mark.parametrize("phoff", [64, 65, 0x1001])
def test_headers_anywhere_and_data_unaligned(build_elf: BuildElf, open_elf: OpenElf, phoff: int) -> None:
    data = build_elf([(0x1000, PAGE), (0x100000, OTHER)], b"", phoff=phoff)
    image = open_elf(bytes(data))
    assert image.format == "ELF core"
    assert image.ranges == Ranges([(0x1000, 0x2000), (0x100000, 0x101000)])
    assert image.size == 0x101000
    assert image.read(0x1000, 4096) == PAGE
    assert image.read(0x100800, 5) == OTHER[0x800:0x805]
    assert image.vmcoreinfo == {}
    assert image.notes == ()


def test_segments_in_any_order_and_reads_across_them(build_elf: BuildElf, open_elf: OpenElf) -> None:
    image = open_elf(build_elf([(0x3000, OTHER), (0x2000, PAGE), (0x1000, OTHER)]))
    whole = OTHER + PAGE + OTHER
    assert image.ranges == Ranges([(0x1000, 0x4000)])
    for start, size in [(0, 0x3000), (0xFFF, 2), (0xFFC, 8), (0x1FFF, 0x1001), (5, 0)]:
        assert image.read(0x1000 + start, size) == whole[start : start + size]
    assert image.u64(0x1FFC) == struct.unpack_from("<Q", whole, 0xFFC)[0]
    assert image.u64(0x2003) == struct.unpack_from("<Q", whole, 0x1003)[0]
    crossing = image.array(0x1FFF, "<u2", 0x801)
    assert crossing.tobytes() == whole[0xFFF : 0xFFF + 0x1002]
    assert not crossing.flags.writeable
    assert [(phys, len(data)) for phys, data in image.segments()] == [(0x1000, 4096), (0x2000, 4096), (0x3000, 4096)]


def test_segments_that_continue_each_other_in_the_file_are_one(build_elf: BuildElf, open_elf: OpenElf) -> None:
    image = open_elf(build_elf([(0x1000, PAGE), (0x2000, OTHER)]))
    assert [(phys, bytes(data)) for phys, data in image.segments()] == [(0x1000, PAGE + OTHER)]


def test_what_was_not_written_is_absent(build_elf: BuildElf, open_elf: OpenElf) -> None:
    data = build_elf([(0x1000, PAGE), (0x10000, PAGE), (0x20000, b"")])
    put(data, 0, memsz=0x3000)
    put(data, 1, filesz=0, offset=1 << 63)
    put(data, 2, memsz=0x1000, paddr=(1 << 64) - 0x1000)
    image = open_elf(data)
    assert image.ranges == Ranges([(0x1000, 0x2000)])
    assert image.ignored == ()
    with pytest.raises(AbsentError) as caught:
        image.read(0x1FFF, 0x20)
    assert (caught.value.phys, caught.value.size) == (0x2000, 0x20)


def test_segments_without_a_physical_address_are_passed_over(build_elf: BuildElf, open_elf: OpenElf) -> None:
    data = put(build_elf([(0x1000, PAGE), (0x8000, PAGE)]), 1, paddr=(1 << 64) - 1)
    image = open_elf(data)
    assert image.ranges == Ranges([(0x1000, 0x2000)])
    assert image.ignored == ("segment 1 (virtual 0x8000) has no physical address",)


def test_proc_vmcore_repeats_the_kernel_with_a_copy_of_its_own(build_elf: BuildElf, open_elf: OpenElf) -> None:
    whole = PAGE + OTHER + PAGE
    for segments in (
        [(0x2000, OTHER), (0x1000, whole)],
        [(0x1000, whole), (0x2000, OTHER)],
        [(0x1000, PAGE + OTHER), (0x2000, OTHER + PAGE)],
        [(0x1000, whole), (0x1000, whole), (0x1800, whole[0x800:])],
    ):
        image = open_elf(build_elf(segments))
        assert image.read(0x1000, 0x3000) == whole
        assert image.ranges.total() == 0x3000


def test_hypervisors_name_the_same_bytes_twice(build_elf: BuildElf, open_elf: OpenElf) -> None:
    data = build_elf([(0x1000, PAGE + OTHER), (0x2000, b""), (0x1800, b"")])
    at = 64 + 3 * elf_format.PHDR.size
    put(data, 1, offset=at + 0x1000, filesz=0x1000, memsz=0x1000)
    put(data, 2, offset=at + 0x800, filesz=0x800, memsz=0x800)
    image = open_elf(data)
    assert image.read(0x1000, 0x2000) == PAGE + OTHER
    assert len(list(image.segments())) == 1


def test_a_core_without_memory(build_elf: BuildElf, open_elf: OpenElf) -> None:
    image = open_elf(build_elf([]))
    assert (image.size, image.ranges, list(image.segments())) == (0, Ranges(), [])


def test_extended_numbering(build_elf: BuildElf, open_elf: OpenElf) -> None:
    data = build_elf([(0x1000, PAGE), (0x8000, OTHER)])
    struct.pack_into("<H", data, 56, elf_format.PN_XNUM)
    struct.pack_into("<Q", data, 40, len(data))
    struct.pack_into("<H", data, 58, elf_format.SHDR.size)
    data += elf_format.SHDR.pack(0, 0, 0, 0, 0, 1, 0, 2, 0, 0)
    assert open_elf(data).ranges == Ranges([(0x1000, 0x2000), (0x8000, 0x9000)])


def test_notes_of_several_segments(build_elf: BuildElf, open_elf: OpenElf) -> None:
    first, second = notes.encode([Note("CORE", 1, b"abc")]), notes.encode([vmcoreinfo_note(b"OSRELEASE=x\n")])
    data = put(build_elf([(0x1000, PAGE), (0, second)], first), 2, type=elf_format.PT_NOTE)
    image = open_elf(data)
    assert image.notes == (Note("CORE", 1, b"abc"), vmcoreinfo_note(b"OSRELEASE=x\n"))
    assert image.vmcoreinfo == {"OSRELEASE": "x"}


# -- access ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("phys", "size", "absent"),
    [
        (0, 1, 0),
        (0xFFF, 2, 0xFFF),
        (0x1FFF, 2, 0x2000),
        (0x1000, 1 << 62, 0x2000),
        (0x2000, 1, 0x2000),
        (-1, 1, -1),
        (1 << 70, 8, 1 << 70),
    ],
)
def test_the_first_absent_address_is_named(
    build_elf: BuildElf, open_elf: OpenElf, phys: int, size: int, absent: int
) -> None:
    image = open_elf(build_elf([(0x1000, PAGE), (0x3000, PAGE)]))
    for access in (lambda: image.read(phys, size), lambda: image.array(phys, "u1", size)):
        with pytest.raises(AbsentError) as caught:
            access()
        assert (caught.value.phys, caught.value.size) == (absent, size)


def test_words_at_the_edge(build_elf: BuildElf, open_elf: OpenElf) -> None:
    image = open_elf(build_elf([(0x1000, PAGE)]))
    assert image.u64(0x1FF8) == struct.unpack_from("<Q", PAGE, 0xFF8)[0]
    for phys, absent in [(0x1FF9, 0x2000), (0xFFF, 0xFFF), (-8, -8)]:
        with pytest.raises(AbsentError) as caught:
            image.u64(phys)
        assert caught.value.phys == absent


def test_negative_sizes_are_refused(build_elf: BuildElf, open_elf: OpenElf) -> None:
    image = open_elf(build_elf([(0x1000, PAGE)]))
    with pytest.raises(UsageError):
        image.read(0x1800, -1)
    with pytest.raises(UsageError):
        image.array(0x1800, "u1", -1)


@pytest.mark.parametrize("compressed", [True, False])
def test_arrays_are_read_only(build_elf: BuildElf, open_elf: OpenElf, compressed: bool) -> None:
    data = bytes(build_elf([(0x1000, PAGE)], b"\0"))
    image = open_elf(gzip.compress(data) if compressed else data)
    one, other = image.array(0x1000, "<u8", 512), image.array(0x1008, np.dtype([("a", "<u4"), ("b", "<u4")]), 511)
    # What was expanded is looked at where it is; a file that others can change is read.
    assert np.shares_memory(one, other) == compressed
    assert one.tobytes() == PAGE
    assert other["b"][0] == struct.unpack_from("<I", PAGE, 12)[0]
    with pytest.raises(ValueError, match="read-only"):
        one[0] = 1
    assert image.array(0x1000, "<u8", 0).size == image.array(0, "<u8", 0).size == 0


def test_arrays_outlive_the_image(build_elf: BuildElf, open_elf: OpenElf) -> None:
    image = open_elf(build_elf([(0x1000, PAGE)]))
    array = image.array(0x1000, "u1", 4096)
    (_, view), *_ = image.segments()
    image.close()
    image.close()
    assert array.tobytes() == view.tobytes() == PAGE


def test_a_closed_image_says_so(build_elf: BuildElf, open_elf: OpenElf) -> None:
    image = open_elf(build_elf([(0x1000, PAGE)]))
    with image:
        pass
    for access in (
        lambda: image.read(0x1000, 1),
        lambda: image.u64(0x1000),
        lambda: image.array(0x1000, "u1", 1),
        lambda: list(image.segments()),
    ):
        with pytest.raises(UsageError, match="the image is closed"):
            access()


# -- malformed files ---------------------------------------------------------

PHDR0, PHDR1, PHDR2 = 64, 64 + 56, 64 + 112
TAIL = 64 + 3 * 56


def word(at: int, code: str, value: int) -> Callable[[bytearray], None]:
    return lambda image: struct.pack_into(f"<{code}", image, at, value)


def cut(size: int) -> Callable[[bytearray], None]:
    def change(image: bytearray) -> None:
        del image[size:]

    return change


def both(*changes: Callable[[bytearray], None]) -> Callable[[bytearray], None]:
    def change(image: bytearray) -> None:
        for each in changes:
            each(image)

    return change


MALFORMED: list[tuple[str, Callable[[bytearray], None], int, str]] = [
    ("not ELF", word(0, "I", 0x464C457E), 0, "not a memory image known here: begins with 7e 45 4c 46 02 01 01 00"),
    ("one byte", cut(1), 0, "not a memory image known here: begins with 7f"),
    ("32-bit", word(4, "B", 1), 4, "EI_CLASS 1: not a 64-bit ELF file"),
    ("big-endian", word(5, "B", 2), 5, "EI_DATA 2: not a little-endian"),
    ("ELF version 2", word(6, "B", 2), 6, "EI_VERSION 2"),
    ("ELF version 7", word(20, "I", 7), 6, "e_version 7"),
    ("vmlinux", word(16, "H", 2), 16, "e_type 2 (an executable: is it a vmlinux?): not a core file"),
    ("odd type", word(16, "H", 99), 16, "e_type 99 (unknown): not a core file"),
    ("aarch64", word(18, "H", 183), 18, "e_machine 183: not x86-64, which is 62"),
    ("phentsize", word(54, "H", 32), 54, "e_phentsize 32"),
    ("header cut", cut(63), 0, "truncated: the ELF header needs 64 bytes, the file has 63"),
    ("program headers cut", cut(TAIL - 1), 32, "truncated: 3 program headers at 0x40, the file has 0xe7 bytes"),
    ("program headers outside", word(32, "Q", 1 << 63), 32, "3 program headers at 0x8000000000000000"),
    ("too many segments", word(56, "H", 0xFFFE), 32, "65534 program headers"),
    ("extended, no section", word(56, "H", 0xFFFF), 58, "e_shentsize 0"),
    (
        "extended, section outside",
        both(word(56, "H", 0xFFFF), word(58, "H", 64), word(40, "Q", (1 << 64) - 64)),
        40,
        "e_shoff 0xffffffffffffffc0: no section header there",
    ),
    ("extended, no offset", both(word(56, "H", 0xFFFF), word(58, "H", 64)), 40, "e_shoff 0x0: no section header"),
    (
        "extended, a huge number",
        both(word(56, "H", 0xFFFF), word(58, "H", 64), word(40, "Q", TAIL), word(TAIL + 44, "I", 0xFFFFFFFF)),
        56,
        "4294967295 segments: at most 1048576 are read",
    ),
    ("data cut", cut(-1), PHDR2, "truncated: segment 2 (physical 0x8000): its data ends at"),
    ("data outside", word(PHDR1 + 8, "Q", (1 << 64) - 1), PHDR1, "truncated: segment 1 (physical 0x1000)"),
    ("huge segment", both(word(PHDR1 + 32, "Q", 1 << 48), word(PHDR1 + 40, "Q", 1 << 48)), PHDR1, "truncated: segment"),
    ("filesz above memsz", word(PHDR1 + 40, "Q", 0xFFF), PHDR1, "p_filesz 0x1000 is more than p_memsz 0xfff"),
    ("above 2^52", word(PHDR1 + 24, "Q", (1 << 52) - 0xFFF), PHDR1, "no memory above 0x10000000000000"),
    ("address of -2", word(PHDR1 + 24, "Q", (1 << 64) - 2), PHDR1, "no memory above 0x10000000000000"),
    ("contradiction", word(PHDR2 + 24, "Q", 0x1FFE), PHDR2, "overlaps another from physical 0x1ffe on with different"),
    ("notes outside", word(PHDR0 + 32, "Q", 1 << 40), PHDR0, "truncated: segment 0 (notes)"),
    ("note header cut", word(PHDR0 + 32, "Q", 11), TAIL, "the header of a note needs 12 bytes, 11 are left"),
    ("note name outside", word(TAIL, "I", 0xFFFFFFFF), TAIL, "a note with a name of 4294967295"),
    ("second note outside", word(TAIL + 24, "I", 99), TAIL + 20, "a description of 99 bytes"),
]


@pytest.mark.parametrize(
    ("change", "offset", "reason"), [row[1:] for row in MALFORMED], ids=[row[0] for row in MALFORMED]
)
def test_malformed(
    build_elf: BuildElf, tmp_path: Path, change: Callable[[bytearray], None], offset: int, reason: str
) -> None:
    image = build_elf([(0x1000, PAGE), (0x8000, OTHER)], notes.encode([Note("A", 1, b"1234"), Note("B", 2, b"5678")]))
    path = tmp_path / "bad.vmcore"
    path.write_bytes(image)
    open_image(path).close()
    change(image)
    path.write_bytes(image)
    with pytest.raises(ImageError) as caught:
        open_image(path)
    assert caught.value.offset == offset
    assert reason in caught.value.reason
    assert str(caught.value).startswith(f"{path}: offset {offset:#x}: ")
    assert "\n" not in str(caught.value)


def test_notes_are_bounded_over_all_segments(build_elf: BuildElf, open_elf: OpenElf) -> None:
    half = struct.pack("<III", 0, 0, 1) * (notes.MAX_NOTES // 2)
    good = put(build_elf([(0, half)], half), 1, type=elf_format.PT_NOTE)
    assert len(open_elf(good).notes) == notes.MAX_NOTES
    bad = put(build_elf([(0, half + half[:12])], half), 1, type=elf_format.PT_NOTE)
    with pytest.raises(ImageError, match="more than 65536 notes in all"):
        open_elf(bad)


def test_vmcoreinfo_is_bounded(build_elf: BuildElf, open_elf: OpenElf) -> None:
    text = bytes(vmcoreinfo.MAX_BYTES + 1)
    with pytest.raises(ImageError, match="VMCOREINFO of 1048577 bytes, at most 1048576 are read") as caught:
        open_elf(build_elf([], notes.encode([vmcoreinfo_note(text)])))
    assert caught.value.offset == 64


def test_size_of_notes_is_bounded(build_elf: BuildElf, tmp_path: Path) -> None:
    path = tmp_path / "sparse.vmcore"
    data = put(build_elf([], b""), 0, offset=0, filesz=notes.MAX_BYTES + 1)
    with path.open("wb") as file:
        file.write(data)
        file.truncate(notes.MAX_BYTES + 1)
    with pytest.raises(ImageError, match="67108865 bytes, at most 67108864 are read"):
        open_image(path)


def test_overlaps_that_only_cost_time_are_refused(build_elf: BuildElf, open_elf: OpenElf) -> None:
    # Pages [0, n), [1, n), ... all zero, each in another place of the file: equal, and quadratic to find out.
    count = 200
    data = build_elf([(page * 16, b"") for page in range(count)])
    for page in range(count):
        put(data, page, offset=len(data) + page, filesz=(count - page) * 16, memsz=(count - page) * 16)
    data += bytes(count * 17)
    with pytest.raises(ImageError, match="too many segments overlap"):
        open_elf(data)
    # The same with one extent for every segment, each overlapped by all that follow.
    data = build_elf([(page, b"") for page in range(count)])
    for page in range(count):
        put(data, page, offset=len(data) + 3 * page, filesz=count, memsz=count)
    data += bytes(1 << 20)
    with pytest.raises(ImageError, match="too many segments overlap"):
        open_elf(data)


def small(build_elf: BuildElf) -> bytearray:
    return build_elf(
        [(0x1000, PAGE[:64]), (0x1040, OTHER[:64]), (0x9000, PAGE[:9])], notes.encode([vmcoreinfo_note(b"A=1\n")])
    )


def judge(path: Path, data: bytes | bytearray) -> None:
    """Open ``data`` as an image: only ImageError may come of it, and an image that opens can be read."""
    path.write_bytes(data)
    try:
        image = open_image(path)
    except ImageError as error:
        assert error.offset is not None or not data
        return
    with image:
        assert image.size == image.ranges.end <= 1 << 52
        assert sum(len(piece) for _, piece in image.segments()) == image.ranges.total() <= len(data)
        for start, end in image.ranges:
            assert len(image.read(start, end - start)) == end - start


def test_every_truncation(build_elf: BuildElf, tmp_path: Path) -> None:
    data = small(build_elf)
    for size in range(len(data)):
        judge(tmp_path / "cut", data[:size])
        with pytest.raises(ImageError):
            open_image(tmp_path / "cut")


interesting = st.sampled_from([0, 1, 0x7F, 0x80, 0xFF])


@settings(max_examples=300)
@given(changes=st.lists(st.tuples(st.integers(0, 500), st.integers(0, 255) | interesting), max_size=8), data=st.data())
def test_flipped_bytes(
    build_elf: BuildElf,
    tmp_path_factory: pytest.TempPathFactory,
    changes: list[tuple[int, int]],
    data: st.DataObject,
) -> None:
    image = small(build_elf)
    for at, value in changes:
        image[at % len(image)] = value
    size = data.draw(st.integers(0, len(image)) | st.just(len(image)))
    judge(tmp_path_factory.getbasetemp() / "flipped", image[:size])


@settings(max_examples=300)
@given(st.lists(st.tuples(*[st.integers(0, 40)] * 3), min_size=1, max_size=8), st.booleans())
def test_any_segments_against_a_model(
    build_elf: BuildElf,
    tmp_path_factory: pytest.TempPathFactory,
    segments: list[tuple[int, int, int]],
    uniform: bool,
) -> None:
    """Segments anywhere in a file of few different bytes, against a dictionary from address to byte."""
    data = build_elf([(phys, b"") for phys, _, _ in segments])
    body = bytes(80) if uniform else bytes(at // 3 % 2 for at in range(80))
    memory: dict[int, int] = {}
    contradicts = False
    for number, (phys, offset, size) in enumerate(segments):
        put(data, number, offset=len(data) + offset, filesz=size, memsz=size)
        for at in range(size):
            contradicts |= memory.setdefault(phys + at, body[offset + at]) != body[offset + at]
    path = tmp_path_factory.getbasetemp() / "model"
    path.write_bytes(data + body)
    try:
        image = open_image(path)
    except ImageError as error:
        assert contradicts or "too many segments overlap" in error.reason
        return
    assert not contradicts
    with image:
        assert image.ranges == Ranges((phys, phys + 1) for phys in memory)
        for start, end in image.ranges:
            assert image.read(start, end - start) == bytes(memory[phys] for phys in range(start, end))
