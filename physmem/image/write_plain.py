# SPDX-License-Identifier: GPL-2.0-only
"""Writing the formats that have memory and nothing else: LiME, and raw memory.

Neither has notes.  LiME says which addresses it holds; raw memory cannot, so what
is absent from the memory is zeros in the file.
"""

from __future__ import annotations

import os

from physmem.errors import ImageError
from physmem.image import lime
from physmem.image.base import MAX_PHYS
from physmem.image.output import Output, replacing, write_zeros
from physmem.image.pieces import Progress, pieces
from physmem.memory import PhysicalMemory
from physmem.ranges import Ranges

__all__ = ["write_lime", "write_raw"]


def write_lime(
    path: str | os.PathLike[str],
    memory: PhysicalMemory,
    *,
    untouched: Ranges | None = None,
    progress: Progress | None = None,
) -> None:
    """Write all present memory to ``path``, each range behind its header; compressed if its name ends so.

    :param untouched: present memory that is known to be zeros
    :raises ImageError: the file cannot be written, or memory is more than such a file can hold
    """
    ranges = list(memory.ranges)
    _check(path, memory)
    if len(ranges) > lime.MAX_BLOCKS:
        raise ImageError(path, f"{len(ranges)} ranges: at most {lime.MAX_BLOCKS} are written")
    with replacing(path) as out:
        for start, end in ranges:
            out.write(lime.HEADER.pack(lime.MAGIC, lime.VERSION, start, end - 1))
            _write(out, memory, start, end, untouched, progress)


def write_raw(
    path: str | os.PathLike[str],
    memory: PhysicalMemory,
    *,
    untouched: Ranges | None = None,
    progress: Progress | None = None,
) -> None:
    """Write memory from physical address 0 on to ``path``, with zeros for what is absent.

    The zeros take no room: the file is sparse, or compressed if its name ends so.

    :param untouched: present memory that is known to be zeros
    :raises ImageError: the file cannot be written, or memory is more than such a file can hold
    """
    _check(path, memory)
    with replacing(path) as out:
        written = 0
        for start, end in memory.ranges:
            write_zeros(out, start - written)
            _write(out, memory, start, end, untouched, progress)
            written = end


def _check(path: str | os.PathLike[str], memory: PhysicalMemory) -> None:
    if memory.ranges.end > MAX_PHYS:
        raise ImageError(path, f"memory at {memory.ranges.end - 1:#x}: x86-64 has none above {MAX_PHYS:#x}")


def _write(
    out: Output, memory: PhysicalMemory, start: int, end: int, untouched: Ranges | None, progress: Progress | None
) -> None:
    for piece in pieces(memory, start, end, untouched, progress):
        if piece.data is None:
            write_zeros(out, piece.size)
        else:
            out.write(piece.data)
