# SPDX-License-Identifier: GPL-2.0-only
"""Traces: a real one is clean, what is wrong with others is found, and every format is read."""

from __future__ import annotations

import io
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kernelmm.validate import page_owner
from kernelmm.validate.ends import Pages
from kernelmm.validate.findings import KINDS
from kernelmm.validate.ledger import Ledger
from kernelmm.validate.tracefile import TraceFile
from physmem.dump import open_dump
from physmem.errors import UsageError
from tools.make_trace import FORMATS, write


@pytest.fixture
def follow(tmp_path: Path) -> Callable[..., Ledger]:
    """The ledger after some lines."""

    def make(*lines: str, **options: Any) -> Ledger:
        path = tmp_path / "trace.txt"
        path.write_text("".join(f"{line}\n" for line in lines))
        ledger = Ledger()
        ledger.read(TraceFile(path, **options))
        return ledger

    return make


def a(pfn: int, order: int = 0, gfp: str = "GFP_KERNEL", task: str = "init-1") -> str:
    head = f"{task:>20} [000] .... 1.000001: mm_page_alloc: page=ffffea00"
    return f"{head} pfn={pfn} order={order} migratetype=0 gfp_flags={gfp}"


def f(pfn: int, order: int = 0) -> str:
    return f"{'init-1':>20} [000] .... 1.000001: mm_page_free: page=ffffea00 pfn={pfn} order={order}"


def z(pfn: int, order: int = 0) -> str:
    head = f"{'init-1':>20} [000] .... 1.000001: mm_page_alloc_zone_locked: page=ffffea00"
    return f"{head} pfn={pfn} order={order} migratetype=0 percpu_refill=1"


def d(pfn: int) -> str:
    return f"{'init-1':>20} [000] .... 1.000001: mm_page_pcpu_drain: page=ffffea00 pfn={pfn} order=0 migratetype=0"


LOST = "CPU:1 [LOST 123 EVENTS]"


@pytest.mark.parametrize(
    ("lines", "kind", "line", "other"),
    [
        ([a(5), f(5), f(5)], "double_free", 3, 2),
        ([z(5), f(5)], "not_allocated", 2, 1),
        ([a(5), a(5)], "handed_out_twice", 2, 1),
        ([a(8, 3), a(10)], "handed_out_twice", 2, 1),
        ([a(10), a(8, 3)], "handed_out_twice", 2, 1),
        ([a(8, 1), f(8, 2)], "wrong_order", 2, 1),
        ([a(8, 3), f(8, 2)], "wrong_order", 2, 1),
        ([a(8, 3), f(10)], "inside", 2, 1),
        ([a(10), f(8, 2)], "others", 2, 1),
        ([a(9, 1)], "misaligned", 1, 0),
        ([a(0x4000, 14)], "impossible_order", 1, 0),
        ([a(5), d(5)], "listed_in_use", 2, 1),
        ([a(5), z(5)], "listed_in_use", 2, 1),
    ],
)
def test_what_is_wrong(follow: Callable[..., Ledger], lines: list[str], kind: str, line: int, other: int) -> None:
    ledger = follow(*lines)
    assert [(found.kind, found.line, found.other) for found in ledger.findings] == [(kind, line, other)]
    assert ledger.counts == {kind: 1}
    assert kind in KINDS
    # With events lost in between, nothing is certain; nor if pages go to compaction unseen.
    for unseen in (LOST, "init-1 [000] .... 1.0: mm_compaction_isolate_freepages: range=(0x1 ~ 0x2)"):
        doubtful = follow(*lines[:-1], unseen, lines[-1])
        assert doubtful.clean or other == 0
        assert len(doubtful.findings) == 1


@pytest.mark.parametrize(
    "lines",
    [
        [a(5), f(5), a(5), f(5)],
        [f(5), a(5)],
        [a(8, 2), *(f(pfn) for pfn in range(8, 12))],
        [a(8, 2), f(11), f(10), a(11), f(8), f(9)],
        [a(8, 2), f(11)],
        [a(0, 3)],
        [a(5), f(5), d(5), z(5), a(5)],
        ["# comment", "", "cpus=4", "CPU 1 is empty", LOST, "init-1 [000] .... 1.0: sched_switch: prev_comm=init"],
    ],
)
def test_what_is_right(follow: Callable[..., Ledger], lines: list[str]) -> None:
    assert follow(*lines).findings == []


