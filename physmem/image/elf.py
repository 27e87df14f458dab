# SPDX-License-Identifier: GPL-2.0-only
"""ELF core files of an x86-64 machine's memory: vmcores.

Written by the kernel's /proc/vmcore, by makedumpfile -E, by hypervisors, and by
``physmem.image.write``.  What memory such a file holds:

* A PT_LOAD segment puts ``p_filesz`` bytes of the file at ``p_paddr``.  What
  ``p_memsz`` has beyond that was in the machine and was not written: it is
  *absent*.  (A program would find zeros there; dump tools leave out pages that
  way.)
* Segments may overlap where they agree: /proc/vmcore repeats the kernel's image
  with a copy of its own, hypervisors name one part of the file for several
  virtual addresses.  Where they contradict each other, the file is refused.
* A ``p_paddr`` of all ones means "nowhere in physical memory" (/proc/kcore): the
  segment is passed over, and ``ElfCore.ignored`` says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from physmem.errors import ImageError
from physmem.image import elf_format as elf
from physmem.image import notes as elf_notes
from physmem.image import vmcoreinfo
from physmem.image.base import MAX_PHYS, Extent, MappedImage
from physmem.image.notes import Note
from physmem.image.source import Source

__all__ = ["ElfCore"]

_TYPES = {0: "no type", 1: "a relocatable file", 2: "an executable: is it a vmlinux?", 3: "a shared object"}
_NOWHERE = (1 << 64) - 1
_COMPARE = 1 << 20


class _Header(NamedTuple):
    """A program header, its number, and where in the file it lies."""

    number: int
    at: int
    type: int
    offset: int
    vaddr: int
    paddr: int
    filesz: int
    memsz: int


class ElfCore(MappedImage):
    """An ELF64 x86-64 core file as a memory image.

    :param source: the file; the image takes it over, and closing the image closes it
    :ivar ignored: for each segment that was passed over, why
    :raises ImageError: the file is not such a core file, is truncated, or contradicts itself
    """

    ignored: tuple[str, ...]

    def __init__(self, source: Source) -> None:
        loads: list[_Header] = []
        ignored: list[str] = []
        notes: list[Note] = []
        for header in _program_headers(source):
            if header.type == elf.PT_NOTE:
                notes += _notes(source, header, len(notes))
            elif header.type == elf.PT_LOAD and header.filesz:
                if header.paddr == _NOWHERE:
                    ignored.append(f"segment {header.number} (virtual {header.vaddr:#x}) has no physical address")
                else:
                    loads.append(_checked(source, header))
        text = next((note.desc for note in notes if note.name == elf_notes.VMCOREINFO), b"")
        super().__init__(source, _extents(source, loads), notes, vmcoreinfo.parse(text))
        self.format = f"ELF core ({source.compression})" if source.compression else "ELF core"
        self.ignored = tuple(ignored)


def _program_headers(source: Source) -> Iterator[_Header]:
    start, count = _header_table(source)
    for number in range(count):
        at = start + number * elf.PHDR.size
        kind, _, offset, vaddr, paddr, filesz, memsz, _ = source.unpack(elf.PHDR, at)
        yield _Header(number, at, kind, offset, vaddr, paddr, filesz, memsz)


def _header_table(source: Source) -> tuple[int, int]:
    """Check the file header; where the program headers are, which lie inside the file, and how many."""
    path, size = source.path, source.size
    if size < elf.EHDR.size:
        raise ImageError(path, f"truncated: the ELF header needs {elf.EHDR.size} bytes, the file has {size}", 0)
    # e_ehsize is not looked at: some hypervisors' dumps have it wrong.
    ident, kind, machine, version, _, phoff, shoff, _, _, phentsize, phnum, shentsize, _, _ = source.unpack(elf.EHDR, 0)
    if ident[:4] != elf.MAGIC:
        raise ImageError(path, "not an ELF file", 0)
    if ident[4] != elf.ELFCLASS64:
        raise ImageError(path, f"EI_CLASS {ident[4]}: not a 64-bit ELF file", 4)
    if ident[5] != elf.ELFDATA2LSB:
        raise ImageError(path, f"EI_DATA {ident[5]}: not a little-endian ELF file", 5)
    if ident[6] != elf.EV_CURRENT or version != elf.EV_CURRENT:
        raise ImageError(path, f"EI_VERSION {ident[6]}, e_version {version}: an unknown version of ELF", 6)
    if kind != elf.ET_CORE:
        raise ImageError(path, f"e_type {kind} ({_TYPES.get(kind, 'unknown')}): not a core file", 16)
    if machine != elf.EM_X86_64:
        raise ImageError(path, f"e_machine {machine}: not x86-64, which is {elf.EM_X86_64}", 18)
    if phnum and phentsize != elf.PHDR.size:
        raise ImageError(path, f"e_phentsize {phentsize}: a program header has {elf.PHDR.size} bytes", 54)
    if phnum == elf.PN_XNUM:
        if shentsize != elf.SHDR.size:
            raise ImageError(path, f"e_shentsize {shentsize}: a section header has {elf.SHDR.size} bytes", 58)
        if not 0 < shoff <= size - elf.SHDR.size:
            reason = f"e_shoff {shoff:#x}: no section header there, which would have the number of segments"
            raise ImageError(path, reason, 40)
        phnum = source.unpack(elf.SHDR, shoff)[7]
    if phnum > elf.MAX_SEGMENTS:
        raise ImageError(path, f"{phnum} segments: at most {elf.MAX_SEGMENTS} are read", 56)
    if phnum and phoff + phnum * elf.PHDR.size > size:
        raise ImageError(path, f"truncated: {phnum} program headers at {phoff:#x}, the file has {size:#x} bytes", 32)
    return phoff, phnum


def _checked(source: Source, load: _Header) -> _Header:
    """The PT_LOAD header ``load``, which has data in the file, if it can be."""
    what = f"segment {load.number} (physical {load.paddr:#x})"
    if load.filesz > load.memsz:
        reason = f"{what}: p_filesz {load.filesz:#x} is more than p_memsz {load.memsz:#x}"
        raise ImageError(source.path, reason, load.at)
    if load.paddr + load.filesz > MAX_PHYS:
        reason = f"{what}: ends at {load.paddr + load.filesz:#x}, and x86-64 has no memory above {MAX_PHYS:#x}"
        raise ImageError(source.path, reason, load.at)
    if load.offset + load.filesz > source.size:
        reason = (
            f"truncated: {what}: its data ends at {load.offset + load.filesz:#x}, the file has {source.size:#x} bytes"
        )
        raise ImageError(source.path, reason, load.at)
    return load


def _extents(source: Source, loads: list[_Header]) -> list[Extent]:
    """Where each physical address lies in the file; of segments that overlap and agree, in the lowest one."""
    # True dumps repeat a few ranges, with the same bytes of the file or with a copy in it: more work than this to
    # compare segments is the work of a file made to keep us busy.
    steps, compared = 4 * len(loads), source.size
    extents: list[Extent] = []
    for load in sorted(loads, key=lambda load: load.paddr):
        new = Extent(load.paddr, load.paddr + load.filesz, load.offset)
        # All extents start at or below this one, so what they cover beyond its start has no gap.
        index = len(extents) - 1
        while index >= 0 and extents[index].end > new.start:
            old = extents[index]
            start, end = max(old.start, new.start), min(old.end, new.end)
            here, there = new.offset + start - new.start, old.offset + start - old.start
            if start < end and here != there:
                compared -= end - start
                if compared >= 0 and not _same(source, here, there, end - start):
                    reason = (
                        f"segment {load.number} (physical {load.paddr:#x}) overlaps another from physical {start:#x} on"
                        " with different contents: is this the core of a process?"
                    )
                    raise ImageError(source.path, reason, load.at)
            steps -= 1
            if steps < 0 or compared < 0:
                raise ImageError(source.path, f"segment {load.number}: too many segments overlap", load.at)
            index -= 1
        covered = max(new.start, extents[-1].end) if extents else new.start
        if covered < new.end:
            _append(extents, Extent(covered, new.end, new.offset + covered - new.start))
    return extents


def _append(extents: list[Extent], new: Extent) -> None:
    """Add ``new``, which starts at or above the end of all others; to the last one, if it continues that."""
    if extents:
        last = extents[-1]
        if last.end == new.start and last.offset + last.end - last.start == new.offset:
            extents[-1] = Extent(last.start, new.end, last.offset)
            return
    extents.append(new)


def _same(source: Source, here: int, there: int, size: int) -> bool:
    """True if the file has the same ``size`` bytes at ``here`` and at ``there``."""
    return all(
        source.data[here + done : here + min(size, done + _COMPARE)]
        == source.data[there + done : there + min(size, done + _COMPARE)]
        for done in range(0, size, _COMPARE)
    )


def _notes(source: Source, header: _Header, before: int) -> list[Note]:
    """The notes of a PT_NOTE segment, after ``before`` notes of others."""
    what = f"segment {header.number} (notes)"
    end = header.offset + header.filesz
    if end > source.size:
        reason = f"truncated: {what}: ends at {end:#x}, the file has {source.size:#x} bytes"
        raise ImageError(source.path, reason, header.at)
    if header.filesz > elf_notes.MAX_BYTES:
        reason = f"{what}: {header.filesz} bytes, at most {elf_notes.MAX_BYTES} are read"
        raise ImageError(source.path, reason, header.at)
    try:
        found = elf_notes.parse(source.data[header.offset : end])
    except elf_notes.NoteError as error:
        raise ImageError(source.path, error.reason, header.offset + error.offset) from error
    if before + len(found) > elf_notes.MAX_NOTES:
        raise ImageError(source.path, f"{what}: more than {elf_notes.MAX_NOTES} notes in all", header.at)
    for note in found:
        if note.name == elf_notes.VMCOREINFO and len(note.desc) > vmcoreinfo.MAX_BYTES:
            reason = f"{what}: VMCOREINFO of {len(note.desc)} bytes, at most {vmcoreinfo.MAX_BYTES} are read"
            raise ImageError(source.path, reason, header.at)
    return found
