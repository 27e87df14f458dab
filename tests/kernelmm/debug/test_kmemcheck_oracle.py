# SPDX-License-Identifier: GPL-2.0-only
"""What Linux 4.0.4 did with CONFIG_KMEMCHECK=y and kmemcheck=1 (tools/oracle, random scripts), done again.

Compared are results, the page array with its shadows' addresses, page tables, and the shadows themselves.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from kernelmm import Machine
from physmem import engine
from physmem.structs import linux_4_0
from tools.oracle.judge import judge

RECORDED = Path(__file__).parents[2] / "data" / "kmemcheck404"
CASES = tuple(sorted(path.parent.name for path in RECORDED.glob("*/script.txt")))


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the kernel's layout and symbols."""
    folder = tmp_path_factory.mktemp("kernel")
    (folder / "layout.json").write_text(linux_4_0.layout(linux_4_0.NUMA.with_kmemcheck()).to_json())
    shutil.copy(RECORDED / "symbols.json", folder)
    return folder


def attach(kernel: Path, image: Path) -> Machine:
    return Machine.attach(image, layout=kernel / "layout.json", symbols=kernel / "symbols.json")


@pytest.mark.parametrize("name", CASES)
def test_results_and_memory_equal_the_kernels(name: str, kernel: Path) -> None:
    verdict = judge(RECORDED / name, kernel / "layout.json", kernel / "symbols.json")
    assert list(verdict.lines()) == []


def test_the_other_engine_does_the_same(kernel: Path, project_environment: dict[str, str]) -> None:
    (other,) = {*engine.ENGINES} - {engine.current()}
    if engine.why_interpreted() and other == "compiled":
        pytest.skip(engine.why_interpreted() or "")
    command = [sys.executable, "-m", "tools.oracle.judge", kernel, *(RECORDED / name for name in CASES)]
    child = subprocess.run(
        command, env={**project_environment, "PHYSMEM_ENGINE": other}, capture_output=True, text=True, check=False
    )
    assert (child.stdout, child.stderr, child.returncode) == ("", "", 0)


def test_shadows_are_among_what_is_compared(kernel: Path) -> None:
    """The kernel has some hundred pages that the script holds: zeroed ones are written, the others are not."""
    with attach(kernel, RECORDED / "mix" / "B.vmcore.xz") as machine:
        pages, exists = machine.dump.pages(0, machine.dump.max_pfn, ["shadow"])
        shadows = [int(va) for va in np.asarray(pages["shadow"]).reshape(-1)[exists].tolist() if va]
        frames = [machine.dump.virt_to_phys(va) for va in shadows]
        kept = [at for at in frames if machine.ram.ranges.covers(at, at + 4096)]
        assert {bytes(set(machine.ram.read(at, 4096))) for at in kept} == {b"\1", b"\2"}
        assert 300 < len(kept) < len(frames)


def test_the_comparison_can_fail(kernel: Path, tmp_path: Path) -> None:
    """One request fewer is tracked: other pages are given, hidden, marked."""
    case = tmp_path / "mix"
    shutil.copytree(RECORDED / "mix", case)
    script = (case / "script.txt").read_text().splitlines()
    tracked = next(
        i for i, line in enumerate(script) if line.startswith("a ") and not int(line.split()[4], 16) & 0x200002
    )
    words = script[tracked].split()
    script[tracked] = " ".join([*words[:4], f"{int(words[4], 16) | 0x200000:x}"])
    (case / "script.txt").write_text("\n".join(script) + "\n")
    found = list(judge(case, kernel / "layout.json", kernel / "symbols.json").lines())
    assert any(line.startswith("result ") for line in found)
    assert any("shadow" in line for line in found)


def test_shadows_that_fail_are_told_as_by_the_kernel(kernel: Path) -> None:
    """Of its console, what is not its call traces."""
    with attach(kernel, RECORDED / "everything" / "A.vmcore.xz") as machine:
        machine.mm.comm = "swapper/0"
        machine.run(RECORDED / "everything" / "script.txt")
        assert machine.dmesg() == (RECORDED / "everything" / "console.txt").read_text()
        assert "kmemcheck: failed to allocate shadow bitmap" in machine.dmesg()
