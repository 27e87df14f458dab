# SPDX-License-Identifier: GPL-2.0-only
"""Writing memory images in any format: which one, and what it cannot hold.

| format | pages | parts of pages | notes, VMCOREINFO | which pages are absent |
| --- | --- | --- | --- | --- |
| elf   | yes | yes | yes | yes |
| kdump | yes, compressed one by one | no | yes | yes |
| lime  | yes | yes | no | yes |
| raw   | yes | yes | no | no: they are zeros |
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

from physmem.errors import UsageError
from physmem.image import compression as streams
from physmem.image.notes import Note
from physmem.image.pieces import Progress, whole_pages
from physmem.image.write import PAGE_OFFSET, Mapping, write_elf
from physmem.image.write_kdump import COMPRESSIONS, write_kdump
from physmem.image.write_plain import write_lime, write_raw
from physmem.memory import PhysicalMemory
from physmem.ranges import Ranges

__all__ = ["FORMATS", "Target", "save_image"]

#: The formats, and how the names of their files end.
FORMATS = {
    "elf": (".vmcore", ".elf", ".core"),
    "kdump": (".kdump", ".dump"),
    "lime": (".lime",),
    "raw": (".raw", ".bin", ".img", ".mem"),
}


@dataclass(frozen=True)
class Target:
    """A file to write, and how.

    :ivar path: its name
    :ivar format: one of ``FORMATS``
    :ivar compression: of the pages in a kdump-compressed file: one of ``COMPRESSIONS``
    """

    path: str
    format: str
    compression: str

    @classmethod
    def of(
        cls,
        path: str | os.PathLike[str],
        format: str | None = None,
        compression: str | None = None,
        default: str = "elf",
    ) -> Target:
        """Decide what was not said: the format by the ending of the name, in front of .gz, .xz or .zst.

        :param format: one of ``FORMATS``, or None
        :param compression: one of ``COMPRESSIONS``, or None for zlib, which every tool reads
        :param default: the format of names with other endings
        :raises UsageError: there is no such format or compression, or they do not go together
        """
        name = os.fspath(path)
        stream = next((known.suffix for known in streams.FORMATS if name.endswith(known.suffix)), "")
        if format is None:
            stem = name.removesuffix(stream).lower()
            format = next((f for f, endings in FORMATS.items() if stem.endswith(endings)), default)
        if format not in FORMATS:
            raise UsageError(f"format {format!r}: there are {', '.join(FORMATS)}")
        if format != "kdump" and compression is not None:
            raise UsageError(f"compression {compression!r} is for kdump; {format} is compressed by a name in .xz")
        if format == "kdump" and stream:
            raise UsageError(f"{name}: a kdump-compressed file is compressed page by page, not as a whole ({stream})")
        if compression is not None and compression not in COMPRESSIONS:
            raise UsageError(f"compression {compression!r}: there are {', '.join(COMPRESSIONS)}")
        return cls(name, format, compression or "zlib")

    def losses(self, memory: PhysicalMemory, notes: Iterable[Note]) -> list[str]:
        """What of an image this format cannot hold, each in a line."""
        lost = []
        names = [note.name for note in notes]
        if names and self.format in ("lime", "raw"):
            lost.append(f"{self.format} has no notes: {len(names)} are left out ({', '.join(dict.fromkeys(names))})")
        total = memory.ranges.total()
        if self.format == "kdump":
            parts = total - sum(end - start for start, end in whole_pages(memory.ranges))
            if parts:
                lost.append(f"kdump has whole pages: {parts} bytes of pages that are present in part are left out")
        absent = memory.ranges.end - total
        if absent and self.format == "raw":
            lost.append(
                f"raw cannot say what is absent: {absent} bytes that are not in the image are zeros in the file"
            )
        return lost


def save_image(
    target: Target,
    memory: PhysicalMemory,
    notes: Iterable[Note] = (),
    *,
    page_offset: int = PAGE_OFFSET,
    kernel: Mapping | None = None,
    frames: Ranges | None = None,
    untouched: Ranges | None = None,
    progress: Progress | None = None,
) -> list[str]:
    """Write a memory image; the file appears whole or not at all.

    :param notes: those of another image, or a VMCOREINFO
    :param page_offset: PAGE_OFFSET, for the virtual addresses of an ELF core
    :param kernel: where the kernel's image is, for an ELF core
    :param frames: the physical memory that the machine had, present or not, for a kdump-compressed file
    :param untouched: present memory that is known to be zeros
    :param progress: told how many bytes of memory have been written since the last time
    :returns: what the format cannot hold, each in a line
    :raises ImageError: the file cannot be written
    """
    notes = list(notes)
    if target.format == "elf":
        write_elf(
            target.path, memory, notes, virt_of=page_offset, kernel=kernel, untouched=untouched, progress=progress
        )
    elif target.format == "kdump":
        write_kdump(
            target.path,
            memory,
            notes,
            compression=target.compression,
            frames=frames,
            untouched=untouched,
            progress=progress,
        )
    else:
        write = write_lime if target.format == "lime" else write_raw
        write(target.path, memory, untouched=untouched, progress=progress)
    return target.losses(memory, notes)
