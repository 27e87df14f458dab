# SPDX-License-Identifier: GPL-2.0-only
"""CONFIG_DEBUG_VM: each assertion, what it takes to fail it, and that it is off by default."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kernelmm import Machine, VmBugOn, gfp
from kernelmm.core import entry
from kernelmm.gfp import __GFP_COMP, GFP_KERNEL
from kernelmm.pressure import lru
from kernelmm.study.debug_vm import page_at
from physmem import abi
from physmem.errors import AddressError

FLAGS, MAPCOUNT, COUNT = 0, 24, 28


@pytest.fixture
def machine(oracle: Callable[[str], Any]) -> Iterator[Machine]:
    with Machine.attach(oracle("n128_s1").a) as machine:
        machine.debug_vm = True
        yield machine


def take(machine: Machine, order: int = 0, gfp: int = GFP_KERNEL) -> int:
    page = machine.alloc_pages(gfp, order)
    assert page is not None
    return page


def write(machine: Machine, page: int, offset: int, value: int) -> None:
    machine.ram.set_u32(machine.dump.virt_to_phys(page) + offset, value)


def fails(call: Callable[..., object], *arguments: object) -> tuple[int, str]:
    """The line of the assertion that a call fails, and its condition."""
    with pytest.raises(VmBugOn) as caught:
        call(*arguments)
    return caught.value.line, str(caught.value).split("! ")[1]


def test_put_page_testzero(machine: Machine) -> None:
    page = take(machine)
    machine.free_block(page)
    expected = (340, "VM_BUG_ON_PAGE(atomic_read(&page->_count) == 0)")
    assert fails(machine.free_block, page) == expected
    assert fails(machine.put_page, page) == expected
    assert fails(machine.free_pages, machine.page_address(page)) == expected


def test_free_pages_of_no_address(machine: Machine) -> None:
    assert fails(machine.free_pages, 0x7FFF12345000) == (2922, "VM_BUG_ON(!virt_addr_valid((void *)addr))")
    assert machine.dmesg().splitlines()[0] == "------------[ cut here ]------------"


def test_freeing_a_tail(machine: Machine) -> None:
    page = take(machine, 2, GFP_KERNEL | __GFP_COMP)
    write(machine, page + 64, COUNT, 1)
    assert fails(machine.free_block, page + 64) == (786, "VM_BUG_ON_PAGE(PageTail(page))")


def test_freeing_a_compound_page_by_another_order(machine: Machine) -> None:
    page = take(machine, 3, GFP_KERNEL | __GFP_COMP)
    assert fails(machine.free_block, page, 2) == (
        787,
        "VM_BUG_ON_PAGE(compound && compound_order(page) != order)",
    )


@pytest.mark.parametrize(
    ("where", "offset", "value", "expected"),
    [
        ("head", COUNT, 0xFFFFFFFF, (64, "VM_BUG_ON_PAGE(atomic_read(&page->first_page->_count) <= 0)")),
        ("tail", MAPCOUNT, 0xFFFFFFFE, (531, "VM_BUG_ON_PAGE(page_mapcount(page) < 0)")),
        ("tail", COUNT, 1, (532, "VM_BUG_ON_PAGE(atomic_read(&page->_count) != 0)")),
        ("head", FLAGS, 0, (521, "VM_BUG_ON_PAGE(!PageHead(page))")),
        ("tail", FLAGS, 1 << 15 | 1 << 7, (488, "VM_BUG_ON_PAGE(PageSlab(page))")),
    ],
)
def test_get_page_of_a_tail(machine: Machine, where: str, offset: int, value: int, expected: tuple[int, str]) -> None:
    """get_huge_page_tail and __get_page_tail_foll: one thing wrong at a time."""
    head = take(machine, 2, GFP_KERNEL | __GFP_COMP)
    machine.get_page(head + 64)
    machine.put_page(head + 64)
    write(machine, head + 64 * (where == "tail"), offset, value)
    assert fails(machine.get_page, head + 64) == expected


@pytest.mark.parametrize(
    ("where", "offset", "value", "expected"),
    [
        ("tail", MAPCOUNT, 0xFFFFFFFF, (206, "VM_BUG_ON_PAGE(page_mapcount(page) <= 0)")),
        ("tail", COUNT, 1, (209, "VM_BUG_ON_PAGE(atomic_read(&page->_count) != 0)")),
        ("head", COUNT, 0, (220, "VM_BUG_ON_PAGE(PageTail(page))")),
        ("head", COUNT, 0xFFFFFFFF, (208, "VM_BUG_ON_PAGE(atomic_read(&page_head->_count) <= 0)")),
    ],
)
def test_put_page_of_a_tail(machine: Machine, where: str, offset: int, value: int, expected: tuple[int, str]) -> None:
    """put_refcounted_compound_page: a reference through the tail is in its mapcount, and in the head's count."""
    head = take(machine, 2, GFP_KERNEL | __GFP_COMP)
    machine.get_page(head + 64)
    write(machine, head + 64 * (where == "tail"), offset, value)
    assert fails(machine.put_page, head + 64) == expected


