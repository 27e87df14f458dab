# SPDX-License-Identifier: GPL-2.0-only
"""The makers of small dumps and of their parts: see ``makers``."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"physmem_{name}", Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def makers() -> ModuleType:
    """BtfMaker, make_kallsyms, make_kdump, flatten."""
    return _load("makers")
