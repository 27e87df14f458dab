# SPDX-License-Identifier: GPL-2.0-only
"""Writing ELF cores, which reading gives back; and the form that other tools count on."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from physmem.errors import AbsentError, ImageError
from physmem.image import elf_format as elf
from physmem.image import notes as elf_notes
from physmem.image import open_image
from physmem.image.notes import Note, vmcoreinfo_note
from physmem.image.write import PAGE_OFFSET, Mapping, write_elf
from physmem.memory import PhysicalMemory
from physmem.ranges import Ranges


class Memory:
    """Every byte is a function of its address; what is read at once is watched."""

    def __init__(self, *intervals: tuple[int, int]) -> None:
        self.ranges = Ranges(intervals)
        self.size = self.ranges.end
        self.largest = 0
        self.pattern = random.Random(5).randbytes(4099)

    def read(self, phys: int, size: int) -> bytes:
        gap = self.ranges.first_gap(phys, phys + size)
        if gap is not None:
            raise AbsentError(gap, size)
        self.largest = max(self.largest, size)
        start = phys % len(self.pattern)
        return (self.pattern * (size // len(self.pattern) + 2))[start : start + size]

    def u64(self, phys: int) -> int:
        return int.from_bytes(self.read(phys, 8), "little")

    def array(self, phys: int, dtype: npt.DTypeLike, count: int) -> npt.NDArray[Any]:
        return np.frombuffer(self.read(phys, np.dtype(dtype).itemsize * count), dtype)


def assert_same(path: Path, memory: PhysicalMemory) -> None:
    with open_image(path) as image:
        assert image.ranges == memory.ranges
        for start, end in memory.ranges:
            assert image.read(start, end - start) == memory.read(start, end - start)


SUFFIXES = ["", ".gz", ".xz", ".zst"]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("which", ["A", "B"])
def test_a_real_image_survives(oracle_case: Path, tmp_path: Path, which: str, suffix: str) -> None:
    path = tmp_path / f"copy.vmcore{suffix}"
    with open_image(oracle_case / f"{which}.vmcore.xz") as image:
        write_elf(path, image, image.notes)
        assert_same(path, image)
        with open_image(path) as copy:
            assert copy.notes == image.notes
            assert copy.vmcoreinfo == image.vmcoreinfo
            assert copy.format == {"": "ELF core", ".gz": "ELF core (gzip)", ".xz": "ELF core (xz)"}.get(
                suffix, "ELF core (zstd)"
            )


intervals = st.lists(
    st.tuples(st.integers(0, 40_000), st.integers(0, 9000)).map(lambda pair: (pair[0], sum(pair))), max_size=6
)
note_lists = st.lists(
    st.builds(
        Note,
        st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=9).filter(
            lambda name: name != elf_notes.VMCOREINFO
        ),
        st.integers(0, 0xFFFFFFFF),
        st.binary(max_size=9),
    ),
    max_size=3,
)


@settings(max_examples=100)
@given(intervals, note_lists)
def test_round_trip(
    tmp_path_factory: pytest.TempPathFactory, spans: list[tuple[int, int]], several: list[Note]
) -> None:
    path = tmp_path_factory.getbasetemp() / "round.vmcore"
    memory = Memory(*spans)
    write_elf(path, memory, several)
    assert_same(path, memory)
    with open_image(path) as image:
        assert image.notes == tuple(several)


def headers(data: bytes) -> list[tuple[int, ...]]:
    count = elf.EHDR.unpack_from(data)[10]
    return [elf.PHDR.unpack_from(data, 64 + number * elf.PHDR.size) for number in range(count)]


def test_form_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "image"
    memory = Memory((0x1000, 0x3000), (0x9FC00, 0xA0000), (0x100000, 0x101000))
    note = vmcoreinfo_note(b"OSRELEASE=4.0.0\n")
    write_elf(path, memory, [note])
    data = path.read_bytes()
    fields = elf.EHDR.unpack_from(data)
    assert fields[0] == b"\x7fELF\x02\x01\x01" + bytes(9)
    assert fields[1:] == (4, 62, 1, 0, 64, 0, 0, 64, 56, 4, 0, 0, 0)
    note_header, *loads = headers(data)
    encoded = elf_notes.encode([note])
    at = 64 + 4 * 56
    assert note_header == (elf.PT_NOTE, 0, at, 0, 0, len(encoded), len(encoded), 0)
    assert data[at : at + len(encoded)] == encoded
    for (start, end), (kind, flags, offset, virtual, physical, in_file, in_memory, alignment) in zip(
        memory.ranges, loads, strict=True
    ):
        assert (kind, flags, alignment) == (elf.PT_LOAD, 7, 0)
        assert (physical, in_file, in_memory) == (start, end - start, end - start)
        assert virtual == 0xFFFF880000000000 + start
        assert offset % 4096 == start % 4096
        assert data[offset : offset + end - start] == memory.read(start, end - start)


def test_the_kernels_image_is_named_twice_and_stored_once(tmp_path: Path) -> None:
    path = tmp_path / "image"
    memory = Memory((0x1000, 0x3000), (0x200000, 0x240000), (0x250000, 0x300000))
    write_elf(path, memory, kernel=Mapping(0xFFFFFFFF81010000, 0x210000, 0x280000))
    first, second, *others = headers(path.read_bytes())
    assert [header[3:6] for header in (first, second)] == [
        (0xFFFFFFFF81010000, 0x210000, 0x30000),
        (0xFFFFFFFF81050000, 0x250000, 0x30000),
    ]
    assert first[2] == others[1][2] + 0x10000
    assert second[2] == others[2][2]
    assert path.stat().st_size == others[2][2] + 0xB0000
    assert_same(path, memory)
    write_elf(path, memory, kernel=Mapping(0xFFFFFFFF81010000, 0x400000, 0x480000))
    assert len(headers(path.read_bytes())) == 3


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_memory_that_nobody_touched_is_not_read(tmp_path: Path, suffix: str) -> None:
    """Whatever this memory would say."""
    path = tmp_path / f"image{suffix}"
    memory = Memory((0x1800, 0x500000), (0x600000, 0x600100))
    known = Ranges([(0, 0x1A00), (0x2000, 0x400000), (0x4F0000, 0x600010)])
    done: list[int] = []
    write_elf(path, memory, untouched=known, progress=done.append)
    assert sum(done) == memory.ranges.total()
    with open_image(path) as image:
        assert image.ranges == memory.ranges
        for start, end in memory.ranges:
            expected = bytearray(memory.read(start, end - start))
            for first, last in known.clip(start, end):
                expected[first - start : last - start] = bytes(last - first)
            assert image.read(start, end - start) == bytes(expected)


def test_virtual_addresses(tmp_path: Path) -> None:
    path = tmp_path / "image"
    memory = Memory((0x1000, 0x2000), (0x8000, 0x9000))

    def virtual(**options: Any) -> list[int]:
        write_elf(path, memory, **options)
        return [header[3] for header in headers(path.read_bytes())]

    assert virtual() == [PAGE_OFFSET + 0x1000, PAGE_OFFSET + 0x8000]
    assert virtual(virt_of=0xFFFF888000000000) == [0xFFFF888000001000, 0xFFFF888000008000]
    assert virtual(virt_of=lambda phys: phys * 2) == [0x2000, 0x10000]
    assert virtual(virt_of=(1 << 64) - 0x1000) == [0, 0x7000]


@pytest.mark.parametrize("count", [65534, 65535, 65536])
def test_more_segments_than_a_header_can_count(tmp_path: Path, count: int) -> None:
    path = tmp_path / "image"
    # One byte of each page and a bit: next to each other in the file.
    memory = Memory(*[(number * 4098, number * 4098 + 1) for number in range(count)])
    write_elf(path, memory)
    with path.open("rb") as file:
        fields = elf.EHDR.unpack(file.read(64))
    extended = count >= 0xFFFF
    assert fields[10] == min(count, 0xFFFF)
    assert fields[11:13] == ((64, 1) if extended else (0, 0))
    assert (fields[6] == 64 + count * 56) == extended
    with open_image(path) as image:
        assert image.ranges == memory.ranges
        for phys in (0, 4098, 65533 * 4098, (count - 1) * 4098):
            assert image.read(phys, 1) == memory.read(phys, 1)


def test_memory_is_read_in_bounded_pieces(tmp_path: Path) -> None:
    path = tmp_path / "image"
    memory = Memory((0x1000, 0x1000 + (5 << 20) + 7))
    write_elf(path, memory)
    assert memory.largest <= 1 << 20
    assert_same(path, memory)


def test_memory_at_the_top(tmp_path: Path) -> None:
    path = tmp_path / "image"
    memory = Memory(((1 << 52) - 4096, 1 << 52))
    write_elf(path, memory)
    assert_same(path, memory)


def test_an_image_can_be_written_over_its_own_file(oracle_case: Path, tmp_path: Path) -> None:
    path = tmp_path / "image"
    with open_image(oracle_case / "A.vmcore.xz") as original:
        write_elf(path, original, original.notes)
        with open_image(path) as image:
            write_elf(path, image, image.notes, virt_of=0)
            assert image.read(0x7400000, 4096) == original.read(0x7400000, 4096)
        assert_same(path, original)


class Lying(Memory):
    """Says that it has memory which cannot be read in the end."""

    def read(self, phys: int, size: int) -> bytes:
        if phys >= 0x200000:
            raise AbsentError(phys, size)
        return super().read(phys, size)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_memory_that_cannot_be_read_leaves_nothing(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"image{suffix}"
    for old in (False, True):
        with pytest.raises(AbsentError):
            write_elf(path, Lying((0, 0x400000)))
        assert list(tmp_path.iterdir()) == [path] * old
        path.write_bytes(b"old")
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize(
    ("memory", "notes", "reason"),
    [
        (Memory((0, (1 << 52) + 1)), [], "memory at 0x10000000000000: x86-64 has none above"),
        (Memory((0, 1)), [vmcoreinfo_note(bytes(64 << 20))], "1 notes of 67108888 bytes: at most"),
        (Memory((0, 1)), [Note("", 1, b"")] * 65537, "65537 notes of 1048592 bytes: at most 65536"),
        (Memory(*[(at * 2, at * 2 + 1) for at in range((1 << 20) + 1)]), [], "1048577 segments: at most 1048576"),
    ],
    ids=["memory", "note bytes", "notes", "segments"],
)
def test_what_the_reader_would_refuse_is_not_written(
    tmp_path: Path, memory: Memory, notes: list[Note], reason: str
) -> None:
    path = tmp_path / "image"
    with pytest.raises(ImageError) as caught:
        write_elf(path, memory, notes)
    assert caught.value.reason.startswith(reason)
    assert list(tmp_path.iterdir()) == []
