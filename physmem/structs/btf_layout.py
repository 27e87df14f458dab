# SPDX-License-Identifier: GPL-2.0-only
"""Layouts that are read piece by piece: a kernel has ten thousand structs, and a reader of dumps needs a dozen.

:func:`read_types` makes such a layout of types in BTF or DWARF, :func:`read_btf`
of BTF data.  It is a :class:`Layout` like any other; a struct or an enum comes
into being when it is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

from physmem.errors import LayoutError
from physmem.structs.btf import Btf, Kind, Member, Type
from physmem.structs.field import MAX_STRUCT, Field, StructLayout
from physmem.structs.layout import Layout
from physmem.structs.lazy import Lazy, Overlay

__all__ = ["LazyLayout", "Types", "read_btf", "read_types"]

# Far above what kernels have: fields of one struct, structs and modifiers inside each other, letters of a type.
_MAX_FIELDS = 1 << 15
_MAX_DEPTH = 64
_MAX_SPELLING = 200
_MAX_DIMS = 8

_AGGREGATES = (Kind.STRUCT, Kind.UNION)
_MODIFIERS = {Kind.VOLATILE: "volatile", Kind.CONST: "const", Kind.RESTRICT: "restrict", Kind.TYPE_TAG: ""}
_KEYWORDS = {Kind.STRUCT: "struct", Kind.UNION: "union", Kind.ENUM: "enum", Kind.ENUM64: "enum"}
_SIGNED, _BOOL = 1, 4

_C_NAMES = {
    "long unsigned int": "unsigned long",
    "long int": "long",
    "short unsigned int": "unsigned short",
    "short int": "short",
    "long long unsigned int": "unsigned long long",
    "long long int": "long long",
}
"""How C code writes what compilers call it."""

_ATOMICS = frozenset({"atomic_t", "atomic_long_t", "atomic64_t"})


class Types(Protocol):
    """Numbered types, as :class:`physmem.structs.btf.Btf` has them."""

    source: str

    def find(self, name: str, *kinds: int) -> int | None: ...
    def names(self, *kinds: int) -> Iterator[str]: ...
    def all_of(self, *kinds: int) -> Iterator[Type]: ...
    def type(self, number: int) -> Type: ...
    def members(self, aggregate: Type) -> Iterator[Member]: ...
    def integer(self, number: Type) -> tuple[int, int, int]: ...
    def array(self, array: Type) -> tuple[int, int]: ...
    def parameters(self, function: Type) -> list[int]: ...
    def enumerators(self, enum: Type) -> dict[str, int]: ...
    def enumerator(self, name: str) -> int | None: ...


@dataclass(frozen=True)
class LazyLayout(Layout):
    """A layout that is read piece by piece.

    :ivar enumerators: every enumerator, of whichever enum
    """

    enumerators: Mapping[str, int] = field(repr=False)

    def __repr__(self) -> str:
        return f"<LazyLayout {self.source}>"

    @cached_property
    def _enumerators(self) -> Mapping[str, int]:
        return self.enumerators

    def only(self, other: Layout) -> Layout:
        """As much of this layout as ``other`` has a word on."""
        structs = [self.structs[tag] for tag in other.structs if tag in self.structs]
        enums = {name: self.enums[name] for name in other.enums if name in self.enums}
        constants = {name: self.constants[name] for name in other.constants if name in self.constants}
        elsewhere = {name: self.enumerators[name] for name in other._enumerators if name in self.enumerators}
        return Layout.of(structs, {"": elsewhere} | enums, constants, self.source)

    def conflicts(self, other: Layout) -> list[str]:
        return self.only(other).conflicts(other)

    def merge(self, other: Layout) -> Layout:
        both = self.only(other).merge(other)
        enums = {name: values for name, values in both.enums.items() if name}
        return LazyLayout(
            Overlay(both.structs, self.structs),
            Overlay(enums, self.enums),
            {**self.constants, **both.constants},
            both.source,
            Overlay(both._enumerators, self.enumerators),
        )

    __or__ = merge


def read_btf(data: bytes, source: str = "BTF") -> LazyLayout:
    """The layout in BTF data; ``source`` is what to call it.

    A typedef of a struct that has no tag is known by the typedef's name.

    :raises LayoutError: the data is no BTF
    """
    return read_types(Btf(data, source))


def read_types(types: Types) -> LazyLayout:
    """The layout in types; see :func:`read_btf`.  Asking it raises LayoutError where they make no sense."""
    reader = _Reader(types)
    return LazyLayout(
        Lazy(reader.struct, lambda: types.names(*_AGGREGATES)),
        Lazy(reader.enum, lambda: types.names(Kind.ENUM, Kind.ENUM64)),
        {},
        types.source,
        Lazy(types.enumerator, reader.enumerator_names),
    )


@dataclass(frozen=True)
class _Element:
    """What a field consists of, without its place: see :class:`Field` for the names."""

    size: int | None
    kind: str
    type: str
    signed: bool | None = None
    dims: tuple[int, ...] = ()
    target: str | None = None
    tag: str | None = None
    aggregate: Type | None = None


class _Reader:
    """Structs and enums of types in the terms of a layout."""

    def __init__(self, types: Types) -> None:
        self.types = types
        self._elements: dict[int, _Element] = {}
        self._spellings: dict[int, str] = {}

    def _fail(self, reason: str) -> LayoutError:
        return LayoutError(f"{self.types.source}: {reason}")

    def enum(self, name: str) -> Mapping[str, int] | None:
        number = self.types.find(name, Kind.ENUM, Kind.ENUM64)
        return None if number is None else self.types.enumerators(self.types.type(number))

    def enumerator_names(self) -> Iterator[str]:
        for enum in self.types.all_of(Kind.ENUM, Kind.ENUM64):
            yield from self.types.enumerators(enum)

    def struct(self, tag: str) -> StructLayout | None:
        """The struct or union with this tag, or the one without a tag that this is a typedef of."""
        number = self.types.find(tag, *_AGGREGATES)
        if number is None:
            number = self.types.find(tag, Kind.TYPEDEF)
            if number is None:
                return None
        aggregate = self._bare(number)
        if aggregate is None or aggregate.kind not in _AGGREGATES:
            return None
        if aggregate.ref > MAX_STRUCT:
            raise self._fail(f"struct {tag} of {aggregate.ref} bytes: at most {MAX_STRUCT} are read")
        fields: dict[str, Field] = {}
        self._add_fields(fields, aggregate, "", 0, 0)
        for f in fields.values():
            if f.end_bit > 8 * aggregate.ref:
                raise self._fail(f"struct {tag}: field {f.name!r} ends outside its {aggregate.ref} bytes")
        return StructLayout(tag, aggregate.ref, fields)

    def _bare(self, number: int) -> Type | None:
        """The type behind typedefs and qualifiers; None is void."""
        for _ in range(_MAX_DEPTH):
            if number == 0:
                return None
            found = self.types.type(number)
            if found.kind != Kind.TYPEDEF and found.kind not in _MODIFIERS:
                return found
            number = found.ref
        raise self._fail(f"type {number}: typedefs of typedefs without end")

    def _add_fields(self, fields: dict[str, Field], aggregate: Type, prefix: str, base: int, depth: int) -> None:
        """Add the members of a struct that begins at bit ``base``: as many more as it has inside them."""
        if depth > _MAX_DEPTH:
            raise self._fail(f"struct {aggregate.name}: structs inside structs without end")
        for member in self.types.members(aggregate):
            element = self._element(member.type)
            bit = base + member.bit
            name = prefix + member.name
            if member.name:
                fields.setdefault(name, self._field(name, element, bit, member.bits))
            if element.aggregate is not None and not element.dims:
                self._add_fields(fields, element.aggregate, f"{name}." if member.name else prefix, bit, depth + 1)
            if len(fields) > _MAX_FIELDS:
                raise self._fail(f"struct {aggregate.name}: more than {_MAX_FIELDS} fields")

    def _field(self, name: str, element: _Element, bit: int, bits: int) -> Field:
        return Field(
            name,
            bit // 8,
            element.size,
            element.type,
            element.kind,
            element.signed,
            element.dims,
            bit if bits else None,
            bits or None,
            element.target,
            element.tag,
        )

    def _element(self, number: int) -> _Element:
        if number not in self._elements:
            self._elements[number] = self._describe(number)
        return self._elements[number]

    def _describe(self, number: int) -> _Element:
        spelling = number  # of an array: the number of its elements
        dims: list[int] = []
        found = self._bare(number)
        while found is not None and found.kind == Kind.ARRAY:
            spelling, count = self.types.array(found)
            dims.append(count)
            if len(dims) > _MAX_DIMS:
                raise self._fail(f"type {number}: an array of more than {_MAX_DIMS} dimensions")
            found = self._bare(spelling)
        name = self.spelling(spelling)
        shape = tuple(dims)
        if found is None:
            return _Element(None, "unknown", name, dims=shape)
        if found.kind == Kind.PTR:
            return _Element(8, "ptr", name, dims=shape, target=self.spelling(found.ref))
        if found.kind == Kind.INT:
            signed = self._signed(found)
            return _Element(found.ref, "bool" if signed is None else "int", name, signed, shape)
        if found.kind in (Kind.ENUM, Kind.ENUM64):
            return _Element(found.ref, "enum", name, dims=shape)
        if found.kind in _AGGREGATES:
            kind = "struct" if found.kind == Kind.STRUCT else "union"
            signed = self._wrapped(found)
            if signed is not None and name not in _ATOMICS:
                return _Element(found.ref, "int", name, signed, shape, aggregate=found)
            return _Element(found.ref, kind, name, dims=shape, tag=found.name or None, aggregate=found)
        return _Element(found.ref if found.kind == Kind.FLOAT else None, "unknown", name, dims=shape)

    def _wrapped(self, aggregate: Type) -> bool | None:
        """Whether the integer is signed that is all there is of a struct without a tag; None if it is no such struct.

        The kernel wraps integers in structs to keep them from being mixed up (``page.flags`` since 6.18): they are
        integers for who reads memory.
        """
        if aggregate.name or aggregate.kind != Kind.STRUCT or aggregate.vlen != 1:
            return None
        member = next(self.types.members(aggregate))
        inner = self._bare(member.type)
        if inner is None or inner.kind != Kind.INT or inner.ref != aggregate.ref or member.bits:
            return None
        return self._signed(inner)

    def _signed(self, integer: Type) -> bool | None:
        """Whether an integer is signed; None for a bool."""
        flags = self.types.integer(integer)[0]
        # The compilers of BTF before 1.22 do not say it of a signed char, which the per-CPU counters of 5.10 are.
        return None if flags & _BOOL else bool(flags & _SIGNED) or integer.name == "signed char"

    # -- how C code writes it ------------------------------------------------------------------------

    def spelling(self, number: int, depth: int = 0) -> str:
        """The C type with this number, ``...`` in place of what is too long."""
        if number not in self._spellings:
            if depth > _MAX_DEPTH:
                raise self._fail(f"type {number}: types of types without end")
            text = self._spell(number, depth + 1)
            self._spellings[number] = text if len(text) <= _MAX_SPELLING else f"{text[: _MAX_SPELLING - 3]}..."
        return self._spellings[number]

    def _spell(self, number: int, depth: int) -> str:
        if number == 0:
            return "void"
        found = self.types.type(number)
        if found.kind == Kind.PTR:
            return self._pointer(found.ref, depth)
        if found.kind in _MODIFIERS:
            inner, word = self.spelling(found.ref, depth), _MODIFIERS[found.kind]
            if not word:
                return inner
            return f"{inner} {word}" if inner.endswith("*") else f"{word} {inner}"
        if found.kind == Kind.ARRAY:
            element, count = self.types.array(found)
            return f"{self.spelling(element, depth)} [{count}]"
        if found.kind == Kind.FUNC_PROTO:
            return f"{self.spelling(found.ref, depth)} ({self._parameters(found, depth)})"
        if found.kind == Kind.FWD:
            return f"{'union' if found.flag else 'struct'} {found.name}"
        if found.kind in _KEYWORDS:
            return f"{_KEYWORDS[found.kind]} {found.name}".rstrip()
        return _C_NAMES.get(found.name, found.name)

    def _pointer(self, number: int, depth: int) -> str:
        target = None if number == 0 else self.types.type(number)
        if target is not None and target.kind == Kind.FUNC_PROTO:
            return f"{self.spelling(target.ref, depth)} (*)({self._parameters(target, depth)})"
        inner = self.spelling(number, depth)
        return f"{inner}*" if inner.endswith("*") else f"{inner} *"

    def _parameters(self, function: Type, depth: int) -> str:
        numbers = self.types.parameters(function)
        texts = [self.spelling(number, depth) for number in numbers[:_MAX_DEPTH]]
        if len(numbers) > len(texts) or (numbers and numbers[-1] == 0):
            texts[-1] = "..."
        return ", ".join(texts) or "void"