def test_parts_and_what_was_there_before(follow: Callable[..., Ledger]) -> None:
    ledger = follow(a(8, 2), f(11), f(10), f(9), f(8), a(16, 2), f(19), f(40), a(0))
    assert (ledger.parts, ledger.trimmed, ledger.before, ledger.failed) == (1, 1, 1, 1)
    assert [(leak.order, leak.blocks, leak.pages) for leak in ledger.leaks()] == [(2, 1, 3)]


def test_leaks_are_grouped(follow: Callable[..., Ledger]) -> None:
    ledger = follow(a(1), a(2), a(4, 2, "GFP_ATOMIC"), a(9, 0, task="a b-7"))
    assert [(k.task, k.gfp, k.order, k.blocks, k.pages, k.first_line) for k in ledger.leaks()] == [
        ("init-1", "GFP_ATOMIC", 2, 1, 4, 3),
        ("init-1", "GFP_KERNEL", 0, 2, 2, 1),
        ("a b-7", "GFP_KERNEL", 0, 1, 1, 4),
    ]


# -- the real trace ----------------------------------------------------------


@pytest.fixture(scope="module")
def real(oracle: Callable[[str], Any]) -> list[str]:
    return oracle("n128_s1_trace").file("trace.txt").read_text().splitlines()  # type: ignore[no-any-return]


def test_the_real_trace_is_clean(follow: Callable[..., Ledger], real: list[str]) -> None:
    ledger = follow(*real)
    assert ledger.findings == []
    assert (ledger.allocs, ledger.frees, ledger.before) == (2891, 1949, 5)


EVENT = re.compile(r": mm_page_(?:alloc|free): ")
ORDER = re.compile(r"order=(\d+)")


def mutate(lines: list[str], kind: str, rng: random.Random) -> list[str]:
    """One line dropped, duplicated, of another order, or in another's place."""
    events = [i for i, line in enumerate(lines) if EVENT.search(line)]
    i, j = sorted(rng.sample(events, 2))
    changed = list(lines)
    if kind == "drop":
        del changed[i]
    elif kind == "duplicate":
        changed.insert(rng.choice([i + 1, j]), lines[i])
    elif kind == "order":
        order = int(ORDER.search(lines[i])[1])  # type: ignore[index]
        changed[i] = ORDER.sub(f"order={order + rng.choice((-1, 1)) if order else 1}", lines[i], count=1)
    else:
        j = rng.choice([j, events[events.index(i) + 1]])
        changed[i], changed[j] = lines[j], lines[i]
    return changed


@pytest.mark.parametrize("kind", ["drop", "duplicate", "order", "swap"])
def test_mutations_of_the_real_trace_are_found(follow: Callable[..., Ledger], real: list[str], kind: str) -> None:
    """Whatever line it is.  (Of every twentieth of the 4840 events, each of nine ways was tried.)"""
    for seed in range(20):
        changed = mutate(real, kind, random.Random(seed))
        assert changed != real
        assert not follow(*changed).clean, seed


def test_between_two_images_no_header_is_needed(real: list[str], oracle: Callable[[str], Any], tmp_path: Path) -> None:
    case = oracle("n128_s1_trace")
    span = {"since": 0.570257, "until": 0.580940}
    with open_dump(case.a) as a, open_dump(case.b) as b:
        ends = {"started": Pages(a), "ended": Pages(b)}
    lines = [line for line in real if not line.startswith("#")]
    inside = [i for i, line in enumerate(lines) if EVENT.search(line) and 0.570257 <= float(line[35:46]) <= 0.580940]
    assert len(inside) == 2000
    path = tmp_path / "trace.txt"

    def clean(lines: list[str]) -> bool:
        path.write_text("".join(f"{line}\n" for line in lines))
        ledger = Ledger(**ends)
        ledger.read(TraceFile(path, **span))
        return ledger.clean

    assert clean(lines)
    for i in random.Random(1).sample(inside, 15):
        assert not clean([*lines[:i], *lines[i + 1 :]]), lines[i]


