# SPDX-License-Identifier: GPL-2.0-only
"""``make bench`` compares two runs of one algorithm: what the C reference does is what the engine does."""

from __future__ import annotations

import math
import shutil

import pytest

from kernelmm.study import script
from tools.bench import __main__ as bench
from tools.bench import growth
from tools.bench.contest import CASES, DATA, Case, Contest

needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")


@needs_compiler
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_reference_in_c_leaves_the_bytes_that_the_engine_leaves(case: Case) -> None:
    contest = Contest(case)
    assert contest.reference is not None
    contest.ours()
    contest.theirs()
    ours = contest.mm.ram.as_u8
    for name, phys, size in contest.reference.metadata:
        assert ours[phys : phys + size] == contest.copy[phys : phys + size], name


@needs_compiler
@pytest.mark.parametrize("name", ["n128_s1", "n128_s4"])
def test_the_reference_gives_the_results_of_the_real_kernel(name: str) -> None:
    contest = Contest(Case(name, ""))
    assert contest.reference is not None
    found = contest.reference.replay(contest.ops)
    assert found is not None
    told = list(script.format_results(script.load(DATA / name / "script.txt"), found))
    assert told == script.parse_results(DATA / name / "result.txt")


def test_what_a_target_is_missed_by() -> None:
    assert bench._against(1.9, 2.0) == "reached"
    assert bench._against(2.5, 2.0) == "missed by 25 %"


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_growth_is_told_by_the_larger_sizes(power: float) -> None:
    row = [(float(size), max(1.0, size**power / 30)) for size in (10, 100, 1e4, 1e5, 1e6, 1e7)]
    assert math.isclose(growth.exponent(row), power, rel_tol=0.01)
