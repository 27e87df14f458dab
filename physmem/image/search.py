# SPDX-License-Identifier: GPL-2.0-only
"""Finding a kernel's VMCOREINFO in its memory, for images that have no notes.

The kernel keeps the text twice: as it is, and as a note ready to be dumped.
Since 4.13 each is in a page of its own; before that, they are anywhere among
its variables.  The text begins with OSRELEASE (kernel/kexec.c in 4.0,
kernel/vmcore_info.c later).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from physmem.errors import LayoutError, PhysmemError
from physmem.image import vmcoreinfo
from physmem.image.base import Image
from physmem.image.vmcoreinfo import VmcoreInfo

if TYPE_CHECKING:
    import numpy as np
else:
    from physmem.later import np

__all__ = ["find_vmcoreinfo"]

_PAGE = 4096
_FIRST = b"OSRELEASE="
_PIECE = 1 << 24
_START_KERNEL_MAP = 0xFFFFFFFF80000000


def find_vmcoreinfo(image: Image) -> dict[str, str]:
    """The entries of the VMCOREINFO in an image's memory; empty if there is none.

    The memory of a host has those of its guests too: a text is passed over if the page table that it names is not
    where it says.
    """
    for search in (_at_pages, _anywhere):
        for phys in search(image):
            entries = _entries(image, phys)
            if entries and _fits(image, VmcoreInfo(entries)):
                return entries
    return {}


def _at_pages(image: Image) -> Iterator[int]:
    """Physical addresses of the pages that begin as the text does."""
    at_page = np.dtype({"names": ["head"], "formats": [f"S{len(_FIRST)}"], "offsets": [0], "itemsize": _PAGE})
    for phys, data in image.segments():
        skipped = -phys % _PAGE
        count = (len(data) - skipped) // _PAGE
        if count > 0:
            heads = np.frombuffer(data, at_page, count, skipped)["head"]
            for index in np.flatnonzero(heads == _FIRST).tolist():
                yield phys + skipped + index * _PAGE


def _anywhere(image: Image) -> Iterator[int]:
    """Physical addresses of all places that begin as the text does."""
    for start, end in image.ranges:
        for phys in range(start, end, _PIECE):
            piece = image.read(phys, min(_PIECE + len(_FIRST) - 1, end - phys))
            at = piece.find(_FIRST)
            while at >= 0:
                yield phys + at
                at = piece.find(_FIRST, at + 1)


def _entries(image: Image, phys: int) -> dict[str, str]:
    """The entries of the text at ``phys``; empty if it is no VMCOREINFO of a kernel."""
    present = image.ranges.clip(phys, phys + _PAGE)
    text = image.read(phys, min(end for _, end in present) - phys)
    entries = vmcoreinfo.parse(text.split(b"\0", 1)[0])
    return entries if {"PAGESIZE", "SYMBOL(swapper_pg_dir)"} <= entries.keys() else {}


def _fits(image: Image, info: VmcoreInfo) -> bool:
    """Whether the kernel's page table, at its place, maps the kernel itself (as its last entry)."""
    if "NUMBER(phys_base)" not in info:
        return True
    try:
        table = info.symbol("swapper_pg_dir") - _START_KERNEL_MAP + info.number("phys_base")
        return bool(image.u64(table + 511 * 8) & 1)
    except (LayoutError, PhysmemError):
        return False
