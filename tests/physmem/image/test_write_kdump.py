# SPDX-License-Identifier: GPL-2.0-only
"""Writing kdump-compressed files, which reading gives back; and the form that other tools count on."""

from __future__ import annotations

import random
import struct
import sys
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from physmem.errors import AbsentError, ImageError, UsageError
from physmem.image import kdump_format as fmt
from physmem.image import notes as elf_notes
from physmem.image import open_image
from physmem.image.notes import Note, vmcoreinfo_note
from physmem.image.write_kdump import COMPRESSIONS, write_kdump
from physmem.ram import Ram
from physmem.ranges import Ranges

PAGE = 4096
INFO = b"OSRELEASE=6.1.0\nPAGESIZE=4096\nNUMBER(phys_base)=-4096\nSYMBOL(init_uts_ns)=ffffffff80003000\n"


class Memory:
    """Pages of noise, of text, of zeros, by turns."""

    def __init__(self, *spans: tuple[int, int]) -> None:
        self.ranges = Ranges(spans)
        self.size = self.ranges.end
        self.noise = random.Random(3).randbytes(PAGE)

    def page(self, pfn: int) -> bytes:
        return (self.noise, (b"%5d " % pfn * PAGE)[:PAGE], bytes(PAGE), self.noise[::-1])[pfn % 4]

    def read(self, phys: int, size: int) -> bytes:
        gap = self.ranges.first_gap(phys, phys + size)
        if gap is not None:
            raise AbsentError(gap, size)
        pages = b"".join(self.page(pfn) for pfn in range(phys // PAGE, -(-(phys + size) // PAGE)))
        return pages[phys % PAGE : phys % PAGE + size]

    def u64(self, phys: int) -> int:
        return int.from_bytes(self.read(phys, 8), "little")

    def array(self, phys: int, dtype: npt.DTypeLike, count: int) -> npt.NDArray[Any]:
        return np.frombuffer(self.read(phys, np.dtype(dtype).itemsize * count), dtype)


def assert_pages(path: Path, memory: Memory, present: Ranges) -> None:
    with open_image(path) as image:
        assert image.ranges == present
        for start, end in present:
            assert image.read(start, end - start) == memory.read(start, end - start)


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_a_real_image_survives(oracle_case: Path, tmp_path: Path, compression: str) -> None:
    path = tmp_path / "copy.kdump"
    with open_image(oracle_case / "A.vmcore.xz") as image:
        write_kdump(path, image, image.notes, compression=compression)
        with open_image(path) as copy:
            assert copy.format == "kdump-compressed"
            assert (copy.ranges, copy.notes, copy.vmcoreinfo) == (image.ranges, image.notes, image.vmcoreinfo)
            for start, end in image.ranges:
                assert copy.read(start, end - start) == image.read(start, end - start)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 300), st.integers(1, 40)).map(lambda pair: (pair[0], sum(pair))), max_size=6),
    st.sampled_from(["zlib", "zstd", "none"]),
)
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, spans: list[tuple[int, int]], compression: str) -> None:
    path = tmp_path_factory.getbasetemp() / "round.kdump"
    memory = Memory(*((start * PAGE, end * PAGE) for start, end in spans))
    write_kdump(path, memory, compression=compression)
    assert_pages(path, memory, memory.ranges)


def test_form_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "image"
    memory = Memory((0x1000, 0x3000), (0x100000, 0x105000))
    notes = [Note("CORE", 1, bytes(336)), Note("CORE", 1, bytes(336)), vmcoreinfo_note(INFO)]
    write_kdump(path, memory, notes, frames=Ranges([(0, 0x200000)]))
    data = path.read_bytes()
    fields = fmt.HEADER.unpack_from(data)
    assert fields[:2] == (b"KDUMP   ", 6)
    assert [name.rstrip(b"\0") for name in fields[2:8]] == [b"Linux", b"", b"6.1.0", b"", b"x86_64", b""]
    status, block, sub_blocks, bitmap_blocks, pages, ram, _, written, _, cpus = fields[10:]
    assert (status, block, sub_blocks, bitmap_blocks, pages) == (fmt.ZLIB, PAGE, 1, 2, 512)
    assert (ram, written, cpus) == (7, 7, 2)
    sub = fmt.SUB_HEADER.unpack_from(data, PAGE)
    assert sub[0] == (1 << 64) - 4096
    assert sub[2] == 0
    assert sub[12:] == (512, 512)
    assert data[sub[5] : sub[5] + sub[6]] == INFO
    assert data[sub[7] : sub[7] + sub[8]] == elf_notes.encode(notes)
    assert data[2 * PAGE : 2 * PAGE + 64] == b"\xff" * 64
    present = int.from_bytes(data[3 * PAGE : 4 * PAGE], "little")
    assert present == 0b110 | 0b11111 << 256
    rows = list(fmt.DESCRIPTOR.iter_unpack(data[4 * PAGE : 4 * PAGE + 7 * fmt.DESCRIPTOR.size]))
    for pfn, (offset, size, flags) in zip([1, 2, 256, 257, 258, 259, 260], rows, strict=True):
        stored = data[offset : offset + size]
        assert (zlib.decompress(stored) if flags else stored) == memory.page(pfn)
        assert flags == (0 if pfn % 4 in (0, 3) else fmt.ZLIB)  # noise is not made larger
    # Pages of zeros are one.
    assert rows[1] == rows[4]
    assert rows[0][0] == 4 * PAGE + 7 * fmt.DESCRIPTOR.size
    assert len(data) == max(offset + size for offset, size, _ in rows)