def test_images_of_a_later_kernel(tmp_path: Path) -> None:
    with open_dump(Path(__file__).parents[2] / "data" / "vmcores" / "deb612-256m" / "image.vmcore.xz") as dump:
        pages = Pages(dump)
    free, used = (int(np.flatnonzero(pages.codes == code)[-1]) for code in (1, 3))
    path = tmp_path / "trace.txt"

    def found(*lines: str) -> list[tuple[str, int]]:
        path.write_text("".join(f"{line}\n" for line in lines))
        ledger = Ledger(started=pages, ended=pages)
        ledger.read(TraceFile(path))
        return [(finding.kind, finding.pfn) for finding in ledger.findings]

    assert found() == []
    assert found(a(free), f(free), f(used), a(used)) == []
    assert found(a(free)) == [("other_end", free)]
    assert found(f(used)) == [("other_end", used)]
    assert found(a(used)) == [("other_start", used)]
    assert found(f(free)) == [("other_start", free)]


# -- what is not recorded ----------------------------------------------------


def b(pfn: int) -> str:
    return f"{'init-1':>20} [000] .... 1.000001: mm_page_free_batched: page=ffffea00 pfn={pfn} order=0 cold=0"


def test_frees_in_batches_alone(follow: Callable[..., Ledger]) -> None:
    """Pages that are freed one by one look allocated: that is said, and what follows from it is not certain."""
    ledger = follow(a(5), a(6), b(5), a(5), b(6), a(7), a(7))
    assert ledger.clean
    assert ledger.uncertain == 1
    assert ledger.warnings == [
        "mm_page_free was not recorded: only what is freed in batches is known, the rest looks still allocated"
    ]
    assert {leak.pages for leak in ledger.leaks()} == {2}
    ledger = follow(*(a(pfn) for pfn in range(100)), a(5))
    assert (ledger.clean, ledger.uncertain, len(ledger.warnings)) == (True, 1, 1)
    ledger = follow(*(f(pfn) for pfn in range(100)), f(5))
    assert (ledger.clean, ledger.uncertain) == (True, 1)
    assert ledger.warnings == ["mm_page_alloc was not recorded: a page may have been allocated between two frees"]


def test_a_batch_tells_of_frees_that_are_missing(follow: Callable[..., Ledger]) -> None:
    assert follow(a(5), b(5), f(5), a(6), f(6), b(6)).clean
    ledger = follow(a(5), b(5), a(6), f(6), a(5), f(5))
    assert [(found.kind, found.line, found.other) for found in ledger.findings] == [("free_missing", 2, 5)]
    ledger = follow(a(5), b(5), a(6), f(6), *["# -"] * 20)
    assert [(found.kind, found.line, found.other) for found in ledger.findings] == [("free_missing", 2, 0)]
    assert [found.kind for found in follow(a(4, 1), b(4), f(4, 1)).findings] == ["wrong_order"]


@pytest.mark.parametrize(
    ("lines", "kind", "line", "other"),
    [
        ([z(4), a(4), a(8, 1)], "unlisted", 3, 0),
        ([z(8, 1), a(8)], "unlisted", 2, 1),
        ([z(4), a(4), f(4), d(4), a(4)], "unlisted", 5, 4),
        ([z(8, 1), a(8, 1), f(8, 1), a(8, 1)], "unlisted", 4, 3),
        ([z(8, 1), a(8, 1), f(8, 1), a(9)], "unlisted", 4, 3),
        ([z(4), a(4), f(4), d(4), d(4)], "undrained", 5, 4),
        ([d(2), z(4), a(4), f(4), z(4)], "undrained", 5, 4),
        ([d(2), z(4), z(4)], "undrained", 3, 2),
    ],
)
def test_steps_between_the_lists(
    follow: Callable[..., Ledger], lines: list[str], kind: str, line: int, other: int
) -> None:
    assert [(found.kind, found.line, found.other) for found in follow(*lines).findings] == [(kind, line, other)]
    # Kernels that print hexadecimal PFNs have steps without an event.
    modern = [re.sub(r"pfn=(\d+)", lambda pfn: f"pfn={int(pfn[1]):#x}", line) for line in lines]
    assert follow(*modern).clean


