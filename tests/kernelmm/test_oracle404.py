# SPDX-License-Identifier: GPL-2.0-only
"""What a kernel built by tools/oracle did (Linux 4.0.4, random scripts), done again on both engines.

The cases are of recipes that the other recordings have nothing like: two CPUs, split pages, exhaustion of every zone,
ZONE_NORMAL, nodes of different sizes with holes in them, CMA areas under pressure, all flags at random; and what lies
behind __GFP_WAIT: compaction in vain or with success, its deferral, reclaim, retries.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kernelmm import Machine
from physmem import address, engine
from physmem.structs import linux_4_0
from tools.oracle.judge import judge

RECORDED = Path(__file__).parents[1] / "data" / "oracle404"
CASES = tuple(sorted(path.parent.name for path in RECORDED.glob("*/script.txt")))


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the kernel's layout and symbols: it is of a configuration that is known here."""
    folder = tmp_path_factory.mktemp("kernel")
    (folder / "layout.json").write_text(linux_4_0.layout(linux_4_0.NUMA).to_json())
    shutil.copy(RECORDED / "symbols.json", folder)
    return folder


def symbols_of(name: str) -> Path:
    """Those of the kernel that a case is of: the later recordings are of another build."""
    own = RECORDED / name / "symbols.json"
    return own if own.exists() else RECORDED / "symbols.json"


@pytest.mark.parametrize("name", CASES)
def test_results_and_memory_equal_the_kernels(name: str, kernel: Path) -> None:
    verdict = judge(RECORDED / name, kernel / "layout.json", symbols_of(name))
    assert list(verdict.lines()) == []


EVENTS = {
    "wait": {"ALLOCSTALL": 486, "COMPACTSTALL": 21, "COMPACTFAIL": 21, "PGSTEAL_DIRECT_DMA32": 0},
    "wait_cached": {"ALLOCSTALL": 636, "PGSTEAL_DIRECT_DMA32": 91, "PGSCAN_DIRECT_DMA32": 6109, "COMPACTFAIL": 121},
    "wait_compact": {"PGMIGRATE_SUCCESS": 142, "COMPACTSUCCESS": 1, "COMPACTFAIL": 6, "ALLOCSTALL": 12},
    "wait_throttle": {"PGSCAN_DIRECT_THROTTLE": 1, "PAGEOUTRUN": 1, "PGSTEAL_KSWAPD_DMA32": 210, "ALLOCSTALL": 1},
}


@pytest.mark.parametrize("name", EVENTS)
def test_what_the_kernel_did_while_it_waited(name: str, kernel: Path) -> None:
    """The cases are of what they are said to be: counted in the kernel's own images."""

    def events(moment: str) -> dict[str, int]:
        known = {"layout": kernel / "layout.json", "symbols": symbols_of(name)}
        with Machine.attach(RECORDED / name / f"{moment}.vmcore.xz", **known) as machine:
            mm, numbers = machine.mm, machine.dump.layout.enum("vm_event_item")
            at = address.off(mm, mm.percpu_vm_event_states + mm.per_cpu_offset(0)) >> 3
            return {event: mm.as_u64[at + numbers[event]] for event in EVENTS[name]}

    before, after = events("A"), events("B")
    assert {event: after[event] - before[event] for event in after} == EVENTS[name]


def test_the_other_engine_does_the_same(kernel: Path, tmp_path: Path, project_environment: dict[str, str]) -> None:
    (other,) = {*engine.ENGINES} - {engine.current()}
    if engine.why_interpreted() and other == "compiled":
        pytest.skip(engine.why_interpreted() or "")
    for symbols in {symbols_of(name) for name in CASES}:
        folder = tmp_path / symbols.parent.name
        folder.mkdir()
        shutil.copy(kernel / "layout.json", folder)
        shutil.copy(symbols, folder)
        cases = (RECORDED / name for name in CASES if symbols_of(name) == symbols)
        child = subprocess.run(
            [sys.executable, "-m", "tools.oracle.judge", folder, *cases],
            env={**project_environment, "PHYSMEM_ENGINE": other},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (child.stdout, child.stderr, child.returncode) == ("", "", 0)


def test_the_comparison_can_fail(kernel: Path, tmp_path: Path) -> None:
    """The lists of a second CPU, drained at another time: the results are soon others, and so is memory."""
    case = tmp_path / "cpus"
    shutil.copytree(RECORDED / "cpus", case)
    script = (case / "script.txt").read_text().splitlines()
    script.remove("D")
    (case / "script.txt").write_text("\n".join(script) + "\n")
    found = list(judge(case, kernel / "layout.json", kernel / "symbols.json").lines())
    assert found[0].startswith("result ")
    assert any("page " in line for line in found)


def test_by_the_commands_of_a_user(kernel: Path, tmp_path: Path, project_environment: dict[str, str]) -> None:
    known = ["--layout", str(kernel / "layout.json"), "--symbols", str(kernel / "symbols.json")]
    case, out = RECORDED / "dma", tmp_path / "out.vmcore"
    for command in (
        ["kernelmm", "run", case / "A.vmcore.xz", case / "script.txt", "--expect", case / "result.txt", "-o", out],
        ["physmem", "diff", out, case / "B.vmcore.xz"],
    ):
        child = subprocess.run(
            [sys.executable, "-m", *map(os.fspath, command), *known],
            env=project_environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert child.returncode == 0, child.stdout + child.stderr


@pytest.mark.parametrize("name", ["bad", "wait_report"])
def test_reports_equal_the_kernels(name: str, kernel: Path) -> None:
    """Of its console, what is not its call traces: of bad pages, of allocations that waited in vain beside a CMA area.

    4.0 takes the area's pages off those that are reserved, among which they are not: with one, there are 2^64 too many.
    """
    case = RECORDED / name
    known = {"layout": kernel / "layout.json", "symbols": symbols_of(name)}
    with Machine.attach(case / "A.vmcore.xz", **known) as machine:
        # The driver runs in the task that is to become init.
        machine.mm.comm = "swapper/0"
        machine.run(case / "script.txt")
        assert machine.dmesg() == (case / "console.txt").read_text()
