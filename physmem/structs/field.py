# SPDX-License-Identifier: GPL-2.0-only
"""One field of a C struct, and the struct as a table of fields.

A field is described as DWARF describes it: byte offset in the outermost
struct, size, C type, and what an element is (``kind``).  The members of a
nested struct appear after it under dotted names (``lru``, ``lru.next``), as
they do in ``layout.json``; the members of an array's elements do not.
Unknown is ``None``, never a guess: a VMCOREINFO note tells the offset of a
field whose type nobody names, or a field of a struct whose size is not given.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod

__all__ = ["KINDS", "MAX_STRUCT", "Field", "StructLayout"]

MAX_STRUCT = 16 << 20
"""Most bytes of a struct that is read from a file; the largest of Linux, a pglist_data, has 174 KiB with 1024 nodes."""

KINDS = frozenset({"int", "bool", "enum", "ptr", "struct", "union", "unknown"})
"""What an element of a field can be."""


@dataclass(frozen=True, slots=True)
class Field:
    """A member of a C struct.

    :ivar offset: bytes from the start of the struct
    :ivar element_size: bytes of one element, which is the whole field unless it is an array
    :ivar type: C type of one element, as in ``unsigned long``; empty if unknown
    :ivar kind: one of :data:`KINDS`
    :ivar signed: for an ``int``: whether it is signed; ``None`` for other kinds
    :ivar dims: array dimensions, outermost first; empty if the field is no array
    :ivar bit_offset: of a bitfield: its first bit, counted from the start of the struct
    :ivar bit_size: of a bitfield: its width in bits (``element_size`` is its storage unit's)
    :ivar target: of a pointer: the C type pointed to
    :ivar tag: of a struct: its tag; ``None`` if it has none
    :ivar doc: what the field is for; empty unless the struct is declared in this package
    """

    name: str
    offset: int
    element_size: int | None
    type: str = ""
    kind: str = "unknown"
    signed: bool | None = None
    dims: tuple[int, ...] = ()
    bit_offset: int | None = None
    bit_size: int | None = None
    target: str | None = None
    tag: str | None = None
    doc: str = field(default="", compare=False)

    @property
    def count(self) -> int:
        """Number of elements: 1 if the field is no array."""
        return prod(self.dims)

    @property
    def size(self) -> int | None:
        """Bytes of the whole field."""
        return None if self.element_size is None else self.element_size * self.count

    @property
    def end_bit(self) -> int:
        """The first bit behind the field, as far as is known, counted from the start of the struct."""
        if self.bit_offset is not None and self.bit_size is not None:
            return self.bit_offset + self.bit_size
        return 8 * (self.offset + (self.size or 0))

    @property
    def bitfield(self) -> bool:
        """Whether the field is narrower than a byte address can say."""
        return self.bit_size is not None

    @property
    def spelling(self) -> str:
        """The C type of the whole field: ``unsigned long [3]``, ``struct page *[4]``."""
        if not self.dims:
            return self.type or "?"
        space = "" if self.type.endswith("*") else " "
        return self.type + space + "".join(f"[{n}]" for n in self.dims)


@dataclass(frozen=True, slots=True)
class StructLayout:
    """A C struct: its size in bytes (``None``: unknown) and its fields by name, in order of declaration."""

    name: str
    size: int | None
    fields: Mapping[str, Field]

    def table(self) -> str:
        """The struct as a text table: offset, size, type, name, and what it is for."""
        head = ("offset", "size", "type", "name", "")
        rows = [head, *(_row(f) for f in self.fields.values())]
        widths = [max(len(row[i]) for row in rows) for i in range(3)]
        name_width = max(len(row[3]) for row in rows)
        lines = [
            f"{offset:>{widths[0]}}  {size:>{widths[1]}}  {ctype:<{widths[2]}}  {name:<{name_width}}  {doc}".rstrip()
            for offset, size, ctype, name, doc in rows
        ]
        size = "size unknown" if self.size is None else f"{self.size} bytes"
        return "\n".join([f"struct {self.name}, {size}", *lines])


def _row(f: Field) -> tuple[str, str, str, str, str]:
    # A bitfield is placed as bytes.bit and sized as in C, ":3".
    if f.bit_offset is not None:
        return f"{f.offset}.{f.bit_offset - 8 * f.offset}", f":{f.bit_size}", f.spelling, f.name, f.doc
    return str(f.offset), "?" if f.size is None else str(f.size), f.spelling, f.name, f.doc
