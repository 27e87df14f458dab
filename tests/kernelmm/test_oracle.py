# SPDX-License-Identifier: GPL-2.0-only
"""What a real Linux 4.0 did, done again: every result line and every byte of the memory manager."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kernelmm import Machine
from physmem import engine
from physmem.image import open_image

ORDINARY = (
    "n128_s0_drain",
    "n128_s0_empty",
    "n128_s0_one",
    "n128_s0_onefree",
    "n128_s0_small",
    "n128_s1",
    "n128_s3",
    "n128_s5",
    "n128_s7",
    "n128_s15_compound",
    "u128_s1",
    "u128_s3",
)
#: kswapd was woken: the scheduler noted that it is to run.
KSWAPD_WOKEN = ("n128_s4", "n128_s14_scanned", "n256x2_s6n")
#: The kernel wrote to its console.
PRINTED = ("n128_s10_bad", "n128_s12_bad")
TRACED = ("n128_s1_trace",)
#: The run took long enough for the scheduler's clocks to show.
ISOLATED = ("n128_s11_isolate",)
#: Interrupts were on: time passed, and timers ran.
INTERRUPTED = ("n128cma_s17_contig",)
CASES = (*ORDINARY, "n128_s16_fault", *KSWAPD_WOKEN, *PRINTED, *TRACED, *ISOLATED, *INTERRUPTED)


def foreign(case: Any, machine: Machine) -> Iterator[tuple[str, int, int]]:
    """What is in the images and not the memory manager's: name, kernel address, bytes."""
    yield "pgtest_marker: the module that ran the script", case.symbols["pgtest_marker"], 1
    per_cpu = machine.mm.per_cpu_offset(0)
    if case.name in KSWAPD_WOKEN:
        yield "__preempt_count, top byte: a task switch is needed", per_cpu + 0xA81B, 1
        yield "runqueues, from nr_running to clock", per_cpu + 0x12480, 0x154
    if case.name in PRINTED:
        yield "print_tainted(): its buffer", 0xFFFFFFFF8141C310, 25
        yield "tainted_mask: TAINT_BAD_PAGE", 0xFFFFFFFF8141C760, 1
        yield "bad_page(): resume", 0xFFFFFFFF814488C8, 8
        yield "bad_page(): nr_shown", 0xFFFFFFFF814488D0, 1
        yield "runqueues, clock", per_cpu + 0x125D0, 4
    if case.name in ISOLATED:
        yield "runqueues, clocks", per_cpu + 0x12480, 0x154
    if case.name in INTERRUPTED:
        yield "jiffies_lock and the sequence count beside it", 0xFFFFFFFF812F2140, 8
        yield "jiffies", 0xFFFFFFFF812FA5C0, 8
        yield "__preempt_count, top byte: a task switch is needed", per_cpu + 0xA81B, 1
        yield "a per-cpu count of ticks", per_cpu + 0xE5E8, 8
        yield "a per-cpu timer's seqcount", per_cpu + 0xF188, 8
        yield "runqueues, from nr_running on", per_cpu + 0x12480, 0x3C0
        yield "a slab cache's per-cpu free list", per_cpu + 0x13040, 16
        yield "another's", per_cpu + 0x13170, 16
    if case.name in TRACED:
        yield "a per-cpu variable of the tracing core", per_cpu + 0xE588, 1


def differences(machine: Machine, image: Path, ignored: set[int]) -> list[str]:
    """Every byte of the image that is not the machine's, but the ignored physical addresses."""
    found = []
    with open_image(image) as after:
        assert after.ranges == machine.ram.ranges
        for phys, data in after.segments():
            want = np.frombuffer(data, np.uint8)
            got = machine.ram.array(phys, np.uint8, len(want))
            unequal = np.flatnonzero(got != want)
            found += [
                f"{phys + i:#x}: {got[i]:#04x} instead of {want[i]:#04x}"
                for i in unequal.tolist()
                if phys + i not in ignored
            ]
            del want, data
    return found


@pytest.fixture
def case(request: pytest.FixtureRequest, oracle: Callable[[str], Any]) -> Any:
    return oracle(request.param)