@pytest.mark.parametrize(
    "note", [LOST, "   CPU:1 [EVENTS DROPPED]", "CPU:0 [131 EVENTS DROPPED]", "CPU:0 [LOST EVENTS]"]
)
def test_notes_of_lost_events(follow: Callable[..., Ledger], note: str) -> None:
    ledger = follow(a(5), note, a(5))
    assert (ledger.lost, ledger.clean, ledger.uncertain) == (1, True, 1)
    # A CPU without events has lost none.
    assert follow(a(5), "CPU 1 is empty", a(5)).counts == {"handed_out_twice": 1}


def test_stacks_are_passed_over(follow: Callable[..., Ledger]) -> None:
    perf = (
        "bash  3994 [001]  1.5:  kmem:mm_page_alloc: page=0xffffea pfn=0x5 order=0 migratetype=1 gfp_flags=GFP_KERNEL"
    )
    stack = ["\tffffffff812a8d10 __alloc_pages+0x1d0 ([kernel.kallsyms])", "\t    7f1c2a3b4c5d malloc+0x2d (libc.so.6)"]
    assert follow(perf, *stack, "", perf.replace("pfn=0x5", "pfn=0x6"), *stack).allocs == 2


def test_the_clock_and_the_header(follow: Callable[..., Ledger]) -> None:
    def at(line: str, seconds: float, cpu: int = 0) -> str:
        return line.replace("[000]", f"[{cpu:03}]").replace("1.000001", f"{seconds:11.6f}")

    assert follow(at(a(5), 9.5), at(a(6), 10.25), at(a(7), 10.25), at(a(8), 100.5)).clean
    assert follow(at(a(5), 9.5), at(a(6), 2.5, cpu=1)).clean
    ledger = follow(at(a(5), 10.5), at(a(6), 9.5))
    assert [(found.kind, found.line) for found in ledger.findings] == [("out_of_order", 2)]
    assert str(ledger.findings[0]) == "line 2: out_of_order: 9.500000 comes after 10.500000"
    header = "# entries-in-buffer/entries-written: {}/7   #P:1"
    whole = [
        header.format(3),
        "#",
        a(5),
        "",
        LOST,
        "x-1 [000] .... 1.0: sched_switch: a",
        "x-1 [000] 1.0: <stack trace>",
    ]
    assert follow(*whole, " => __alloc_pages_nodemask").clean
    ledger = follow(*whole[:-1])
    assert str(ledger.findings[0]) == "line 1: incomplete: the header tells of 3 entries, and there are 2"


# -- formats -----------------------------------------------------------------


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_tells_the_same(follow: Callable[..., Ledger], form: str) -> None:
    out = io.StringIO()
    write(out, 3000, 1, form)
    ledger = follow(*out.getvalue().splitlines())
    assert ledger.findings == []
    assert ledger.allocs + ledger.frees == 3000
    # In perf's columns the task's name and id are apart.
    assert {re.split(r"[- ]+(?=\d+$)", leak.task)[0] for leak in ledger.leaks()} <= {
        *("bash", "kworker/u8:2", "Web Content", "dd", "<idle>", "a-b c-1")
    }
    assert {"0x" in leak.gfp for leak in ledger.leaks()} == {False}


