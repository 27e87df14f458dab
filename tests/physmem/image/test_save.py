# SPDX-License-Identifier: GPL-2.0-only
"""Which format a file has, and what that cannot hold; LiME and raw memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from physmem.cli.common import IMAGE_FORMATS, PAGE_COMPRESSIONS
from physmem.errors import ImageError, UsageError
from physmem.image import open_image
from physmem.image.notes import Note, vmcoreinfo_note
from physmem.image.save import FORMATS, Target, save_image
from physmem.image.write_kdump import COMPRESSIONS
from physmem.image.write_plain import write_lime, write_raw
from physmem.ram import Ram
from physmem.ranges import Ranges

NOTES = [Note("CORE", 1, b"registers"), Note("CORE", 1, b"more"), vmcoreinfo_note(b"OSRELEASE=4.0.0\n")]


@pytest.fixture
def ram() -> Ram:
    ram = Ram(0x200000, Ranges([(0x1000, 0x3000), (0x9FC00, 0xA0000), (0x100000, 0x1FE000)]))
    ram.write(0x1800, b"low" * 100)
    ram.write(0x9FC00, b"part")
    ram.write(0x1F0000, b"high" * 0x1000)
    return ram


def test_the_command_line_knows_all() -> None:
    assert tuple(FORMATS) == IMAGE_FORMATS
    assert tuple(COMPRESSIONS) == PAGE_COMPRESSIONS


@pytest.mark.parametrize(
    ("name", "format"),
    [
        ("a.vmcore", "elf"),
        ("a.vmcore.xz", "elf"),
        ("a", "elf"),
        ("vmcore.txt", "elf"),
        ("a.kdump", "kdump"),
        ("A.KDUMP", "kdump"),
        ("a.dump", "kdump"),
        ("a.lime.zst", "lime"),
        ("a.lime", "lime"),
        ("a.raw", "raw"),
        ("dir.raw/a.bin.gz", "raw"),
        ("kdump", "elf"),
    ],
)
def test_the_format_is_in_the_name(name: str, format: str) -> None:
    assert Target.of(name).format == format
    assert Target.of(name, "elf").format == "elf"


def test_what_does_not_go_together() -> None:
    assert Target.of("a", "kdump", "zstd") == Target("a", "kdump", "zstd")
    for arguments, reason in (
        (("a", "coff"), "format 'coff': there are elf, kdump, lime, raw"),
        (("a.kdump", None, "rar"), "compression 'rar': there are zlib, lzo, snappy, zstd, none"),
        (("a.vmcore", None, "zlib"), "compression 'zlib' is for kdump; elf is compressed by a name in .xz"),
        (("a.kdump.xz",), "a kdump-compressed file is compressed page by page, not as a whole"),
        (("a.zst", "kdump"), "a kdump-compressed file is compressed page by page, not as a whole"),
    ):
        with pytest.raises(UsageError, match=reason):
            Target.of(*arguments)


@pytest.mark.parametrize("name", ["a.vmcore", "a.kdump", "a.lime", "a.raw"])
def test_what_a_format_cannot_hold_is_said(ram: Ram, tmp_path: Path, name: str) -> None:
    target = Target.of(tmp_path / name)
    lost = save_image(target, ram, NOTES)
    with open_image(target.path, raw=True) as image:
        if target.format in ("elf", "kdump"):
            assert list(image.notes) == NOTES
        else:
            assert image.notes == ()
        for start, end in image.ranges & ram.ranges:
            assert image.read(start, end - start) == ram.read(start, end - start)
        if target.format == "elf":
            assert lost == []
            assert image.ranges == ram.ranges
        elif target.format == "kdump":
            assert lost == ["kdump has whole pages: 1024 bytes of pages that are present in part are left out"]
            assert image.ranges == ram.ranges - Ranges([(0x9F000, 0xA0000)])
        elif target.format == "lime":
            assert lost == ["lime has no notes: 3 are left out (CORE, VMCOREINFO)"]
            assert image.ranges == ram.ranges
        else:
            assert lost == [
                "raw has no notes: 3 are left out (CORE, VMCOREINFO)",
                f"raw cannot say what is absent: {0x1FE000 - ram.ranges.total()} bytes that are not in the image are"
                " zeros in the file",
            ]
            assert image.ranges == Ranges([(0, 0x1FE000)])
            assert image.read(0, 0x1000) == bytes(0x1000)
    assert target.losses(Ram(0x1000), []) == []


@pytest.mark.parametrize("name", ["a.lime", "a.lime.xz", "a.raw", "a.raw.zst"])
def test_memory_that_nobody_touched_is_not_read(tmp_path: Path, name: str) -> None:
    memory = Ram(0x400000)
    memory.write(0x1000, b"\xff" * 0x200000)
    done: list[int] = []
    save_image(Target.of(tmp_path / name), memory, untouched=Ranges([(0x2000, 0x3000)]), progress=done.append)
    assert sum(done) == 0x400000
    with open_image(tmp_path / name, raw=True) as image:
        assert image.read(0, 0x4000) == bytes(0x1000) + b"\xff" * 0x1000 + bytes(0x1000) + b"\xff" * 0x1000


def test_raw_memory_takes_no_room_for_what_is_absent(ram: Ram, tmp_path: Path) -> None:
    write_raw(tmp_path / "a.raw", ram)
    assert (tmp_path / "a.raw").stat().st_blocks * 512 < 0x80000
    write_raw(tmp_path / "none", Ram(0x1000, Ranges()))
    assert (tmp_path / "none").read_bytes() == b""


def test_more_than_physical_memory(tmp_path: Path) -> None:
    class Huge(Ram):
        def __init__(self) -> None:
            super().__init__(0x1000, Ranges([(0, 1 << 53)]))

    for write in (write_lime, write_raw):
        with pytest.raises(ImageError, match="x86-64 has none above"):
            write(tmp_path / "a", Huge())
    assert list(tmp_path.iterdir()) == []
