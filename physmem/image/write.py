# SPDX-License-Identifier: GPL-2.0-only
"""Writing ELF core files: any physical memory, as ``physmem.image.elf`` and dump tools read it.

The file: header, program headers at byte 64 (PT_NOTE first, then the kernel's
image if it is known, then one PT_LOAD for each range of present memory,
ascending), section header 0 if there are too many segments to count in e_phnum,
notes, data.  The data of each segment lies at the same offset inside a page as
in memory.

The kernel's image is in the direct map too, and its bytes are in the file once:
two program headers lead to them.  From the first, debuggers learn where a kernel
was loaded that does not say so in VMCOREINFO (before 4.10).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from physmem.errors import ImageError
from physmem.image import elf_format as elf
from physmem.image import notes as elf_notes
from physmem.image.base import MAX_PHYS
from physmem.image.notes import Note
from physmem.image.output import replacing, write_zeros
from physmem.image.pieces import Progress, pieces
from physmem.memory import PhysicalMemory
from physmem.ranges import Ranges

__all__ = ["PAGE_OFFSET", "Mapping", "write_elf"]

#: Where x86-64 Linux up to 4.19 has its direct map (Documentation/x86/x86_64/mm.txt).
PAGE_OFFSET = 0xFFFF880000000000

_PAGE = 4096
_MASK = (1 << 64) - 1
# As /proc/vmcore has it: with another, crash takes the file for a dump over the network, of another form.
_ALIGN = 0
_PERMISSIONS = 7  # PF_R | PF_W | PF_X, as /proc/vmcore has it


class Mapping(NamedTuple):
    """Physical memory [start, end) that is mapped from the kernel virtual address ``virtual`` on."""

    virtual: int
    start: int
    end: int


def write_elf(
    path: str | os.PathLike[str],
    memory: PhysicalMemory,
    notes: Iterable[Note] = (),
    *,
    virt_of: Callable[[int], int] | int = PAGE_OFFSET,
    kernel: Mapping | None = None,
    untouched: Ranges | None = None,
    progress: Progress | None = None,
) -> None:
    """Write all present memory to ``path``, compressed if its name ends in .gz, .xz or .zst.

    The file appears whole or not at all: see ``replacing``.

    :param memory: read in pieces of bounded size
    :param notes: what PT_NOTE is to hold: the notes of another image, or ``vmcoreinfo_note(...)``
    :param virt_of: gives the kernel virtual address (p_vaddr) of a physical one; or the address of the direct map
    :param kernel: where the kernel's image is, as far as it is present
    :param untouched: present memory that is known to be zeros
    :raises ImageError: the file cannot be written, or memory or notes are more than such a file can hold
    """
    ranges = list(memory.ranges)
    image = list(memory.ranges.clip(kernel.start, kernel.end)) if kernel is not None else []
    notes = list(notes)
    note_data = elf_notes.encode(notes)
    count = bool(notes) + len(image) + len(ranges)
    if memory.ranges.end > MAX_PHYS:
        raise ImageError(path, f"memory at {memory.ranges.end - 1:#x}: x86-64 has none above {MAX_PHYS:#x}")
    if count > elf.MAX_SEGMENTS:
        raise ImageError(path, f"{count} segments: at most {elf.MAX_SEGMENTS} are written")
    if len(note_data) > elf_notes.MAX_BYTES or len(notes) > elf_notes.MAX_NOTES:
        reason = (
            f"{len(notes)} notes of {len(note_data)} bytes: at most {elf_notes.MAX_NOTES}"
            f" of {elf_notes.MAX_BYTES} bytes are written"
        )
        raise ImageError(path, reason)
    if isinstance(virt_of, int):
        virt_of = virt_of.__add__
    extended = count >= elf.PN_XNUM
    section_at = elf.EHDR.size + count * elf.PHDR.size
    note_at = section_at + (elf.SHDR.size if extended else 0)
    data_at = note_at + len(note_data)

    with replacing(path) as out:
        out.write(_file_header(count, section_at if extended else 0))
        if notes:
            out.write(elf.PHDR.pack(elf.PT_NOTE, 0, note_at, 0, 0, len(note_data), len(note_data), _ALIGN))
        placed = _placed(ranges, data_at)
        here = next(placed) if image else (0, 0, 0)
        for start, end in image:
            while here[1] <= start:
                here = next(placed)
            assert kernel is not None
            offset = here[2] + start - here[0]
            out.write(_load_header(kernel.virtual + start - kernel.start, start, end, offset))
        for start, end, offset in _placed(ranges, data_at):
            out.write(_load_header(virt_of(start), start, end, offset))
        if extended:
            out.write(elf.SHDR.pack(0, 0, 0, 0, 0, 0, 0, count, 0, 0))
        out.write(note_data)
        written = data_at
        for start, end, offset in _placed(ranges, data_at):
            out.write(bytes(offset - written))
            for piece in pieces(memory, start, end, untouched, progress):
                if piece.data is None:
                    write_zeros(out, piece.size)
                else:
                    out.write(piece.data)
            written = offset + end - start


def _file_header(count: int, section_at: int) -> bytes:
    """An Elf64_Ehdr for ``count`` segments; with a section header at ``section_at`` if that is not 0."""
    ident = elf.MAGIC + bytes([elf.ELFCLASS64, elf.ELFDATA2LSB, elf.EV_CURRENT])
    return elf.EHDR.pack(
        ident,
        elf.ET_CORE,
        elf.EM_X86_64,
        elf.EV_CURRENT,
        0,
        elf.EHDR.size if count else 0,
        section_at,
        0,
        elf.EHDR.size,
        elf.PHDR.size,
        elf.PN_XNUM if section_at else count,
        elf.SHDR.size if section_at else 0,
        1 if section_at else 0,
        0,
    )


def _load_header(virtual: int, start: int, end: int, offset: int) -> bytes:
    """The Elf64_Phdr of physical [start, end)."""
    size = end - start
    return elf.PHDR.pack(elf.PT_LOAD, _PERMISSIONS, offset, virtual & _MASK, start, size, size, _ALIGN)


def _placed(ranges: Iterable[tuple[int, int]], offset: int) -> Iterator[tuple[int, int, int]]:
    """Each range with the place of its data in the file, from ``offset`` on and congruent modulo the page size."""
    for start, end in ranges:
        offset += (start - offset) % _PAGE
        yield start, end, offset
        offset += end - start
