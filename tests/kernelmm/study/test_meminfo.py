# SPDX-License-Identifier: GPL-2.0-only
"""show_mem: its numbers against the image's, read by other code; its form; and the lock it takes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kernelmm import Machine
from kernelmm.gfp import __GFP_NOWARN, GFP_ATOMIC, GFP_KERNEL
from kernelmm.pressure import cpusets
from kernelmm.study import meminfo
from physmem.inspect.zones import populated_zones

CASES = ("n128_s1", "n256x2_s6n", "u128_s1", "n128cma_s17_contig")
BLOCKS = re.compile(r"(?:Node (\d+) )?(\w+): ((?:\d+\*\d+kB (?:\(\w+\) )?){11})= (\d+)kB")


@pytest.fixture(params=[*CASES, "booted"])
def machine(request: pytest.FixtureRequest, oracle: Callable[[str], Any]) -> Iterator[Machine]:
    if request.param == "booted":
        with Machine.boot("64M", nodes=2, cpus=2) as machine:
            yield machine
        return
    with Machine.attach(oracle(request.param).a) as machine:
        yield machine


def report(machine: Machine, mask: int = 0) -> list[str]:
    return list(meminfo.show_mem(machine.kernel, mask))


def test_block_lines_are_the_free_lists(machine: Machine) -> None:
    """Each order's count, the sum, and a letter for each list that is not empty."""
    zones = list(populated_zones(machine.dump))
    found = [match for match in map(BLOCKS.fullmatch, report(machine)) if match]
    assert len(found) == len(zones)
    for match, zone in zip(found, zones, strict=True):
        assert match[2] == zone.name
        assert (match[1] is None) == (not machine.mm.numa)
        counts = [int(word.split("*")[0]) for word in re.findall(r"\d+\*\d+kB", match[3])]
        assert counts == list(zone.nr_free)
        assert int(match[4]) == sum(count * 4 << order for order, count in enumerate(counts))
        assert [int(kb) for kb in re.findall(r"\*(\d+)kB", match[3])] == [4 << order for order in range(11)]
        kinds = "UEMRCI"
        letters = [
            "".join(kinds[mt] for mt, head in enumerate(lists) if head.next != head.address)
            for lists, count in zip(zone.free_lists, counts, strict=True)
            if count
        ]
        assert re.findall(r"\((\w+)\)", match[3]) == letters


def test_zone_lines_are_the_zones_fields(machine: Machine) -> None:
    lines = [line for line in report(machine) if "all_unreclaimable?" in line]
    for line, zone in zip(lines, populated_zones(machine.dump), strict=True):
        value = {name: int(kb) for name, kb in re.findall(r" ([a-z_()]+):(\d+)kB", line)}
        assert [value[name] for name in ("min", "low", "high")] == [4 * pages for pages in zone.watermark]
        assert value["present"] == 4 * zone.present
        assert value["managed"] == 4 * zone.managed
        assert value["free"] == 4 * max(0, zone.vm_stat["NR_FREE_PAGES"])


def test_the_last_lines_add_the_zones_up(machine: Machine) -> None:
    zones = list(populated_zones(machine.dump))
    present, managed = (sum(getattr(zone, name) for zone in zones) for name in ("present", "managed"))
    cma = machine.kernel.var("totalcma_pages")
    assert report(machine)[-4:] == [
        f"{present} pages RAM",
        "0 pages HighMem/MovableOnly",
        # As in 4.0: the areas' pages are managed by now, and are taken off a second time.
        f"{present - managed - cma & (1 << 64) - 1} pages reserved",
        f"{cma} pages cma reserved",
    ]


def test_the_report_takes_each_zones_lock_once(machine: Machine) -> None:
    """show_free_areas looks at the free lists under zone->lock: a ticket drawn, a ticket served."""
    mm = machine.mm
    locks = [zone.address + mm.zone_lock for zone in populated_zones(machine.dump)]
    before = [machine.dump.read(lock, 2) for lock in locks]
    memory = bytes(machine.ram.read(0x1000, 0x1000)) if machine.ram.ranges.covers(0x1000, 0x2000) else b""
    report(machine)
    after = [machine.dump.read(lock, 2) for lock in locks]
    step = mm.ticket_lock_inc
    assert after == [bytes((byte + step) & 0xFF for byte in lock) if mm.smp else lock for lock in before]
    assert not memory or machine.ram.read(0x1000, 0x1000) == memory


