# SPDX-License-Identifier: GPL-2.0-only
"""Writing kdump-compressed files, as ``physmem.image.kdump`` and dump tools read them.

The file: header, sub header with the notes behind it, the bitmap of page frames
that are memory, the bitmap of those that are here, a descriptor for each of the
latter, data.  All pages of zeros share one place in the data.

Descriptors and data are written side by side, so that a file of any size takes
the room of a few megabytes here.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import zstandard

from physmem.errors import ImageError, LayoutError, SymbolError, UsageError
from physmem.image import codecs, vmcoreinfo
from physmem.image import kdump_format as fmt
from physmem.image import notes as elf_notes
from physmem.image.base import MAX_PHYS
from physmem.image.notes import Note
from physmem.image.output import replacing_file
from physmem.image.pieces import PAGE, Piece, Progress, pieces, whole_pages
from physmem.image.vmcoreinfo import VmcoreInfo
from physmem.memory import PhysicalMemory
from physmem.ranges import Ranges

__all__ = ["COMPRESSIONS", "write_kdump"]

Encoder = Callable[[bytes], bytes]

_VERSION = 6
_BUFFER = 1 << 20
# Page frames of a piece of a bitmap that is made at a time.
_FRAMES = 1 << 23
# Descriptors of a run of pages of zeros that are made at a time.
_RUN = 1 << 16
_NT_PRSTATUS = 1
_START_KERNEL_MAP = 0xFFFFFFFF80000000
_UTS_FIELDS, _UTS_BYTES = 6, 65


def _zlib() -> Encoder:
    return lambda page: zlib.compress(page, 1)


def _zstd() -> Encoder:
    return zstandard.ZstdCompressor(level=3).compress


#: Flag of each way to compress a page, and what makes its encoder.
COMPRESSIONS: dict[str, tuple[int, Callable[[], Encoder] | None]] = {
    "zlib": (fmt.ZLIB, _zlib),
    "lzo": (fmt.LZO, codecs.lzo_encoder),
    "snappy": (fmt.SNAPPY, codecs.snappy_encoder),
    "zstd": (fmt.ZSTD, _zstd),
    "none": (0, None),
}


def write_kdump(
    path: str | os.PathLike[str],
    memory: PhysicalMemory,
    notes: Iterable[Note] = (),
    *,
    compression: str = "zlib",
    frames: Ranges | None = None,
    untouched: Ranges | None = None,
    progress: Progress | None = None,
) -> None:
    """Write all present pages to ``path``; a page that is present in part is left out.

    The file appears whole or not at all: see ``replacing_file``.

    :param memory: read in pieces of bounded size
    :param notes: those of another image, or ``vmcoreinfo_note(...)``
    :param compression: of each page: one of ``COMPRESSIONS``
    :param frames: the physical memory that the machine had, present or not; default: what is present
    :param untouched: present memory that is known to be zeros
    :raises ImageError: the file cannot be written, or memory or notes are more than such a file can hold
    :raises UsageError: the compression is unknown, or its module is not installed
    """
    if compression not in COMPRESSIONS:
        raise UsageError(f"compression {compression!r}: there are {', '.join(COMPRESSIONS)}")
    flag, make = COMPRESSIONS[compression]
    try:
        encoder = None if make is None else make()
    except codecs.CodecError as error:
        raise UsageError(f"compression {compression}: {error}") from None
    notes = list(notes)
    note_data = elf_notes.encode(notes)
    if len(note_data) > elf_notes.MAX_BYTES or len(notes) > elf_notes.MAX_NOTES:
        raise ImageError(path, f"{len(notes)} notes of {len(note_data)} bytes are too many")
    end = max(memory.ranges.end, 0 if frames is None else frames.end)
    if end > MAX_PHYS:
        raise ImageError(path, f"memory at {end - 1:#x}: x86-64 has none above {MAX_PHYS:#x}")
    count = -(-end // PAGE)
    bitmap_blocks = -(-count // (8 * PAGE))
    sub_blocks = -(-(fmt.SUB_HEADER.size + len(note_data)) // PAGE)
    bitmap_at = (1 + sub_blocks) * PAGE
    descriptors_at = bitmap_at + 2 * bitmap_blocks * PAGE
    present = sum(last - first for first, last in whole_pages(memory.ranges)) // PAGE

    with replacing_file(path) as file:
        info = _info(notes)
        file.write(_header(memory, info, notes, flag, sub_blocks, 2 * bitmap_blocks, count, present).ljust(PAGE, b"\0"))
        file.write((_sub_header(info, notes, note_data, count) + note_data).ljust(sub_blocks * PAGE, b"\0"))
        for ranges in (memory.ranges if frames is None else frames, memory.ranges):
            for at, bits in _bitmap(ranges, count):
                file.seek(bitmap_at + at)
                file.write(bits)
            bitmap_at += bitmap_blocks * PAGE
        writer = _Pages(file, descriptors_at, descriptors_at + present * fmt.DESCRIPTOR.size, flag, encoder)
        for first, last in whole_pages(memory.ranges):
            for piece in pieces(memory, first, last, untouched, progress):
                writer.add(piece)
        writer.finish()


class _Pages:
    """Descriptors and data of pages, written at two places of the file.

    :param descriptors_at: where the first descriptor belongs
    :param data_at: where the data begins
    :param flag: of the pages that were compressed
    :param encode: compresses a page; None: no page is
    """

    def __init__(self, file: BinaryIO, descriptors_at: int, data_at: int, flag: int, encode: Encoder | None) -> None:
        self._file = file
        self._descriptors_at = descriptors_at
        self._data_at = data_at
        self._flag = flag
        self._encode = encode
        self._rows: list[tuple[int, int, int]] = []
        self._data = bytearray()
        self._zeros: tuple[int, int, int] | None = None

    def add(self, piece: Piece) -> None:
        """Write whole pages."""
        if piece.data is None:
            left = piece.size // PAGE
            while left:
                self._rows += [self._zero()] * min(left, _RUN)
                left -= min(left, _RUN)
                self._flush_descriptors()
            return
        used: list[bool] = np.frombuffer(piece.data, np.uint64).reshape(-1, PAGE // 8).any(axis=1).tolist()  # type: ignore[assignment]
        for number, holds in enumerate(used):
            self._rows.append(self._page(piece.data[number * PAGE : (number + 1) * PAGE]) if holds else self._zero())
        if len(self._data) >= _BUFFER:
            self._flush_data()
        if len(self._rows) >= _RUN:
            self._flush_descriptors()

    def finish(self) -> None:
        """Write what is left."""
        self._flush_descriptors()
        self._flush_data()
        # If there is no page, nothing was written where the last bitmap ends.
        self._file.truncate(self._data_at)

    def _zero(self) -> tuple[int, int, int]:
        if self._zeros is None:
            self._zeros = self._page(bytes(PAGE))
        return self._zeros

    def _page(self, page: bytes) -> tuple[int, int, int]:
        at = self._data_at + len(self._data)
        packed = page if self._encode is None else self._encode(page)
        if len(packed) >= PAGE or self._encode is None:
            self._data += page
            return at, PAGE, 0
        self._data += packed
        return at, len(packed), self._flag

    def _flush_descriptors(self) -> None:
        data = b"".join(fmt.DESCRIPTOR.pack(*row) for row in self._rows)
        self._rows.clear()
        self._file.seek(self._descriptors_at)
        self._file.write(data)
        self._descriptors_at += len(data)

    def _flush_data(self) -> None:
        self._file.seek(self._data_at)
        self._file.write(self._data)
        self._data_at += len(self._data)
        self._data.clear()


def _info(notes: Iterable[Note]) -> VmcoreInfo:
    """VMCOREINFO, as far as it is there."""
    text = next((note.desc for note in notes if note.name == elf_notes.VMCOREINFO), b"")
    return VmcoreInfo(vmcoreinfo.parse(text))


def _header(
    memory: PhysicalMemory,
    info: VmcoreInfo,
    notes: list[Note],
    flag: int,
    sub_blocks: int,
    bitmap_blocks: int,
    count: int,
    present: int,
) -> bytes:
    """The header, without its padding to a block."""
    cpus = sum(note.type == _NT_PRSTATUS and note.name == "CORE" for note in notes)
    low = (1 << 32) - 1
    return fmt.HEADER.pack(
        fmt.KDUMP,
        _VERSION,
        *_utsname(memory, info),
        # No time: the same memory makes the same file.
        *(0, 0),
        flag,
        PAGE,
        sub_blocks,
        bitmap_blocks,
        # The sub header has it in 64 bits.
        min(count, low),
        min(present, low),
        0,
        min(present, low),
        0,
        max(cpus, 1),
    )


def _utsname(memory: PhysicalMemory, info: VmcoreInfo) -> list[bytes]:
    """sysname, nodename, release, version, machine, domainname: as they are in the kernel's memory, or as is known."""
    release = info.get("OSRELEASE", "").encode()
    try:
        at = info.symbol("init_uts_ns") - _START_KERNEL_MAP
        at += _phys_base(info)
        # Before 6.0, which say where, a reference count comes first.
        at += int(info.get("OFFSET(uts_namespace.name)", "4"))
        size = _UTS_FIELDS * _UTS_BYTES
        if at >= 0 and memory.ranges.covers(at, at + size):
            data = memory.read(at, size)
            fields = [data[i : i + _UTS_BYTES].split(b"\0")[0] for i in range(0, size, _UTS_BYTES)]
            if fields[2] == release and fields[4] == b"x86_64":
                return fields
    except (LayoutError, SymbolError, ValueError):
        pass
    return [b"Linux", b"", release, b"", b"x86_64", b""]


