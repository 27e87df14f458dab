# SPDX-License-Identifier: GPL-2.0-only
"""The names of kallsyms, left compressed: a few are looked for, and all are expanded for who asks for all.

Which tokens a name was made of does not follow from the name.  But a number for each name is made of its tokens
(:mod:`physmem.kallsyms_walk`), without expanding any, and only names with the right number are looked at.
Interpreted that would take long; then numpy adds up how many letters each name has, and those of the right length
that begin as they should are looked at.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from physmem import engine
from physmem.errors import SymbolError
from physmem.kallsyms_walk import walk

if TYPE_CHECKING:
    import numpy as np
else:
    from physmem.later import np

__all__ = ["MAX_NAME", "MAX_TOKEN", "TOKENS", "Names"]

#: Far above what kernels have: letters of a name, bytes of a token.
MAX_NAME = 1 << 10
MAX_TOKEN = (1 << 8) - 1
TOKENS = 256
#: At a length byte: another one follows.
_LONG = 0x80
#: Odd, so that no byte of a name is lost.
_BASE = 0x100000001B3
_U64 = (1 << 64) - 1


class Names:
    """All names, in order.

    :param data: the compressed names, and what follows up to the tokens
    :param count: how many they are
    :param table: the tokens, each with a NUL behind it
    :param index: where in the table each begins
    :raises SymbolError: the tables contradict themselves
    """

    def __init__(self, data: bytes, count: int, table: bytes, index: Sequence[int]) -> None:
        ends = [table.find(b"\0", first) for first in index]
        self._tokens = [table[first:end] for first, end in zip(index, ends, strict=True)]
        if min(ends) < 0 or max(map(len, self._tokens)) > MAX_TOKEN:
            raise SymbolError("kallsyms: the tokens contradict their index")
        # A name has a byte at least: its length.
        if count > len(data):
            raise _too_many(data, count)
        self._data = data
        self._heads = memoryview(bytearray(4 * count)).cast("I")
        self._by_number = engine.current() == "compiled"
        letters = self._walk() if self._by_number else self._step()
        if letters > MAX_NAME * count:
            raise SymbolError(f"kallsyms: {letters} letters in {count} names")

    def _walk(self) -> int:
        """Find where each name is, and its number; gives the letters of all of them."""
        data, count, tokens = self._data, len(self._heads), self._tokens
        self._numbers, total = bytearray(8 * count), bytearray(8)
        self._end = walk(
            memoryview(data),
            count,
            memoryview(bytes(map(len, tokens))),
            _words(pow(_BASE, len(token), 1 << 64) for token in tokens),
            _words(map(_number, tokens)),
            _words(_number(token[1:]) for token in tokens),
            self._heads,
            memoryview(self._numbers).cast("Q"),
            memoryview(total).cast("Q"),
        )
        if self._end > len(data):
            raise _too_many(data, count)
        return int.from_bytes(total, "little")

    def _step(self) -> int:
        """The same, and the letters of each instead of its number."""
        data, heads, at = self._data, self._heads, 0
        try:
            for number in range(len(heads)):
                heads[number] = at
                length = data[at]
                if length & _LONG:
                    at += 1
                    length = (length & ~_LONG) | data[at] << 7
                at += length + 1
        except IndexError:
            at = len(data) + 1
        if at > len(data):
            raise _too_many(data, len(heads))
        self._end = at
        places = np.frombuffer(heads, np.uint32).astype(np.int64)
        is_long = np.frombuffer(data, np.uint8)[places] >= _LONG
        lengths = bytes(map(len, self._tokens)).ljust(TOKENS, b"\0")
        letters = np.frombuffer(bytearray(data[:at].translate(lengths)), np.uint8)
        letters[places] = 0
        letters[places[is_long] + 1] = 0
        self._letters = np.add.reduceat(letters, places, dtype=np.int64)
        self._firsts = places + 1 + is_long
        return int(self._letters.sum())

    def __len__(self) -> int:
        return len(self._heads)

    def __iter__(self) -> Iterator[bytes]:
        """Every name, without the letter of its kind."""
        return map(self._name, range(len(self._heads)))

    def find(self, name: str) -> int | None:
        """The number of the first symbol of this name, None if there is none."""
        wanted = name.encode("latin-1", "replace")
        if not self._by_number:
            may = np.flatnonzero(self._letters == len(wanted) + 1)
            begins = np.array([wanted.startswith(token[1:]) for token in self._tokens])
            may = may[begins[np.frombuffer(self._data, np.uint8)[self._firsts[may]]]]
            return next((number for number in may.tolist() if self._name(number) == wanted), None)
        number = _number(wanted).to_bytes(8, "little")
        at = self._numbers.find(number)
        while at >= 0:
            if at % 8 == 0 and self._name(at // 8) == wanted:
                return at // 8
            at = self._numbers.find(number, at + 1)
        return None

    def _name(self, number: int) -> bytes:
        data, head = self._data, self._heads[number]
        first = head + (2 if data[head] & _LONG else 1)
        end = self._heads[number + 1] if number + 1 < len(self._heads) else self._end
        return b"".join(map(self._tokens.__getitem__, data[first:end]))[1:]


def _number(text: bytes) -> int:
    number = 0
    for byte in text:
        number = (number * _BASE + byte + 1) & _U64
    return number


def _words(values: Iterator[int]) -> memoryview:
    return memoryview(b"".join(value.to_bytes(8, "little") for value in values)).cast("Q")


def _too_many(data: bytes, count: int) -> SymbolError:
    return SymbolError(f"kallsyms: the names of {count} symbols leave their table of {len(data)} bytes")
