# SPDX-License-Identifier: GPL-2.0-only
"""Machines of our own: any size, clean at birth, and the same after they were saved and opened again."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernelmm import gfp
from kernelmm.boot import BootConfig, boot
from kernelmm.machine import Machine
from physmem import engine
from physmem.dump import open_dump
from physmem.e820 import Kind, MemoryMap, Region
from physmem.errors import UsageError
from physmem.inspect.check import check
from physmem.structs.linux_4_0 import UP

MIB = 1 << 20
KERNEL = gfp.GFP_KERNEL & ~gfp.__GFP_WAIT

MACHINES: list[tuple[str, int, int, dict[str, Any]]] = [
    ("16M", 1, 1, {}),
    ("18M", 1, 8, {}),
    ("33M", 2, 2, {}),
    ("128M", 1, 1, {"kernel": UP}),
    ("256M", 2, 2, {}),
    ("256M", 2, 2, {"movablecore": 64 * MIB}),
    ("300M", 7, 3, {"cma": 8 * MIB, "zonelist_order": "zone"}),
    ("1G", 1, 1, {"kernelcore": 512 * MIB, "gbpages": False}),
    ("9G", 4, 8, {"mem": 8 << 30}),
    ("2G", 64, 8, {}),
]


def free_pages(machine: Machine) -> int:
    """NR_FREE_PAGES, with what the CPUs have not yet added to it."""
    kernel = machine.kernel
    total = kernel.var("vm_stat", 0)
    for zone in kernel.populated_zones() if kernel.smp else ():
        pageset = kernel.get(zone.at, "zone.pageset")
        for cpu in kernel.possible_cpus():
            total += kernel.get(kernel.per_cpu_ptr(pageset, cpu), "per_cpu_pageset.vm_stat_diff", 0)
    return total


@pytest.mark.parametrize(("size", "nodes", "cpus", "options"), MACHINES)
def test_every_machine_is_clean_and_works(size: str, nodes: int, cpus: int, options: dict[str, Any]) -> None:
    with Machine.boot(size, nodes, cpus, **options) as machine:
        assert not check(machine.dump).findings
        free = free_pages(machine)
        # The bitmap of contiguous memory has taken a page.
        assert free == machine.kernel.var("totalram_pages") - ("cma" in options)
        held = []
        for cpu in range(cpus):
            with machine.on_cpu(cpu):
                held += [(page, order) for order in (0, 1, 4) if (page := machine.alloc_pages(KERNEL, order))]
        assert len(held) == 3 * cpus
        assert not check(machine.dump).findings
        for page, order in held:
            machine.free_block(page, order)
        machine.drain_all_pages()
        assert free_pages(machine) == free
        assert not check(machine.dump).findings
        assert machine.dmesg().startswith("Linux version 4.0.0-kernelmm ")


def test_cpus_allocate_on_their_nodes() -> None:
    machine = Machine.boot("256M", nodes=2, cpus=4)
    for cpu in range(4):
        with machine.on_cpu(cpu):
            page = machine.alloc_page(KERNEL)
            assert page is not None
            assert machine.page_address(page) - machine.mm.page_offset >> 27 == cpu % 2


@settings(deadline=None, max_examples=25)
@given(st.data())
def test_any_memory_map_boots_clean_or_says_why_not(data: st.DataObject) -> None:
    """Memory in up to six pieces anywhere below 128 MiB, at any byte."""
    cuts = sorted(data.draw(st.sets(st.integers(0, 128 * MIB), min_size=2, max_size=12)))
    pairs = zip(cuts[::2], cuts[1::2], strict=False)
    memory = MemoryMap.of(Region(start, end, Kind.RAM) for start, end in pairs)
    reason = "too little memory to boot"
    try:
        booted = boot(BootConfig(memory, deferred=data.draw(st.booleans())))
        assert not check(booted.dump).findings
    except UsageError as error:
        reason = str(error)
    assert "too little memory to boot" in reason


@pytest.mark.parametrize(
    ("size", "nodes", "options", "message"),
    [
        ("2M", 1, {}, "too little memory to boot"),
        ("12Q", 1, {}, "suffixes"),
        ("64M", 0, {}, "0 nodes"),
        ("64M", 1, {"cpus": 0}, "0 CPUs: the kernel is built for 1 to 8"),
        ("64M", 1, {"cpus": 9}, "9 CPUs"),
        ("2G", 65, {}, "65 nodes: the kernel is built for at most 64"),
        ("64M", 1, {"zonelist_order": "best"}, "zonelist order 'best'"),
        ("64M", 1, {"mem": 4 * MIB}, "too little memory to boot"),
        ("100T", 1, {}, "46 bits|at most"),
        ("256M", 2, {"kernel": UP}, "at most 1"),
        ("64M", 1, {"cma": -1}, "cma=-1: less than nothing"),
    ],
)
def test_impossible_machines(size: str, nodes: int, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as error:
        Machine.boot(size, nodes, **options)
    assert "\n" not in str(error.value)


def test_a_node_needs_some_memory() -> None:
    memory = MemoryMap.from_text("0x0-0x3ffffff usable\nnode 0: 0x0-0x3dfffff\nnode 1: 0x3e00000-0x3ffffff")
    with pytest.raises(UsageError, match="node 1 has 0x200000 bytes of memory: a node has at least 0x400000"):
        Machine.boot(memory)


# -- saved and opened again -----------------------------------------------------------------------


def work(machine: Machine, seed: int, operations: int = 300) -> list[int]:
    """Allocate, and free half of it, at random; the PFNs that were given."""
    chance = random.Random(seed)
    given: list[int] = []
    for _ in range(operations):
        page = machine.alloc_pages(KERNEL, chance.choice([0, 0, 1, 3, 9]), chance.choice([None, 0]))
        given.append(-1 if page is None else machine.page_to_pfn(page))
        if page is not None and chance.random() < 0.5:
            machine.put_page(page)
    return given


@pytest.mark.parametrize(("size", "options"), [("16M", {}), ("256M", {"nodes": 2, "cpus": 2}), ("64M", {"kernel": UP})])
def test_a_saved_machine_goes_on(tmp_path: Path, size: str, options: dict[str, Any]) -> None:
    """The same pages as without the break, and in the end the same bytes."""
    one = Machine.boot(size, **options)
    work(one, 1)
    one.save(tmp_path / "broken.vmcore")
    with open_dump(tmp_path / "broken.vmcore") as dump:
        assert dump.info.release == "4.0.0-kernelmm"
        assert dump.layout.structs["zone"] == one.dump.layout.structs["zone"]
        assert not check(dump).findings
    other = Machine.attach(tmp_path / "broken.vmcore")
    assert work(one, 2) == work(other, 2)
    one.save(tmp_path / "one.vmcore")
    other.save(tmp_path / "other.vmcore")
    assert (tmp_path / "one.vmcore").read_bytes() == (tmp_path / "other.vmcore").read_bytes()


SCRIPT = """
import sys
from kernelmm import gfp
from kernelmm.machine import Machine

