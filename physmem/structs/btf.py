# SPDX-License-Identifier: GPL-2.0-only
"""BTF: the types of a kernel, as it carries them in its own memory (since Linux 5.2).

The data, between ``__start_BTF`` and ``__stop_BTF``: a header, type records of
different lengths, strings.  A type is known by its number, which is its place in
the order of the records.  So all records are found first (:mod:`physmem.structs.btf_records`);
what they say is read when somebody asks for a struct or an enum by name.
Format: Documentation/bpf/btf.rst, include/uapi/linux/btf.h.

The data may be anything: whatever is used is checked, and every walk is bounded.
"""

from __future__ import annotations

import mmap
import struct
from array import array
from collections.abc import Iterator
from functools import cached_property
from typing import NamedTuple

from physmem.errors import LayoutError
from physmem.structs.btf_records import enumerators, records

__all__ = ["MAX_BYTES", "Btf", "Kind", "Member", "Type"]

#: The most bytes that are read; a kernel with everything built in has some 10 MiB.
MAX_BYTES = 256 << 20

MAGIC = 0xEB9F
#: magic, version, flags, hdr_len; then offset and length of the types and of the strings, from the end of the header
_HEADER = struct.Struct("<HBBIIIII")
#: Behind it since 7.2: offset and length of the sizes of the records, two u8 and a u16 for each kind.
_LAYOUT = struct.Struct("<II")
_LAYOUT_ENTRY = 4


class Kind:
    """BTF_KIND_*: what a type is."""

    INT = 1
    PTR = 2
    ARRAY = 3
    STRUCT = 4
    UNION = 5
    ENUM = 6
    FWD = 7
    TYPEDEF = 8
    VOLATILE = 9
    CONST = 10
    RESTRICT = 11
    FUNC = 12
    FUNC_PROTO = 13
    VAR = 14
    DATASEC = 15
    FLOAT = 16
    DECL_TAG = 17
    TYPE_TAG = 18
    ENUM64 = 19


#: Bytes behind a record, and bytes for each of its elements.
_FIXED = {Kind.INT: 4, Kind.ARRAY: 12, Kind.VAR: 4, Kind.DECL_TAG: 4}
_ELEMENT = {Kind.STRUCT: 12, Kind.UNION: 12, Kind.ENUM: 8, Kind.FUNC_PROTO: 8, Kind.DATASEC: 12, Kind.ENUM64: 12}
_MAX_KIND = Kind.ENUM64
_PRIVATE = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
#: Words behind a record of a kind that nobody told.
_UNKNOWN = (1 << 32) - 1


class Type(NamedTuple):
    """A type's record.

    :ivar kind: one of :class:`Kind`
    :ivar name: empty if it has none
    :ivar flag: kind_flag: of a struct, that offsets have a bitfield's width in them; of an enum, that it is signed
    :ivar vlen: number of its members, enumerators or parameters
    :ivar ref: bytes of an int, struct, union, enum or float; number of the type that the others refer to
    :ivar at: where its elements begin: an index of 32-bit words
    """

    kind: int
    name: str
    flag: bool
    vlen: int
    ref: int
    at: int


class Member(NamedTuple):
    """A member of a struct or union: name, number of its type, its first bit, and the width of a bitfield or 0."""

    name: str
    type: int
    bit: int
    bits: int


