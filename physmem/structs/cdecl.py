# SPDX-License-Identifier: GPL-2.0-only
"""A vocabulary for declaring C structs with construct.

A declaration reads as the C one does, and each piece of it is a construct::

    free_area = struct("free_area",
        "free_list" / list_head[6],
        "nr_free" / unsigned_long,
    )
    free_area.parse(memory).nr_free

What construct lacks is here: every type knows its C spelling, and a struct
places its members by the rules of the System V ABI for x86-64 - each member at
a multiple of its alignment, the whole a multiple of the largest.  A struct or
union given without a name is anonymous: its members are the enclosing one's.

Parsing gives every member of a union.  Building writes the first one it is
given, members that are not given are zero, and padding is zero.
"""

from __future__ import annotations

import copy
import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, TypeVar

import construct
from construct import Construct, ConstructError, Container

if TYPE_CHECKING:
    AnyConstruct = Construct[Any, Any]
    AnySubconstruct = construct.Subconstruct[Any, Any, Any, Any]
    AnyContainer = Container[Any]
else:  # construct's classes are generic to its type stubs alone
    AnyConstruct = Construct
    AnySubconstruct = construct.Subconstruct
    AnyContainer = Container

__all__ = [
    "Aggregate",
    "Bitfield",
    "Member",
    "Scalar",
    "bits",
    "bool_",
    "char",
    "enum",
    "int_",
    "long",
    "ptr",
    "s8",
    "struct",
    "typedef",
    "u8",
    "u16",
    "union",
    "unsigned_int",
    "unsigned_long",
    "unsigned_short",
    "when",
]


class Scalar(AnySubconstruct):
    """An integer, bool, enum or pointer: one of construct's little-endian fields with its C type.

    :ivar ctype: its C spelling
    :ivar kind: ``int``, ``bool``, ``enum`` or ``ptr``
    :ivar signed: of an ``int``; ``None`` otherwise
    :ivar target: of a ``ptr``: the C type pointed to
    """

    def __init__(
        self, subcon: AnyConstruct, ctype: str, kind: str, signed: bool | None = None, target: str | None = None
    ) -> None:
        super().__init__(subcon)
        self.ctype = ctype
        self.kind = kind
        self.signed = signed
        self.target = target


class Bitfield(AnyConstruct):
    """Some bits of an integer; the struct it is declared in decides which."""

    def __init__(self, unit: Scalar, width: int, shift: int = 0) -> None:
        super().__init__()
        self.unit = unit
        self.width = width
        self.shift = shift

    def _parse(self, stream: IO[bytes], context: Any, path: str) -> int:
        value: int = self.unit._parsereport(stream, context, path)
        return value >> self.shift & (1 << self.width) - 1

    def _build(self, obj: int, stream: IO[bytes], context: Any, path: str) -> int:
        if not 0 <= obj < 1 << self.width:
            raise ConstructError(f"{obj} does not fit {self.width} bits", path)
        return self.unit._build(obj << self.shift, stream, context, path)

    def _sizeof(self, context: Any, path: str) -> int:
        return self.unit._sizeof(context, path)


class Record(AnyContainer):
    """A parsed struct.  construct's own container overlooks members that begin with ``_``; struct page has two."""

    __eq__ = dict.__eq__
    __ne__ = dict.__ne__
    __repr__ = dict.__repr__
    __str__ = dict.__repr__
    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True)
class Member:
    """A member in its place: ``offset`` bytes into the struct or union it was declared in."""

    name: str | None
    subcon: AnyConstruct
    offset: int
    doc: str

    @property
    def names(self) -> Iterable[str]:
        """The names by which C code reaches it: its own, or those inside it if it has none."""
        return [self.name] if self.name is not None else aggregate(self.subcon).names


class Aggregate(AnyConstruct):
    """A struct or union with its members in place.

    :ivar kind: ``struct`` or ``union``
    :ivar tag: its tag, ``None`` if it has none
    :ivar ctype: its C spelling: ``struct tag``, or the name of a typedef
    :ivar align: alignment in bytes
    :ivar size: size in bytes
    """

    def __init__(self, kind: str, tag: str | None, members: list[Member], align: int) -> None:
        super().__init__()
        self.kind = kind
        self.tag = tag
        self.ctype = f"{kind} {tag}"
        self.members = members
        self.align = align
        end = max((m.offset + m.subcon.sizeof() for m in members), default=0)
        self.size = _round_up(end, align)
        self.names = [name for m in members for name in m.names]

    def _parse(self, stream: IO[bytes], context: Any, path: str) -> Record:
        data = construct.stream_read(stream, self.size, path)
        record = Record()
        for m in self.members:
            value = m.subcon._parsereport(io.BytesIO(data[m.offset :]), context, f"{path} -> {m.name}")
            record.update(value if m.name is None else {m.name: value})
        return record

    def _build(self, obj: Mapping[str, Any], stream: IO[bytes], context: Any, path: str) -> Any:
        for name in obj:
            if name not in self.names:
                raise ConstructError(f"{self.ctype} has no member {name!r}", path)
        construct.stream_write(stream, self._image(obj), self.size, path)
        return obj

    def _image(self, obj: Mapping[str, Any]) -> bytes:
        image = bytearray(self.size)
        given = [m for m in self.members if not obj.keys().isdisjoint(m.names)]
        for m in given[:1] if self.kind == "union" else given:
            part = aggregate(m.subcon)._image(obj) if m.name is None else m.subcon.build(obj[m.name])
            for i, byte in enumerate(part, m.offset):
                image[i] |= byte  # members share no bit; bitfields share bytes
        return bytes(image)

    def _sizeof(self, context: Any, path: str) -> int:
        return self.size


