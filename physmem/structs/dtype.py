# SPDX-License-Identifier: GPL-2.0-only
"""numpy's view of a C struct: a structured dtype with the kernel's own offsets.

A dtype reads a whole array of structs at once (``np.frombuffer(memory, dtype)``
over the page array), with no call per field.  Union members overlap, which
numpy allows.  Names are those of the layout, dots included.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from physmem.errors import LayoutError
from physmem.structs.field import Field, StructLayout
from physmem.structs.record import ATOMICS

__all__ = ["struct_dtype"]


def struct_dtype(
    structs: Mapping[str, StructLayout], tag: str, names: Iterable[str] | None, source: str
) -> np.dtype[np.void]:
    """The dtype of ``struct tag``, with the fields ``names``.

    By default: every field that numpy can say and that is not inside another
    one - a nested struct is there as a whole, its dotted members are not.

    :raises LayoutError: a field is unknown, a bitfield, of no bytes or of unknown size
    """
    return _struct(structs, tag, None if names is None else list(names), source, ())


def _struct(
    structs: Mapping[str, StructLayout], tag: str, names: list[str] | None, source: str, around: tuple[str, ...]
) -> np.dtype[np.void]:
    struct = structs.get(tag)
    if struct is None:
        raise LayoutError(f"{source}: no struct {tag!r}")
    if tag in around:
        raise LayoutError(f"{source}: struct {tag} contains itself")
    if struct.size is None:
        raise LayoutError(f"{source}: the size of struct {tag} is unknown")
    if names is None:
        names = [f.name for f in struct.fields.values() if "." not in f.name and _obstacle(f) is None]
    members = []
    for name in names:
        f = struct.fields.get(name)
        reason = "unknown" if f is None else _obstacle(f)
        if f is None or reason is not None:
            raise LayoutError(f"{source}: struct {tag}: field {name!r} has no dtype: {reason}")
        element = _element(structs, struct, f, source, (*around, tag))
        members.append((name, (element, f.dims) if f.dims else element, f.offset))
    return np.dtype(
        {
            "names": [name for name, _, _ in members],
            "formats": [form for _, form, _ in members],
            "offsets": [offset for _, _, offset in members],
            "itemsize": struct.size,
        }
    )


def _obstacle(f: Field) -> str | None:
    """Why numpy cannot name this field; ``None`` if it can."""
    if f.bitfield:
        return "a bitfield"
    if f.size is None:
        return "its size is unknown"
    return None if f.size else "it has no bytes"


def _element(
    structs: Mapping[str, StructLayout], struct: StructLayout, f: Field, source: str, around: tuple[str, ...]
) -> np.dtype[Any]:
    dtype: np.dtype[Any]
    if f.kind in ("int", "bool", "enum", "ptr") and f.element_size in (1, 2, 4, 8):
        dtype = np.dtype(f"<{'i' if f.signed else 'u'}{f.element_size}")
    elif f.type in ATOMICS:
        dtype = np.dtype(f"<i{ATOMICS[f.type]}")
    elif f.tag is not None and f.tag in structs:
        dtype = _struct(structs, f.tag, None, source, around)
    else:
        dtype = np.dtype(f"V{f.element_size}")
    if dtype.itemsize != f.element_size:
        raise LayoutError(
            f"{source}: struct {struct.name}.{f.name}: {f.element_size} bytes, but {f.type} has {dtype.itemsize}"
        )
    return dtype