class Btf:
    """The types in BTF data.  Type 0 is ``void``.

    :param data: all of the data, from the header on
    :param source: what to call it in messages
    :raises LayoutError: the data is no BTF, or its records do not fit it
    """

    def __init__(self, data: bytes, source: str) -> None:
        self.source = source
        if len(data) < _HEADER.size or len(data) > MAX_BYTES:
            raise LayoutError(f"{source}: {len(data)} bytes: not BTF")
        magic, version, _, header, type_at, type_size, string_at, string_size = _HEADER.unpack_from(data)
        if (magic, version) != (MAGIC, 1):
            raise LayoutError(f"{source}: magic {magic:#x}, version {version}: not BTF, which has {MAGIC:#x} and 1")
        for what, start, size in (("types", type_at, type_size), ("strings", string_at, string_size)):
            if header < _HEADER.size or header + start + size > len(data):
                raise LayoutError(f"{source}: {size} bytes of {what} at {header + start:#x}: outside the data")
        sizes = self._record_sizes(data, header)
        first = header + type_at
        self._words = memoryview(data)[first : first + (type_size & ~3)].cast("I")
        self._strings = data[header + string_at : header + string_at + string_size]
        self._find_records(sizes)

    # -- finding -----------------------------------------------------------------------------------

    def _record_sizes(self, data: bytes, header: int) -> list[tuple[int, int]]:
        """For each kind, how many words follow the record, and how many each of its elements has."""
        sizes = [(_FIXED.get(kind, 0) // 4, _ELEMENT.get(kind, 0) // 4) for kind in range(_MAX_KIND + 1)]
        if header >= _HEADER.size + _LAYOUT.size:
            start, size = _LAYOUT.unpack_from(data, _HEADER.size)
            entries = data[header + start : header + start + size]
            for at in range(_LAYOUT_ENTRY * len(sizes), min(len(entries), _LAYOUT_ENTRY << 7) - 3, _LAYOUT_ENTRY):
                sizes.append((entries[at] // 4, entries[at + 1] // 4))
        return sizes

    def _find_records(self, sizes: list[tuple[int, int]]) -> None:
        """Where each record begins, an index of words; its name, and its kind."""
        fixed, each = array("I", [_UNKNOWN]) * 128, array("I", [0]) * 128
        for kind, (behind, element) in enumerate(sizes):
            fixed[kind], each[kind] = behind, element
        most = len(self._words) // 3
        # Memory that is not touched costs nothing: records are longer than that.
        room = memoryview(mmap.mmap(-1, 9 * most + 4, flags=_PRIVATE))
        starts, names, kinds = room[: 4 * most].cast("I"), room[4 * most : 8 * most].cast("I"), room[8 * most :]
        count = records(self._words, memoryview(fixed), memoryview(each), starts, names, kinds)
        self._starts, self._kinds, self._names = starts[:count], bytes(kinds[:count]), bytes(names[:count])
        end = self._end(starts[count - 1], sizes) if count else 0
        if end == len(self._words):
            return
        if end + 1 < len(self._words) and (self._words[end + 1] >> 24 & 0x7F) < len(sizes):
            raise LayoutError(f"{self.source}: type {count + 1} ends outside the types")
        raise LayoutError(f"{self.source}: type {count + 1}: a record of an unknown kind, or cut short")

    def _end(self, start: int, sizes: list[tuple[int, int]]) -> int:
        """Where the record ends that begins at ``start``."""
        info = self._words[start + 1]
        behind, element = sizes[info >> 24 & 0x7F]
        return start + 3 + behind + element * (info & 0xFFFFFF)

    def __len__(self) -> int:
        """Number of types, without ``void``."""
        return len(self._starts)

    def find(self, name: str, *kinds: int) -> int | None:
        """Number of the first type of one of these kinds that has the name; None if there is none."""
        offset = self.string_offset(name)
        if offset is None:
            return None
        return next((number + 1 for number in _places(self._names, offset) if self._kinds[number] in kinds), None)

    def names(self, *kinds: int) -> Iterator[str]:
        """The names of all types of these kinds, in their order, each once."""
        names = memoryview(self._names).cast("I")
        offsets = dict.fromkeys(names[number] for number in self._of(*kinds))
        return (self.string(offset) for offset in offsets if offset)

    def all_of(self, *kinds: int) -> Iterator[Type]:
        """All types of these kinds, in their order."""
        return (self.type(number + 1) for number in self._of(*kinds))

    def _of(self, *kinds: int) -> Iterator[int]:
        return (number for number, kind in enumerate(self._kinds) if kind in kinds)

    def string_offset(self, text: str) -> int | None:
        """Where ``text`` is among the strings, each of which is there once."""
        if not text or not text.isascii() or "\0" in text:
            return None
        at = self._strings.find(b"\0" + text.encode("ascii") + b"\0")
        return None if at < 0 else at + 1

    def string(self, offset: int) -> str:
        """The string at ``offset``."""
        end = self._strings.find(b"\0", offset)
        if end < 0:
            raise LayoutError(f"{self.source}: no string at {offset:#x}")
        return self._strings[offset:end].decode("latin-1")

    # -- reading -----------------------------------------------------------------------------------

    def type(self, number: int) -> Type:
        """The type with this number."""
        if not 0 < number <= len(self._starts):
            raise LayoutError(f"{self.source}: no type {number}: there are {len(self._starts)}")
        at = self._starts[number - 1]
        name, info, ref = self._words[at], self._words[at + 1], self._words[at + 2]
        return Type(info >> 24 & 0x7F, self.string(name), bool(info >> 31), info & 0xFFFFFF, ref, at + 3)

    def members(self, aggregate: Type) -> Iterator[Member]:
        """The members of a struct or union."""
        for at in range(aggregate.at, aggregate.at + 3 * aggregate.vlen, 3):
            name, number, place = self._words[at : at + 3]
            if aggregate.flag:
                yield Member(self.string(name), number, place & 0xFFFFFF, place >> 24)
            else:
                yield Member(self.string(name), number, place, 0)

    def integer(self, number: Type) -> tuple[int, int, int]:
        """Of an int: its BTF_INT_* flags, and where in its bytes its bits begin and how many they are."""
        word = self._words[number.at]
        return word >> 24 & 0xF, word >> 16 & 0xFF, word & 0xFF

    def array(self, array: Type) -> tuple[int, int]:
        """Of an array: number of the type of its elements, and how many it has."""
        return self._words[array.at], self._words[array.at + 2]

    def parameters(self, function: Type) -> list[int]:
        """Of a FUNC_PROTO: the numbers of the types of its parameters; a last 0 stands for ``...``."""
        return self._words[function.at + 1 : function.at + 2 * function.vlen : 2].tolist()

    def enumerators(self, enum: Type) -> dict[str, int]:
        """The enumerators of an enum, in order of declaration."""
        return {self.string(name): value for name, value in self._enumerators(enum)}

    def _enumerators(self, enum: Type) -> Iterator[tuple[int, int]]:
        width = 3 if enum.kind == Kind.ENUM64 else 2
        bits = 32 * (width - 1)
        signed = enum.flag or (width == 2 and not self._says_signedness)
        for at in range(enum.at, enum.at + width * enum.vlen, width):
            value = self._words[at + 1]
            if width == 3:
                value |= self._words[at + 2] << 32
            yield self._words[at], value - (1 << bits) if signed and value >> bits - 1 else value

    @cached_property
    def _says_signedness(self) -> bool:
        # Before 6.0 no enum has the flag, and all are signed.
        return self._all_enumerators[2]

    @cached_property
    def _all_enumerators(self) -> tuple[bytes, memoryview, bool]:
        """The offset of the name of every enumerator; the number of its enum; whether any enum is said to be signed."""
        most = len(self._words) // 2
        room = memoryview(mmap.mmap(-1, 8 * most + 4, flags=_PRIVATE))
        names, owners = room[: 4 * most].cast("I"), room[4 * most : 8 * most].cast("I")
        signed = memoryview(bytearray(8)).cast("Q")
        kinds = memoryview(self._kinds)
        count = enumerators(self._words, self._starts, kinds, len(kinds), Kind.ENUM, Kind.ENUM64, names, owners, signed)
        return bytes(names[:count]), owners[:count], bool(signed[0])

    def enumerator(self, name: str) -> int | None:
        """The value of an enumerator, of whichever enum; None if there is none of that name."""
        offset = self.string_offset(name)
        if offset is None:
            return None
        names, owners, _ = self._all_enumerators
        at = next(_places(names, offset), None)
        if at is None:
            return None
        enum = self.type(owners[at])
        return next(value for place, value in self._enumerators(enum) if place == offset)


def _places(words: bytes, value: int) -> Iterator[int]:
    """Where among words of 32 bits a value is."""
    wanted = value.to_bytes(4, "little")
    at = words.find(wanted)
    while at >= 0:
        if at % 4 == 0:
            yield at // 4
        at = words.find(wanted, at + 1)