def test_tails_of_slab_pages_are_not_counted(machine: Machine) -> None:
    head = take(machine, 2, GFP_KERNEL | __GFP_COMP)
    flags = machine.ram.u32(machine.dump.virt_to_phys(head))
    write(machine, head, FLAGS, flags | 1 << 7)
    machine.get_page(head + 64)
    assert (machine.page(head)._count, machine.page(head + 64)._mapcount) == (2, -1)
    write(machine, head + 64, MAPCOUNT, 0)
    assert fails(machine.put_page, head + 64) == (126, "VM_BUG_ON_PAGE(page_mapcount(page) != 0)")
    write(machine, head + 64, MAPCOUNT, 0xFFFFFFFF)
    machine.put_page(head + 64)
    assert fails(machine.put_page, head + 64) == (142, "VM_BUG_ON_PAGE(PageSlab(page_head))")
    write(machine, head, FLAGS, 1 << 7)
    assert fails(machine.put_page, head + 64) == (125, "VM_BUG_ON_PAGE(!PageHead(page_head))")
    write(machine, head, COUNT, 1)
    assert fails(machine.get_page, head + 64) == (300, "VM_BUG_ON_PAGE(!PageHead(page_head))")


def test_a_page_comes_onto_an_lru_list_once(machine: Machine) -> None:
    page = take(machine)
    lru.lru_cache_add(machine.mm, page)
    assert fails(lru.lru_cache_add, machine.mm, page) == (663, "VM_BUG_ON_PAGE(PageLRU(page))")
    assert fails(lru.lru_cache_add_active_or_unevictable, machine.mm, page, True)[0] == 704
    other = take(machine)
    for flag in (abi.PG_active, abi.PG_unevictable):
        lru.set_flag(machine.mm, other, flag)
    condition = "VM_BUG_ON_PAGE(PageActive(page) && PageUnevictable(page))"
    assert fails(lru.lru_cache_add, machine.mm, other) == (662, condition)


def test_a_node_that_is_not_there_and_an_address_that_is_none(machine: Machine) -> None:
    assert entry.alloc_pages_exact_node(machine.mm, 0, GFP_KERNEL, 0)
    expected = (322, "VM_BUG_ON(nid < 0 || nid >= MAX_NUMNODES || !node_online(nid))")
    for nid in (-1, 1, 64):
        assert fails(entry.alloc_pages_exact_node, machine.mm, nid, GFP_KERNEL, 0) == expected
    free_kmem_pages = entry.free_kmem_pages
    assert fails(free_kmem_pages, machine.mm, 0x7FFF12345000, 0) == (2973, "VM_BUG_ON(!virt_addr_valid((void *)addr))")
    free_kmem_pages(machine.mm, 0, 0)


def test_a_free_buddy_in_use(machine: Machine) -> None:
    block = take(machine, 1)
    machine.split_page(block, 1)
    machine.free_block(block + 64)
    machine.drain_local_pages()
    write(machine, block + 64, COUNT, 1)
    machine.free_block(block)
    assert fails(machine.drain_local_pages) == (541, "VM_BUG_ON_PAGE(page_count(buddy) != 0)")
    assert f"page:{block + 64:016x} count:1" in machine.dmesg()


def test_a_zone_that_was_never_set_up(machine: Machine) -> None:
    page = take(machine, 1)
    zone = machine.dump.pgdats[0] + machine.mm.sizeof_zone
    wait_table = zone + machine.dump.layout.offsetof("zone", "wait_table")
    machine.ram.set_u64(machine.dump.virt_to_phys(wait_table), 0)
    assert fails(machine.free_block, page, 1) == (584, "VM_BUG_ON(!zone_is_initialized(zone))")


