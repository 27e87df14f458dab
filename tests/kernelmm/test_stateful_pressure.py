# SPDX-License-Identifier: GPL-2.0-only
"""Everything mixed: allocating, reclaim, compaction, ranges, faults, cpusets, hotplug; and every allocation failing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from physmem import engine
from tools.soak import OPERATIONS, World, fail_nth

NUMBER = st.integers(0, (1 << 20) - 1)


class Mixed(RuleBasedStateMachine):
    """The operations of :mod:`tools.soak` in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()

    @rule(name=st.sampled_from(OPERATIONS), a=NUMBER, b=NUMBER)
    def step(self, name: str, a: int, b: int) -> None:
        self.world.step(name, a, b)

    @invariant()
    def nothing_is_lost(self) -> None:
        self.world.verify()

    def teardown(self) -> None:
        self.world.finish()


TestMixed = Mixed.TestCase
TestMixed.settings = settings(
    max_examples=4, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)


def test_whichever_allocation_fails_nothing_is_lost():
    """The fault loop: the n-th allocation fails, for every n until the scenario is through without.

    On the engine that the tests run on; the other one has a spread of them below.
    """
    failed = 0
    for n in range(1, 1000):
        fired, ended, _ = fail_nth(n, whole=n % 25 == 1)
        failed += ended
        if not fired:
            break
    else:
        raise AssertionError("the scenario does not end")
    assert n > 100
    assert failed


@pytest.mark.skipif(engine.why_interpreted() is not None, reason="the compiled engine is not built")
@pytest.mark.parametrize(
    "arguments",
    [
        ("--steps", "40", "--seed", "3", "--check-every", "1000", "--digest"),
        ("--fail-nth", "1"),
        ("--fail-each", "13"),
        ("--cpu-dead",),
    ],
)
def test_both_engines_leave_the_same_bytes(arguments):
    """What the operations, a scenario with a failure in it, and the notifier of a dead CPU do to all of memory."""
    root = Path(__file__).parents[2]
    outputs = []
    for name in engine.ENGINES:
        env = {"PHYSMEM_ENGINE": name, "PATH": "/usr/bin:/bin"}
        command = [sys.executable, "-m", "tools.soak", *arguments]
        outputs.append(subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, check=True).stdout)
    assert outputs[0] == outputs[1]
    assert len(outputs[0].split()[-1]) == 64
    assert len(outputs[0].splitlines()) > (8 if "--fail-each" in arguments else 0)