@pytest.mark.parametrize("case", CASES, indirect=True)
def test_results_and_memory_equal_the_kernels(case: Any) -> None:
    with Machine.attach(case.a) as machine:
        lines = machine.run(case.script)
        assert lines == case.result.read_text().splitlines()
        ignored = {machine.dump.virt_to_phys(va) + i for _, va, size in foreign(case, machine) for i in range(size)}
        assert differences(machine, case.b, ignored) == []


def test_the_comparison_can_fail(oracle: Callable[[str], Any]) -> None:
    case = oracle("n128_s0_one")
    with Machine.attach(case.a) as machine:
        assert len(differences(machine, case.b, set())) > 20
        machine.run(case.script)
        assert len(differences(machine, case.b, set())) == 1


@pytest.mark.parametrize("case", PRINTED, indirect=True)
def test_console_equals_the_kernels(case: Any) -> None:
    with Machine.attach(case.a) as machine:
        machine.run(case.script)
        assert machine.dmesg() == case.file("console.txt").read_text()


@pytest.mark.parametrize("case", ORDINARY, indirect=True)
def test_nothing_is_printed_where_nothing_is_wrong(case: Any) -> None:
    with Machine.attach(case.a) as machine:
        machine.run(case.script)
        assert machine.dmesg() == ""


@pytest.mark.parametrize("case", ["n128_s1", "u128_s1"], indirect=True)
def test_a_run_in_slices_is_the_same_run(case: Any) -> None:
    with Machine.attach(case.a) as machine:
        run = machine.start(case.script)
        while not run.finished:
            run.step(77)
        assert list(run.lines()) == case.result.read_text().splitlines()


@pytest.mark.parametrize("case", ["n128_s1", "n256x2_s6n", "u128_s3"], indirect=True)
def test_a_saved_machine_goes_on_where_it_stopped(case: Any, tmp_path: Path) -> None:
    """All state is in the bytes: the second half of a script runs on the saved memory of the first."""
    wanted = case.result.read_text().splitlines()
    with Machine.attach(case.a) as machine:
        run = machine.start(case.script)
        half = len(run.script) // 2
        run.step(half)
        machine.save(tmp_path / "half.vmcore")
        first = list(run.lines())
        pages = run.pages
    with Machine.attach(tmp_path / "half.vmcore") as machine:
        run = machine.start(case.script)
        # Ids are the script's, not the machine's: take them along.
        run.pages[:] = pages
        run.done = half
        run.step()
        assert first + list(run.lines())[len(first) :] == wanted
        ignored = {machine.dump.virt_to_phys(va) + i for _, va, size in foreign(case, machine) for i in range(size)}
        assert differences(machine, case.b, ignored) == []


# -- both engines ---------------------------------------------------------------

HASHES = """
import hashlib, json, sys
from pathlib import Path
from kernelmm import Machine
from physmem import engine

found = {}
for name in sys.argv[2:]:
    case = Path(sys.argv[1]) / name
    with Machine.attach(case / "A.vmcore.xz") as machine:
        digest = hashlib.sha256("".join(machine.run(case / "script.txt")).encode())
        digest.update(machine.dmesg().encode())
        for start, end in machine.ram.ranges:
            digest.update(machine.ram.read(start, end - start))
        found[name] = digest.hexdigest()
print(json.dumps([engine.current(), found]))
"""


def hashes(name: str, directory: Path, environment: dict[str, str]) -> dict[str, str]:
    """Run every case in a process of its own with one engine; a hash of results, console and memory of each."""
    child = subprocess.run(
        [sys.executable, "-c", HASHES, str(directory), *CASES],
        env={**environment, "PHYSMEM_ENGINE": name},
        capture_output=True,
        text=True,
        check=True,
    )
    ran, found = json.loads(child.stdout)
    assert ran == name
    return dict(found)


def test_both_engines_leave_the_same_bytes(oracle: Callable[[str], Any], project_environment: dict[str, str]) -> None:
    missing = engine.why_interpreted()
    if missing:
        pytest.skip(missing)
    directory = oracle("n128_s1").a.parents[1]
    compiled, interpreted = (hashes(name, directory, project_environment) for name in engine.ENGINES)
    assert compiled == interpreted
    assert len(set(compiled.values())) == len(CASES)
