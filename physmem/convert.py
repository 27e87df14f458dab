# SPDX-License-Identifier: GPL-2.0-only
"""From one image format to another."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from physmem.dump import open_dump
from physmem.errors import ImageError, PhysmemError
from physmem.image import Image, find_vmcoreinfo, open_image, vmcoreinfo
from physmem.image.notes import VMCOREINFO, Note, vmcoreinfo_note
from physmem.image.pieces import Progress
from physmem.image.save import Target, save_image
from physmem.image.write import PAGE_OFFSET, Mapping

__all__ = ["Source", "convert", "opened"]


@dataclass(frozen=True)
class Source:
    """An image that is to be written anew.

    :ivar notes: its own, and if it has none, the VMCOREINFO that is in its memory
    :ivar page_offset: PAGE_OFFSET, if the image tells, else that of old kernels
    :ivar kernel: where the kernel's image is, if the image tells
    """

    image: Image
    notes: tuple[Note, ...]
    page_offset: int
    kernel: Mapping | None


@contextlib.contextmanager
def opened(
    path: str, layout: str | None = None, symbols: str | None = None, vmlinux: str | None = None
) -> Iterator[Source]:
    """Open an image, and find out what there is to know; memory of an unknown kernel is an image too.

    :raises ImageError: the image cannot be read
    """
    page_offset, kernel = PAGE_OFFSET, None
    try:
        dump = open_dump(path, layout=layout, symbols=symbols, vmlinux=vmlinux)
    except ImageError:
        raise
    except PhysmemError:
        if layout is not None or symbols is not None or vmlinux is not None:
            raise
        image = open_image(path)
    else:
        image = dump.image
        with contextlib.suppress(PhysmemError):
            page_offset, kernel = dump.page_offset, dump.kernel_mapping()
    with image:
        notes = image.notes
        if not any(note.name == VMCOREINFO for note in notes):
            entries = image.vmcoreinfo or find_vmcoreinfo(image)
            if entries:
                notes = (*notes, vmcoreinfo_note(vmcoreinfo.encode(entries)))
        yield Source(image, notes, page_offset, kernel)


def convert(source: Source, target: Target, progress: Progress | None = None) -> list[str]:
    """Write the image anew.

    :param progress: told how many bytes of memory have been written since the last time
    :returns: what the new format cannot hold, each in a line
    :raises ImageError: the image cannot be read, or the new one cannot be written
    """
    return save_image(
        target,
        source.image,
        source.notes,
        page_offset=source.page_offset,
        kernel=source.kernel,
        frames=source.image.frames,
        progress=progress,
    )
