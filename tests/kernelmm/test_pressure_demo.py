# SPDX-License-Identifier: GPL-2.0-only
"""The screen of memory pressure: what it says is what happened."""

from __future__ import annotations

import re

from kernelmm.machine import Machine
from kernelmm.study.pressure_demo import story


def test_story_fits_a_screen_and_tells_all_four(oracle):
    case = oracle("n128_s1")
    with Machine.attach(case.a, symbols=case.file("symbols.json")) as machine:
        lines = list(story(machine))
    text = "\n".join(lines)
    assert len(lines) <= 24
    assert all(len(line) <= 120 for line in lines)
    assert int(re.search(r"kswapd     was woken, looked at (\d+)", text)[1]) > 0
    assert re.search(r"reclaim    .*stalled 1 times", text)
    assert int(re.search(r"moved (\d+) pages, for example pfn \d+ to pfn \d+: it got pfn", text)[1]) > 0
    assert "Killed process 3 (big)" in text
