# SPDX-License-Identifier: GPL-2.0-only
"""What all tests share: the recordings of a real kernel under ``data/oracle``."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ORACLE = Path(__file__).parent / "data" / "oracle"


@dataclass(frozen=True)
class Case:
    """A page script that a real Linux 4.0 ran, its memory before and after, and what every call returned."""

    name: str

    def file(self, name: str) -> Path:
        return ORACLE / self.name / name

    @property
    def a(self) -> Path:
        return self.file("A.vmcore.xz")

    @property
    def b(self) -> Path:
        return self.file("B.vmcore.xz")

    @property
    def script(self) -> Path:
        return self.file("script.txt")

    @property
    def result(self) -> Path:
        return self.file("result.txt")

    @property
    def symbols(self) -> dict[str, int]:
        addresses = json.loads(self.file("symbols.json").read_text())["addresses"]
        return {name: int(value, 16) for name, value in addresses.items()}


@pytest.fixture(scope="session")
def oracle() -> Callable[[str], Case]:
    """A recording by its name."""
    return Case


@pytest.fixture(scope="session")
def project_environment() -> dict[str, str]:
    """The environment of a child process that is to import this checkout."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path}
