# SPDX-License-Identifier: GPL-2.0-only
"""Traces: a real one is clean, what is wrong with others is found, and every format is read."""

from __future__ import annotations

import io
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kernelmm.validate import page_owner
from kernelmm.validate.ledger import KINDS, Ledger
from kernelmm.validate.tracefile import TraceFile
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
        ["# comment", "", "cpus=4", LOST, "init-1 [000] .... 1.0: sched_switch: prev_comm=init"],
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


def mutate(lines: list[str], rng: random.Random) -> tuple[str, list[str]]:
    """One change that later events contradict."""
    pfn_of = [match[1] if (match := re.search(r"pfn=(\d+) ", line)) else "" for line in lines]
    while True:
        i = rng.randrange(len(lines))
        is_alloc = ": mm_page_alloc: " in lines[i]
        if not is_alloc and ": mm_page_free: " not in lines[i]:
            continue
        again = [j for j in range(i + 1, len(lines)) if pfn_of[j] == pfn_of[i]]
        # Before its first mention nothing is known of a page, and after its last nothing contradicts.
        if not again or pfn_of[i] not in pfn_of[:i]:
            continue
        changed = list(lines)
        order = int(re.search(r"order=(\d+)", lines[i])[1])  # type: ignore[index]
        kind = rng.choice(("drop", "duplicate", "order", "swap"))
        if kind == "drop":
            del changed[i]
        elif kind == "duplicate":
            changed.insert(rng.randrange(i + 1, again[0] + 1), lines[i])
        elif kind == "order":
            changed[i] = lines[i].replace(f"order={order}", f"order={order - 1 if order else 1}")
        else:
            changed[i], changed[again[0]] = lines[again[0]], lines[i]
        if ": mm_page_free_batched: " not in lines[again[0]]:
            return kind, changed


@pytest.mark.parametrize("seed", range(40))
def test_mutations_of_the_real_trace_are_found(follow: Callable[..., Ledger], real: list[str], seed: int) -> None:
    kind, changed = mutate(real, random.Random(seed))
    assert not follow(*changed).clean, kind


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
    known = ledger.allocation(4098)
    assert known is not None
    assert (known.pfn, known.order) == (4096, 2)
    path.write_text(OLD + OLD.replace("4096", "4098").replace("order 2", "order 1"))
    assert page_owner.read(path)[0].counts == {"handed_out_twice": 1}
    path.write_text("Page allocated via order 2, mask 0x1\nnothing\n")
    with pytest.raises(UsageError, match="line 2: expected 'PFN NUMBER"):
        page_owner.read(path)
    assert page_owner.read(path, skip_bad=True)[1] == 1
