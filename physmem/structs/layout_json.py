# SPDX-License-Identifier: GPL-2.0-only
"""Layouts as JSON: the ``layout.json`` of a kernel.

The document is an object of three objects.  ``structs`` maps a tag to ``size``
and ``fields``, a list of objects with ``name``, ``offset``, ``size`` (bytes),
``bit_offset``, ``bit_size``, ``bitfield``, ``type`` and what the element is:
``kind`` with ``signed`` (int), ``target`` (ptr) or ``tag`` (struct), or ``array``
(a count) and ``elem``, an object that says the same of one element.  ``enums``
maps an enum's name to its enumerators, ``constants`` a macro's name to its
value; both as integers that fit 64 bits, signed or unsigned.

The file may come from anywhere: every value is checked before it is used, and
what is wrong is reported as LayoutError with the file and the key.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import IO, Any, NoReturn

from physmem.errors import LayoutError
from physmem.structs.field import KINDS, MAX_STRUCT, Field, StructLayout

__all__ = ["dump", "load"]

MAX_FILE = 8 << 20  # bytes; parsing takes some thirty times as much
MAX_DIMS = 8
MAX_NAME = 200  # characters, of a name or a type
INT_SIZES = frozenset({1, 2, 4, 8, 16})


class _Value:
    """A value in the document, which knows its place for the sake of the error message."""

    def __init__(self, value: Any, source: str, key: str = "") -> None:
        self.value = value
        self.source = source
        self.key = key

    def fail(self, reason: str) -> NoReturn:
        raise LayoutError(f"{self.source}: {self.key or 'document'}: {reason}")

    def wrong(self, expected: str) -> NoReturn:
        self.fail(f"expected {expected}, found {_brief(self.value)}")

    def items(self) -> list[tuple[str, _Value]]:
        if not isinstance(self.value, dict):
            self.wrong("an object")
        for name in self.value:
            if not name.isprintable() or len(name) > MAX_NAME:
                self.fail(f"{_brief(name)} is no name")
        return [(name, _Value(v, self.source, f"{self.key}.{name}".lstrip("."))) for name, v in self.value.items()]

    def elements(self) -> list[_Value]:
        if not isinstance(self.value, list):
            self.wrong("an array")
        return [_Value(v, self.source, f"{self.key}[{i}]") for i, v in enumerate(self.value)]

    def get(self, name: str) -> _Value:
        """Member ``name`` of an object; a missing one is ``null``."""
        if not isinstance(self.value, dict):
            self.wrong("an object")
        return _Value(self.value.get(name), self.source, f"{self.key}.{name}".lstrip("."))

    def integer(self, low: int, high: int) -> int:
        # bool is an int to Python, not to JSON
        if not isinstance(self.value, int) or isinstance(self.value, bool) or not low <= self.value <= high:
            self.wrong(f"an integer from {low} to {high}")
        return self.value

    def size(self) -> int:
        return self.integer(0, MAX_STRUCT)

    def boolean(self) -> bool:
        if not isinstance(self.value, bool):
            self.wrong("true or false")
        return self.value

    def string(self) -> str:
        if not isinstance(self.value, str) or not self.value.isprintable() or len(self.value) > MAX_NAME:
            self.wrong("a printable string")
        return self.value

    @property
    def absent(self) -> bool:
        return self.value is None


def _brief(value: Any) -> str:
    # No repr of a whole document, nor of an integer too long for Python to print.
    if isinstance(value, (dict, list)):
        return "an object" if isinstance(value, dict) else "an array"
    if isinstance(value, int) and value.bit_length() > 128:
        return "a huge integer"
    return repr(value)[:60]


def load(
    file: str | os.PathLike[str] | IO[bytes] | IO[str],
) -> tuple[list[StructLayout], dict[str, dict[str, int]], dict[str, int], str]:
    """Structs, enums and constants of a ``layout.json``, and the name of the file.

    :raises LayoutError: the file cannot be read, or anything in it is not as described above
    """
    source = str(file if isinstance(file, (str, os.PathLike)) else getattr(file, "name", "layout"))
    top = _Value(_read(file, source), source)
    structs = [_struct(tag, value) for tag, value in top.get("structs").items()]
    enums = {name: _integers(value) for name, value in top.get("enums").items()}
    return structs, enums, _integers(top.get("constants")), source


def _read(file: str | os.PathLike[str] | IO[bytes] | IO[str], source: str) -> Any:
    try:
        if isinstance(file, (str, os.PathLike)):
            with open(file, "rb") as stream:
                text: bytes | str = stream.read(MAX_FILE + 1)
        else:
            text = file.read(MAX_FILE + 1)
        if len(text) > MAX_FILE:
            raise LayoutError(f"{source}: longer than {MAX_FILE} bytes, not a layout")
        return json.loads(text)
    except OSError as error:
        raise LayoutError(f"{source}: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise LayoutError(f"{source}: not JSON: {error}") from None


def _integers(value: _Value) -> dict[str, int]:
    return {name: v.integer(-(1 << 63), (1 << 64) - 1) for name, v in value.items()}


def _struct(tag: str, value: _Value) -> StructLayout:
    size = None if value.get("size").absent else value.get("size").size()
    fields: dict[str, Field] = {}
    for item in value.get("fields").elements():
        f = _field(item)
        if f.name in fields:
            item.get("name").fail(f"{f.name!r} appears twice")
        if size is not None and f.end_bit > 8 * size:
            item.get("offset").fail(f"{f.name!r} ends outside its struct of {size} bytes")
        fields[f.name] = f
    return StructLayout(tag, size, fields)


def _field(value: _Value) -> Field:
    element, dims = _dimensions(value)
    kind = element.get("kind").string()
    if kind not in KINDS:
        element.get("kind").fail(f"unknown kind {kind!r}")
    size = element.get("size")
    element_size = None if size.absent and kind == "unknown" else size.size()
    if (kind in ("int", "bool", "enum") and element_size not in INT_SIZES) or (kind == "ptr" and element_size != 8):
        size.fail(f"{element_size} bytes is no size of a C {kind}")
    offset = value.get("offset").size()
    bit_offset, bit_size = _bits(value, offset, element_size) if value.get("bitfield").boolean() else (None, None)
    f = Field(
        name=value.get("name").string(),
        offset=offset,
        element_size=element_size,
        type=element.get("type").string(),
        kind=kind,
        signed=element.get("signed").boolean() if kind == "int" else None,
        dims=dims,
        bit_offset=bit_offset,
        bit_size=bit_size,
        target=element.get("target").string() if kind == "ptr" else None,
        tag=None if element.get("tag").absent else element.get("tag").string(),
    )
    if f.size != value.get("size").value:
        value.get("size").wrong(f"{f.size}, as its elements take")
    return f


def _dimensions(value: _Value) -> tuple[_Value, tuple[int, ...]]:
    """The description of one element, and the dimensions around it."""
    dims: list[int] = []
    while not value.get("array").absent:
        if len(dims) == MAX_DIMS:
            value.fail(f"an array of more than {MAX_DIMS} dimensions")
        dims.append(value.get("array").size())
        value = value.get("elem")
    return value, tuple(dims)


def _bits(value: _Value, offset: int, size: int | None) -> tuple[int, int]:
    # The byte offset is that of the first bit, not of the storage unit.
    bit_offset = value.get("bit_offset").integer(8 * offset, 8 * offset + 7)
    return bit_offset, value.get("bit_size").integer(1, 8 * (size or 0))


def dump(structs: Iterable[StructLayout], enums: Mapping[str, Mapping[str, int]], constants: Mapping[str, int]) -> str:
    """The text of a ``layout.json``."""
    document = {
        "structs": {s.name: {"size": s.size, "fields": [_encode_field(f) for f in s.fields.values()]} for s in structs},
        "enums": {name: dict(enumerators) for name, enumerators in enums.items()},
        "constants": dict(constants),
    }
    return json.dumps(document, indent=1) + "\n"


def _encode_field(f: Field) -> dict[str, Any]:
    place: dict[str, Any] = {
        "name": f.name,
        "offset": f.offset,
        "bit_offset": 8 * f.offset if f.bit_offset is None else f.bit_offset,
        "bit_size": f.bit_size or (None if f.size is None else 8 * f.size),
        "bitfield": f.bitfield,
    }
    return place | _encode_type(f)


def _encode_type(f: Field) -> dict[str, Any]:
    if f.dims:
        element = _encode_type(replace(f, dims=f.dims[1:]))
        return {"type": f.spelling, "size": f.size, "array": f.dims[0], "elem": element}
    description: dict[str, Any] = {"type": f.type, "size": f.element_size, "kind": f.kind}
    if f.kind == "int":
        description["signed"] = f.signed
    elif f.kind == "ptr":
        description["target"] = f.target
    elif f.kind in ("struct", "union"):
        description["tag"] = f.tag
    return description
