# SPDX-License-Identifier: GPL-2.0-only
"""Real and small machines whose memory is damaged word by word, as the bytes of a fuzzer say."""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from kernelmm import Machine
from kernelmm.gfp import GFP_KERNEL
from physmem.dump import Dump, open_dump
from physmem.image import Image
from physmem.ranges import Ranges

__all__ = ["EDIT", "Damaged", "Words", "machine"]

#: One change: which word, how, and a value.
EDIT = struct.Struct("<IBQ")
_WORDS = (0, 1, (1 << 64) - 1, 0xDEAD000000000100, 0xDEAD000000000122, 0xFFFFFFFF, 0x80000000, 1 << 63)


class Words:
    """Bytes that can be changed, and are as they were afterwards.

    Changes go to words that are not zero, or beside one: where something is that is looked at.
    """

    def __init__(self, data: bytearray) -> None:
        self.data = data
        self._words: npt.NDArray[np.uint64] = np.frombuffer(data, np.uint64, len(data) // 8)
        self._places = np.flatnonzero(self._words)

    @contextmanager
    def edited(self, data: bytes) -> Iterator[None]:
        """Change what ``data`` says, for a while."""
        words, undo = self._words, []
        for place, how, value in EDIT.iter_unpack(data[: len(data) // EDIT.size * EDIT.size]):
            at = min(int(self._places[place % len(self._places)]) + (how >> 6), len(words) - 1)
            undo.append((at, int(words[at])))
            words[at] = self._value(int(words[at]), how & 63, value)
        try:
            yield
        finally:
            for at, before in reversed(undo):
                words[at] = before

    def _value(self, old: int, how: int, value: int) -> int:
        if how < 8:
            return _WORDS[value % len(_WORDS)]
        if how < 20:  # another word of this memory: links that lead elsewhere
            return int(self._words[self._places[value % len(self._places)]])
        if how < 30:
            return (old + (value & 0xFFF) - 0x800) % (1 << 64)
        if how < 40:
            return old ^ 1 << value % 64
        if how < 50:
            return old & ~0xFFFFFFFF | value & 0xFFFFFFFF
        return value


class Damaged(Words):
    """The memory of an image, to be changed: a ``PhysicalMemory``."""

    def __init__(self, image: Image) -> None:
        self.ranges: Ranges = Ranges(image.ranges)
        self.size = image.size
        data = bytearray(image.size)
        for start, end in self.ranges:
            data[start:end] = image.read(start, end - start)
        self._image = image
        super().__init__(data)

    def read(self, phys: int, size: int) -> bytes:
        if not self.ranges.covers(phys, phys + size):
            return self._image.read(phys, size)  # which says what is wrong
        return bytes(self.data[phys : phys + size])

    def u64(self, phys: int) -> int:
        return int.from_bytes(self.read(phys, 8), "little")

    def array(self, phys: int, dtype: npt.DTypeLike, count: int) -> npt.NDArray[Any]:
        kind = np.dtype(dtype)
        return np.frombuffer(self.read(phys, kind.itemsize * count), kind)


def machine(size: str = "16M") -> Dump:
    """A booted machine, with pages of all orders taken and some given back."""
    m = Machine.boot(size)
    taken = [(m.alloc_pages(GFP_KERNEL, order=n % 4), n % 4) for n in range(200)]
    for page, order in taken[::2]:
        if page is not None:
            m.free_pages(m.page_address(page), order=order)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "machine.vmcore"
        m.save(path)
        return open_dump(path)
