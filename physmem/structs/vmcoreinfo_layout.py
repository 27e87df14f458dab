# SPDX-License-Identifier: GPL-2.0-only
"""The partial layout in a VMCOREINFO note.

The kernel writes ``SIZE(struct)``, ``OFFSET(struct.field)``, ``LENGTH(array)`` and
``NUMBER(name)`` lines for the tools that filter dumps (kernel/kexec.c and the
arch_crash_save_vmcoreinfo() of 4.0).  They tell where a field is, not what it
is; its C type is known here for the fields whose type has been the same in
every kernel that exports them, and stays unknown for the others.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from physmem.errors import LayoutError
from physmem.structs.field import MAX_STRUCT, Field, StructLayout

__all__ = ["gather"]

_LINE = re.compile(r"(SIZE|OFFSET|LENGTH|NUMBER)\(([\w.]{1,200})\)", re.ASCII)

_NUMBER = re.compile(r"-?[0-9]{1,20}|0x[0-9a-fA-F]{1,16}", re.ASCII)

_UNSIGNED_LONG = ("unsigned long", "int", 8)
_INT = ("int", "int", 4)
_ATOMIC = ("atomic_t", "struct", 4)
_LIST = ("struct list_head", "struct", 16)
_TYPES: dict[str, tuple[str, str, int]] = {
    "list_head.next": ("struct list_head *", "ptr", 8),
    "list_head.prev": ("struct list_head *", "ptr", 8),
    "mem_section.section_mem_map": _UNSIGNED_LONG,
    "page._count": _ATOMIC,
    "page._mapcount": _ATOMIC,
    "page._refcount": _ATOMIC,
    "page.compound_head": _UNSIGNED_LONG,
    "page.flags": _UNSIGNED_LONG,
    "page.lru": _LIST,
    "page.mapping": ("struct address_space *", "ptr", 8),
    "page.private": _UNSIGNED_LONG,
    "pglist_data.node_id": _INT,
    "pglist_data.node_spanned_pages": _UNSIGNED_LONG,
    "pglist_data.node_start_pfn": _UNSIGNED_LONG,
    "pglist_data.nr_zones": _INT,
    "vmap_area.list": _LIST,
    "vmap_area.va_start": _UNSIGNED_LONG,
    "zone.spanned_pages": _UNSIGNED_LONG,
}
"""C type, kind and size of the fields that are no arrays."""

_ELEMENTS = {"zone.free_area": "free_area", "free_area.free_list": "list_head"}
"""Tag of the elements of the arrays whose length the note tells."""

_LENGTHS = {"mem_section": "NR_SECTION_ROOTS", "node_data": "MAX_NUMNODES", "free_area.free_list": "MIGRATE_TYPES"}
"""The macro that an array was declared with."""


def gather(note: Mapping[str, str]) -> tuple[list[StructLayout], dict[str, dict[str, int]], dict[str, int]]:
    """Structs, enums and constants of a note; lines of other kinds are passed over.

    :param note: the note's lines, as in ``{"SIZE(page)": "64"}``
    :raises LayoutError: a number is malformed or out of all proportion
    """
    said: dict[str, dict[str, int]] = {"SIZE": {}, "OFFSET": {}, "LENGTH": {}, "NUMBER": {}}
    for key, text in note.items():
        if match := _LINE.fullmatch(key):
            said[match[1]][match[2]] = _number(key, text, signed=match[1] == "NUMBER")
    fields: dict[str, dict[str, Field]] = {tag: {} for tag in said["SIZE"]}
    for path, offset in said["OFFSET"].items():
        tag, _, name = path.partition(".")
        f = _field(path, name, offset, said["SIZE"], said["LENGTH"])
        if f.end_bit > 8 * said["SIZE"].get(tag, MAX_STRUCT):
            raise LayoutError(f"VMCOREINFO: OFFSET({path}): {offset}: the field ends outside its struct")
        fields.setdefault(tag, {})[name] = f
    structs = [StructLayout(tag, said["SIZE"].get(tag), members) for tag, members in fields.items()]
    flags = {name: n for name, n in said["NUMBER"].items() if name.startswith("PG_") and not name.endswith("_mask")}
    stats = {name: n for name, n in said["NUMBER"].items() if name == "NR_FREE_PAGES"}
    constants = {name: n for name, n in said["NUMBER"].items() if name not in flags and name not in stats}
    constants |= {macro: said["LENGTH"][array] for array, macro in _LENGTHS.items() if array in said["LENGTH"]}
    return structs, {"pageflags": flags, "zone_stat_item": stats}, constants


def _number(key: str, text: str, *, signed: bool) -> int:
    low, high = (-(1 << 63), 1 << 64) if signed else (0, MAX_STRUCT + 1)
    if not _NUMBER.fullmatch(text):
        raise LayoutError(f"VMCOREINFO: {key}: {text[:40]!r} is not a number")
    value = int(text, 16 if text.startswith("0x") else 10)
    if not low <= value < high:
        raise LayoutError(f"VMCOREINFO: {key}: {text[:40]} is out of range")
    return value


def _field(path: str, name: str, offset: int, sizes: Mapping[str, int], lengths: Mapping[str, int]) -> Field:
    if path in _TYPES:
        ctype, kind, size = _TYPES[path]
        tag = ctype.removeprefix("struct ") if kind == "struct" and ctype.startswith("struct ") else None
        target = ctype.removesuffix(" *") if kind == "ptr" else None
        signed = ctype == "int" if kind == "int" else None
        return Field(name, offset, size, ctype, kind, signed, tag=tag, target=target)
    element = _ELEMENTS.get(path, "")
    if element in sizes and path in lengths:
        return Field(name, offset, sizes[element], f"struct {element}", "struct", dims=(lengths[path],), tag=element)
    return Field(name, offset, None)