def test_flags_that_come_back_on_a_per_cpu_list(machine: Machine) -> None:
    page = take(machine)
    machine.free_block(page)
    write(machine, page, FLAGS, 1 << 6)
    assert fails(machine.drain_local_pages) == (585, "VM_BUG_ON_PAGE(page->flags & ((1 << 24) - 1))")


def test_a_mobility_that_nobody_looked_up(machine: Machine) -> None:
    page = take(machine)
    machine.free_block(page)
    zone = machine.dump.pgdats[0] + machine.mm.sizeof_zone
    assert fails(machine.mm.check_free_one_page, page, zone, -1) == (587, "VM_BUG_ON(migratetype == -1)")


def test_a_block_that_is_not_aligned(machine: Machine) -> None:
    page = take(machine, 2)
    machine.split_page(page, 2)
    write(machine, page + 2 * 64, COUNT, 0)
    free_before = machine.dump.u64(machine.dump.symbols["vm_stat"])
    assert fails(machine.free_block, page + 64, 1) == (602, "VM_BUG_ON_PAGE(page_idx & ((1 << order) - 1))")
    # As in the kernel, the pages have been counted by then; the differential of the CPU may still have them.
    assert machine.dump.u64(machine.dump.symbols["vm_stat"]) >= free_before


def test_a_page_outside_its_zone(machine: Machine) -> None:
    page = take(machine, 1)
    phys = machine.dump.virt_to_phys(page)
    # Zone 0, DMA: bits 56 and 57 of the flags.
    machine.ram.set_u64(phys, machine.ram.u64(phys) & ~(3 << 56))
    assert fails(machine.free_block, page, 1) == (603, "VM_BUG_ON_PAGE(bad_range(zone, page))")
    pfn = machine.page_to_pfn(page)
    assert machine.dmesg().splitlines()[0] == f"page 0x{pfn:x} outside node 0 zone DMA [ 0x1 - 0x1000 ]"


def test_a_page_of_another_zone_than_its_lists(machine: Machine) -> None:
    """Found when a page's flags change while it is on a per-cpu list."""
    page = take(machine)
    zone = machine.dump.pgdats[0]
    assert machine.mm.checker.bad_range(machine.mm, zone + machine.mm.sizeof_zone, page) is False
    phys = machine.dump.virt_to_phys(page)
    machine.ram.set_u64(phys, machine.ram.u64(phys) & ~(3 << 56))
    assert machine.mm.checker.bad_range(machine.mm, zone + machine.mm.sizeof_zone, page) is True
    assert machine.dmesg() == ""


def test_off_by_default_and_silent_then(oracle: Callable[[str], Any]) -> None:
    with Machine.attach(oracle("n128_s1").a) as machine:
        assert machine.debug_vm is False
        page = take(machine)
        machine.free_block(page)
        machine.free_block(page)
        assert machine.page(page)._count == -1
        assert machine.dmesg() == ""
        # The fault surfaces when the page is next allocated; the next good one is given instead.
        other = take(machine)
        assert other != page
        assert "page dumped because: nonzero _count" in machine.dmesg()


def test_assertions_change_no_byte(oracle: Callable[[str], Any]) -> None:
    memory = []
    for debug_vm in (False, True):
        with Machine.attach(oracle("n128_s5").a) as machine:
            machine.debug_vm = debug_vm
            machine.run(oracle("n128_s5").script)
            memory.append([machine.ram.read(start, end - start) for start, end in machine.ram.ranges])
    assert memory[0] == memory[1]


def test_a_struct_page_is_found_by_its_physical_address(machine: Machine) -> None:
    for pfn in (0, 1, 5000, 32735):
        page = machine.pfn_to_page(pfn)
        assert page_at(machine.mm, machine.dump.virt_to_phys(page)) == page
    with pytest.raises(AddressError, match="no entry of the page array"):
        page_at(machine.mm, 64)


def test_a_page_array_that_is_not_all_written_out_fails_no_assertion() -> None:
    machine = Machine.boot("64M")
    machine.debug_vm = True
    # Of every mobility, so that pageblocks change hands while none of their pages was ever used.
    masks = (gfp.GFP_ATOMIC, gfp.GFP_ATOMIC | gfp.__GFP_RECLAIMABLE, gfp.GFP_ATOMIC | gfp.__GFP_MOVABLE)
    pages = [(machine.alloc_pages(mask | gfp.__GFP_NOWARN, order), order) for order in (2, 0, 9, 3) for mask in masks]
    for page, order in pages:
        assert page is not None
        machine.free_block(page, order)
