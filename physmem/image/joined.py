# SPDX-License-Identifier: GPL-2.0-only
"""Several images as one: the files of a dump that was split, or a list of raw segments."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from physmem.errors import ImageError, UsageError
from physmem.image.base import Image
from physmem.ranges import Ranges

__all__ = ["Joined"]


class Joined(Image):
    """Images that have different physical addresses each, as a whole.

    Notes and VMCOREINFO are those of the first part that has any.

    :param parts: images, each with the physical addresses [start, end) that it is for, in any order; closing the whole
        closes them
    :raises ImageError: two parts are for the same addresses
    """

    def __init__(self, parts: Sequence[tuple[Image, tuple[int, int]]]) -> None:
        ordered = sorted(parts, key=lambda part: part[1])
        for (_, before), (image, after) in pairwise(ordered):
            if before[1] > after[0]:
                raise ImageError(image.path, f"has physical {after[0]:#x}, and another of the files has it too")
        images = [image for image, _ in parts]
        self.path = ", ".join(image.path for image in images)
        formats = dict.fromkeys(image.format for image in images)
        self.format = f"{', '.join(formats)} in {len(images)} files"
        self.notes = next((image.notes for image in images if image.notes), ())
        self.vmcoreinfo = next((image.vmcoreinfo for image in images if image.vmcoreinfo), {})
        self._images = [image for image, _ in ordered]
        self._starts = [span[0] for _, span in ordered]
        self._closed = False

    @cached_property
    def ranges(self) -> Ranges:  # type: ignore[override]
        return Ranges(interval for image in self._images for interval in image.ranges)

    @property
    def size(self) -> int:
        return max((image.size for image in self._images), default=0)

    def close(self) -> None:
        self._closed = True
        for image in self._images:
            image.close()

    def read(self, phys: int, size: int) -> bytes:
        part = self._part(phys, size)
        if part is not None:
            return part.read(phys, size)
        self._require(phys, size)
        pieces = []
        for start, end in zip(self._starts, [*self._starts[1:], phys + size], strict=True):
            first, last = max(phys, start), min(phys + size, end)
            if first < last:
                pieces.append(self._images[bisect_right(self._starts, first) - 1].read(first, last - first))
        return b"".join(pieces)

    def u64(self, phys: int) -> int:
        part = self._part(phys, 8)
        return super().u64(phys) if part is None else part.u64(phys)

    def array(self, phys: int, dtype: npt.DTypeLike, count: int) -> npt.NDArray[Any]:
        part = self._part(phys, np.dtype(dtype).itemsize * count)
        return super().array(phys, dtype, count) if part is None else part.array(phys, dtype, count)

    def segments(self) -> Iterator[tuple[int, memoryview]]:
        self._open()
        for image in self._images:
            yield from image.segments()

    def copy_into(self, target: memoryview) -> None:
        self._open()
        for image in self._images:
            image.copy_into(target)

    def _open(self) -> None:
        if self._closed:
            raise UsageError(f"{self.path}: the image is closed")

    def _part(self, phys: int, size: int) -> Image | None:
        """The image that alone has a say about [phys, phys + size)."""
        self._open()
        index = bisect_right(self._starts, phys) - 1
        if index < 0 or (index + 1 < len(self._starts) and phys + size > self._starts[index + 1]):
            return None
        return self._images[index]
