# SPDX-License-Identifier: GPL-2.0-only
"""The tools that record what a real kernel does, as far as they work without one."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kernelmm.study.script import parse
from tools.oracle.guest import Guest, cpio
from tools.oracle.judge import judge
from tools.oracle.scripts import RECIPES, make


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_makes_scripts_from_seeds(name: str) -> None:
    first = make(RECIPES[name], 1, 1500)
    assert first == make(RECIPES[name], 1, 1500) != make(RECIPES[name], 2, 1500)
    script = parse(first.splitlines(), name)
    codes = Counter(chr(code) for code in script.ops[:, 0].tolist())
    assert codes["a"] > 300
    assert codes["f"] + codes["F"] + codes["c"] + codes["R"] > 100
    if RECIPES[name].guest.cpus > 1:
        assert codes["T"] > 10


def test_a_judge_finds_nothing_but_what_differs(oracle: Callable[[str], Any], tmp_path: Path) -> None:
    case = oracle("n128_s0_one")
    module = case.symbols["pgtest_marker"] - 0xFFFFFFFF80000000
    assert not judge(case.a.parent, foreign={module})
    (only,) = judge(case.a.parent).lines()
    assert only.startswith(f"{module:#x}: 0x00 instead of 0x01: ")

    shutil.copytree(case.a.parent, tmp_path / "case")
    (tmp_path / "case" / "script.txt").write_text("a 0 -1 1 200\n")
    found = list(judge(tmp_path / "case", foreign={module}).lines())
    assert found[0].startswith("result 1: 'a ")
    for what in ("page ", "node 0 zone 1 vm_stat", "node 0 zone 1 lock", "vm_event_states"):
        assert any(what in line for line in found), what


def test_a_guest_has_the_machine_that_was_asked_for() -> None:
    guest = Guest(nodes=(48, 64), cpus=3, below=64, append="cma=16M")
    command = " ".join(guest.command(Path("bzImage"), Path("initrd"), Path("folder")))
    assert "-m 112M -smp 3" in command
    assert "max-ram-below-4g=64M" in command
    assert "size=48M -numa node,nodeid=0,memdev=m0,cpus=0,cpus=2" in command
    assert "nodeid=1,memdev=m1,cpus=1" in command
    assert command.count("cma=16M") == 1
    assert "-numa" not in Guest().command(Path("bzImage"), Path("initrd"), Path("folder"))


def test_the_archive_is_one_that_a_kernel_unpacks() -> None:
    archive = cpio({"script": b"a 0 -1 0 200\n"})
    assert archive[:6] == b"070701"
    assert archive[110:117] == b"script\0"
    assert archive[120:133] == b"a 0 -1 0 200\n"
    assert len(archive) % 4 == 0
    assert b"TRAILER!!!\0" in archive
