# SPDX-License-Identifier: GPL-2.0-only
"""The C reference of ``make bench`` does what the engine does: the same bytes, the same results."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from kernelmm.core import replay
from tools.bench.contest import CASES, Case, Contest

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler: cc is not on PATH")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_reference_and_the_engine_leave_the_same(case: Case) -> None:
    contest = Contest(case)
    reference, mm, ops = contest.reference, contest.mm, contest.ops[:4000]
    assert reference is not None
    reference.restore()
    contest.restore()
    theirs = reference.replay(ops)
    ours = np.zeros((len(ops), 4), np.int64)
    replay.replay(mm, ops.reshape(-1).data, contest.pages.data, ours.reshape(-1).data, 0, len(ops))
    assert theirs is not None
    assert (theirs == ours).all()
    for name, phys, size in reference.metadata:
        assert reference.ram[phys : phys + size] == mm.ram.as_u8[phys : phys + size], name
