# SPDX-License-Identifier: GPL-2.0-only
"""fail_page_alloc: its attributes, what they let through, and what it says (its bytes are in test_oracle.py)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kernelmm import Machine
from kernelmm.gfp import __GFP_HIGHMEM, __GFP_NOFAIL, GFP_ATOMIC, GFP_KERNEL
from physmem.errors import UsageError


@pytest.fixture(params=["n128_s16_fault", "u128_s1", "booted"])
def machine(request: pytest.FixtureRequest, oracle: Callable[[str], Any]) -> Iterator[Machine]:
    if request.param == "booted":
        with Machine.boot("64M") as machine:
            machine.fail_page_alloc(verbose=0)
            yield machine
        return
    with Machine.attach(oracle(request.param).a) as machine:
        machine.fail_page_alloc(
            probability=0, times=-1, min_order=0, verbose=0, ignore_gfp_wait=0, ignore_gfp_highmem=0
        )
        yield machine


def outcomes(machine: Machine, count: int, gfp: int = GFP_ATOMIC, order: int = 0) -> list[bool]:
    return [machine.alloc_pages(gfp, order) is not None for _ in range(count)]


def test_the_defaults_of_fault_attr() -> None:
    """FAULT_ATTR_INITIALIZER, and the three attributes of fail_page_alloc."""
    with Machine.boot("64M") as machine:
        attr = machine.fail_page_alloc()
        assert (attr.interval, attr.times, attr.verbose) == (1, 1, 2)
        assert (attr.min_order, attr.ignore_gfp_wait, attr.ignore_gfp_highmem) == (1, 1, 1)
        assert (attr.probability, attr.space, attr.task_filter, attr.count) == (0, 0, 0, 0)


def test_booting_with_the_parameter_fails_from_then_on() -> None:
    with Machine.boot("64M", fail_page_alloc="2,100,0,-1") as machine:
        attr = machine.fail_page_alloc(min_order=0, verbose=0)
        assert (attr.interval, attr.probability, attr.space, attr.times) == (2, 100, 0, -1)
        assert outcomes(machine, 4).count(True) == 2


def test_interval(machine: Machine) -> None:
    """Every third candidate; the count goes on from where it was."""
    start = machine.fail_page_alloc(probability=100, times=-1, interval=3, min_order=0).count
    got = outcomes(machine, 9)
    assert got == [(start + i) % 3 != 0 for i in range(1, 10)]


def test_space_is_used_up_by_pages(machine: Machine) -> None:
    """While more pages than the request's are left, it only counts down: 5, 4, 3, 2 - then 2 is not above 4."""
    machine.fail_page_alloc(probability=100, times=-1, interval=1, space=5, min_order=0)
    assert outcomes(machine, 3) == [True] * 3
    assert machine.fail_page_alloc().space == 2
    assert outcomes(machine, 1, order=2) == [False]
    assert machine.fail_page_alloc().space == 2


def test_times_are_counted_down_to_none(machine: Machine) -> None:
    machine.fail_page_alloc(probability=100, times=2, interval=1, min_order=0)
    assert outcomes(machine, 4) == [False, False, True, True]
    assert machine.fail_page_alloc().times == 0


def test_what_is_left_alone(machine: Machine) -> None:
    machine.fail_page_alloc(probability=100, times=-1, interval=1, min_order=2, ignore_gfp_wait=1, ignore_gfp_highmem=1)
    assert outcomes(machine, 1, order=1) == [True]
    assert outcomes(machine, 1, order=2) == [False]
    assert outcomes(machine, 1, GFP_KERNEL, 2) == [True]
    assert outcomes(machine, 1, GFP_ATOMIC | __GFP_HIGHMEM, 2) == [True]
    assert outcomes(machine, 1, GFP_ATOMIC | __GFP_NOFAIL, 2) == [True]
    machine.fail_page_alloc(ignore_gfp_wait=0, ignore_gfp_highmem=0)
    assert outcomes(machine, 1, GFP_KERNEL, 2) == [False]
    assert outcomes(machine, 1, GFP_ATOMIC | __GFP_HIGHMEM, 2) == [False]


def test_only_tasks_that_are_marked(machine: Machine) -> None:
    machine.fail_page_alloc(probability=100, times=-1, interval=1, min_order=0, task_filter=1)
    assert outcomes(machine, 1) == [True]
    machine.mm.make_it_fail = True
    assert outcomes(machine, 1) == [False]
    machine.mm.in_interrupt = True
    assert outcomes(machine, 1) == [True]


def test_the_message_has_interval_and_probability_swapped(machine: Machine) -> None:
    """fail_dump of 4.0 hands them over the wrong way round; the counter is printed before it is changed."""
    machine.fail_page_alloc(probability=100, times=7, interval=1, space=0, min_order=0, verbose=2)
    # A booted machine has no debugfs.
    dname = "fail_page_alloc" if machine.mm.deferred is None else " " * 10 + "(null)"
    outcomes(machine, 1)
    assert machine.console.lines[-3:-1] == [
        "FAULT_INJECTION: forcing a failure.",
        f"name {dname}, interval 100, probability 1, space 0, times 7",
    ]
    assert machine.console.lines[-1].startswith("CPU: 0 PID: 1 Comm: init Not tainted ")
    lines = len(machine.console.lines)
    machine.fail_page_alloc(verbose=1)
    outcomes(machine, 1)
    assert len(machine.console.lines) == lines + 2
    machine.fail_page_alloc(verbose=0)
    outcomes(machine, 1)
    assert len(machine.console.lines) == lines + 2


def test_bad_attributes(machine: Machine) -> None:
    before = machine.fail_page_alloc()
    for text in ("1,2,3", "", "1;2", "a,b,c,d"):
        with pytest.raises(UsageError, match="expected <interval>,<probability>,<space>,<times>"):
            machine.fail_page_alloc(text)
    with pytest.raises(UsageError, match="no attribute 'count'"):
        machine.fail_page_alloc(count=1)
    with pytest.raises(UsageError, match="does not fit into 32 bits"):
        machine.fail_page_alloc(times=1 << 31)
    assert machine.fail_page_alloc() == before
