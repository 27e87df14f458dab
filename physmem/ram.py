# SPDX-License-Identifier: GPL-2.0-only
"""Emulated physical memory: bytes over an ``mmap``, offset = physical address.

The one room that owns bytes.  A :class:`Ram` is

* *a machine of our own*: private and not reserved, so that memory nobody
  touches costs nothing;
* *a raw file* or *an image*: its contents, loaded privately.  The file itself
  is never written to, and never mapped: whoever cut it short would end this
  process by a signal.

What an image does not contain is *absent*: ``ranges`` knows it, and reading it
through this class raises :class:`~physmem.errors.AbsentError` rather than
inventing zeros.  The typed views (``as_u64`` ...) are for the hot rooms, which
check once, when they attach, that the structures they use are present.
"""

from __future__ import annotations

import mmap
import os
from typing import TYPE_CHECKING, Any

from physmem.errors import AbsentError, AddressError, ImageError, UsageError
from physmem.ranges import Ranges
from physmem.residency import untouched

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from physmem.image import Image
else:
    from physmem.later import np

__all__ = ["MAX_SIZE", "PAGE_SIZE", "Ram"]

PAGE_SIZE = 4096
#: MAX_PHYSMEM_BITS of x86-64 with 4-level page tables is 46.  A Ram is one mapping of a process, which has 47 bits.
MAX_SIZE = 1 << 46

_MAP_NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000)


