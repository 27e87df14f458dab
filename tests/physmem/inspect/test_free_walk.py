# SPDX-License-Identifier: GPL-2.0-only
"""Free lists followed by the hot room: as many entries as the walk that explains damage finds, or no answer."""

from __future__ import annotations

from array import array
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from physmem.dump import Dump
from physmem.inspect import pagetypeinfo
from physmem.inspect.free_walk import FreeBlocks
from physmem.inspect.freelist import free_lists
from physmem.inspect.pageformat import PageFormat
from physmem.inspect.zones import populated_zones

BASE, SIZE = 0xFFFFEA0000000008, 64
HEAD = 0xFFFF888000001000
NAMES = ("deb510-512m", "deb61-1g-2node", "deb612-256m", "deb72-1g-2node")


@pytest.mark.parametrize("name", NAMES)
def test_both_ways_find_the_same(modern: Callable[[str], Dump], name: str) -> None:
    dump = modern(name)
    form = PageFormat(dump.layout)
    zones = list(populated_zones(dump))
    lists = [each for zone in zones for each in free_lists(zone, form.migratetypes)]
    firsts = [range(zone.start_pfn, min(zone.end_pfn, dump.max_pfn), 512) for zone in zones]
    followed = pagetypeinfo._followed(dump, form, lists, firsts)
    searched = pagetypeinfo._searched(dump, lists, firsts)
    assert followed is not None
    assert [list(each) for each in followed] == [list(each) for each in searched]
    assert sum(followed[0]) == sum(sum(zone.nr_free) for zone in zones)


def entry(pfn: int) -> int:
    return BASE + pfn * SIZE


@st.composite
def lists(draw: st.DrawFn) -> tuple[list[int], dict[int, int], dict[int, int], int, int]:
    """Blocks, their links, and those of a list head, which may be wrong in a few places."""
    pfns = draw(st.lists(st.integers(0, 500), unique=True, min_size=1, max_size=12))
    on_list = draw(st.integers(0, len(pfns)))
    ring = [HEAD, *map(entry, pfns[:on_list])]
    after = {at: ring[(i + 1) % len(ring)] for i, at in enumerate(ring)}
    before = {ring[(i + 1) % len(ring)]: at for i, at in enumerate(ring)}
    for pfn in pfns[on_list:]:
        after[entry(pfn)] = before[entry(pfn)] = entry(pfn)
    anywhere = st.sampled_from([*after, HEAD + 16, BASE + 1, BASE - SIZE, entry(501), 0, (1 << 64) - 1])
    for links in (after, before):
        for at in draw(st.lists(st.sampled_from([*after]), max_size=2)):
            links[at] = draw(anywhere)
    return sorted(pfns), after, before, after[HEAD], before[HEAD]


@given(lists())
def test_a_list_that_does_not_lead_back_has_no_length(
    made: tuple[list[int], dict[int, int], dict[int, int], int, int],
) -> None:
    pfns, after, before, first, last = made
    walk = FreeBlocks()
    walk.base, walk.size, walk.count = BASE, SIZE, len(pfns)
    walk.pfns = memoryview(array("Q", pfns))
    walk.next = memoryview(array("Q", [after[entry(pfn)] for pfn in pfns]))
    walk.prev = memoryview(array("Q", [before[entry(pfn)] for pfn in pfns]))
    expected, at, came_from = 0, first, HEAD
    while at != HEAD:
        if at not in map(entry, pfns) or before[at] != came_from:
            expected = -1
            break
        at, came_from = after[at], at
        expected += 1
    else:
        expected = expected if last == came_from else -1
    assert walk.length(HEAD, first, last) == expected
