# SPDX-License-Identifier: GPL-2.0-only
"""Memory images: files that hold a machine's physical memory.

``open_image`` opens any that is known here, told by its first bytes and
whatever its name.  A new format is a subclass of ``Image`` and a line in the
table of formats.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NamedTuple

from physmem.errors import ImageError
from physmem.image import elf_format
from physmem.image.base import Image
from physmem.image.elf import ElfCore
from physmem.image.notes import Note
from physmem.image.source import MAX_EXPANDED, Source, open_source
from physmem.image.vmcoreinfo import VmcoreInfo

__all__ = ["ElfCore", "Image", "Note", "VmcoreInfo", "open_image"]


class _Format(NamedTuple):
    magic: bytes
    open: Callable[[Source], Image]


_FORMATS = (_Format(elf_format.MAGIC, ElfCore),)


def open_image(path: str | os.PathLike[str], *, max_expanded: int = MAX_EXPANDED) -> Image:
    """Open the memory image ``path``, read-only; gzip, xz and zstd files are expanded into a temporary file.

    :param max_expanded: the most bytes that a compressed file may expand to
    :raises ImageError: the file cannot be read, is of no known format, or is not what its format demands
    """

    def recognise(head: bytes) -> _Format:
        for known in _FORMATS:
            if head.startswith(known.magic):
                return known
        raise ImageError(path, f"not a memory image known here: begins with {head[:8].hex(' ')}", 0)

    source = open_source(path, max_expanded=max_expanded, accept=recognise)
    try:
        return recognise(source.data[:64]).open(source)
    except BaseException:
        source.close()
        raise
