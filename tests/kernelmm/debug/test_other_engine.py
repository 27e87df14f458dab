# SPDX-License-Identifier: GPL-2.0-only
"""The debugging aids and the counters that lag, on the engine that the other tests do not run on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from physmem import engine

ROOT = Path(__file__).parents[3]
FILES = ("debug/test_lockdep.py", "debug/test_atomic.py", "study/test_debug_vm.py", "pressure/test_drift.py")


@pytest.mark.skipif(engine.why_interpreted() is not None, reason="the compiled engine is not built")
def test_lockdep_assertions_and_drift(project_environment: dict[str, str]) -> None:
    (other,) = {*engine.ENGINES} - {engine.current()}
    child = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *(f"tests/kernelmm/{name}" for name in FILES)],
        cwd=ROOT,
        env={**project_environment, "PHYSMEM_ENGINE": other},
        capture_output=True,
        text=True,
        check=False,
    )
    assert child.returncode == 0, child.stdout
    assert " passed" in child.stdout or "[100%]" in child.stdout
