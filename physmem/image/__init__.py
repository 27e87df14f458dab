# SPDX-License-Identifier: GPL-2.0-only
"""Memory images: files that hold a machine's physical memory.

``open_image`` opens any that is known here, told by its first bytes and
whatever its name.  A new format is a subclass of ``Image``, a function that makes
one, and a line in the table of formats.  A format's reader is loaded when there is
a file for it.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from physmem.errors import ImageError, UsageError
from physmem.image import elf_format, kdump_format, lime
from physmem.image.base import Image
from physmem.image.notes import Note
from physmem.image.raw import Raw, parse_segment
from physmem.image.search import find_vmcoreinfo
from physmem.image.source import MAX_EXPANDED, Source, open_source
from physmem.image.vmcoreinfo import VmcoreInfo

if TYPE_CHECKING:
    from physmem.image.avml import Avml
    from physmem.image.elf import ElfCore
    from physmem.image.kdump import Kdump
    from physmem.image.lime import Lime

__all__ = [
    "Avml",
    "ElfCore",
    "Image",
    "Kdump",
    "Lime",
    "Note",
    "VmcoreInfo",
    "find_vmcoreinfo",
    "is_image",
    "open_image",
]

_PAGE = 4096
#: Up to this size, a file of no known format is searched for a kernel.
_RAW_SEARCH = 16 << 30


_READERS = {"Avml": "avml", "ElfCore": "elf", "Kdump": "kdump", "Lime": "lime"}


def __getattr__(name: str) -> object:
    if name in _READERS:
        return getattr(importlib.import_module(f"physmem.image.{_READERS[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class _Unknown(ImageError):
    """The file has no format that is known here."""


class _Format(NamedTuple):
    magic: bytes
    open: Callable[[Source, int], Image]


def _elf(source: Source, max_expanded: int) -> Image:
    from physmem.image.elf import ElfCore

    return ElfCore(source)


def _kdump(source: Source, max_expanded: int) -> Image:
    from physmem.image.contents import Contents
    from physmem.image.kdump import Kdump

    return Kdump(Contents(source))


def _flattened(source: Source, max_expanded: int) -> Image:
    from physmem.image.flattened import Flattened
    from physmem.image.kdump import Kdump

    flat = Flattened(source)
    if flat[0:4] == elf_format.MAGIC:
        return _elf(flat.restored(max_expanded), max_expanded)
    return Kdump(flat)


def _avml(source: Source, max_expanded: int) -> Image:
    from physmem.image.avml import Avml

    return Avml(source)


_FORMATS = (
    _Format(elf_format.MAGIC, _elf),
    _Format(kdump_format.KDUMP, _kdump),
    _Format(kdump_format.DISKDUMP, _kdump),
    _Format(kdump_format.FLAT_SIGNATURE, _flattened),
    _Format(lime.MAGIC, lambda source, _: lime.Lime(source)),
    _Format(lime.AVML_MAGIC, _avml),
)


def open_image(
    path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    max_expanded: int = MAX_EXPANDED,
    raw: bool = False,
) -> Image:
    """Open the memory image ``path``, read-only; gzip, xz and zstd files are expanded into a temporary file.

    Several files are one image: the files of a dump that was split, or raw memory.  Raw memory is told by its name,
    ``FILE@ADDRESS`` (in hexadecimal), or by the VMCOREINFO of a kernel inside it; then it begins at address 0.

    :param path: the file, or several: a list, or their names with commas between them
    :param max_expanded: the most bytes that a compressed file may expand to
    :param raw: take a file of no known format for raw memory from address 0 on
    :raises ImageError: a file cannot be read, is of no known format, or is not what its format demands
    """
    names = [path] if isinstance(path, (str, os.PathLike)) else list(path)
    if len(names) == 1 and not _exists(names[0]):
        names = list(os.fspath(names[0]).split(","))
    if len(names) == 1:
        return _open_file(names[0], max_expanded, raw)
    if not names:
        raise UsageError("no image is given")
    images: list[Image] = []
    try:
        for name in names:
            images.append(_open_file(name, max_expanded, raw))
        from physmem.image.joined import Joined

        return Joined([(image, _span(image)) for image in images])
    except BaseException:
        for image in images:
            image.close()
        raise


class _Recognised(Exception):
    """The first bytes of a file are known, or not."""


def is_image(path: str | os.PathLike[str]) -> bool:
    """Whether the file ``path`` is a memory image, by its first bytes, expanded if they are compressed.

    Other ELF files than core files are none.  Raw memory cannot be told.

    :raises ImageError: it cannot be read, or is no regular file
    """

    def recognise(head: bytes) -> None:
        known = any(head.startswith(each.magic) for each in _FORMATS)
        other = head.startswith(elf_format.MAGIC) and head[16:18] != elf_format.ET_CORE.to_bytes(2, "little")
        raise _Recognised(known and not other)

    try:
        open_source(path, accept=recognise).close()
    except _Recognised as answer:
        return bool(answer.args[0])
    return False


def _exists(name: str | os.PathLike[str]) -> bool:
    return "\0" in os.fspath(name) or os.path.exists(name)


def _span(image: Image) -> tuple[int, int]:
    """The physical addresses that a file of several is for."""
    return image.span or (next(iter(image.ranges), (0, 0))[0], image.size)


def _open_file(name: str | os.PathLike[str], max_expanded: int, raw: bool) -> Image:
    segment = None if _exists(name) else parse_segment(name)
    if segment is not None:
        return Raw(open_source(segment[0], max_expanded=max_expanded), segment[1])

    def recognise(head: bytes) -> _Format:
        for known in _FORMATS:
            if head.startswith(known.magic):
                return known
        raise _Unknown(name, f"not a memory image known here: begins with {head[:8].hex(' ')}", 0)

    try:
        source = open_source(name, max_expanded=max_expanded, accept=recognise)
    except _Unknown as error:
        image = _open_raw(name, max_expanded if raw else 0)
        if image is None:
            raise ImageError(error.path, error.reason, error.offset) from None
        return image
    try:
        return recognise(source.data[:64]).open(source, max_expanded)
    except BaseException:
        source.close()
        raise


def _open_raw(name: str | os.PathLike[str], max_expanded: int) -> Image | None:
    """A file of no known format as raw memory: if it has a kernel in it, or whatever it has if it may be expanded."""
    try:
        source = open_source(name, max_expanded=max_expanded)
    except ImageError:
        return None
    image = Raw(source)
    may_be_memory = source.size % _PAGE == 0 and source.size <= _RAW_SEARCH
    if max_expanded or (may_be_memory and find_vmcoreinfo(image)):
        return image
    image.close()
    return None
