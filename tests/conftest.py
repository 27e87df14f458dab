# SPDX-License-Identifier: GPL-2.0-only
"""What all tests share: the recordings of a real kernel under ``data/oracle``, and a browser."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import json
import os
import sys
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from physmem import engine
from physmem.dump import Dump, open_dump
from physmem.ram import Ram
from physmem.space import AddressSpace

# A loaded machine is slow; whether it is says nothing of the code.
settings.register_profile("physmem", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("physmem")

# Without a compiled engine every program says so once: here it is known, and is no part of what is tested.
if engine.why_interpreted() is not None:
    os.environ.setdefault("PHYSMEM_ENGINE", "interpreted")

ROOT = Path(__file__).parents[1]
ORACLE = Path(__file__).parent / "data" / "oracle"
VMCORES = Path(__file__).parent / "data" / "vmcores"


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
def modern() -> Iterator[Callable[[str], Dump]]:
    """A dump of a kernel of today by its name under ``data/vmcores``: opened once, to be read only."""
    with contextlib.ExitStack() as stack:

        @functools.cache
        def opened(name: str) -> Dump:
            return stack.enter_context(open_dump(VMCORES / name / "image.vmcore.xz"))

        yield opened


@pytest.fixture
def address_space() -> Callable[..., AddressSpace]:
    """An address space over a Ram, with the regions of x86-64; its page array is in one piece at physical 2 MiB."""

    def make(ram: Ram, **regions: Any) -> AddressSpace:
        chunks = -(-(ram.size >> 12) * 64 // (1 << 21))
        memmap = array("Q", [(2 + 2 * i) << 20 for i in range(chunks)])
        known = {
            "page_offset": 0xFFFF880000000000,
            "start_kernel_map": 0xFFFFFFFF80000000,
            "phys_base": 0,
            "kernel_image_size": 512 << 20,
            "mem_map": 0xFFFFEA0000000000,
            "memmap": memoryview(memmap),
            "memmap_shift": 21,
            "list_poison1": 0xDEAD000000100100,
            "list_poison2": 0xDEAD000000200200,
        }
        return AddressSpace(ram, **(known | regions))

    return make


@pytest.fixture(scope="session")
def project_environment() -> dict[str, str]:
    """The environment of a child process that is to import this checkout."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path}


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A headless browser (``browser.py``); its ``open(path)`` gives a page to click on, type at and hover over."""
    spec = importlib.util.spec_from_file_location("physmem_browser", Path(__file__).with_name("browser.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    program = module.find_browser()
    if program is None:
        pytest.skip("no browser is installed (chromium)")
    with module.Browser(program) as running:
        yield running
