# SPDX-License-Identifier: GPL-2.0-only
"""A machine's memory piece by piece, for who writes it to a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from physmem.memory import PhysicalMemory
from physmem.ranges import Ranges

__all__ = ["PAGE", "Piece", "Progress", "pieces", "whole_pages"]

PAGE = 4096
#: Bytes that are read at a time.
CHUNK = 1 << 20

#: Told how many bytes of memory have been written since the last time.
Progress = Callable[[int], None]


class Piece(NamedTuple):
    """Memory from ``phys`` on.

    :ivar data: its bytes; None if they are known to be zeros without looking
    """

    phys: int
    size: int
    data: bytes | None


def pieces(
    memory: PhysicalMemory,
    start: int,
    end: int,
    untouched: Ranges | None = None,
    progress: Progress | None = None,
) -> Iterator[Piece]:
    """The memory [start, end), all of it present, in ascending order and pieces of bounded size.

    :param untouched: memory that is known to be zeros: it is not read, and comes in pieces of any size
    """
    known = untouched.clip(start, end) if untouched is not None else ()
    for first, last in [*known, (end, end)]:
        for phys in range(start, first, CHUNK):
            size = min(CHUNK, first - phys)
            yield Piece(phys, size, memory.read(phys, size))
            if progress is not None:
                progress(size)
        if first < last:
            yield Piece(first, last - first, None)
            if progress is not None:
                progress(last - first)
        start = last


def whole_pages(ranges: Ranges) -> Iterator[tuple[int, int]]:
    """The parts of ``ranges`` that are page frames throughout."""
    for start, end in ranges:
        first, last = -(-start // PAGE) * PAGE, end // PAGE * PAGE
        if first < last:
            yield first, last
