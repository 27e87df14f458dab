# SPDX-License-Identifier: GPL-2.0-only
"""One struct's bytes, read field by field: for who reads a few structs, and not an array of them with numpy."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from physmem.errors import LayoutError
from physmem.structs.field import Field
from physmem.structs.layout import Layout

__all__ = ["ATOMICS", "Record"]

#: Structs of one signed counter, and its bytes; the kernel gives them no tag to look up.
ATOMICS = {"atomic_t": 4, "atomic_long_t": 8, "atomic64_t": 8}
_CODES = {1: "b", 2: "h", 4: "i", 8: "q"}


class Record:
    """A struct in memory.

    :param layout: where its fields are
    :param tag: which struct it is
    :param data: its bytes
    :param at: where in the data they begin
    """

    def __init__(self, layout: Layout, tag: str, data: bytes, at: int = 0) -> None:
        self._layout, self._tag, self._data, self._at = layout, tag, data, at

    def __getitem__(self, name: str) -> int:
        """An integer, pointer or counter; LayoutError if the field is none."""
        return self.values(name)[0]

    def values(self, name: str) -> tuple[int, ...]:
        """Those of an array."""
        f = self._layout.field(self._tag, name)
        values: tuple[int, ...] = struct.unpack_from(f"<{f.count}{self._code(f)}", self._data, self._at + f.offset)
        return values

    def records(self, name: str) -> Iterator[Record]:
        """The structs in an array of them."""
        f = self._layout.field(self._tag, name)
        if f.tag is None or f.element_size is None:
            raise LayoutError(f"{self._layout.source}: struct {self._tag}.{name} has no structs")
        for number in range(f.count):
            yield Record(self._layout, f.tag, self._data, self._at + f.offset + number * f.element_size)

    def pairs(self, name: str, first: str, second: str) -> list[tuple[int, int]]:
        """Two words of each struct in an array, where a struct is no more than two words: of list heads."""
        f = self._layout.field(self._tag, name)
        places = [self._layout.offsetof(f.tag or "", word) for word in (first, second)]
        if f.element_size != 16 or sorted(places) != [0, 8]:
            raise LayoutError(f"{self._layout.source}: struct {self._tag}.{name} is not of two words")
        words = struct.unpack_from(f"<{2 * f.count}Q", self._data, self._at + f.offset)
        pair = list(zip(words[::2], words[1::2], strict=True))
        return pair if places == [0, 8] else [(two, one) for one, two in pair]

    def _code(self, f: Field) -> str:
        """How struct calls an element."""
        if f.kind in ("int", "bool", "enum", "ptr") and not f.bitfield and f.element_size in _CODES:
            code = _CODES[f.element_size]
            return code if f.signed else code.upper()
        if f.element_size is not None and ATOMICS.get(f.type) == f.element_size:
            return _CODES[f.element_size]
        raise LayoutError(f"{self._layout.source}: struct {self._tag}.{f.name} is no integer: {f.type or 'unknown'}")