class Ram:
    """Physical memory of ``size`` bytes.

    :param size: bytes, a multiple of the page size, at most :data:`MAX_SIZE`
    :param ranges: what is present, physical bytes; default: everything
    :raises UsageError: the size cannot be
    """

    def __init__(self, size: int, ranges: Ranges | None = None) -> None:
        if not 0 < size <= MAX_SIZE:
            raise UsageError(f"physical memory of {size:#x} bytes: must be above 0 and at most {MAX_SIZE:#x}")
        if size % PAGE_SIZE:
            raise UsageError(f"physical memory of {size:#x} bytes: not a multiple of the page size")
        try:
            self.buffer = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE)
        except OSError as error:
            raise UsageError(f"physical memory of {size:#x} bytes: {error.strerror}") from None
        self.size = size
        self.ranges = Ranges([(0, size)]) if ranges is None else ranges
        view = memoryview(self.buffer)
        self.as_u8 = view
        self.as_s8 = view.cast("b")
        self.as_u16 = view.cast("H")
        self.as_u32 = view.cast("I")
        self.as_s32 = view.cast("i")
        self.as_u64 = view.cast("Q")
        self.as_s64 = view.cast("q")

    # -- where it comes from -------------------------------------------------

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> Ram:
        """A private copy of a raw file as memory from physical address 0.

        :raises ImageError: the file is empty, not a whole number of pages, or cannot be read
        """
        from physmem.image.base import Extent, MappedImage
        from physmem.image.source import Source

        try:
            with open(path, "rb") as file:
                size = os.fstat(file.fileno()).st_size
                if size == 0 or size % PAGE_SIZE:
                    raise ImageError(path, f"{size} bytes are not a whole number of {PAGE_SIZE}-byte pages")
                source = Source(os.fspath(path), file, "", private=False)
        except OSError as error:
            raise ImageError(path, error.strerror or str(error)) from None
        with MappedImage(source, [Extent(0, size, 0)], (), {}) as image:
            return cls.from_image(image)

    @classmethod
    def from_image(cls, image: Image, size: int = 0) -> Ram:
        """A private copy of an image's memory; the image is not changed by what happens to it.

        :param size: bytes of physical memory, if the machine had more than the image reaches to
        :raises ImageError: the image reaches beyond what can be emulated
        """
        size = -(-max(size, image.size) // PAGE_SIZE) * PAGE_SIZE
        if size > MAX_SIZE:
            raise ImageError(image.path, f"physical memory ends at {size:#x}, above the limit of {MAX_SIZE:#x}")
        if not image.size:
            raise ImageError(image.path, "contains no memory")
        ram = cls(size, image.ranges)
        image.copy_into(ram.as_u8)
        return ram

    def untouched(self) -> Ranges:
        """Memory that is zeros because nobody has touched it, as far as the host tells; without touching it."""
        base = np.frombuffer(self.as_u8, np.uint8).ctypes.data
        # Only what is present: asking costs as much as there is to ask about, and a hole may have terabytes.
        found: list[tuple[int, int]] = []
        for start, end in self.ranges:
            found += ((start + low, start + high) for low, high in untouched(base + start, end - start))
        return Ranges(found)

    # -- whole bytes ---------------------------------------------------------

    def _check(self, phys: int, size: int) -> None:
        if size < 0 or phys < 0 or phys + size > self.size:
            raise AddressError(phys, f"{size} bytes from here are outside physical memory of {self.size:#x} bytes")
        if not self.ranges.covers(phys, phys + size):
            gap = self.ranges.first_gap(phys, phys + size)
            raise AbsentError(phys if gap is None else gap, size)

    def read(self, phys: int, size: int) -> bytes:
        """``size`` bytes from physical address ``phys``.

        :raises AddressError: outside memory
        :raises AbsentError: some of it is absent
        """
        self._check(phys, size)
        return bytes(self.as_u8[phys : phys + size])

    def write(self, phys: int, data: bytes | bytearray | memoryview) -> None:
        """Store ``data`` at ``phys``; raises as :meth:`read` does."""
        self._check(phys, len(data))
        self.as_u8[phys : phys + len(data)] = data

    def clear(self, phys: int, size: int) -> None:
        """Zero ``size`` bytes, as far as they are present: an absent page stays absent.

        :raises AddressError: outside memory
        """
        if size < 0 or phys < 0 or phys + size > self.size:
            raise AddressError(phys, f"{size} bytes from here are outside physical memory of {self.size:#x} bytes")
        for start, end in self.ranges.clip(phys, phys + size):
            self.as_u8[start:end] = bytes(end - start)

    # -- one word at a time --------------------------------------------------

    def u8(self, phys: int) -> int:
        """``u8`` at ``phys``; raises as :meth:`read` does."""
        return self.read(phys, 1)[0]

    def u16(self, phys: int) -> int:
        """Little-endian ``u16`` at ``phys``."""
        return int.from_bytes(self.read(phys, 2), "little")

    def u32(self, phys: int) -> int:
        """Little-endian ``u32`` at ``phys``."""
        return int.from_bytes(self.read(phys, 4), "little")

    def i32(self, phys: int) -> int:
        """Little-endian ``s32`` at ``phys``."""
        return int.from_bytes(self.read(phys, 4), "little", signed=True)

    def u64(self, phys: int) -> int:
        """Little-endian ``u64`` at ``phys``."""
        return int.from_bytes(self.read(phys, 8), "little")

    def set_u8(self, phys: int, value: int) -> None:
        """Store a ``u8``; the value is reduced modulo 2^8, as in C."""
        self.write(phys, (value & 0xFF).to_bytes(1, "little"))

    def set_u32(self, phys: int, value: int) -> None:
        """Store a ``u32`` (or ``s32``), modulo 2^32."""
        self.write(phys, (value & 0xFFFFFFFF).to_bytes(4, "little"))

    def set_u64(self, phys: int, value: int) -> None:
        """Store a ``u64`` (or ``s64``), modulo 2^64."""
        self.write(phys, (value & 0xFFFFFFFFFFFFFFFF).to_bytes(8, "little"))

    # -- many at once --------------------------------------------------------

    def array(self, phys: int, dtype: npt.DTypeLike, count: int) -> npt.NDArray[Any]:
        """``count`` elements of ``dtype`` at ``phys``, a read-only view of the live bytes (no copy)."""
        kind = np.dtype(dtype)
        if count < 0:
            raise AddressError(phys, f"an array of {count} elements")
        self._check(phys, count * kind.itemsize)
        values = np.frombuffer(self.as_u8, dtype=kind, count=count, offset=phys) if count else np.empty(0, kind)
        values.flags.writeable = False
        return values
