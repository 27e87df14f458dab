# SPDX-License-Identifier: GPL-2.0-only
"""What is known of a kernel's data structures, wherever it came from.

A :class:`Layout` is a set of structs, enums and constants together with the name
of their source.  It is compiled from the declarations of a kernel
(``linux_4_0.layout``), read from a ``layout.json``, or gathered from what a
VMCOREINFO note tells; two that agree can be merged.  Asked for something it does
not know, it raises LayoutError naming the thing and the source: an unknown
offset is never a default.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import IO, TYPE_CHECKING, TypeVar

from physmem.errors import LayoutError
from physmem.structs import layout_json, vmcoreinfo_layout
from physmem.structs.field import Field, StructLayout

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Field", "Layout", "StructLayout"]

T = TypeVar("T")

_U64 = (1 << 64) - 1


@dataclass(frozen=True)
class Layout:
    """Structs by tag, enums by name, constants by name, and where they came from.

    A typedef'd struct has the name DWARF gives it (``pglist_data`` for
    ``pg_data_t``, ``__wait_queue_head`` for ``wait_queue_head_t``).
    """

    structs: Mapping[str, StructLayout]
    enums: Mapping[str, Mapping[str, int]]
    constants: Mapping[str, int]
    source: str

    def __repr__(self) -> str:
        return f"<Layout {self.source}: {len(self.structs)} structs>"

    # --- asking ---------------------------------------------------------------------------------

    def struct(self, tag: str) -> StructLayout:
        """The struct with this tag."""
        try:
            return self.structs[tag]
        except KeyError:
            raise LayoutError(f"{self.source}: no struct {tag!r}") from None

    def field(self, tag: str, name: str) -> Field:
        """A field of a struct; members of nested structs have dotted names (``lru.next``)."""
        try:
            return self.struct(tag).fields[name]
        except KeyError:
            raise LayoutError(f"{self.source}: struct {tag} has no field {name!r}") from None

    def has(self, tag: str, name: str | None = None) -> bool:
        """Whether the struct, or the field of the struct, is known."""
        struct = self.structs.get(tag)
        return struct is not None and (name is None or name in struct.fields)

    def offsetof(self, tag: str, name: str) -> int:
        """Offset of a field, in bytes from the start of its struct."""
        return self.field(tag, name).offset

    def sizeof(self, tag: str, name: str | None = None) -> int:
        """Size in bytes of a struct, or of one of its fields (of all elements, if it is an array)."""
        size = self.struct(tag).size if name is None else self.field(tag, name).size
        if size is None:
            what = tag if name is None else f"{tag}.{name}"
            raise LayoutError(f"{self.source}: the size of struct {what} is unknown")
        return size

    def lengthof(self, tag: str, name: str) -> int:
        """Number of elements in an array field (its outermost dimension)."""
        f = self.field(tag, name)
        if not f.dims:
            raise LayoutError(f"{self.source}: the length of struct {tag}.{name} is unknown, or it is no array")
        return f.dims[0]

    def enum(self, name: str) -> Mapping[str, int]:
        """The enumerators of an enum, in order of declaration."""
        try:
            return self.enums[name]
        except KeyError:
            raise LayoutError(f"{self.source}: no enum {name!r}") from None

    @cached_property
    def _enumerators(self) -> Mapping[str, int]:
        # C has one name space for the enumerators of all enums.
        return {name: value for enum in self.enums.values() for name, value in enum.items()}

    def enumerator(self, name: str) -> int:
        """The value of an enumerator, of whichever enum."""
        try:
            return self._enumerators[name]
        except KeyError:
            raise LayoutError(f"{self.source}: no enumerator {name!r}") from None

    def constant(self, name: str, *, signed: bool = False) -> int:
        """The value of a macro, or failing that of an enumerator: C code cannot tell which it is.

        Constants are kept as unsigned 64-bit integers, so that -128 is 2**64 - 128.

        :param signed: read it as a signed 64-bit integer instead
        """
        value = self.constants.get(name)
        if value is None:
            value = self._enumerators.get(name)
        if value is None:
            raise LayoutError(f"{self.source}: no constant {name!r}")
        return (value & _U64) - (1 << 64) if signed and value >> 63 else value

    def dtype(self, tag: str, names: Iterable[str] | None = None) -> np.dtype[np.void]:
        """A numpy structured dtype of the struct's size with these fields (by default all) at their offsets.

        :raises LayoutError: a field has no dtype (see :mod:`physmem.structs.dtype`)
        """
        from physmem.structs.dtype import struct_dtype  # numpy takes longer to import than all of physmem

        return struct_dtype(self.structs, tag, names, self.source)

    # --- coming and going -----------------------------------------------------------------------

    @classmethod
    def of(
        cls,
        structs: Iterable[StructLayout],
        enums: Mapping[str, Mapping[str, int]],
        constants: Mapping[str, int],
        source: str,
    ) -> Layout:
        """A layout that nobody can change afterwards; constants are brought to unsigned 64 bits."""
        return cls(
            MappingProxyType({s.name: StructLayout(s.name, s.size, MappingProxyType(dict(s.fields))) for s in structs}),
            MappingProxyType({name: MappingProxyType(dict(values)) for name, values in enums.items()}),
            MappingProxyType({name: value & _U64 for name, value in constants.items()}),
            source,
        )

    @classmethod
    def from_json(cls, file: str | os.PathLike[str] | IO[bytes] | IO[str]) -> Layout:
        """Read a ``layout.json`` (format: :mod:`physmem.structs.layout_json`).

        :raises LayoutError: the file is unreadable or malformed; the message names the file and the key
        """
        structs, enums, constants, source = layout_json.load(file)
        return cls.of(structs, enums, constants, source)

    @classmethod
    def from_vmcoreinfo(cls, note: Mapping[str, str]) -> Layout:
        """What the SIZE, OFFSET, LENGTH and NUMBER lines of a VMCOREINFO note tell.

        :param note: the lines, as in ``{"SIZE(page)": "64"}``
        """
        structs, enums, constants = vmcoreinfo_layout.gather(note)
        return cls.of(structs, enums, constants, "VMCOREINFO")

    def to_json(self) -> str:
        """The text of a ``layout.json``."""
        return layout_json.dump(self.structs.values(), self.enums, self.constants)

    # --- two sources ----------------------------------------------------------------------------

    @cached_property
    def _facts(self) -> dict[str, int]:
        """All numbers of the layout, each under words that say what it is."""
        facts = {f"enumerator {name}": value for name, value in self._enumerators.items()}
        facts |= {f"constant {name}": value for name, value in self.constants.items()}
        for struct in self.structs.values():
            sizes = {f"sizeof(struct {struct.name})": struct.size}
            for f in struct.fields.values():
                facts[f"offsetof(struct {struct.name}, {f.name})"] = f.offset
                sizes[f"sizeof(struct {struct.name}.{f.name})"] = f.size
            facts |= {what: size for what, size in sizes.items() if size is not None}
        return facts

    def conflicts(self, other: Layout) -> list[str]:
        """Every fact on which the two layouts disagree, in words."""
        return [
            f"{what} is {mine} in {self.source}, {theirs} in {other.source}"
            for what, mine in self._facts.items()
            if (theirs := other._facts.get(what, mine)) != mine
        ]

    def merge(self, other: Layout) -> Layout:
        """All that the two layouts know together; ``a | b`` is the same.

        :raises LayoutError: they disagree, so that they cannot be of one kernel; names the first :meth:`conflicts`
        """
        if conflicts := self.conflicts(other):
            more = f" (and {len(conflicts) - 1} more conflicts)" if len(conflicts) > 1 else ""
            raise LayoutError(conflicts[0] + more)
        structs = (_complete_struct(tag, self, other) for tag in _union(self.structs, other.structs))
        enums = {
            name: _union(self.enums.get(name, {}), other.enums.get(name, {}))
            for name in _union(self.enums, other.enums)
        }
        constants = _union(self.constants, other.constants)
        return Layout.of(structs, enums, constants, f"{self.source} + {other.source}")

    __or__ = merge


def _union(a: Mapping[str, T], b: Mapping[str, T]) -> dict[str, T]:
    """Both mappings, in the order of the larger one; where both have a name, the value in ``a``."""
    names = [*a, *b] if len(a) >= len(b) else [*b, *a]
    return {name: a[name] if name in a else b[name] for name in names}


def _complete_struct(tag: str, a: Layout, b: Layout) -> StructLayout:
    """A struct of two layouts that do not disagree: the size and each field from whichever knows it."""
    if not a.has(tag) or not b.has(tag):
        return (a if a.has(tag) else b).struct(tag)
    mine, theirs = a.struct(tag), b.struct(tag)
    untyped = {name for name, f in mine.fields.items() if f.kind == "unknown" and name in theirs.fields}
    fields = _union(mine.fields, theirs.fields) | {name: theirs.fields[name] for name in untyped}
    return StructLayout(tag, theirs.size if mine.size is None else mine.size, fields)
