# SPDX-License-Identifier: GPL-2.0-only
"""Raw memory: files that are nothing but the bytes of a stretch of physical addresses.

Such a file does not say where it belongs, so its name does: ``FILE@ADDRESS``, the
address in hexadecimal; several, with commas between them, are one memory.
"""

from __future__ import annotations

import os
import re

from physmem.errors import ImageError, UsageError
from physmem.image.base import MAX_PHYS, Extent, MappedImage
from physmem.image.source import Source

__all__ = ["Raw", "parse_segment"]

_SEGMENT = re.compile(r"(?P<path>.+)@(?:0[xX])?(?P<address>[0-9a-fA-F]{1,16})", re.DOTALL)


class Raw(MappedImage):
    """A file of raw memory as a memory image.

    :param source: the file; the image takes it over, and closing the image closes it
    :param address: physical address of its first byte
    :raises ImageError: it would end above the highest physical address
    """

    def __init__(self, source: Source, address: int = 0) -> None:
        end = address + source.size
        if end > MAX_PHYS:
            raise ImageError(source.path, f"would end at {end:#x}, and x86-64 has no memory above {MAX_PHYS:#x}")
        super().__init__(source, [Extent(address, end, 0)], (), {})
        self.format = f"raw memory ({source.compression})" if source.compression else "raw memory"
        self.span = address, end


def parse_segment(text: str | os.PathLike[str]) -> tuple[str, int] | None:
    """File and address of a ``FILE@ADDRESS``; None if it is none.

    :raises UsageError: the address is more than physical addresses are
    """
    match = _SEGMENT.fullmatch(os.fspath(text))
    if match is None:
        return None
    address = int(match["address"], 16)
    if address >= MAX_PHYS:
        raise UsageError(f"{os.fspath(text)}: x86-64 has no memory above {MAX_PHYS:#x}")
    return match["path"], address
