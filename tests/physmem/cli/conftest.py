# SPDX-License-Identifier: GPL-2.0-only
"""Runs the command line in this process, in the folder of a case."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from physmem.cli import main

ORACLE = Path(__file__).parents[2] / "data" / "oracle"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """``run("info", "A.vmcore.xz")`` in a case's folder; ``case=`` names another than n128_s1."""

    def runner(*args: str, case: str = "n128_s1") -> Result:
        monkeypatch.chdir(ORACLE / case)
        return CliRunner().invoke(main, args)

    return runner


@pytest.fixture(scope="session")
def oracle() -> Path:
    return ORACLE
