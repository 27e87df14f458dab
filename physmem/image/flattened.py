# SPDX-License-Identifier: GPL-2.0-only
"""The flattened form of dump files, which makedumpfile and hypervisors write to pipes.

Who cannot seek in its output sends every write as a record instead: offset, size,
bytes.  The file that is meant has each byte from the last record that wrote it,
and zeros where none did.  The records are indexed once and the file is read
through the index; nothing is rewritten.
"""

from __future__ import annotations

import heapq
import tempfile
from array import array
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from physmem.errors import ImageError
from physmem.image import kdump_format as fmt
from physmem.image.contents import Contents
from physmem.image.source import Source

__all__ = ["Flattened"]

# Offset in the meant file, one past its last byte, offset in the file on disk.
_Row = tuple[int, int, int]
_COPY = 1 << 20


class Flattened(Contents):
    """A flattened file as the one that is meant.

    :param source: the file on disk; closing the contents closes it
    :raises ImageError: the stream is malformed, or has no end
    """

    def __init__(self, source: Source) -> None:
        super().__init__(source)
        self.kind = f"flattened, {self.kind}" if self.kind else "flattened"
        rows = _newest(_records(source))
        self._starts = rows[:, 0].copy()
        self._ends = rows[:, 1].copy()
        self._places = rows[:, 2].copy()
        self.size = int(self._ends[-1]) if len(rows) else 0
        self.data = self

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, where: slice) -> bytes:
        start, end, disk = where.start, where.stop, self._source.data
        pieces = []
        index = max(int(np.searchsorted(self._starts, start, "right")) - 1, 0)
        while start < end:
            if index == len(self._starts) or end <= self._starts[index]:
                pieces.append(bytes(end - start))
                break
            first, last, place = int(self._starts[index]), int(self._ends[index]), int(self._places[index])
            if start < first:
                pieces.append(bytes(first - start))
                start = first
            upto = min(end, last)
            if start < upto:
                pieces.append(disk[place + start - first : place + upto - first])
                start = upto
            index += 1
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def data_in(self, offset: int, end: int) -> Iterator[tuple[int, int]]:
        """What was written of [offset, end)."""
        first = int(np.searchsorted(self._ends, offset, "right"))
        last = int(np.searchsorted(self._starts, end))
        for start, upto in zip(self._starts[first:last].tolist(), self._ends[first:last].tolist(), strict=True):
            yield max(start, offset), min(upto, end)

    def restored(self, max_size: int) -> Source:
        """The file that is meant, put together in a temporary file: for formats that have to be mapped.

        This object is closed.

        :raises ImageError: it would have more than ``max_size`` bytes, or there is no room
        """
        if self.size > max_size:
            raise ImageError(self.path, f"is a flattened file of {self.size} bytes, at most {max_size} are allowed")
        try:
            with tempfile.TemporaryFile() as file:
                for start, end, place in zip(self._starts, self._ends, self._places, strict=True):
                    file.seek(int(start))
                    for done in range(int(place), int(place + end - start), _COPY):
                        file.write(self._source.data[done : min(done + _COPY, int(place + end - start))])
                file.flush()
                return Source(self.path, file, self.kind, private=True)
        except OSError as error:
            raise ImageError(self.path, f"cannot be put together: {error.strerror or error}") from error
        finally:
            self.close()


def _records(source: Source) -> npt.NDArray[np.int64]:
    """The records of the stream in their order, a row each."""
    path, size = source.path, source.size
    if size < fmt.FLAT_HEADER_BYTES:
        raise ImageError(path, f"truncated: a flattened file begins with {fmt.FLAT_HEADER_BYTES} bytes of header", 0)
    _, kind, version = source.unpack(fmt.FLAT_HEADER, 0)
    if (kind, version) != (1, 1):
        raise ImageError(path, f"flattened file of type {kind}, version {version}: only type 1, version 1 is known", 16)
    rows = array("q")
    at = fmt.FLAT_HEADER_BYTES
    while at + fmt.FLAT_RECORD.size <= size:
        offset, length = source.unpack(fmt.FLAT_RECORD, at)
        if offset == fmt.FLAT_END and length == fmt.FLAT_END:
            return np.frombuffer(rows, np.int64).reshape(-1, 3)
        place = at + fmt.FLAT_RECORD.size
        if offset < 0 or length < 0 or offset + length >= 1 << 62:
            raise ImageError(path, f"flattened record for {length} bytes at {offset}: nonsense", at)
        if place + length > size:
            reason = f"truncated: a flattened record ends at {place + length:#x}, the file has {size:#x} bytes"
            raise ImageError(path, reason, at)
        if length:
            rows.extend((offset, offset + length, place))
        at = place + length
    raise ImageError(path, "truncated: the flattened stream has no end", size)


def _newest(records: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Disjoint rows, ascending: of records that overlap, each byte from the last that has it."""
    order = np.argsort(records[:, 0], kind="stable")
    rows = records[order]
    if not len(rows):
        return rows
    reach = np.maximum.accumulate(rows[:, 1])
    # A group of records that overlap ends where the next begins at or above all that came before.
    firsts = np.flatnonzero(np.r_[True, rows[1:, 0] >= reach[:-1]])
    lasts = np.r_[firsts[1:], len(rows)]
    pieces = []
    done = 0
    for first, last in zip(firsts[lasts - firsts > 1], lasts[lasts - firsts > 1], strict=True):
        pieces.append(rows[done:first])
        group = np.column_stack((order[first:last], rows[first:last])).tolist()
        pieces.append(np.array(_painted(group), np.int64).reshape(-1, 3))
        done = last
    pieces.append(rows[done:])
    return np.concatenate(pieces)


def _painted(group: list[tuple[int, int, int, int]]) -> list[_Row]:
    """Records (number, start, end, place), by start, painted over each other in the order of their numbers."""
    rows: list[_Row] = []
    edges = sorted({edge for _, start, end, _ in group for edge in (start, end)})
    live: list[tuple[int, int, int, int]] = []  # a heap, the newest on top
    coming = iter([*group, (0, edges[-1], edges[-1], 0)])
    record = next(coming)
    for here, there in pairwise(edges):
        while record[1] <= here:
            heapq.heappush(live, (-record[0], *record[1:]))
            record = next(coming)
        while live[0][2] <= here:
            heapq.heappop(live)
        _, start, _, place = live[0]
        rows.append((here, there, place + here - start))
    return rows
