# SPDX-License-Identifier: GPL-2.0-only
"""The tracepoints, against the ftrace buffer of a real kernel."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from kernelmm import Machine
from kernelmm.gfp import __GFP_NOWARN, GFP_KERNEL
from kernelmm.study.trace import Event

#: comm-pid, cpu, the four flag columns, the time, and the rest
LINE = re.compile(r" *(.{1,16})-(\d+) +\[(\d+)\] (....) +(\d+\.\d+): (.*)")


def kernels_events(text: str) -> list[str]:
    """The events between A and B: those of the task that ran the script, from its first to its last call."""
    events = [match.groups() for match in map(LINE.fullmatch, text.splitlines()) if match]
    mine = [event for event in events if event[0] == "init" and event[3] == "d..."]
    return [event[5] for event in mine if 0.570257 <= float(event[4]) <= 0.580940]


def test_events_equal_the_kernels(oracle: Callable[[str], Any]) -> None:
    case = oracle("n128_s1_trace")
    wanted = kernels_events(case.file("trace.txt").read_text())
    assert len(wanted) == 2888
    with Machine.attach(case.a) as machine:
        with machine.trace() as tracer:
            machine.run(case.script)
        assert [event.text for event in tracer.events] == wanted


def test_lines_have_ftraces_columns(oracle: Callable[[str], Any]) -> None:
    case = oracle("n128_s1_trace")
    real = next(line for line in case.file("trace.txt").read_text().splitlines() if "0.570257" in line)
    with Machine.attach(case.a) as machine:
        with machine.trace() as tracer:
            machine.run(case.script)
        ours = str(tracer.events[0])
        assert tracer.header == "".join(
            line + "\n"
            for line in case.file("trace.txt").read_text().splitlines()
            if line.startswith("#") and "entries-in-buffer" not in line
        ).replace("#\n#\n", "#\n")
    # All but the time, which for us is the jiffies'.
    assert ours[:40] + ours[53:] == real[:40] + real[53:]
    assert LINE.fullmatch(ours)


def test_time_only_goes_forward(oracle: Callable[[str], Any]) -> None:
    with Machine.attach(oracle("n128_s1").a) as machine:
        with machine.trace() as tracer:
            machine.run(oracle("n128_s1").script)
        times = [event.time for event in tracer.events]
        assert times == sorted(set(times))
        # The guest of this recording was up for half a second.
        assert 400_000 < times[0] < times[-1] < 800_000


def test_a_failure_has_no_page(oracle: Callable[[str], Any]) -> None:
    with Machine.attach(oracle("n128_s1").a) as machine:
        with machine.trace() as tracer:
            assert machine.alloc_pages(__GFP_NOWARN, order=11) is None
        last = tracer.events[-1]
        assert last.text == ("mm_page_alloc: page=          (null) pfn=0 order=11 migratetype=0 gfp_flags=GFP_NOWARN")


def test_breaking_up_another_mobility_is_an_event(oracle: Callable[[str], Any]) -> None:
    """Unmovable pages run out first: the largest movable block is taken, and the pageblocks change their type."""
    with Machine.attach(oracle("n128_s1").a) as machine:
        with machine.trace() as tracer:
            while not any(event.name == "mm_page_alloc_extfrag" for event in tracer.events):
                assert machine.alloc_pages(GFP_KERNEL, order=3) is not None
        event = next(event for event in tracer.events if event.name == "mm_page_alloc_extfrag")
        assert re.fullmatch(
            r"mm_page_alloc_extfrag: page=[0-9a-f]{16} pfn=\d+ alloc_order=3 fallback_order=10 pageblock_order=9 "
            r"alloc_migratetype=0 fallback_migratetype=[12] fragmenting=0 change_ownership=1",
            event.text,
        )
        # It comes before the events of the page that it was for.
        following = tracer.events[tracer.events.index(event) + 1 :]
        assert [(e.name, e.page) for e in following] == [
            ("mm_page_alloc_zone_locked", event.page),
            ("mm_page_alloc", event.page),
        ]


def test_a_sink_gets_the_events_and_off_is_off(oracle: Callable[[str], Any]) -> None:
    seen: list[Event] = []
    with Machine.attach(oracle("n128_s1").a) as machine:
        with machine.trace(seen.append) as tracer:
            page = machine.alloc_page(GFP_KERNEL)
            with machine.on_cpu(0), pytest.raises(ZeroDivisionError), machine.trace():
                raise ZeroDivisionError
            assert page is not None
            machine.free_block(page)
        machine.alloc_page(GFP_KERNEL)
        assert [event.name for event in seen] == ["mm_page_alloc", "mm_page_free"]
        assert tracer.events == []
        # The fast path adds __GFP_HARDWALL to what the caller asked for.
        assert seen[0].fields == {"order": 0, "migratetype": 0, "gfp_flags": "GFP_USER"}
        assert seen[0].pfn == machine.page_to_pfn(page)
