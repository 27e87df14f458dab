# SPDX-License-Identifier: GPL-2.0-only
"""Raw memory: with its address in its name, in several files, or with a kernel inside."""

from __future__ import annotations

import lzma
import struct
from pathlib import Path

import pytest

from physmem.errors import AbsentError, ImageError, UsageError
from physmem.image import find_vmcoreinfo, open_image
from physmem.image.raw import Raw, parse_segment
from physmem.ranges import Ranges

PAGE = bytes(range(256)) * 16
TEXT = b"OSRELEASE=6.1.0\nPAGESIZE=4096\nSYMBOL(swapper_pg_dir)=ffffffff80003000\nNUMBER(phys_base)=0\n"


def memory_with(text: bytes, at: int, *, table: int = 0x3000, pages: int = 16) -> bytes:
    """Memory with a VMCOREINFO text, and a page table whose last entry is there."""
    memory = bytearray(pages * 4096)
    memory[at : at + len(text)] = text
    struct.pack_into("<Q", memory, table + 511 * 8, 0x63)
    return bytes(memory)


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("mem.raw@0", ("mem.raw", 0)),
        ("mem.raw@100000000", ("mem.raw", 1 << 32)),
        ("/a b/mem@2.raw@0xfF", ("/a b/mem@2.raw", 255)),
        ("mem.raw", None),
        ("mem.raw@", None),
        ("mem.raw@home", None),
        ("@10", None),
    ],
)
def test_names_of_segments(text: str, parsed: tuple[str, int] | None) -> None:
    assert parse_segment(text) == parsed


def test_an_address_that_cannot_be() -> None:
    with pytest.raises(UsageError, match="x86-64 has no memory above"):
        parse_segment("mem@10000000000000")


def test_a_file_at_an_address(tmp_path: Path) -> None:
    (tmp_path / "low").write_bytes(PAGE)
    with open_image(f"{tmp_path}/low@0x5000") as image:
        assert isinstance(image, Raw)
        assert image.format == "raw memory"
        assert image.ranges == Ranges([(0x5000, 0x6000)])
        assert image.read(0x5100, 4) == PAGE[:4]
        with pytest.raises(AbsentError):
            image.read(0, 1)


def test_compressed_and_too_high(tmp_path: Path) -> None:
    (tmp_path / "low.xz").write_bytes(lzma.compress(PAGE))
    with open_image(f"{tmp_path}/low.xz@5000") as image:
        assert image.format == "raw memory (xz)"
        assert image.read(0x5000, 4096) == PAGE
    with pytest.raises(ImageError, match="would end at 0x10000000000fff"):
        open_image(f"{tmp_path}/low.xz@fffffffffffff")


def test_several_segments(tmp_path: Path) -> None:
    (tmp_path / "low").write_bytes(PAGE)
    (tmp_path / "high").write_bytes(PAGE[::-1] + PAGE)
    with open_image(f"{tmp_path}/high@100000000,{tmp_path}/low@0") as image:
        assert image.format == "raw memory in 2 files"
        assert image.ranges == Ranges([(0, 0x1000), (1 << 32, (1 << 32) + 0x2000)])
        assert image.read(1 << 32, 4096) == PAGE[::-1]
        assert image.array(8, "<u8", 2).tobytes() == PAGE[8:24]
    with open_image([f"{tmp_path}/low@0", f"{tmp_path}/high@1000"]) as image:
        assert image.read(0xFFE, 4) == PAGE[-2:] + PAGE[:-3:-1]
    with pytest.raises(ImageError, match="has physical 0xfff, and another of the files has it too"):
        open_image([f"{tmp_path}/low@0", f"{tmp_path}/high@fff"])