@pytest.mark.parametrize(
    ("head", "fields"),
    [
        ("  bash-3994    1d..2   12us!: mm_page_alloc: page=ffffea00 pfn=5", "GFP_KERNEL"),
        ("  bash-3994  (3994) [001] d..2.  1.5: mm_page_alloc: page=000000001234abcd pfn=0x5", "0xcc0"),
        ("  bash-3994  [001]  1.5: mm_page_alloc:        page=0xffffea pfn=5", "GFP_KERNEL|0x400000"),
        ("  bash  3994 [001]  1.5: kmem:mm_page_alloc: page=0xffffea pfn=5", "GFP_KERNEL|GFP_ZERO"),
    ],
)
def test_shapes_of_a_line(follow: Callable[..., Ledger], head: str, fields: str) -> None:
    ledger = follow(f"{head} order=0 migratetype=0 gfp_flags={fields}")
    assert ledger.allocs == 1
    assert ledger.allocation(5) is not None


def test_a_failed_allocation_has_no_page(follow: Callable[..., Ledger]) -> None:
    line = (
        "init-1 [000] d... 1.5: mm_page_alloc: page=          (null) pfn=0 order=3 migratetype=0 gfp_flags=GFP_KERNEL"
    )
    assert follow(line).failed == 1


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("garbage", "a line like 'TASK-PID [CPU]"),
        (
            "init-1 [000] .... 1.0: mm_page_free: page=ffffea00 pfn=xyz order=0",
            "mm_page_free: page=PAGE pfn=PFN order=N",
        ),
        ("init-1 [000] .... 1.0: mm_page_alloc: page=ffffea00 pfn=5 ord", "mm_page_alloc: page=PAGE"),
        (f(1 << 45), "a PFN of 40 bits"),
    ],
)
def test_malformed_lines(follow: Callable[..., Ledger], line: str, expected: str) -> None:
    with pytest.raises(UsageError) as caught:
        follow(a(5), line)
    assert "trace.txt: line 2: expected " in str(caught.value)
    assert expected in str(caught.value)


def test_malformed_lines_can_be_skipped(tmp_path: Path) -> None:
    path = tmp_path / "trace.txt"
    path.write_bytes(b"\xff\xfe\n" + a(5).encode() + b"\nno line\n" + f(5).encode())
    trace, ledger = TraceFile(path, skip_bad=True), Ledger()
    ledger.read(trace)
    assert (trace.bad, ledger.allocs, ledger.frees, ledger.clean) == (2, 1, 1, True)
    with pytest.raises(UsageError, match="No such file"):
        Ledger().read(TraceFile(tmp_path / "none"))


# -- page_owner --------------------------------------------------------------

OLD = """\
Page allocated via order 2, mask 0x2084d0
PFN 4096 Block 8 type 0          Flags  R  D
 [<ffffffff81158d43>] __alloc_pages_nodemask+0x123/0x9f0

"""
NEW = """\
Page allocated via order 0, mask 0xcc0(GFP_KERNEL), pid 17, tgid 17 (kworker/0:1), ts 1234 ns, free_ts 0 ns
PFN 0x2000 type Unmovable Block 16 type Unmovable Flags 0x0(node=0|zone=1)
 post_alloc_hook+0x1/0x2

"""


def test_page_owner_dumps(tmp_path: Path) -> None:
    path = tmp_path / "owner.txt"
    path.write_text(OLD + NEW)
    assert page_owner.is_page_owner(path)
    ledger = page_owner.history(path)
    assert [(leak.task, leak.gfp, leak.order) for leak in ledger.leaks()] == [
        ("", "0x2084d0", 2),
        ("kworker/0:1-17", "GFP_KERNEL", 0),
    ]
    path.write_text(NEW.replace("kworker/0:1", "a b (c)"))
    assert page_owner.history(path).leaks()[0].task == "a b (c)-17"
    path.write_text(OLD + NEW)
    known = ledger.allocation(4098)
    assert known is not None
    assert (known.pfn, known.order) == (4096, 2)
    path.write_text(OLD + OLD.replace("4096", "4098").replace("order 2", "order 1"))
    assert page_owner.read(path)[0].counts == {"handed_out_twice": 1}
    path.write_text("Page allocated via order 2, mask 0x1\nnothing\n")
    with pytest.raises(UsageError, match="line 2: expected 'PFN NUMBER"):
        page_owner.read(path)
    assert page_owner.read(path, skip_bad=True)[1] == 1
