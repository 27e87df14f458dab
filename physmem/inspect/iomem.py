# SPDX-License-Identifier: GPL-2.0-only
"""``/proc/iomem``: which physical addresses are memory, as the kernel keeps it (kernel/resource.c)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from physmem.dump import Dump
from physmem.errors import CorruptionError
from physmem.ranges import Ranges

__all__ = ["Resource", "iomem", "resources", "system_ram"]

#: Far above what machines have: resources, and resources inside resources.
_MAX_RESOURCES = 1 << 16
_MAX_DEPTH = 32
_MAX_NAME = 256

#: The kernel indents no further (MAX_IORES_LEVEL), until 5.19 and since.
_LEVELS = (5, 8)


class Resource(NamedTuple):
    """A range of physical addresses: how deep it is inside others, first and last address, what it is."""

    depth: int
    start: int
    end: int
    name: str


def resources(dump: Dump) -> Iterator[Resource]:
    """The tree, a resource before those inside it.

    :raises SymbolError: it is not known where the tree is
    :raises AbsentError: some of it is not in the image
    :raises CorruptionError: it goes on for ever
    """
    pending = [(dump.field(dump.symbols["iomem_resource"], "resource", "child"), 0)]
    for _ in range(_MAX_RESOURCES):
        if not pending:
            return
        at, depth = pending.pop()
        if not at:
            continue
        if depth > _MAX_DEPTH:
            break
        fields = {name: dump.field(at, "resource", name) for name in ("start", "end", "name", "child", "sibling")}
        yield Resource(depth, fields["start"], fields["end"], _name(dump, fields["name"]))
        pending += [(fields["sibling"], depth), (fields["child"], depth + 1)]
    raise CorruptionError("iomem_resource", "the tree of resources has no end")


def _name(dump: Dump, pointer: int) -> str:
    if not pointer:
        return "<BAD>"
    # What a terminal would take for a command is not printed.
    return "".join(c if c.isprintable() else "?" for c in dump.text(pointer, _MAX_NAME))


def iomem(dump: Dump) -> str:
    """The whole file (r_show); raises as :func:`resources` does."""
    root_end = dump.field(dump.symbols["iomem_resource"], "resource", "end")
    width = 4 if root_end < 0x10000 else 8
    deepest = _LEVELS[dump.release >= (6, 0)]
    return "".join(
        f"{'  ' * min(each.depth, deepest)}{each.start:0{width}x}-{each.end:0{width}x} : {each.name}\n"
        for each in resources(dump)
    )


def system_ram(dump: Dump) -> Ranges:
    """What is memory, bytes; raises as :func:`resources` does."""
    ram = [(each.start, each.end + 1) for each in resources(dump) if each.name.startswith("System RAM")]
    return Ranges((start, end) for start, end in ram if start < end)
