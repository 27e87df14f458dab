# SPDX-License-Identifier: GPL-2.0-only
"""Nodes without memory: what Linux 4.0.4 made of the same machines (recipe ``memoryless`` of tools/oracle)."""

from __future__ import annotations

from pathlib import Path

import pytest

from kernelmm import Machine
from kernelmm.bringup.kernel import N_CPU, N_MEMORY, N_ONLINE, N_POSSIBLE
from kernelmm.core import mmzone
from kernelmm.gfp import __GFP_THISNODE, GFP_KERNEL
from physmem.e820 import MemoryMap
from physmem.errors import PhysmemError, UsageError
from physmem.inspect.check import check

MIB = 1 << 20


def reserved_in_the_middle(cpus: int = 2) -> Machine:
    return Machine.boot("192M", nodes=3, cpus=cpus, cmdline="memmap=64M$64M")


def states(machine: Machine) -> list[list[int]]:
    return [machine.kernel.nodes(state) for state in (N_POSSIBLE, N_ONLINE, N_MEMORY, N_CPU)]


def zonelist(machine: Machine, nid: int, which: int) -> list[tuple[int, int]]:
    """Node and index of each zone."""
    mm = machine.mm
    at = mmzone.node_zonelist(mm, nid, which != 0) + mm.zonelist_zonerefs
    found = []
    while zone := machine.dump.u64(at):
        found.append((machine.dump.field(zone, "zone", "node"), machine.dump.s32(at + 8)))
        at += 16
    return found


def test_a_node_whose_addresses_have_no_memory_is_online() -> None:
    """numa_register_memblks looks at addresses only."""
    with reserved_in_the_middle() as machine:
        assert states(machine) == [[0, 1, 2], [0, 1, 2], [0, 2], [0, 1]]
        assert machine.kernel.var("nr_online_nodes") == machine.kernel.var("nr_node_ids") == 3
        node = machine.kernel.node_data(1)
        fields = ("nr_zones", "node_start_pfn", "node_present_pages", "node_spanned_pages", "node_id")
        assert [machine.kernel.get(node, f"pglist_data.{field}") for field in fields] == [0, 0, 0, 0, 1]
        assert [zonelist(machine, nid, 0) for nid in range(3)] == [
            [(0, 1), (0, 0), (2, 1)],
            [(2, 1), (0, 1), (0, 0)],
            [(2, 1), (0, 1), (0, 0)],
        ]
        assert [zonelist(machine, nid, 1) for nid in range(3)] == [[(0, 1), (0, 0)], [], [(2, 1)]]
        lines = machine.console.lines
        told = lines.index("Could not find start_pfn for node 1")
        assert lines[told + 1] == "Initmem setup node 1 [mem 0x0000000000000000-0xffffffffffffffff]"
        assert not check(machine.dump).findings


def test_its_cpu_allocates_from_the_others() -> None:
    with reserved_in_the_middle() as machine:
        assert machine.mm.numa_node_id() == 0
        with machine.on_cpu(1):
            assert machine.mm.numa_node_id() == 1
            for nid in (None, 1):
                page = machine.alloc_pages(GFP_KERNEL, 0, nid)
                assert page is not None
                assert machine.page(page).nid == 2
        assert machine.alloc_pages(GFP_KERNEL | __GFP_THISNODE, 0, 1) is None
        # When that is full, from the next.
        assert {machine.page(machine.alloc_pages(GFP_KERNEL, 10, 1) or 0).nid for _ in range(20)} == {0, 2}


@pytest.mark.parametrize("nodes", [2, 3])
def test_a_limit_takes_the_memory_of_the_last_nodes(nodes: int, tmp_path: Path) -> None:
    """mem=: their addresses are beyond the end of memory, and they are not brought up; their numbers are kept."""
    with Machine.boot("192M", nodes=nodes, cpus=3, cmdline=f"mem={192 // nodes}M") as machine:
        assert states(machine) == [[*range(nodes)], [0], [0], [0]]
        assert machine.kernel.var("nr_online_nodes") == 1
        assert machine.kernel.var("nr_node_ids") == nodes
        assert machine.kernel.var("numa_distance_cnt") == nodes
        assert {machine.kernel.var("x86_cpu_to_node_map", cpu=cpu) for cpu in range(3)} == {0}
        assert machine.alloc_pages(GFP_KERNEL) is not None
        # A kernel would follow NULL.
        with pytest.raises(PhysmemError):
            machine.alloc_pages(GFP_KERNEL, 0, nodes - 1)
        machine.save(tmp_path / "A.vmcore")
    with Machine.attach(tmp_path / "A.vmcore") as other:
        assert other.alloc_pages(GFP_KERNEL) is not None


def test_the_first_node_may_be_empty(tmp_path: Path) -> None:
    """All of it is reserved: node 1 has the memory, node 0 the first CPU."""
    memory = MemoryMap.from_text("0x4000000-0x7ffffff usable\nnode 0: 0x0-0x3ffffff\nnode 1: 0x4000000-0x7ffffff")
    with pytest.raises(UsageError, match="kernel image fits"):
        Machine.boot(memory)
    memory = MemoryMap.from_text("0x100000-0x7ffffff usable\nnode 1: 0x0-0x7ffffff\nnode 0: 0x8000000-0x8ffffff")
    with Machine.boot(memory) as machine:
        assert states(machine) == [[0, 1], [1], [1], [1]]
        assert machine.mm.numa_node_id() == 1
        page = machine.alloc_pages(GFP_KERNEL)
        assert page is not None
        assert machine.page(page).nid == 1
        assert not check(machine.dump).findings
        machine.save(tmp_path / "A.vmcore")
    with Machine.attach(tmp_path / "A.vmcore") as other:
        assert other.alloc_pages(GFP_KERNEL) is not None