def aggregate(subcon: AnyConstruct) -> Aggregate:
    """Assert that an unnamed member is a struct or union: C allows no other."""
    if not isinstance(subcon, Aggregate):
        raise TypeError(f"a member without a name must be a struct or union, not {subcon!r}")
    return subcon


def struct(tag: str | None, *members: AnyConstruct, align: int = 1) -> Aggregate:
    """Declare a struct: members one after the other, each naturally aligned.

    :param align: a larger alignment, as by ``__attribute__((aligned))``
    """
    placed: list[Member] = []
    bit = 0  # where the next member may begin
    for name, subcon, doc in map(_unwrap, members):
        if isinstance(subcon, Bitfield):
            unit = 8 * subcon.sizeof()
            # A bitfield may begin at any bit, but does not straddle the storage units of its type.
            if bit // unit != (bit + subcon.width - 1) // unit:
                bit = _round_up(bit, unit)
            shifted = Bitfield(subcon.unit, subcon.width, bit % unit)
            placed.append(Member(name, shifted, bit // unit * unit // 8, doc))
            bit += subcon.width
        else:
            offset = _round_up(bit, 8 * _alignof(subcon)) // 8
            placed.append(Member(name, subcon, offset, doc))
            bit = 8 * (offset + subcon.sizeof())
    return Aggregate("struct", tag, placed, max([align, *(_alignof(m.subcon) for m in placed)]))


def union(tag: str | None, *members: AnyConstruct) -> Aggregate:
    """Declare a union: all members at offset 0."""
    placed = [Member(name, subcon, 0, doc) for name, subcon, doc in map(_unwrap, members)]
    return Aggregate("union", tag, placed, max(_alignof(m.subcon) for m in placed))


def _unwrap(member: AnyConstruct) -> tuple[str | None, AnyConstruct, str]:
    """Name, type and documentation of ``"name" / type * "documentation"``, which construct nests as Renamed."""
    name, doc = member.name, member.docs
    while isinstance(member, construct.Renamed):
        member = member.subcon
    return name, member, doc


def _alignof(subcon: AnyConstruct) -> int:
    if isinstance(subcon, Aggregate):
        return subcon.align
    if isinstance(subcon, construct.Array):
        return _alignof(subcon.subcon)
    return subcon.sizeof()  # an integer or pointer


def _round_up(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple


def when(condition: bool, *members: AnyConstruct) -> Iterator[AnyConstruct]:
    """The members that are there under an ``#ifdef``: ``*when(c.numa, "node" / int_)``."""
    return iter(members if condition else ())


CType = TypeVar("CType", Scalar, Aggregate)


def typedef(name: str, ctype: CType) -> CType:
    """The same type under another name."""
    alias = copy.copy(ctype)
    alias.ctype = name
    return alias


def ptr(target: str, ctype: str | None = None) -> Scalar:
    """A pointer; its value is the address, an int.

    :param target: the C type pointed to
    :param ctype: the spelling, where ``target *`` is not C
    """
    return Scalar(construct.Int64ul, ctype or f"{target} *", "ptr", target=target)


def enum(name: str, values: Mapping[str, int]) -> Scalar:
    """An enum; its values parse to their names, or to a number that has none."""
    return Scalar(construct.Enum(construct.Int32ul, **values), f"enum {name}", "enum")


def bits(unit: Scalar, width: int) -> Bitfield:
    """A bitfield: ``"inuse" / bits(unsigned_int, 16)`` is C's ``unsigned inuse:16``."""
    return Bitfield(unit, width)


char = Scalar(construct.Int8sl, "char", "int", signed=True)
s8 = Scalar(construct.Int8sl, "s8", "int", signed=True)
u8 = Scalar(construct.Int8ul, "u8", "int", signed=False)
u16 = Scalar(construct.Int16ul, "u16", "int", signed=False)
bool_ = Scalar(construct.Flag, "bool", "bool")
unsigned_short = Scalar(construct.Int16ul, "unsigned short", "int", signed=False)
int_ = Scalar(construct.Int32sl, "int", "int", signed=True)
unsigned_int = Scalar(construct.Int32ul, "unsigned int", "int", signed=False)
long = Scalar(construct.Int64sl, "long", "int", signed=True)
unsigned_long = Scalar(construct.Int64ul, "unsigned long", "int", signed=False)
