# SPDX-License-Identifier: GPL-2.0-only
"""``struct resource``: a range of physical addresses and what is there (include/linux/ioport.h)."""

from __future__ import annotations

from physmem.structs.cdecl import ptr, struct, typedef, unsigned_long

__all__ = ["resource"]

_resource_size_t = typedef("resource_size_t", unsigned_long)

resource = struct(
    "resource",
    "start" / _resource_size_t,
    "end" / _resource_size_t * "its last address",
    "name" / ptr("const char"),
    "flags" / unsigned_long * "IORESOURCE_*",
    "parent" / ptr("struct resource") * "in which it is",
    "sibling" / ptr("struct resource") * "the next in the same, by address",
    "child" / ptr("struct resource") * "the first in it",
)