machine = Machine.attach(sys.argv[1])
for i in range(200):
    page = machine.alloc_pages(gfp.GFP_ATOMIC, i % 4)
    if i % 3:
        machine.put_page(page)
machine.save(sys.argv[2])
"""


@pytest.mark.skipif(len(engine.available()) < 2, reason="the compiled engine was not built")
def test_the_other_engine_goes_on_alike(tmp_path: Path, project_environment: dict[str, str]) -> None:
    Machine.boot("128M", nodes=2).save(tmp_path / "m.vmcore")
    for name in engine.ENGINES:
        command = [sys.executable, "-c", SCRIPT, str(tmp_path / "m.vmcore"), str(tmp_path / name)]
        subprocess.run(command, check=True, env=project_environment | {"PHYSMEM_ENGINE": name})
    assert (tmp_path / "compiled").read_bytes() == (tmp_path / "interpreted").read_bytes()


def test_options_at_run_time() -> None:
    machine = Machine.boot("64M")
    machine.sysctl("min_free_kbytes", 4000)
    assert machine.kernel.var("min_free_kbytes") == 4000
    assert sum(machine.kernel.wmark(zone, 0) for zone in machine.kernel.zones()) in (998, 999, 1000)
    with pytest.raises(UsageError, match="sysctl 'swappiness'"):
        machine.sysctl("swappiness", 60)
