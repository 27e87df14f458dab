# SPDX-License-Identifier: GPL-2.0-only
"""Two page arrays compared, byte by byte."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from physmem.dump import Dump
from physmem.inspect.diff.leaves import FieldChange, changes, struct_leaves
from physmem.inspect.freelist import FreeLists
from physmem.inspect.memmap import CHUNK
from physmem.inspect.pageformat import PageFormat
from physmem.inspect.states import PageStates, State
from physmem.inspect.zones import populated_zones

__all__ = ["MAX_LISTED", "PageChange", "PageChanges", "compare_pages"]

#: Changed pages that are kept one by one; more are counted.
MAX_LISTED = 100_000

#: Of the unions in struct page, the members that speak for a page of any use.
_FIRST = ("flags", "mapping", "index", "_mapcount", "_count", "_refcount", "lru", "private")


@dataclass(frozen=True)
class PageChange:
    """A page whose ``struct page`` changed, its state before and after, and the fields that differ."""

    pfn: int
    old: State
    new: State
    fields: tuple[FieldChange, ...]


@dataclass
class PageChanges:
    """All pages that changed.

    :ivar count: how many
    :ivar transitions: how many from which state to which
    :ivar zones: how many pages of which zone, from which state to which
    :ivar listed: the pages one by one, as far as they are kept
    :ivar fields: how often each field changed, in the pages that are listed
    """

    count: int = 0
    transitions: Counter[tuple[State, State]] = field(default_factory=Counter)
    zones: Counter[tuple[str, State, State]] = field(default_factory=Counter)
    listed: list[PageChange] = field(default_factory=list)
    fields: Counter[str] = field(default_factory=Counter)


def compare_pages(a: Dump, b: Dump, lists_a: FreeLists, lists_b: FreeLists) -> PageChanges:
    """Compare every ``struct page`` that both images have."""
    found = PageChanges()
    leaves = struct_leaves(a.layout, "page", {}, [name for name in _FIRST if a.layout.has("page", name)])
    states = list(State)
    states_a, states_b = PageStates(lists_a), PageStates(lists_b)
    dtype = a.layout.dtype("page", states_a.fields)
    zones = {(zone.node, zone.index): str(zone) for zone in populated_zones(b)}
    array_a, array_b = lists_a.links.array, lists_b.links.array
    for start, end in array_a.present.intersection(array_b.present):
        for pfn in range(start, end, CHUNK):
            old, new = (array.raw(pfn, min(pfn + CHUNK, end)) for array in (array_a, array_b))
            changed = np.flatnonzero((old.view(np.uint64) != new.view(np.uint64)).any(axis=1))
            if not len(changed):
                continue
            was = states_a.codes(pfn, old.reshape(-1).view(dtype))[changed]
            now = states_b.codes(pfn, new.reshape(-1).view(dtype))[changed]
            found.count += len(changed)
            _count_zones(found.zones, lists_b.links.format, zones, old, dtype, changed, was, now)
            pairs, counts = np.unique(np.stack([was, now]), axis=1, return_counts=True)
            for i, j, count in zip(*pairs.tolist(), counts.tolist(), strict=True):
                found.transitions[states[i], states[j]] += count
            for at, i, j in zip(changed[: MAX_LISTED - len(found.listed)].tolist(), was, now, strict=False):
                fields = tuple(changes(leaves, old[at].tobytes(), new[at].tobytes()))
                found.fields.update(each.name for each in fields)
                found.listed.append(PageChange(pfn + at, states[i], states[j], fields))
    return found


def _count_zones(
    counter: Counter[tuple[str, State, State]],
    form: PageFormat,
    zones: dict[tuple[int, int], str],
    pages: npt.NDArray[np.uint8],
    dtype: np.dtype[np.void],
    changed: npt.NDArray[np.intp],
    was: npt.NDArray[np.uint8],
    now: npt.NDArray[np.uint8],
) -> None:
    """Count transitions by the zone that the pages' flags named before."""
    flags = pages.reshape(-1).view(dtype)["flags"][changed]
    states = list(State)
    keys = np.stack([form.node(flags).astype(np.int64), form.zone(flags).astype(np.int64), was, now])
    kinds, counts = np.unique(keys, axis=1, return_counts=True)
    for node, zone, i, j, count in zip(*kinds.tolist(), counts.tolist(), strict=True):
        counter[zones.get((node, zone), f"node {node} zone {zone}"), states[i], states[j]] += count
