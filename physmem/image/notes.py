# SPDX-License-Identifier: GPL-2.0-only
"""Notes: the named records in the PT_NOTE segments of an ELF file.

Each is a header of three u32 (bytes of the name, bytes of the description,
type), the name with its NUL, and the description; name and description are
padded to 4 bytes, in 64-bit core files too.  Format: System V ABI, "Note
Section"; elf(5).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import NamedTuple

__all__ = ["MAX_BYTES", "MAX_NOTES", "VMCOREINFO", "Note", "NoteError", "encode", "parse", "vmcoreinfo_note"]

#: Name of the note that holds the kernel's VMCOREINFO; its type is 0.
VMCOREINFO = "VMCOREINFO"
#: The most bytes of notes that are read or written; a dump has a few hundred for every CPU.
MAX_BYTES = 64 << 20
#: The most notes that are read or written; a dump has a few for every CPU.
MAX_NOTES = 1 << 16

_HEADER = struct.Struct("<III")


class NoteError(ValueError):
    """A note is malformed; ``offset`` is where it begins in the data."""

    def __init__(self, reason: str, offset: int) -> None:
        super().__init__(reason)
        self.reason = reason
        self.offset = offset


class Note(NamedTuple):
    """One note: its name without the NUL, its type (a u32) and its description."""

    name: str
    type: int
    desc: bytes


def vmcoreinfo_note(data: bytes) -> Note:
    """The note that carries ``data``, a VMCOREINFO text."""
    return Note(VMCOREINFO, 0, data)


def parse(data: bytes) -> list[Note]:
    """The notes in the contents of a PT_NOTE segment.

    A header of zeros ends the notes: dumps pad the segment so.

    :raises NoteError: a name or description leaves the data, or there are more than ``MAX_NOTES``
    """
    notes: list[Note] = []
    offset = 0
    while offset < len(data):
        if not any(data[offset : offset + _HEADER.size]):
            break
        if offset + _HEADER.size > len(data):
            raise NoteError(f"the header of a note needs {_HEADER.size} bytes, {len(data) - offset} are left", offset)
        name_size, desc_size, kind = _HEADER.unpack_from(data, offset)
        name_at = offset + _HEADER.size
        desc_at = name_at + _padded(name_size)
        end = desc_at + desc_size
        if end > len(data):
            reason = (
                f"a note with a name of {name_size} and a description of {desc_size} bytes"
                f" ends {end - len(data)} bytes past its segment"
            )
            raise NoteError(reason, offset)
        if len(notes) == MAX_NOTES:
            raise NoteError(f"more than {MAX_NOTES} notes", offset)
        name = data[name_at : name_at + name_size].split(b"\0", 1)[0].decode("latin-1")
        notes.append(Note(name, kind, data[desc_at:end]))
        offset = _padded(end)
    return notes


def encode(notes: Iterable[Note]) -> bytes:
    """The contents of a PT_NOTE segment with ``notes``."""
    out = bytearray()
    for note in notes:
        name = note.name.encode("latin-1") + b"\0"
        out += _HEADER.pack(len(name), len(note.desc), note.type)
        out += name.ljust(_padded(len(name)), b"\0")
        out += note.desc.ljust(_padded(len(note.desc)), b"\0")
    return bytes(out)


def _padded(size: int) -> int:
    return (size + 3) & ~3
