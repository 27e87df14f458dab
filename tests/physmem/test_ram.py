# SPDX-License-Identifier: GPL-2.0-only
"""Emulated memory: what is present, what is absent, and what belongs to a file."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from physmem.errors import AbsentError, AddressError, ImageError, UsageError
from physmem.image import open_image
from physmem.image.base import Extent, MappedImage
from physmem.image.source import Source
from physmem.image.write import write_elf
from physmem.ram import MAX_SIZE, Ram
from physmem.ranges import Ranges

PAGE = 4096


def test_new_memory_is_all_there_and_zero() -> None:
    ram = Ram(4 * PAGE)
    assert list(ram.ranges) == [(0, 4 * PAGE)]
    assert ram.read(0, 4 * PAGE) == bytes(4 * PAGE)


def test_untouched_memory_costs_nothing() -> None:
    ram = Ram(1 << 40)
    ram.set_u64((1 << 40) - 8, 5)
    assert ram.u64((1 << 40) - 8) == 5
    resident = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    assert int(resident.split()[1]) < 4 << 20, "KiB"


@pytest.mark.parametrize("size", [0, -PAGE, 1, PAGE + 1, MAX_SIZE + PAGE, 1 << 70])
def test_sizes_that_cannot_be(size: int) -> None:
    with pytest.raises(UsageError, match="physical memory of"):
        Ram(size)


def test_words_are_little_endian_and_wrap() -> None:
    ram = Ram(PAGE)
    ram.set_u64(0, 0x1122334455667788)
    assert ram.read(0, 8) == bytes.fromhex("8877665544332211")
    assert (ram.u8(0), ram.u16(0), ram.u32(0)) == (0x88, 0x7788, 0x55667788)
    ram.set_u64(8, -1)
    assert ram.u64(8) == (1 << 64) - 1
    ram.set_u32(16, 1 << 32 | 0x80000000)
    assert (ram.u32(16), ram.i32(16), ram.u32(20)) == (0x80000000, -(1 << 31), 0)
    ram.set_u8(24, 0x1FF)
    assert (ram.u8(24), ram.u8(25)) == (0xFF, 0)


def test_views_are_the_same_bytes() -> None:
    ram = Ram(PAGE)
    ram.as_u64[1] = (1 << 64) - 2
    assert (ram.as_s64[1], ram.as_u32[2], ram.as_s32[2]) == (-2, 0xFFFFFFFE, -2)
    assert (ram.as_u8[8], ram.as_s8[8], ram.as_u16[4]) == (0xFE, -2, 0xFFFE)


@given(phys=st.integers(-10, 3 * PAGE), size=st.integers(-10, 3 * PAGE))
def test_bounds(phys: int, size: int) -> None:
    ram = Ram(2 * PAGE)
    if phys >= 0 and size >= 0 and phys + size <= 2 * PAGE:
        assert ram.read(phys, size) == bytes(size)
        ram.write(phys, b"x" * size)
    else:
        with pytest.raises(AddressError, match="outside physical memory"):
            ram.read(phys, size)
        with pytest.raises(AddressError, match="outside physical memory"):
            ram.clear(phys, size)
        with pytest.raises(AddressError):
            ram.array(phys, np.uint8, size)


# -- absent memory ------------------------------------------------------------------------


@pytest.fixture
def gaps() -> Ram:
    """Pages 1 and 3 of six."""
    return Ram(6 * PAGE, Ranges([(PAGE, 2 * PAGE), (3 * PAGE, 4 * PAGE)]))


@pytest.mark.parametrize(
    ("phys", "size", "first"),
    [
        (0, 1, 0),
        (PAGE, PAGE + 1, 2 * PAGE),
        (2 * PAGE - 4, 8, 2 * PAGE),
        (3 * PAGE - 1, 2, 3 * PAGE - 1),
        (5 * PAGE, 1, 5 * PAGE),
    ],
)
def test_absent_is_not_zero(gaps: Ram, phys: int, size: int, first: int) -> None:
    for access in (
        lambda: gaps.read(phys, size),
        lambda: gaps.write(phys, bytes(size)),
        lambda: gaps.array(phys, "u1", size),
    ):
        with pytest.raises(AbsentError) as caught:
            access()
        assert (caught.value.phys, caught.value.size) == (first, size)
        assert str(caught.value) == f"physical {first:#x}: absent from the image ({size} bytes were asked for)"


def test_clearing_leaves_absent_memory_absent(gaps: Ram) -> None:
    gaps.write(PAGE, b"\xff" * PAGE)
    gaps.write(3 * PAGE, b"\xff" * PAGE)
    before = list(gaps.ranges)
    gaps.clear(PAGE + 8, 2 * PAGE)
    assert list(gaps.ranges) == before
    assert gaps.read(PAGE, PAGE) == b"\xff" * 8 + bytes(PAGE - 8)
    assert gaps.read(3 * PAGE, PAGE) == bytes(8) + b"\xff" * (PAGE - 8)


# -- many at once -------------------------------------------------------------------------


def test_an_array_is_a_live_view_that_cannot_be_written() -> None:
    ram = Ram(PAGE)
    values = ram.array(8, np.uint64, 4)
    ram.set_u64(16, 77)
    assert values.tolist() == [0, 77, 0, 0]
    with pytest.raises(ValueError, match="read-only"):
        values[0] = 1
    assert ram.array(PAGE, np.uint64, 0).tolist() == []
    with pytest.raises(AddressError, match="an array of -1 elements"):
        ram.array(0, np.uint64, -1)


# -- files and images ---------------------------------------------------------------------


def test_a_raw_file(tmp_path: Path) -> None:
    path = tmp_path / "ram"
    path.write_bytes(bytes(PAGE) + b"\x07" * PAGE)
    ram = Ram.from_file(path)
    assert (ram.size, ram.u8(PAGE)) == (2 * PAGE, 7)
    ram.set_u8(0, 9)
    assert ram.u8(0) == 9
    assert path.read_bytes()[0] == 0


def test_a_file_that_is_cut_short_later_is_no_matter(tmp_path: Path) -> None:
    """Were it mapped, this process would die of it."""
    path = tmp_path / "ram"
    path.write_bytes(b"\x07" * 64 * PAGE)
    ram = Ram.from_file(path)
    os.truncate(path, 0)
    assert ram.read(0, 64 * PAGE) == b"\x07" * 64 * PAGE


@pytest.mark.parametrize("size", [0, PAGE, 40 * PAGE - 1])
def test_a_file_that_is_cut_short_while_it_is_loaded(tmp_path: Path, size: int) -> None:
    write_elf(tmp_path / "image", Ram(40 * PAGE))
    with open_image(tmp_path / "image") as image:
        os.truncate(tmp_path / "image", size)
        with pytest.raises(ImageError, match=r"image: .*was cut short while it was open"):
            Ram.from_image(image)


@given(
    parts=st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(1, 5 * PAGE)), min_size=1, max_size=6),
    shift=st.integers(0, 5000),
    holes=st.booleans(),
)
def test_loaded_memory_is_that_of_the_file(parts: list[tuple[int, int]], shift: int, holes: bool) -> None:
    """Wherever data begins and ends, in the file and in memory; whether or not the host tells where there is none."""
    with tempfile.TemporaryFile() as file, pytest.MonkeyPatch.context() as patch:
        file.truncate((1 << 20) + 6 * PAGE)
        for number, (at, size) in enumerate(parts):
            file.seek(at)
            file.write(bytes([number + 1]) * size)
        file.flush()
        if not holes:
            patch.setattr(os, "lseek", refuse)
        source = Source("image", file, "", private=False)
        length = source.size - shift
        with MappedImage(source, [Extent(shift // 2, shift // 2 + length, shift)], (), {}) as image:
            ram = Ram.from_image(image)
        file.seek(shift)
        assert ram.read(shift // 2, length) == file.read()


def refuse(*_: object) -> int:
    raise OSError(errno.EINVAL, "no holes here")


@pytest.mark.parametrize(("content", "reason"), [(b"", "0 bytes are not"), (b"x" * 5000, "5000 bytes are not")])
def test_files_that_are_no_memory(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "ram").write_bytes(content)
    with pytest.raises(ImageError, match=f"ram: {reason} a whole number of 4096-byte pages"):
        Ram.from_file(tmp_path / "ram")
    with pytest.raises(ImageError, match="nowhere: No such file"):
        Ram.from_file(tmp_path / "nowhere")
    with pytest.raises(ImageError):
        Ram.from_file(tmp_path)


def test_an_image_is_copied(oracle: Callable[[str], Any]) -> None:
    with open_image(oracle("n128_s0_one").a) as image:
        ram = Ram.from_image(image, 128 << 20)
        assert ram.size == 128 << 20
        assert ram.ranges == image.ranges
        for start, end in image.ranges:
            assert ram.read(start, end - start) == image.read(start, end - start)
        start = next(iter(image.ranges))[0]
        ram.write(start, bytes(b ^ 0xFF for b in ram.read(start, PAGE)))
        assert ram.read(start, PAGE) != image.read(start, PAGE)


def test_images_that_cannot_be_memory(tmp_path: Path) -> None:
    write_elf(tmp_path / "empty", Ram(PAGE, Ranges([])))
    with open_image(tmp_path / "empty") as image, pytest.raises(ImageError, match="empty: contains no memory"):
        Ram.from_image(image)
    with open_image(tmp_path / "empty") as image, pytest.raises(ImageError, match="above the limit"):
        Ram.from_image(image, MAX_SIZE + 1)
