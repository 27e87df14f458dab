# SPDX-License-Identifier: GPL-2.0-only
"""The allocator runs on a distilled image as on the whole one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kernelmm.machine import Machine
from physmem.distill import distill
from physmem.dump import open_dump
from physmem.image.save import Target


@pytest.mark.parametrize(
    "case", ["n128_s1", "n128_s7", "n128_s16_fault", "n256x2_s6n", "u128_s1", "n128cma_s17_contig"]
)
def test_a_script_runs_as_the_kernel_ran_it(case: str, oracle: Callable[[str], Any], tmp_path: Path) -> None:
    with open_dump(oracle(case).a) as dump:
        distill(dump, Target.of(tmp_path / "a.kdump"))
    with Machine.attach(tmp_path / "a.kdump") as machine:
        assert machine.run(oracle(case).script) == oracle(case).result.read_text().splitlines()


def test_a_machine_of_our_own(tmp_path: Path) -> None:
    machine = Machine.boot("64M", nodes=2, cpus=2)
    distill(machine.dump, Target.of(tmp_path / "a.kdump"))
    machine.save(tmp_path / "b.kdump")
    pages = []
    for name in ("a.kdump", "b.kdump"):
        with Machine.attach(tmp_path / name) as other:
            pages.append([other.alloc_pages(0xD0, order) for order in (0, 1, 4, 0, 10)])
    assert pages[0] == pages[1]
    assert (tmp_path / "a.kdump").stat().st_size < (tmp_path / "b.kdump").stat().st_size
