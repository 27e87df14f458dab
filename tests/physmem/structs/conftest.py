# SPDX-License-Identifier: GPL-2.0-only
"""The two real kernels that the declarations are proven against."""

from __future__ import annotations

import lzma
from dataclasses import dataclass
from pathlib import Path

import pytest

from physmem.structs import linux_4_0
from physmem.structs.layout import Layout

DATA = Path(__file__).parents[2] / "data"


@dataclass(frozen=True)
class Kernel:
    """A build of Linux 4.0: what its DWARF and its VMCOREINFO note say."""

    config: linux_4_0.Config
    layout_json: bytes
    note: dict[str, str]

    @property
    def compiled(self) -> Layout:
        return linux_4_0.layout(self.config)


def read_kernel(name: str) -> Kernel:
    directory = DATA / "kernels" / name
    lines = (directory / "vmcoreinfo.txt").read_text().splitlines()
    note = {key: value for key, _, value in (line.partition("=") for line in lines)}
    return Kernel(linux_4_0.CONFIGS[name], lzma.decompress((directory / "layout.json.xz").read_bytes()), note)


KERNELS = {name: read_kernel(name) for name in ("numa", "up")}


@pytest.fixture(params=sorted(KERNELS))
def kernel(request: pytest.FixtureRequest) -> Kernel:
    return KERNELS[request.param]


@pytest.fixture
def numa() -> Layout:
    return KERNELS["numa"].compiled


@pytest.fixture
def up() -> Layout:
    return KERNELS["up"].compiled
