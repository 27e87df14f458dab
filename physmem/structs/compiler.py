# SPDX-License-Identifier: GPL-2.0-only
"""From a declaration to a layout: every member of a struct as a :class:`Field`.

A nested struct's members follow it under dotted names, an anonymous one's
members stand in its place, and an array's elements are not taken apart: the
order and the names that DWARF readers, and ``layout.json``, have.
"""

from __future__ import annotations

from collections.abc import Iterator

import construct

from physmem.structs.cdecl import Aggregate, AnyConstruct, Bitfield, Scalar
from physmem.structs.field import Field, StructLayout

__all__ = ["compile_struct"]


def compile_struct(struct: Aggregate) -> StructLayout:
    """The layout of a declared struct."""
    return StructLayout(struct.tag or struct.ctype, struct.size, {f.name: f for f in _fields(struct, "", 0)})


def _fields(struct: Aggregate, prefix: str, base: int) -> Iterator[Field]:
    for m in struct.members:
        offset = base + m.offset
        if m.name is not None:
            yield _field(prefix + m.name, offset, m.subcon, m.doc)
        if isinstance(m.subcon, Aggregate):
            yield from _fields(m.subcon, prefix if m.name is None else f"{prefix}{m.name}.", offset)


def _field(name: str, offset: int, subcon: AnyConstruct, doc: str) -> Field:
    if isinstance(subcon, Bitfield):
        unit, bit = subcon.unit, 8 * offset + subcon.shift
        size = unit.sizeof()
        return Field(name, bit // 8, size, unit.ctype, unit.kind, unit.signed, (), bit, subcon.width, doc=doc)
    dims: list[int] = []
    while isinstance(subcon, construct.Array):
        if callable(subcon.count):
            raise TypeError(f"{name}: an array whose length depends on the data has no layout")
        dims.append(subcon.count)
        subcon = subcon.subcon
    if isinstance(subcon, Aggregate):
        return Field(name, offset, subcon.size, subcon.ctype, subcon.kind, dims=tuple(dims), tag=subcon.tag, doc=doc)
    if not isinstance(subcon, Scalar):
        raise TypeError(f"{name}: {subcon!r} is not declared in the vocabulary of cdecl")
    return Field(
        name,
        offset,
        subcon.sizeof(),
        subcon.ctype,
        subcon.kind,
        subcon.signed,
        tuple(dims),
        target=subcon.target,
        doc=doc,
    )
