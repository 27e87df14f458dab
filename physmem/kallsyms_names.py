# SPDX-License-Identifier: GPL-2.0-only
"""The names of kallsyms, left compressed: a few are looked for, and all are expanded for who asks for all.

Where each name begins is known when all before it have been walked over.  Kernels keep the place of every 256th,
in *markers* behind the names.  They let many groups of names be walked over side by side, and a walk that leads
from each marker to the next is the one that begins at the first name.

Which tokens a name was made of does not follow from the name.  But how many letters each symbol has, and with
what it begins and ends, is known without expanding any: that leaves a few to look at.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from physmem.errors import SymbolError

__all__ = ["MAX_NAME", "MAX_TOKEN", "TOKENS", "Names"]

#: Far above what kernels have: letters of a name, bytes of a token.
MAX_NAME = 1 << 10
MAX_TOKEN = (1 << 8) - 1
TOKENS = 256
#: Names between two markers.
_GROUP = 256
#: At a length byte: another one follows.
_LONG = 0x80


class Names:
    """All names, in order.

    :param data: the compressed names, and what follows up to the tokens
    :param count: how many they are
    :param table: the tokens, each with a NUL behind it
    :param index: where in the table each begins
    :raises SymbolError: the tables contradict themselves
    """

    def __init__(self, data: bytes, count: int, table: bytes, index: npt.NDArray[np.uint16]) -> None:
        ends = [table.find(b"\0", first) for first in index.tolist()]
        self._tokens = [table[first:end] for first, end in zip(index.tolist(), ends, strict=True)]
        if min(ends) < 0 or max(map(len, self._tokens)) > MAX_TOKEN:
            raise SymbolError("kallsyms: the tokens contradict their index")
        heads, end = _heads(data, count)
        self._data = np.frombuffer(data, np.uint8, end)
        is_long = self._data[heads] >= _LONG
        lengths = bytes(map(len, self._tokens)).ljust(TOKENS, b"\0")
        letters = np.frombuffer(bytearray(data[:end].translate(lengths)), np.uint8)
        letters[heads] = 0
        letters[heads[is_long] + 1] = 0
        self._letters = np.add.reduceat(letters, heads, dtype=np.int32)
        total = int(self._letters.sum(dtype=np.int64))
        if total > MAX_NAME * count:
            raise SymbolError(f"kallsyms: {total} letters in {count} names")
        #: Where the tokens of each name begin; they end at the head of the next.
        self._firsts = heads + 1 + is_long
        self._ends = np.append(heads[1:], end)

    def __len__(self) -> int:
        return len(self._firsts)

    def __iter__(self) -> Iterator[bytes]:
        """Every name, without the letter of its kind."""
        data, token = self._data.tobytes(), self._tokens.__getitem__
        for first, end in zip(self._firsts.tolist(), self._ends.tolist(), strict=True):
            yield b"".join(map(token, data[first:end]))[1:]

    def find(self, name: str) -> int | None:
        """The number of the first symbol of this name, None if there is none."""
        wanted = name.encode("latin-1", "replace")
        may = np.flatnonzero(self._letters == len(wanted) + 1)
        begins = np.array([wanted.startswith(token[1:]) for token in self._tokens])
        may = may[begins[self._data[self._firsts[may]]]]
        ends = np.array([wanted.endswith(token) or token[1:] == wanted for token in self._tokens])
        may = may[ends[self._data[self._ends[may] - 1]]]
        return next((number for number in may.tolist() if self._name(number) == wanted), None)

    def _name(self, number: int) -> bytes:
        tokens = self._data[self._firsts[number] : self._ends[number]]
        return b"".join([self._tokens[token] for token in tokens.tolist()])[1:]


def _heads(data: bytes, count: int) -> tuple[npt.NDArray[np.int64], int]:
    """Where the length of each name is, and where the names end."""
    first, at = _walk(data, 0, min(count, _GROUP), count)
    whole = count // _GROUP
    for width in ("<u4", "<u8"):
        kind = np.dtype(width)
        place = data.find(np.array([0, at], kind).tobytes(), at)
        if whole > 1 and 0 <= place <= len(data) - whole * kind.itemsize:
            markers = np.frombuffer(data, kind, whole, place).astype(np.int64)
            found = _side_by_side(data, markers, count)
            if found is not None:
                return found
    rest, at = _walk(data, at, count - len(first), count)
    return np.array(first + rest, np.int64), at


def _side_by_side(data: bytes, markers: npt.NDArray[np.int64], count: int) -> tuple[npt.NDArray[np.int64], int] | None:
    """The same by a marker for each whole group of names; None if they are none."""
    octets = np.frombuffer(data, np.uint8)
    at = markers.copy()
    heads = np.empty((len(at), _GROUP), np.int64)
    for number in range(_GROUP):
        if at.min() < 0 or at.max() + 1 >= len(octets):
            return None
        heads[:, number] = at
        length = octets[at].astype(np.int64)
        is_long = length >= _LONG
        if is_long.any():
            more = octets[at + 1].astype(np.int64) << 7
            length = np.where(is_long, (length & ~_LONG) | more, length)
            at += is_long
        at += length
        at += 1
    if (at[:-1] != markers[1:]).any():
        return None
    rest, end = _walk(data, int(at[-1]), count - heads.size, count)
    return np.concatenate([heads.reshape(-1), np.array(rest, np.int64)]), end


def _walk(data: bytes, at: int, count: int, of: int) -> tuple[list[int], int]:
    """Where the lengths of ``count`` names (of all ``of``) from ``at`` on are, and where these end."""
    heads = []
    try:
        for _ in range(count):
            heads.append(at)
            length = data[at]
            if length & _LONG:
                at += 1
                length = (length & ~_LONG) | data[at] << 7
            at += length + 1
    except IndexError:
        at = len(data) + 1
    if at > len(data):
        raise SymbolError(f"kallsyms: the names of {of} symbols leave their table of {len(data)} bytes")
    return heads, at
