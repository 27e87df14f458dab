# SPDX-License-Identifier: GPL-2.0-only
"""kdump-compressed files: the dumps that makedumpfile writes, and diskdump before it.

Every dumped page has a descriptor, found by counting the bits below the page's
own in a bitmap; its data is compressed by itself.  So a page is read in one
step, from a file of any size, and a few that were read last are kept.

What is there and what is not:

* A page whose bit is not set was excluded, or is no memory: it is *absent*.
* Pages of zeros that were excluded (level 1 of makedumpfile) are there: their
  descriptors share one page of zeros.
* In a dump for which there was no room, pages that were not written have
  descriptors without data.  They are absent, as are the pages that a copy of
  the file that was cut short has lost.
* One file of several (``makedumpfile --split``) has the descriptors of a range
  of pages.  The others are absent, until all files are opened together.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from functools import cached_property, lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from physmem.errors import ImageError, UsageError
from physmem.image import codecs, vmcoreinfo
from physmem.image import kdump_format as fmt
from physmem.image import notes as elf_notes
from physmem.image.base import MAX_PHYS, Image
from physmem.image.bitmap import PageBitmap, PageRanges
from physmem.image.contents import Contents
from physmem.image.notes import Note
from physmem.ranges import Ranges

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
else:
    from physmem.later import np

__all__ = ["Kdump"]

_PAGE = fmt.BLOCK
_SHIFT = _PAGE.bit_length() - 1
#: Decompressed pages that are kept: those of page tables, mostly.
_CACHED = 512
# Pages that are decompressed in one piece by segments().
_PIECE = 256
# Pages whose data is read from the file in one piece.
_TOGETHER = 1 << 10

_U64 = struct.Struct("<Q")

_DECODERS: dict[int, Callable[[bytes | memoryview, int], bytes]] = {
    fmt.ZLIB: codecs.unzlib,
    fmt.LZO: codecs.lzo,
    fmt.SNAPPY: codecs.snappy,
    fmt.ZSTD: codecs.unzstd,
}


class _Header(NamedTuple):
    """What is used of the header and sub header, with what older versions lack made up for.

    ``start`` and ``end`` are the PFNs that the file has descriptors for; the others are places in the file, in bytes.
    """

    name: str
    status: int
    pages: int
    start: int
    end: int
    bitmap: tuple[int, int]
    frames: tuple[int, int] | None
    descriptors: int
    vmcoreinfo: tuple[int, int]
    notes: tuple[int, int]


class Kdump(Image):
    """A kdump-compressed file, or one file of a dump that was split, as a memory image.

    :param contents: the file; the image takes it over, and closing the image closes it
    :ivar ignored: for each kind of damage that was passed over, what it is
    :raises ImageError: the file is not such a file, is truncated in front of its pages, or contradicts itself
    """

    ignored: tuple[str, ...]

    def __init__(self, contents: Contents) -> None:
        self.path = contents.path
        self._contents = contents
        self._data = contents.data
        self._closed = False
        header = _header(contents)
        self._frames = header.frames
        self._frames_count = header.pages
        self.format = f"{header.name} ({contents.kind})" if contents.kind else header.name
        self.span = header.start << _SHIFT, header.end << _SHIFT
        # The descriptors are counted in the file's bitmap, whether or not the pages are there.
        self._described = PageBitmap(contents.part(*header.bitmap, "the bitmap"), header.pages)
        self._first = self._described.rank(header.start)
        self._descriptors = header.descriptors
        count = self._described.rank(header.end) - self._first
        size = count * fmt.DESCRIPTOR.size
        if header.descriptors + size > contents.size:
            reason = f"truncated: {count} descriptors of pages, the file has {contents.size:#x} bytes"
            raise ImageError(self.path, reason, header.descriptors)
        self._present, self.ignored = self._presence(header, count)
        self.ranges = PageRanges(self._present)
        self.notes, self.vmcoreinfo = _information(contents, header)
        self._page = lru_cache(maxsize=_CACHED)(self._load)

    @cached_property
    def frames(self) -> Ranges | None:  # type: ignore[override]
        if self._frames is None:
            return None
        return PageRanges(PageBitmap(self._contents.part(*self._frames, "the bitmap"), self._frames_count))

    @property
    def size(self) -> int:
        return self._present.end << _SHIFT

    def close(self) -> None:
        self._closed = True
        self._page.cache_clear()
        self._contents.close()

    def read(self, phys: int, size: int) -> bytes:
        self._open()
        start = phys & (_PAGE - 1)
        if 0 < size <= _PAGE - start and (page := self._page(phys >> _SHIFT)):
            return page[start : start + size]
        self._require(phys, size)
        if size == 0:
            return b""
        return self._pages(phys >> _SHIFT, phys + size - 1 >> _SHIFT)[start : start + size]

    def u64(self, phys: int) -> int:
        start = phys & (_PAGE - 1)
        if start <= _PAGE - 8 and not self._closed and (page := self._page(phys >> _SHIFT)):
            value: int = _U64.unpack_from(page, start)[0]
            return value
        return super().u64(phys)

    def array(self, phys: int, dtype: npt.DTypeLike, count: int) -> npt.NDArray[Any]:
        kind = np.dtype(dtype)
        size = kind.itemsize * count
        if size <= _PAGE:
            return super().array(phys, kind, count)
        self._open()
        self._require(phys, size)
        pages = self._pages(phys >> _SHIFT, phys + size - 1 >> _SHIFT)
        return np.frombuffer(pages, kind, count, phys & (_PAGE - 1))

    def segments(self) -> Iterator[tuple[int, memoryview]]:
        self._open()
        for start, end in self._present.runs(0, self._present.end).tolist():
            for pfn in range(start, end, _PIECE):
                yield pfn << _SHIFT, memoryview(self._pages(pfn, min(pfn + _PIECE, end) - 1))

    def _open(self) -> None:
        if self._closed:
            raise UsageError(f"{self.path}: the image is closed")

    # -- pages -----------------------------------------------------------------------------------

    def _load(self, pfn: int) -> bytes:
        """The page, or nothing if it is absent."""
        return self._pages(pfn, pfn) if pfn in self._present else b""

    def _pages(self, first: int, last: int) -> bytes:
        """The pages from ``first`` to ``last``, which are all present."""
        rows = self._described_by(first, last - first + 1)
        if len(rows) == 1:
            offset, size, flags = rows[0]
            self._check(first, offset, size)
            return self._decoded(first, offset, self._data[offset : offset + size], flags)
        pages: list[bytes] = []
        # Pages of zeros have one place in the file.
        zeros: tuple[int, bytes] = -1, b""
        begin = end = 0
        data, decompress = memoryview(b""), zlib.decompress
        for number, (offset, size, flags) in enumerate(rows):
            if flags == fmt.ZLIB and begin <= offset and 0 < size <= end - offset:
                # Nearly all pages are such: without the calls that tell what is wrong with one.
                try:
                    page = decompress(data[offset - begin : offset - begin + size], bufsize=_PAGE)
                except zlib.error:
                    page = b""
                if len(page) == _PAGE and size <= _PAGE:
                    pages.append(page)
                    continue
            if offset == zeros[0]:
                pages.append(zeros[1])
                continue
            self._check(first + number, offset, size)
            if not begin <= offset <= offset + size <= end:
                begin, end = offset, self._together(rows, number)
                data = memoryview(self._data[begin:end])
            page = self._decoded(first + number, offset, data[offset - begin : offset - begin + size], flags)
            if number and offset <= rows[number - 1][0]:
                zeros = offset, page
            pages.append(page)
        return b"".join(pages)

    def _together(self, rows: list[tuple[int, int, int]], number: int) -> int:
        """Where in the file the data ends that lies in one piece from that of row ``number`` on."""
        end = rows[number][0] + rows[number][1]
        for offset, size, _ in islice(rows, number + 1, number + _TOGETHER):
            if offset != end or not 0 < size <= _PAGE or end + size > self._contents.size:
                break
            end += size
        return end

    def _described_by(self, pfn: int, count: int) -> list[tuple[int, int, int]]:
        """Of ``count`` present pages from ``pfn`` on: where the data of each is, its bytes, and flags."""
        index = self._described.rank(pfn) - self._first
        at = self._descriptors + index * fmt.DESCRIPTOR.size
        data = self._contents.read(at, count * fmt.DESCRIPTOR.size, "the page descriptors")
        return list(fmt.DESCRIPTOR.iter_unpack(data))

    def _check(self, pfn: int, offset: int, size: int) -> None:
        if not 0 < size <= _PAGE or offset + size > self._contents.size:
            raise ImageError(self.path, f"page {pfn:#x}: {size} bytes at {offset:#x} are not in the file", offset)

    def _decoded(self, pfn: int, offset: int, data: bytes | memoryview, flags: int) -> bytes:
        size = len(data)
        decode = _DECODERS.get(flags & (fmt.ZLIB | fmt.LZO | fmt.SNAPPY | fmt.ZSTD))
        try:
            if decode is not None:
                return decode(data, _PAGE)
            if flags or size != _PAGE:
                raise codecs.CodecError(f"{size} bytes, and flags {flags:#x}")
        except codecs.CodecError as error:
            raise ImageError(self.path, f"page {pfn:#x} cannot be read: {error}", offset) from None
        return bytes(data)

    # -- which pages are there -------------------------------------------------------------------

    def _presence(self, header: _Header, count: int) -> tuple[PageBitmap, tuple[str, ...]]:
        """The pages that this file has, and what was passed over."""
        described = self._described
        # Data lies in the order of the pages: if that of the last ones is there, all is.
        damaged = bool(header.status & fmt.INCOMPLETE) or not all(self._written(max(count - _TOGETHER, 0), count))
        if count == described.total and not damaged:
            return described, ()
        number = lost = 0

        def written(pages: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
            nonlocal number, lost
            inside = (pages >= header.start) & (pages < header.end)
            if damaged:
                here = int(np.count_nonzero(inside))
                inside[inside] = np.fromiter(self._written(number, number + here), np.bool_, here)
                number += here
                lost += here - int(np.count_nonzero(inside))
            return inside

        present = described.only(written)
        ignored: tuple[str, ...] = ()
        if damaged:
            why = "there was no room for them" if header.status & fmt.INCOMPLETE else "the file was cut short"
            ignored = (f"{lost} of {count} pages are not in the file: {why}",)
        return present, ignored

    def _written(self, first: int, end: int) -> Iterator[bool]:
        """Which of the pages with the descriptors [first, end) have their data in the file."""
        at = self._descriptors + first * fmt.DESCRIPTOR.size
        data = self._contents.read(at, (end - first) * fmt.DESCRIPTOR.size, "the page descriptors")
        room = self._contents.size
        return (0 < offset <= room - size for offset, size, _ in fmt.DESCRIPTOR.iter_unpack(data))


def _header(contents: Contents) -> _Header:
    """The header and sub header, if they can be."""
    path = contents.path
    fields = fmt.HEADER.unpack(contents.read(0, fmt.HEADER.size, "the header"))
    signature, version, machine, status = fields[0], fields[1], fields[6].split(b"\0")[0], fields[10]
    block_size, sub_hdr_size, bitmap_blocks, pages = fields[11:15]
    if signature not in (fmt.KDUMP, fmt.DISKDUMP):
        raise ImageError(path, "not a kdump-compressed file", 0)
    if not 0 <= version < 256:
        raise ImageError(path, f"header_version {version}: is it of a big-endian machine?", 8)
    # Hypervisors leave it empty.
    if machine not in (b"x86_64", b""):
        raise ImageError(path, f"a dump of a machine {machine.decode('latin-1')!r}, not x86_64", 272)
    if block_size != _PAGE:
        raise ImageError(path, f"blocks of {block_size} bytes: those of x86-64 have {_PAGE}", 428)
    if sub_hdr_size < 0:
        raise ImageError(path, f"sub header of {sub_hdr_size} blocks", 432)
    known = fmt.SUB_HEADER_BYTES[min(version, len(fmt.SUB_HEADER_BYTES) - 1)] if signature == fmt.KDUMP else 0
    sub = fmt.SUB_HEADER.unpack(contents.read(_PAGE, known, "the sub header").ljust(fmt.SUB_HEADER.size, b"\0"))
    # Since version 6, in 64 bits.
    start, end, pages = sub[11:14] if known == fmt.SUB_HEADER.size else (*sub[3:5], pages)
    if not sub[2]:
        start, end = 0, pages
    if pages > MAX_PHYS >> _SHIFT or not start <= end <= pages:
        reason = f"pages {start:#x} to {end:#x} of {pages:#x}: x86-64 has at most {MAX_PHYS >> _SHIFT:#x}"
        raise ImageError(path, reason, _PAGE)
    bitmap_at = (1 + sub_hdr_size) * _PAGE
    bitmap_size = bitmap_blocks * _PAGE
    descriptors = bitmap_at + bitmap_size
    # Two bitmaps if there is room for two; the second says what was dumped.
    frames = None
    if bitmap_blocks >= 2 * -(-pages // (8 * _PAGE)):
        frames = bitmap_at, -(-pages // 8)
        bitmap_at += bitmap_size // 2
        bitmap_size //= 2
    if 8 * bitmap_size < pages:
        raise ImageError(path, f"bitmap of {bitmap_size:#x} bytes: too small for {pages:#x} pages", bitmap_at)
    return _Header(
        name="kdump-compressed" if signature == fmt.KDUMP else "diskdump",
        status=status,
        pages=pages,
        start=start,
        end=end,
        bitmap=(bitmap_at, -(-pages // 8)),
        frames=frames,
        descriptors=descriptors,
        vmcoreinfo=sub[5:7],
        notes=sub[7:9],
    )


def _information(contents: Contents, header: _Header) -> tuple[tuple[Note, ...], dict[str, str]]:
    """The notes, and the entries of VMCOREINFO, which files may have among the notes, beside them, or both."""
    try:
        notes = elf_notes.parse(_part(contents, header.notes, elf_notes.MAX_BYTES, "notes"))
    except elf_notes.NoteError as error:
        raise ImageError(contents.path, error.reason, header.notes[0] + error.offset) from error
    text = _part(contents, header.vmcoreinfo, vmcoreinfo.MAX_BYTES, "VMCOREINFO")
    note = next((note for note in notes if note.name == elf_notes.VMCOREINFO), None)
    if note is None and text:
        notes.append(elf_notes.vmcoreinfo_note(text))
    elif note is not None and not text:
        text = note.desc
    if len(text) > vmcoreinfo.MAX_BYTES:
        reason = f"VMCOREINFO of {len(text)} bytes: at most {vmcoreinfo.MAX_BYTES} are read"
        raise ImageError(contents.path, reason, header.notes[0])
    return tuple(notes), vmcoreinfo.parse(text)


def _part(contents: Contents, place: tuple[int, int], limit: int, what: str) -> bytes:
    """The part of the file at (offset, size); nothing if the offset is 0."""
    offset, size = place
    if offset == 0:
        return b""
    if size > limit:
        raise ImageError(contents.path, f"{size} bytes of {what}: at most {limit} are read", offset)
    return contents.read(offset, size, what)