def test_names_that_look_like_segments_are_files_first(tmp_path: Path) -> None:
    (tmp_path / "mem@10").write_bytes(memory_with(TEXT, 0x1000))
    (tmp_path / "a,b@10").write_bytes(memory_with(TEXT, 0x1000))
    for name in ("mem@10", "a,b@10"):
        with open_image(tmp_path / name) as image:
            assert image.ranges == Ranges([(0, 0x10000)])


def test_no_image_at_all(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no image is given"):
        open_image([])
    with pytest.raises(ImageError, match="cannot be read: No such file"):
        open_image(tmp_path / "nothing")
    with pytest.raises(ImageError, match="cannot be read: No such file"):
        open_image(f"{tmp_path}/nothing@0")


# -- a kernel inside ---------------------------------------------------------


@pytest.mark.parametrize("at", [0x1000, 0xF000, 0x1234, 0xFF90])
def test_a_kernel_is_found(tmp_path: Path, at: int) -> None:
    (tmp_path / "mem").write_bytes(memory_with(TEXT, at))
    with open_image(tmp_path / "mem") as image:
        assert isinstance(image, Raw)
        assert image.vmcoreinfo == {}
        assert find_vmcoreinfo(image)["OSRELEASE"] == "6.1.0"


def test_the_kernel_of_a_guest_is_passed_over(tmp_path: Path) -> None:
    guest = TEXT.replace(b"6.1.0", b"5.4.0").replace(b"80003000", b"80004000")
    memory = bytearray(memory_with(TEXT, 0xF000))
    memory[0x1000 : 0x1000 + len(guest)] = guest
    memory[0x2000:0x200F] = b"OSRELEASE=%s\n\0\0"
    # A text that is not whole is none.
    memory[0x5000:0x5020] = b"OSRELEASE=1.0\nPAGESIZE=4096\n\0\0\0\0"
    # Neither is one whose page table would be outside memory.
    far = TEXT.replace(b"80003000", b"90003000")
    memory[0x6000 : 0x6000 + len(far)] = far
    (tmp_path / "mem").write_bytes(memory)
    with open_image(tmp_path / "mem") as image:
        assert find_vmcoreinfo(image)["OSRELEASE"] == "6.1.0"


def test_an_old_kernel_that_does_not_tell_phys_base(tmp_path: Path) -> None:
    text = TEXT.replace(b"NUMBER(phys_base)=0\n", b"")
    (tmp_path / "mem").write_bytes(memory_with(text, 0x1230, table=0x9000))
    with open_image(tmp_path / "mem") as image:
        assert find_vmcoreinfo(image)["OSRELEASE"] == "6.1.0"


@pytest.mark.parametrize("data", [bytes(8192), memory_with(TEXT, 0x1000) + b"x", b"\x7fELG" + bytes(4092)])
def test_other_files_are_not_memory(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "file").write_bytes(data)
    with pytest.raises(ImageError, match="not a memory image known here: begins with"):
        open_image(tmp_path / "file")
    with open_image(tmp_path / "file", raw=True) as image:
        assert image.read(0, len(data)) == data


def test_a_compressed_file_is_raw_memory_on_demand_only(tmp_path: Path) -> None:
    data = memory_with(TEXT, 0x1000)
    (tmp_path / "mem.xz").write_bytes(lzma.compress(data))
    with pytest.raises(ImageError, match="not a memory image known here"):
        open_image(tmp_path / "mem.xz")
    with open_image(tmp_path / "mem.xz", raw=True) as image:
        assert image.format == "raw memory (xz)"
        assert image.read(0, len(data)) == data


def test_memory_that_is_not_of_whole_pages(tmp_path: Path) -> None:
    """Segments whose pages do not begin where those of memory do."""
    data = memory_with(TEXT, 0x5000)
    (tmp_path / "low").write_bytes(data[:0x4800])
    (tmp_path / "high").write_bytes(data[0x4800:])
    with open_image(f"{tmp_path}/low@0,{tmp_path}/high@4800") as image:
        assert find_vmcoreinfo(image)["OSRELEASE"] == "6.1.0"
