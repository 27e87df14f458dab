# SPDX-License-Identifier: GPL-2.0-only
"""``kernelmm replay``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from kernelmm import Machine, gfp
from kernelmm.cli import main
from kernelmm.validate.replayer import Replay, gfp_mask
from kernelmm.validate.tracefile import TraceFile
from physmem.inspect.check import check


def replay(*args: object) -> Result:
    return CliRunner().invoke(main, ["replay", *map(str, args)])


@pytest.fixture(scope="module")
def trace(oracle: Callable[[str], Any]) -> Path:
    return oracle("n128_s1_trace").file("trace.txt")  # type: ignore[no-any-return]


def test_the_real_trace(trace: Path, tmp_path: Path) -> None:
    plot = tmp_path / "plot.svg"
    result = replay("--json", "--every", 1000, "--plot", plot, trace)
    told = json.loads(result.stdout)
    assert (told["allocs"], told["frees"], told["failed"], told["unknown"]) == (2891, 1949, 0, 5)
    assert [sample["event"] for sample in told["samples"]] == [0, 1000, 2000, 3000, 4000, 4840]
    assert told["samples"][-1]["allocated"] == told["allocated"] == 1552
    assert all(0 <= sample["unusable_order_4"] <= sample["unusable_order_9"] <= 1 for sample in told["samples"])
    assert plot.read_text().startswith("<?xml")


def test_on_an_image(trace: Path, oracle: Callable[[str], Any]) -> None:
    result = replay(trace, oracle("n128_s1_trace").a)
    assert result.exit_code == 0
    assert "2891 allocations, 0 failed here; 1949 frees, 5 of what is not here" in result.stdout


def line(event: str, pfn: int, order: int) -> str:
    more = " migratetype=0 gfp_flags=GFP_KERNEL" if event == "alloc" else ""
    return f"a-1 [000] .... 1.5: mm_page_{event}: page=ff pfn={pfn} order={order}{more}\n"


def test_parts_and_lost_frees_leave_a_healthy_machine(tmp_path: Path) -> None:
    path = tmp_path / "trace.txt"
    parts = [("alloc", 8, 2), ("free", 11, 0), ("free", 8, 1), ("free", 10, 0)]
    again = [("alloc", 16, 1), ("alloc", 16, 1), ("free", 16, 0), ("free", 17, 0), ("free", 99, 3), ("alloc", 32, 3)]
    head_first = [("free", 32, 0), ("free", 36, 2), ("free", 33, 0), ("free", 34, 1), ("alloc", 0, 0)]
    path.write_text("".join(line(*event) for event in (*parts, *again, *head_first)))
    machine = Machine.boot("64M")
    run = Replay(machine)
    samples = list(run.run(TraceFile(path), 4))
    assert [sample.allocated for sample in samples] == [0, 0, 3, 0]
    assert (run.unknown, run.failed, run.allocated) == (1, 0, 0)
    assert check(machine.dump).findings == []


@pytest.mark.parametrize(
    ("text", "mask"),
    [
        ("GFP_KERNEL", 0),
        ("GFP_HIGHUSER_MOVABLE|__GFP_COMP", gfp.__GFP_MOVABLE | gfp.__GFP_HIGHMEM),
        ("GFP_HIGHUSER|GFP_MOVABLE", gfp.__GFP_MOVABLE | gfp.__GFP_HIGHMEM),
        ("GFP_KERNEL|__GFP_RECLAIMABLE", gfp.__GFP_RECLAIMABLE),
        ("GFP_NOWAIT|GFP_RECLAIMABLE|0x400", gfp.__GFP_RECLAIMABLE),
        ("GFP_DMA32|__GFP_ZERO", gfp.__GFP_DMA32),
        ("GFP_DMA|GFP_DMA32", 0),
        ("__GFP_NO_SUCH|", 0),
    ],
)
def test_masks_of_old_and_new_kernels(text: str, mask: int) -> None:
    assert gfp_mask(text) == mask | gfp.GFP_ATOMIC | gfp.__GFP_NOWARN


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        (("none.txt",), "none.txt: no such file"),
        (("--memory", "64M", "{trace}", "A.vmcore"), "not of an image"),
        (("--plot", "x.bmp", "{trace}"), "a plot is .png, .svg or .pdf"),
        (("{bad}",), "bad.txt: line 1: expected a line like"),
        (("{huge}",), "give a size with --memory"),
    ],
)
def test_what_cannot_be(args: tuple[str, ...], reason: str, trace: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.txt").write_text("nonsense\n")
    (tmp_path / "huge.txt").write_text(line("alloc", 1 << 39, 0))
    files = {"trace": trace, "bad": tmp_path / "bad.txt", "huge": tmp_path / "huge.txt"}
    result = replay(*(arg.format(**files) for arg in args))
    assert result.exit_code == 2
    assert reason in result.stderr
