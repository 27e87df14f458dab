# SPDX-License-Identifier: GPL-2.0-only
"""physmem.ranges against a model that everyone believes: a Python set of the integers themselves."""

from __future__ import annotations

import doctest
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

import physmem.ranges
from physmem.errors import UsageError
from physmem.ranges import LIMIT, Ranges

SPAN = 40

points = st.integers(0, SPAN)
pairs = st.tuples(points, points).map(lambda pair: (min(pair), max(pair)))
lists = st.lists(pairs, max_size=12)
# The same integers at the bottom and at the very top of what an interval can hold.
bases = st.sampled_from([0, LIMIT - SPAN])


def model(intervals: list[tuple[int, int]]) -> set[int]:
    return {value for start, end in intervals for value in range(start, end)}


def shifted(intervals: list[tuple[int, int]], base: int) -> Ranges:
    return Ranges((base + start, base + end) for start, end in intervals)


def values(ranges: Ranges, base: int) -> set[int]:
    return {value - base for start, end in ranges for value in range(start, end)}


@given(lists, bases)
def test_intervals_are_sorted_disjoint_and_never_touch(intervals: list[tuple[int, int]], base: int) -> None:
    ranges = shifted(intervals, base)
    assert values(ranges, base) == model(intervals)
    flat = [bound for interval in ranges for bound in interval]
    assert all(low < high for low, high in pairwise(flat))
    assert len(ranges) == len(list(ranges))
    assert ranges.total() == len(model(intervals))
    assert ranges.end == (base + max(model(intervals)) + 1 if model(intervals) else 0)


@given(lists, bases, st.integers(-2, SPAN + 2))
def test_membership(intervals: list[tuple[int, int]], base: int, value: int) -> None:
    ranges = shifted(intervals, base)
    assert (base + value in ranges) == (value in model(intervals))
    found = ranges.find(base + value)
    assert (found is not None) == (value in model(intervals))
    if found is not None:
        assert found in list(ranges)
        assert found[0] <= base + value < found[1]


@given(lists, bases, st.integers(-2, SPAN + 2), st.integers(-2, SPAN + 2))
def test_windows(intervals: list[tuple[int, int]], base: int, start: int, end: int) -> None:
    ranges = shifted(intervals, base)
    inside = model(intervals)
    window = set(range(start, end))
    missing = sorted(window - inside)
    assert ranges.covers(base + start, base + end) == (not missing)
    assert ranges.overlaps(base + start, base + end) == bool(window & inside)
    assert ranges.first_gap(base + start, base + end) == (base + missing[0] if missing else None)
    assert values(ranges.clip(base + start, base + end), base) == window & inside


@given(lists, lists, bases)
def test_set_algebra(left: list[tuple[int, int]], right: list[tuple[int, int]], base: int) -> None:
    one, other = shifted(left, base), shifted(right, base)
    assert values(one | other, base) == model(left) | model(right)
    assert values(one & other, base) == model(left) & model(right)
    assert values(one - other, base) == model(left) - model(right)
    assert one.complement().complement() == one
    assert not one & one.complement()
    assert one | one.complement() == Ranges([(0, LIMIT)])


@given(lists, lists)
def test_equal_sets_are_equal_objects(left: list[tuple[int, int]], right: list[tuple[int, int]]) -> None:
    one, other = Ranges(left), Ranges(right)
    assert (one == other) == (model(left) == model(right))
    if one == other:
        assert hash(one) == hash(other)
        assert repr(one) == repr(other)


def test_the_whole_of_64_bits() -> None:
    everything = Ranges([(0, LIMIT)])
    assert everything.total() == LIMIT
    assert LIMIT - 1 in everything
    assert LIMIT not in everything
    assert not everything.complement()


def test_not_equal_to_other_things() -> None:
    assert Ranges() != []
    assert Ranges([(1, 2)]) != [(1, 2)]


@pytest.mark.parametrize("interval", [(2, 1), (-1, 1), (0, LIMIT + 1), (LIMIT + 1, LIMIT + 1)])
def test_refuses_what_is_no_range(interval: tuple[int, int]) -> None:
    with pytest.raises(UsageError, match=r"^range .*: not a range of addresses below 2\*\*64$"):
        Ranges([interval])


def test_docstring_examples() -> None:
    assert doctest.testmod(physmem.ranges) == (0, 3)
