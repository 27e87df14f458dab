# SPDX-License-Identifier: GPL-2.0-only
"""The memory of a machine that was booted, as an image: so that whatever looks at images can look at it."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from physmem.image.base import Image
from physmem.image.notes import Note, vmcoreinfo_note
from physmem.image.vmcoreinfo import parse
from physmem.ram import Ram

__all__ = ["LiveImage", "prstatus_note"]

_CHUNK = 1 << 20

NT_PRSTATUS = 1
#: struct elf_prstatus of x86-64: bytes, and where the process id is.
_PRSTATUS_SIZE = 336
_PRSTATUS_PID = 32


class LiveImage(Image):
    """An image that was never written to a file.

    :param ram: the memory; what is read is what is there then
    :param cpus: how many CPUs the machine has
    :param vmcoreinfo: the text that the kernel has left for dump readers
    """

    def __init__(self, ram: Ram, cpus: int, vmcoreinfo: bytes) -> None:
        self.path = "booted machine"
        self.format = "live"
        self.ranges = ram.ranges
        self.notes = (*(prstatus_note(cpu) for cpu in range(cpus)), vmcoreinfo_note(vmcoreinfo))
        self.vmcoreinfo = parse(vmcoreinfo)
        self._ram = ram

    def read(self, phys: int, size: int) -> bytes:
        return self._ram.read(phys, size)

    def segments(self) -> Iterator[tuple[int, memoryview]]:
        for start, end in self.ranges:
            for phys in range(start, end, _CHUNK):
                yield phys, memoryview(self._ram.read(phys, min(_CHUNK, end - phys)))

    def close(self) -> None:
        """Nothing is open."""


def prstatus_note(cpu: int) -> Note:
    """The note in which a crashed CPU leaves its registers; ours have none.

    Debuggers want a thread for every CPU, each with a number of its own.
    """
    desc = bytearray(_PRSTATUS_SIZE)
    struct.pack_into("<i", desc, _PRSTATUS_PID, cpu + 1)
    return Note("CORE", NT_PRSTATUS, bytes(desc))