def test_what_the_machine_had_and_what_is_here(tmp_path: Path) -> None:
    path = tmp_path / "image"
    memory = Memory((0x4000, 0x6000))
    machine = Ranges([(0, 0x3000), (0x4000, 0x123000)])
    write_kdump(path, memory, frames=machine)
    with open_image(path) as image:
        assert image.frames == machine
        assert image.ranges == memory.ranges
    write_kdump(path, memory)
    with open_image(path) as image:
        assert image.frames == memory.ranges


def test_the_kernels_own_name(tmp_path: Path) -> None:
    """From its memory, if that is there and is what it should be."""
    names = [b"Linux", b"host", b"6.1.0", b"#1 SMP", b"x86_64", b"domain"]
    uts = b"".join(name.ljust(65, b"\0") for name in names)
    ram = Ram(0x4000)
    for place, data, found in (
        (0x2004, uts, names),
        (0x2000, uts, [b"Linux", b"", b"6.1.0", b"", b"x86_64", b""]),
        (0x2004, uts.replace(b"6.1.0", b"6.1.1"), [b"Linux", b"", b"6.1.0", b"", b"x86_64", b""]),
    ):
        ram.clear(0, 0x4000)
        ram.write(place, data)
        write_kdump(tmp_path / "image", ram, [vmcoreinfo_note(INFO)])
        fields = fmt.HEADER.unpack_from((tmp_path / "image").read_bytes())
        assert [name.rstrip(b"\0") for name in fields[2:8]] == found


@pytest.mark.parametrize(
    "text", [b"NUMBER(phys_base)=x\nOSRELEASE=1\n", b"SYMBOL(init_uts_ns)=?\nOSRELEASE=1\n", b"\xff"]
)
def test_a_vmcoreinfo_that_is_nonsense(tmp_path: Path, text: bytes) -> None:
    memory = Memory((0, 0x2000))
    write_kdump(tmp_path / "image", memory, [vmcoreinfo_note(text)])
    assert_pages(tmp_path / "image", memory, memory.ranges)
    with open_image(tmp_path / "image") as image:
        assert image.notes == (vmcoreinfo_note(text),)


def test_pages_in_part_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "image"
    memory = Memory((0x800, 0x3400), (0x5001, 0x5FFF))
    write_kdump(path, memory)
    assert_pages(path, memory, Ranges([(0x1000, 0x3000)]))
    write_kdump(path, Memory())
    assert_pages(path, memory, Ranges())


def test_memory_that_nobody_touched_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "image"
    memory = Memory((0, 0x200000))
    done: list[int] = []
    write_kdump(path, memory, untouched=Ranges([(0x1000, 0x180000), (0x1F0000, 0x300000)]), progress=done.append)
    assert sum(done) == 0x200000
    with open_image(path) as image:
        assert image.read(0, 0x1000) == memory.page(0)
        assert image.read(0x1000, 0x17F000) == bytes(0x17F000)
        assert image.read(0x180000, 0x70000) == memory.read(0x180000, 0x70000)
        assert image.read(0x1F0000, 0x10000) == bytes(0x10000)


def test_memory_far_up(tmp_path: Path) -> None:
    """Two bitmaps of 16 MiB, nearly all of it holes."""
    path = tmp_path / "image"

    class Far(Memory):
        def page(self, pfn: int) -> bytes:
            return super().page(pfn & 3)

    memory = Far(((1 << 39) - 0x2000, 1 << 39))
    write_kdump(path, memory)
    assert path.stat().st_blocks * 512 < 8 << 20
    with open_image(path) as image:
        assert image.ranges == image.frames == memory.ranges
        assert image.read((1 << 39) - 0x2000, 0x2000) == memory.read((1 << 39) - 0x2000, 0x2000)


def test_it_takes_a_few_megabytes_for_any_size(tmp_path: Path) -> None:
    def peak(pages: int) -> int:
        memory = Memory((0, pages * PAGE))
        tracemalloc.start()
        try:
            write_kdump(
                tmp_path / "image", memory, compression="none", untouched=Ranges([(PAGE, (pages - 256) * PAGE)])
            )
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(1 << 20) < peak(1 << 18) + (8 << 20)


@pytest.mark.parametrize(("name", "module"), [("lzo", "lzallright"), ("snappy", "cramjam")])
def test_a_codec_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, module: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    reason = rf'compression {name}: .* needs the module {module} \(pip install "physmem\[{name}\]"\)'
    with pytest.raises(UsageError, match=reason):
        write_kdump(tmp_path / "image", Memory(), compression=name)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_written(tmp_path: Path) -> None:
    path = tmp_path / "image"
    with pytest.raises(UsageError, match="compression 'rar': there are zlib, lzo, snappy, zstd, none"):
        write_kdump(path, Memory(), compression="rar")
    with pytest.raises(ImageError, match="x86-64 has none above"):
        write_kdump(path, Memory(((1 << 52) - 1, 1 << 53)))
    with pytest.raises(ImageError, match="are too many"):
        write_kdump(path, Memory(), [Note("A", 1, b"")] * (elf_notes.MAX_NOTES + 1))
    assert list(tmp_path.iterdir()) == []
    assert struct.calcsize(fmt.HEADER.format) == 464
