# SPDX-License-Identifier: GPL-2.0-only
"""What changed between two images of one running kernel, as far as the page allocator is concerned.

Everything that the allocator keeps is compared byte by byte: the page array, zones, zonelists,
pagesets, pageblock flags, statistics, events, and what a node tells kswapd.  What changed is told
by field.  Memory that only one of the images has is reported apart: it is no difference.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from physmem.dump import Dump
from physmem.errors import AbsentError, AddressError, PhysmemError, UnsupportedError, UsageError
from physmem.inspect.diff.blocks import BlockChanges, compare_blocks
from physmem.inspect.diff.leaves import FieldChange, changes
from physmem.inspect.diff.objects import Object, objects
from physmem.inspect.diff.pages import PageChange, PageChanges, compare_pages
from physmem.inspect.freelist import read_lists
from physmem.inspect.pageformat import PageFormat
from physmem.inspect.sections import ABSENT, NO_SECTION, PageblockFormat, pageblock_flags
from physmem.inspect.zones import populated_zones
from physmem.ranges import Ranges

__all__ = [
    "BlockChanges",
    "Difference",
    "FieldChange",
    "ObjectChange",
    "PageChange",
    "PageChanges",
    "PageblockChange",
    "diff",
]

#: What a kernel writes into its VMCOREINFO only when it crashes.
_AT_CRASH = {"CRASHTIME"}


@dataclass(frozen=True)
class ObjectChange:
    """A struct that changed, and its fields that did."""

    name: str
    fields: tuple[FieldChange, ...]


@dataclass(frozen=True)
class PageblockChange:
    """A pageblock whose flags changed: its first PFN, and what the flags say before and after."""

    pfn: int
    old: str
    new: str


@dataclass(frozen=True)
class Difference:
    """All that changed.

    :ivar blocks: what became of free blocks
    :ivar only_a: physical memory that only the first image has
    :ivar only_b: and that only the second one has
    :ivar not_compared: what is absent from one of the images, in words
    """

    objects: tuple[ObjectChange, ...]
    pageblocks: tuple[PageblockChange, ...]
    pages: PageChanges
    only_a: Ranges
    only_b: Ranges
    not_compared: tuple[str, ...]
    blocks: BlockChanges = field(default_factory=BlockChanges)

    def __bool__(self) -> bool:
        """Whether anything changed."""
        return bool(self.objects or self.pageblocks or self.pages.count)


def diff(a: Dump, b: Dump) -> Difference:
    """Compare two images.

    :raises UsageError: they are not of the same kernel, or of two machines
    :raises PhysmemError: the nodes, or the page array, of one of them cannot be read
    """
    _require_same_kernel(a, b)
    not_compared: list[str] = []
    changed = tuple(_compare_objects(a, b, not_compared))
    pageblocks = tuple(_compare_pageblocks(a, b, not_compared))
    lists = [read_lists(dump, list(populated_zones(dump))) for dump in (a, b)]
    arrays = [each.links.array for each in lists]
    everywhere = arrays[0].present.intersection(arrays[1].present)
    missing = arrays[0].mapped.union(arrays[1].mapped).difference(everywhere)
    if missing:
        not_compared.append(f"{missing.total()} struct pages, from pfn {next(iter(missing))[0]} on: absent")
    return Difference(
        changed,
        pageblocks,
        compare_pages(a, b, *lists),
        a.memory.ranges.difference(b.memory.ranges),
        b.memory.ranges.difference(a.memory.ranges),
        tuple(not_compared),
        compare_blocks(*lists),
    )


def _require_same_kernel(a: Dump, b: Dump) -> None:
    what = f"{b.image.path}: not of the same kernel as {a.image.path}"
    for key in sorted({*a.info, *b.info} - _AT_CRASH):
        if a.info.get(key) != b.info.get(key):
            raise UsageError(f"{what}: VMCOREINFO {key} is {b.info.get(key)} here and {a.info.get(key)} there")
    if a.pgdats != b.pgdats:
        raise UsageError(f"{what}, or of another boot: its nodes are at other addresses")


def _compare_objects(a: Dump, b: Dump, not_compared: list[str]) -> Iterator[ObjectChange]:
    (before, before_is_all), (after, after_is_all) = (_objects(dump, not_compared) for dump in (a, b))
    for name in {**before, **after}:
        if name not in before or name not in after:
            # That it is not there is a difference, that it was not found is none.
            if before_is_all and after_is_all:
                yield ObjectChange(name, (FieldChange("exists", int(name in before), int(name in after)),))
            continue
        try:
            old, new = before[name].read(a), after[name].read(b)
        except (AbsentError, AddressError) as error:
            not_compared.append(f"{name}: {error}")
            continue
        if old != new:
            yield ObjectChange(name, tuple(changes(before[name].leaves(), old, new)))


def _objects(dump: Dump, not_compared: list[str]) -> tuple[dict[str, Object], bool]:
    """What there is to compare, by name, and whether that is all of it."""
    found: dict[str, Object] = {}
    try:
        for each in objects(dump):
            found[each.name] = each
    except PhysmemError as error:
        not_compared.append(f"what CPUs have for themselves: {error}")
        return found, False
    return found, True


def _compare_pageblocks(a: Dump, b: Dump, not_compared: list[str]) -> Iterator[PageblockChange]:
    try:
        flags = [pageblock_flags(dump, partial=True) for dump in (a, b)]
    except (AbsentError, AddressError, UnsupportedError) as error:
        not_compared.append(f"pageblock flags: {error}")
        return
    count = max(map(len, flags))
    old, new = (np.pad(each, (0, count - len(each)), constant_values=NO_SECTION) for each in flags)
    absent = (old == ABSENT) | (new == ABSENT)
    if absent.any():
        not_compared.append(f"{absent.sum()} pageblock flags: absent")
    order = a.layout.constant("pageblock_order")
    form, names = PageblockFormat(a), PageFormat(a.layout).migratetypes
    for block in np.flatnonzero((old != new) & ~absent).tolist():
        yield PageblockChange(block << order, *(_describe_flags(form, names, int(each[block])) for each in (old, new)))


def _describe_flags(form: PageblockFormat, names: tuple[str, ...], flags: int) -> str:
    """A pageblock's flags in words: its migratetype, and whatever else is set."""
    if flags == NO_SECTION:
        return "no section"
    kind = int(form.migratetype(np.array([flags], np.int16))[0])
    return ", ".join([names[kind] if kind < len(names) else f"migratetype {kind}", *form.others(flags)])
