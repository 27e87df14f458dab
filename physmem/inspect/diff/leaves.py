# SPDX-License-Identifier: GPL-2.0-only
"""A struct taken apart into its smallest named pieces, to say which of them changed.

Every byte of the struct is looked at: bytes that no field names are padding, and have a name too.
Of the members of a union, the first declared speaks for all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from physmem.structs.field import Field
from physmem.structs.layout import Layout

__all__ = ["FieldChange", "Leaf", "changes", "field_leaves", "struct_leaves"]

#: Names of the elements of an array field, by struct and field.
Labels = Mapping[tuple[str, str], Sequence[str]]

#: Bytes that a leaf has at most; what is larger and has no parts is cut up.
_WORD = 8


@dataclass(frozen=True)
class Leaf:
    """A piece of a struct, at an offset in bytes."""

    name: str
    offset: int
    size: int
    signed: bool = False


@dataclass(frozen=True)
class FieldChange:
    """A field whose bytes are not the same: before and after."""

    name: str
    old: int
    new: int


def changes(leaves: Iterable[Leaf], old: bytes, new: bytes) -> Iterator[FieldChange]:
    """The leaves in which two images of a struct differ, and the padding if it does."""
    named = bytearray(len(old))
    for leaf in leaves:
        where = slice(leaf.offset, leaf.offset + leaf.size)
        if any(named[where]):
            continue
        named[where] = b"\1" * leaf.size
        if old[where] != new[where]:
            yield FieldChange(
                leaf.name,
                int.from_bytes(old[where], "little", signed=leaf.signed),
                int.from_bytes(new[where], "little", signed=leaf.signed),
            )
    for offset, is_named in enumerate(named):
        if not is_named and old[offset] != new[offset]:
            yield FieldChange(f"padding +{offset}", old[offset], new[offset])


def struct_leaves(layout: Layout, tag: str, labels: Labels, first: Sequence[str] = ()) -> list[Leaf]:
    """The leaves of ``struct tag``.

    :param first: fields that speak for a union though others are declared before them
    """
    fields = layout.struct(tag).fields
    names = [*first, *(name for name in fields if "." not in name)]
    return [leaf for name in dict.fromkeys(names) for leaf in field_leaves(layout, tag, fields[name], labels)]


def field_leaves(layout: Layout, tag: str, field: Field, labels: Labels, base: int = 0) -> list[Leaf]:
    """The leaves of one field of ``struct tag``, counted from the struct's byte ``base`` on."""
    if field.bitfield or not field.element_size:
        return []
    found: list[Leaf] = []
    name = field.name.rpartition(".")[2]
    for number, index in enumerate(product(*map(range, field.dims))):
        known = labels.get((tag, field.name), ())
        parts = [known[i] if n == 0 and i < len(known) else str(i) for n, i in enumerate(index)]
        element = name + "".join(f"[{part}]" for part in parts)
        found += _element_leaves(layout, tag, field, labels, element, field.offset - base + number * field.element_size)
    return found


def _element_leaves(layout: Layout, tag: str, field: Field, labels: Labels, name: str, offset: int) -> list[Leaf]:
    size = field.element_size or 0
    if field.kind not in ("struct", "union"):
        return [Leaf(name, offset, size, bool(field.signed))]
    inner: list[Leaf] = []
    if field.tag in layout.structs:
        inner = struct_leaves(layout, str(field.tag), labels)
    elif not field.dims:
        start = f"{field.name}."
        members = [f for f in layout.struct(tag).fields.values() if f.name.startswith(start)]
        direct = [f for f in members if "." not in f.name[len(start) :]]
        inner = [leaf for f in direct for leaf in field_leaves(layout, tag, f, labels, base=field.offset)]
    alone = [leaf for leaf in inner if leaf.offset == 0 and leaf.size == size]
    if alone or (not inner and size <= _WORD):
        # A struct that is one number, as a lock or a counter, goes by its own name.
        return [Leaf(name, offset, size, alone[0].signed if alone else field.type.startswith("atomic"))]
    if not inner:
        return [Leaf(f"{name}+{i}", offset + i, min(_WORD, size - i)) for i in range(0, size, _WORD)]
    return [Leaf(f"{name}.{leaf.name}", offset + leaf.offset, leaf.size, leaf.signed) for leaf in inner]
