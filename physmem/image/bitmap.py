# SPDX-License-Identifier: GPL-2.0-only
"""Which pages an image has, as one bit a page: how kdump files say it.

Three questions are asked of the bitmap: is the page there, how many are there
below it (which is the number of its descriptor), and where does a run of pages
end.  Each takes the time of looking at a few hundred bytes, whatever the size
of the machine.

The bitmap stays in its file: what is kept is how many bits are set in each of
its pieces, and the pieces that were asked for last.  A hole in the file is read
neither then nor later, so that what it costs to open a dump is decided by the
file on the disk, and not by how much memory it claims.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Protocol

from physmem.ranges import Ranges

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
else:
    from physmem.later import np

__all__ = ["Bits", "InMemory", "PageBitmap", "PageRanges"]

_PAGE_SHIFT = 12
# Inside a piece, set bits are counted once for each block of so many bytes.
_BLOCK_SHIFT = 9
_BLOCK = 1 << _BLOCK_SHIFT
# Bytes of a piece of a bitmap, which is read and taken apart as a whole, and how many are kept.
_PIECE = 1 << 16
_KEPT = 64


class Bits(Protocol):
    """The bytes of a bitmap: bit n, counted from the lowest of the first byte, is page n."""

    def __len__(self) -> int: ...

    def __getitem__(self, where: slice, /) -> bytes:
        """Bytes in the bitmap."""

    def data(self) -> Iterator[tuple[int, int]]:
        """Where there are bytes that may be other than zeros, ascending."""


class InMemory:
    """Bits of which the pieces that are not all zeros are in memory.

    :param pieces: those, by number
    :param size: bytes
    """

    def __init__(self, pieces: dict[int, bytes], size: int) -> None:
        self._pieces = pieces
        self._size = size

    @classmethod
    def of(cls, bits: bytes) -> InMemory:
        """A bitmap that is all there."""
        return cls({number: bits[at : at + _PIECE] for number, at in enumerate(range(0, len(bits), _PIECE))}, len(bits))

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, where: slice) -> bytes:
        # Nobody asks for more than a piece, nor for parts of two.
        start, end = where.start, min(where.stop, self._size)
        first = start // _PIECE * _PIECE
        piece = self._pieces.get(start // _PIECE)
        return bytes(end - start) if piece is None else piece[start - first : end - first]

    def data(self) -> Iterator[tuple[int, int]]:
        for number in sorted(self._pieces):
            yield number * _PIECE, min((number + 1) * _PIECE, self._size)


class PageBitmap:
    """A set of page frames.

    :param bits: which they are
    :param pages: how many bits count; what is behind them is ignored, what is missing is 0
    :ivar total: number of pages in the set
    """

    def __init__(self, bits: Bits, pages: int) -> None:
        self._bits = bits
        self._size = min(len(bits), -(-pages // 8))
        self._last = pages % 8 if pages < 8 * self._size else 0
        self._piece = lru_cache(maxsize=_KEPT)(self._load)
        # The pieces that have pages, ascending; how many are in those before each, and in all.
        self._used: list[int] = []
        self._before = [0]
        self.total = done = 0
        for start, end in bits.data():
            for number in range(max(start // _PIECE, done), min(-(-end // _PIECE), -(-self._size // _PIECE))):
                done = number + 1
                if count := int.from_bytes(self._read(number), "little").bit_count():
                    self.total += count
                    self._used.append(number)
                    self._before.append(self.total)

    def _read(self, number: int) -> bytes:
        """The bytes of a piece."""
        data = self._bits[number * _PIECE : min((number + 1) * _PIECE, self._size)]
        if self._last and (number + 1) * _PIECE >= self._size:
            data = data[:-1] + bytes([data[-1] & ((1 << self._last) - 1)])
        return data

    def _load(self, number: int) -> tuple[bytes, list[int]]:
        """The bytes of a piece, and how many pages are in the blocks below each of its blocks."""
        at = bisect_left(self._used, number)
        if at == len(self._used) or self._used[at] != number:
            return b"", [0] * (_PIECE // _BLOCK + 2)
        data = self._read(number)
        counts = (int.from_bytes(data[i : i + _BLOCK], "little").bit_count() for i in range(0, len(data), _BLOCK))
        return data, list(accumulate(counts, initial=0))

    def __contains__(self, pfn: int) -> bool:
        if not 0 <= pfn < 8 * self._size:
            return False
        number, at = divmod(pfn >> 3, _PIECE)
        data = self._piece(number)[0]
        return at < len(data) and bool(data[at] >> (pfn & 7) & 1)

    def rank(self, pfn: int) -> int:
        """How many pages of the set are below ``pfn``."""
        if pfn >= 8 * self._size:
            return self.total
        number, at = divmod(pfn >> 3, _PIECE)
        data, below = self._piece(number)
        block = at >> _BLOCK_SHIFT
        start = block << _BLOCK_SHIFT
        word = int.from_bytes(data[start : at + 1], "little") & (1 << 8 * (at - start) + (pfn & 7)) - 1
        return self._before[bisect_left(self._used, number)] + below[block] + word.bit_count()

    @property
    def end(self) -> int:
        """One past the highest page of the set; 0 if it is empty."""
        if not self._used:
            return 0
        number = self._used[-1]
        return 8 * _PIECE * number + int.from_bytes(self._piece(number)[0], "little").bit_length()

    def first_missing(self, start: int, end: int) -> int | None:
        """The lowest of the pages [start, end) that is not in the set, or None."""
        if start < 0 and start < end:
            return start
        while start < end:
            if start >= 8 * self._size:
                return start
            number, at = divmod(start >> 3, _PIECE)
            data = self._piece(number)[0][at : at + _BLOCK]
            word = int.from_bytes(data, "little") >> (start & 7)
            # Adding 1 carries through the run of ones that begins at bit 0.
            run = ((word + 1) & ~word).bit_length() - 1
            if run < 8 * len(data) - (start & 7) or not data:
                return start + run if start + run < end else None
            start += run
        return None

    def pieces(self, start: int, end: int) -> Iterator[npt.NDArray[np.int64]]:
        """The runs of pages inside [start, end), as :meth:`runs`, but cut where a piece of the bitmap ends."""
        start, end = max(start, 0), min(end, 8 * self._size)
        each = 8 * _PIECE
        for at in range(bisect_left(self._used, start // each), bisect_left(self._used, -(-end // each))):
            number = self._used[at]
            low, high = max(number * each, start), min((number + 1) * each, end)
            data = self._piece(number)[0]
            if self._before[at + 1] - self._before[at] == 8 * len(data):
                yield np.array([[low, high]], np.int64)
                continue
            bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")
            # A run begins and ends where a bit differs from the one before.
            changes = np.diff(bits[low - number * each : high - number * each], prepend=0, append=0)
            yield np.flatnonzero(changes).reshape(-1, 2) + low

    def runs(self, start: int, end: int) -> npt.NDArray[np.int64]:
        """The runs of pages of the set inside [start, end): rows (first page, one past the last), ascending."""
        pieces = [np.empty((0, 2), np.int64)]
        for edges in self.pieces(start, end):
            last = pieces[-1]
            if len(last) and len(edges) and last[-1, 1] == edges[0, 0]:
                edges[0, 0] = last[-1, 0]
                pieces[-1] = last[:-1]
            pieces.append(edges)
        return np.concatenate(pieces)

    def only(self, which: Callable[[npt.NDArray[np.int64]], npt.NDArray[np.bool_]]) -> PageBitmap:
        """The pages of the set of which something is true; ``which`` is asked of all, in ascending order."""
        kept: dict[int, bytes] = {}
        for number in self._used:
            bits = np.unpackbits(np.frombuffer(self._piece(number)[0], np.uint8), bitorder="little")
            pages = np.flatnonzero(bits)
            bits[pages] = which(pages + 8 * _PIECE * number)
            if bits.any():
                kept[number] = np.packbits(bits, bitorder="little").tobytes()
        return PageBitmap(InMemory(kept, self._size), 8 * self._size)


class PageRanges(Ranges):
    """The bytes of the pages of a bitmap, as ``Ranges``.

    A dump has millions of intervals, and hardly anybody asks for all of them: the lists that ``Ranges`` is made of
    come into being when something needs them, and the common questions do not.
    """

    __slots__ = ("_bitmap",)

    def __init__(self, bitmap: PageBitmap) -> None:
        self._bitmap = bitmap  # and no super().__init__(): see __getattr__

    def __getattr__(self, name: str) -> Any:
        # Only called for what is not there yet.
        if name not in ("_starts", "_ends"):
            raise AttributeError(name)
        runs = self._bitmap.runs(0, self._bitmap.end) << _PAGE_SHIFT
        self._starts = runs[:, 0].tolist()
        self._ends = runs[:, 1].tolist()
        return getattr(self, name)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        # Without the lists, which would be the size of the dump's page array.
        start = end = 0
        for runs in self._bitmap.pieces(0, self._bitmap.end):
            for begin, upto in runs.tolist():
                if begin != end and start < end:
                    yield start << _PAGE_SHIFT, end << _PAGE_SHIFT
                start, end = start if begin == end and start < end else begin, upto
        if start < end:
            yield start << _PAGE_SHIFT, end << _PAGE_SHIFT

    @property
    def end(self) -> int:
        return self._bitmap.end << _PAGE_SHIFT

    def total(self) -> int:
        return self._bitmap.total << _PAGE_SHIFT

    def __contains__(self, value: int) -> bool:
        return value >> _PAGE_SHIFT in self._bitmap

    def first_gap(self, start: int, end: int) -> int | None:
        if start >= end:
            return None
        missing = self._bitmap.first_missing(start >> _PAGE_SHIFT, -(-end >> _PAGE_SHIFT))
        return None if missing is None else max(start, missing << _PAGE_SHIFT)

    def clip(self, start: int, end: int) -> Ranges:
        if start >= end:
            return Ranges()
        if self.first_gap(start, end) is None:
            return Ranges([(start, end)])
        runs = self._bitmap.runs(start >> _PAGE_SHIFT, -(-end >> _PAGE_SHIFT)) << _PAGE_SHIFT
        return Ranges((max(start, first), min(end, last)) for first, last in runs.tolist())
