# SPDX-License-Identifier: GPL-2.0-only
"""Distilled images: what describes a machine's memory, and not one byte of what is in it.

Everything that is kept is kept for a reason: a struct or variable of the kernel, of a known size, at a known place.
Bytes beside it, in the same page, become zeros; pages without any are left out.  :mod:`physmem.distill.kept` collects,
:mod:`physmem.distill.metadata` knows what is to be collected.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from physmem.distill.kept import Kept
from physmem.distill.metadata import collect, described
from physmem.dump import Dump
from physmem.errors import UsageError
from physmem.image import vmcoreinfo
from physmem.image.blanked import Blanked
from physmem.image.notes import vmcoreinfo_note
from physmem.image.pieces import Progress
from physmem.image.save import Target, save_image

__all__ = ["Distilled", "distill"]


@dataclass(frozen=True)
class Distilled:
    """What has become of an image.

    :ivar pages: page frames of which anything was kept
    :ivar kept: bytes of them that were
    :ivar refused: pages that a pointer led to, but which belong to a process or a file, and were left out
    :ivar parts: how many bytes of each kind were kept, by what they are
    :ivar lost: what the format cannot hold, each in a line
    """

    pages: int
    kept: int
    refused: tuple[int, ...]
    parts: dict[str, int]
    lost: list[str]


def distill(
    dump: Dump, target: Target, progress: Progress | None = None, also: Iterable[tuple[int, int]] = ()
) -> Distilled:
    """Write an image that has only what describes memory.

    Of the notes, VMCOREINFO alone is kept: those of CPUs have the registers of processes.  It is completed by what
    would otherwise be found by search: where the kernel was loaded, where its symbol table is.

    :param also: further physical ranges [start, end) that are to be kept
    :raises UsageError: the image itself does not say what kernel it is of
    :raises PhysmemError: nodes or page array cannot be read, or the file cannot be written
    """
    if not dump.info:
        raise UsageError(f"{dump.image.path}: has no VMCOREINFO, without which a distilled image cannot be opened")
    kept = Kept(dump)
    collect(dump, kept)
    for start, end in also:
        kept.phys("asked for", start, end - start)
    refused = kept.refuse_contents()
    memory = Blanked(dump.memory, kept.bytes())
    lost = save_image(
        target,
        memory,
        [vmcoreinfo_note(vmcoreinfo.encode(described(dump)))],
        page_offset=dump.page_offset,
        kernel=dump.kernel_mapping(),
        frames=dump.image.frames or dump.memory.ranges,
        progress=progress,
    )
    return Distilled(memory.ranges.total() // 4096, memory.shown.total(), refused, kept.parts(), lost)