def _sub_header(info: VmcoreInfo, notes: list[Note], note_data: bytes, count: int) -> bytes:
    notes_at = PAGE + fmt.SUB_HEADER.size
    text_at = text_size = 0
    for number, note in enumerate(notes):
        if note.name == elf_notes.VMCOREINFO:
            end = len(elf_notes.encode(notes[: number + 1]))
            text_size = len(note.desc)
            text_at = notes_at + end - (text_size + 3 & ~3)
            break
    return fmt.SUB_HEADER.pack(
        _phys_base(info) & (1 << 64) - 1,
        *(0, 0, 0, 0),
        *(text_at, text_size),
        *((notes_at, len(note_data)) if notes else (0, 0)),
        *(0, 0),
        *(0, count, count),
    )


def _phys_base(info: VmcoreInfo) -> int:
    """Where the kernel was loaded, as far as it says; until 4.10 it does not."""
    try:
        return info.number("phys_base") if "NUMBER(phys_base)" in info else 0
    except LayoutError:
        return 0


def _bitmap(ranges: Ranges, count: int) -> Iterator[tuple[int, bytes]]:
    """The bitmap of the page frames that are in ``ranges`` throughout, of ``count`` in all.

    In pieces that are not all zeros, with their place.
    """
    for start in range(0, count, _FRAMES):
        size = min(_FRAMES, count - start)
        inside = list(whole_pages(ranges.clip(start * PAGE, (start + size) * PAGE)))
        if not inside:
            continue
        bits = np.zeros(size, np.uint8)
        for first, last in inside:
            bits[first // PAGE - start : last // PAGE - start] = 1
        packed: npt.NDArray[np.uint8] = np.packbits(bits, bitorder="little")
        yield start // 8, packed.tobytes()