def test_what_a_real_kernel_has(oracle: Callable[[str], Any]) -> None:
    """The counters are those of /proc/meminfo of the same boot that no task changes."""
    case = oracle("n128_s1")
    proc = case.file("proc.txt").read_text()
    with Machine.attach(case.a) as machine:
        text = "\n".join(report(machine))
        info = meminfo.si_meminfo(machine.kernel)
        assert info == meminfo.si_meminfo_node(machine.kernel, 0)
    value = {name: int(kb) for name, kb in re.findall(r"^(\w+): +(\d+) kB", proc.split("### /proc/meminfo")[1], re.M)}
    assert info.totalram * 4 == value["MemTotal"]
    assert info.sharedram * 4 == value["Shmem"]
    assert f"slab_unreclaimable:{value['SUnreclaim'] // 4}\n" in text
    stacks = sum(int(kb) for kb in re.findall(r"kernel_stack:(\d+)kB", text))
    assert stacks == value["KernelStack"]
    assert "Node 0 hugepages_total=0 hugepages_free=0 hugepages_surp=0 hugepages_size=2048kB" in text


def test_nodes_that_the_task_may_not_use_are_left_out(oracle: Callable[[str], Any]) -> None:
    """skip_free_areas_node: a task that may wait is told of its own nodes, any other of all."""
    with Machine.attach(oracle("n256x2_s6n").a) as machine:
        cpusets.set_mems_allowed(machine.mm, 1)
        assert not any("Node 1 DMA32" in line for line in report(machine, meminfo.SHOW_MEM_FILTER_NODES))
        while machine.alloc_pages(GFP_ATOMIC | __GFP_NOWARN, 10):
            pass
        machine.alloc_pages(GFP_ATOMIC, 10)
        assert machine.dmesg().count("Node 1 DMA32") == 3
        for name, value in (("in_interrupt", True), ("memdie", True)):
            setattr(machine.mm, name, value)
            start = len(machine.console.lines)
            machine.console.warn_alloc_failed(machine.mm, GFP_KERNEL, 10)
            assert any("Node 1" in line for line in machine.console.lines[start:])
            setattr(machine.mm, name, False)
        start = len(machine.console.lines)
        machine.console.warn_alloc_failed(machine.mm, GFP_KERNEL, 10)
        assert machine.console.lines[start : start + 2] == [
            "init: page allocation failure: order:10, mode:0xd0",
            "CPU: 0 PID: 1 Comm: init Not tainted 4.0.0 #4",
        ]
        assert not any("Node 1 DMA32" in line for line in machine.console.lines[start:])


def test_huge_pages_are_the_compound_pages_of_another_destructor(oracle: Callable[[str], Any]) -> None:
    with Machine.attach(oracle("n256x2_s6n").a) as machine:
        for nid, count in ((0, 1), (1, 0)):
            page = machine.alloc_pages(GFP_KERNEL | 0x4000 | __GFP_NOWARN, 9, nid=nid)
            assert page is not None
            machine.ram.set_u64(machine.dump.virt_to_phys(page + 64) + 32, 0xFFFFFFFF81234560)
            machine.ram.set_u32(machine.dump.virt_to_phys(page) + 28, count)
        lines = list(meminfo.hugetlb_show_meminfo(machine.kernel))
    assert lines == [
        "Node 0 hugepages_total=1 hugepages_free=0 hugepages_surp=0 hugepages_size=2048kB",
        "Node 1 hugepages_total=1 hugepages_free=1 hugepages_surp=0 hugepages_size=2048kB",
    ]


def test_an_order_that_no_block_has_is_a_warning_once(oracle: Callable[[str], Any]) -> None:
    with Machine.attach(oracle("n128_s1").a) as machine:
        machine.alloc_pages(GFP_KERNEL | __GFP_NOWARN, 11)
        assert machine.dmesg() == ""
        for _ in range(2):
            assert machine.alloc_pages(GFP_KERNEL, 11) is None
        assert machine.console.lines[:2] == [
            "------------[ cut here ]------------",
            "WARNING: CPU: 0 PID: 1 at mm/page_alloc.c:2621 __alloc_pages_slowpath()",
        ]
        assert machine.dmesg().count("WARNING") == 1
        assert machine.console.print_tainted() == "Tainted: G        W      "
