# SPDX-License-Identifier: GPL-2.0-only
"""Which zones a request may use: cpusets, dirty limits, and reclaim before going to another node."""

from __future__ import annotations

import pytest

from kernelmm import Machine, gfp
from kernelmm.core import cpuset, entry, mmzone
from kernelmm.pressure import cpusets, reclaim, stat, writeback
from physmem import abi, address
from physmem.errors import UsageError

THISNODE = vars(gfp)["__GFP_THISNODE"]
HARDWALL = vars(gfp)["__GFP_HARDWALL"]
NORETRY = vars(gfp)["__GFP_NORETRY"]
NOWARN = vars(gfp)["__GFP_NOWARN"]
WRITE = vars(gfp)["__GFP_WRITE"]


def node_of(lab, page):
    return mmzone.zone_nid(lab.mm, lab.zone_of(page))


@pytest.fixture
def confined(two_nodes):
    """A task on node 0's CPU that may use node 1 only; the cpuset above it has both."""
    cpusets.cpuset_inc(two_nodes.mm, 0b11)
    cpusets.set_mems_allowed(two_nodes.mm, 0b10)
    return two_nodes


@pytest.mark.parametrize(
    ("setup", "mask", "allowed"),
    [
        ({}, gfp.GFP_USER, False),
        ({}, gfp.GFP_KERNEL, True),
        ({"hardwall_mems": 0b10}, gfp.GFP_KERNEL, False),
        ({"hardwall_mems": 0b10}, gfp.GFP_KERNEL | THISNODE, True),
        ({"hardwall_mems": 0b10, "in_interrupt": True}, gfp.GFP_ATOMIC, True),
        ({"hardwall_mems": 0b10, "memdie": True}, gfp.GFP_USER, True),
        ({"hardwall_mems": 0b10, "task_flags": abi.PF_EXITING}, gfp.GFP_KERNEL, True),
        ({"hardwall_mems": 0b10, "task_flags": abi.PF_EXITING}, gfp.GFP_USER, False),
        ({"cpusets_enabled": False}, gfp.GFP_USER, True),
    ],
)
def test_cpuset_node_allowed(confined, setup, mask, allowed):
    for name, value in setup.items():
        setattr(confined.mm, name, value)
    assert cpuset.node_allowed(confined.mm, 0, mask) is allowed
    assert cpuset.node_allowed(confined.mm, 1, mask)


def test_confined_task_takes_from_its_node(confined):
    assert {node_of(confined, confined.alloc(gfp.GFP_KERNEL)) for _ in range(100)} == {1}


def test_kernel_requests_escape_to_the_cpuset_above_when_the_node_is_full(confined):
    zonelist = mmzone.node_zonelist(confined.mm, 1, True)
    alloc = vars(entry)["__alloc_pages_nodemask"]
    for order in range(10, -1, -1):
        while alloc(confined.mm, gfp.GFP_NOWAIT | THISNODE, order, zonelist, 0):
            pass
    assert confined.alloc(gfp.GFP_USER | NORETRY) == 0
    assert node_of(confined, confined.alloc(gfp.GFP_KERNEL)) == 0


def test_failure_that_a_change_of_the_nodes_may_have_caused_is_tried_again(confined):
    zonelist = mmzone.node_zonelist(confined.mm, 1, True)
    alloc = vars(entry)["__alloc_pages_nodemask"]
    for order in range(10, -1, -1):
        while alloc(confined.mm, gfp.GFP_NOWAIT | THISNODE, order, zonelist, 0):
            pass
    confined.console.failures.clear()

    def widen():
        confined.console.on_failure = lambda: None
        cpusets.set_mems_allowed(confined.mm, 0b11)

    confined.console.on_failure = widen
    page = confined.alloc(gfp.GFP_USER | NORETRY)
    assert node_of(confined, page) == 0
    assert len(confined.console.failures) == 1
    assert confined.mm.mems_allowed_seq == 4


def test_no_node_at_all_is_refused(two_nodes):
    with pytest.raises(UsageError, match="no node with memory"):
        cpusets.set_mems_allowed(two_nodes.mm, 1 << 5)


def test_zone_dirty_limit_is_a_fifth_of_what_page_cache_could_take(lab):
    z = lab.zones[-1]
    reserve = lab.mm.as_u64[(z + lab.mm.cold.zone_dirty_balance_reserve) >> 3]
    dirtyable = lab.stat("NR_FREE_PAGES", z) - reserve + lab.stat("NR_INACTIVE_FILE", z) + lab.stat("NR_ACTIVE_FILE", z)
    assert writeback.zone_dirty_limit(lab.mm, z) == 20 * dirtyable // 100
    lab.mm.rt_task = True
    limit = 20 * dirtyable // 100
    assert writeback.zone_dirty_limit(lab.mm, z) == limit + limit // 4


def test_pages_to_be_written_avoid_a_zone_at_its_dirty_limit(lab):
    file = lab.work.open()
    dma, dma32 = lab.zones
    mm = lab.mm
    file.write(0, 100)
    limit = writeback.zone_dirty_limit(mm, dma32)
    # As if that many pages of the larger zone were dirty:
    mm.as_u64[(dma32 + mm.zone_vm_stat + 8 * mm.cold.NR_FILE_DIRTY) >> 3] = limit + 1
    assert not writeback.zone_dirty_ok(mm, dma32)
    assert lab.zone_of(lab.alloc(gfp.GFP_HIGHUSER_MOVABLE | WRITE)) == dma
    mm.as_u64[(dma32 + mm.zone_vm_stat + 8 * mm.cold.NR_FILE_DIRTY) >> 3] = 0
    assert writeback.zone_dirty_ok(mm, dma32)


def fill_node_0(lab):
    """Node 0 full: page cache, and the rest taken."""
    file = lab.work.open()
    file.read(0, 12000)
    zonelist = mmzone.node_zonelist(lab.mm, 0, True)
    alloc = vars(entry)["__alloc_pages_nodemask"]
    for order in range(10, -1, -1):
        while alloc(lab.mm, gfp.GFP_NOWAIT | THISNODE, order, zonelist, 0):
            pass
    return file


def test_zone_reclaim_makes_room_on_the_local_node(two_nodes):
    lab = two_nodes
    fill_node_0(lab)
    assert node_of(lab, lab.alloc(gfp.GFP_KERNEL)) == 1
    lab.mm.as_s32[lab.mm.var_zone_reclaim_mode >> 2] = reclaim.RECLAIM_ZONE
    lab.mm.as_u64[(address.off(lab.mm, lab.mm.ac.zonelist) + lab.mm.zonelist_zlcache_ptr) >> 3] = 0
    scanned = lab.event("PGSCAN_DIRECT")
    pages = [lab.alloc(gfp.GFP_KERNEL) for _ in range(200)]
    assert 0 in {node_of(lab, page) for page in pages}
    assert lab.event("PGSCAN_DIRECT") > scanned
    assert lab.event("ALLOCSTALL") == 0


def test_caller_that_may_not_wait_goes_to_the_other_node(two_nodes):
    lab = two_nodes
    fill_node_0(lab)
    lab.mm.as_s32[lab.mm.var_zone_reclaim_mode >> 2] = reclaim.RECLAIM_ZONE
    scanned = lab.event("PGSCAN_DIRECT")
    assert node_of(lab, lab.alloc(gfp.GFP_NOWAIT)) == 1
    assert lab.event("PGSCAN_DIRECT") == scanned


def test_a_machines_nodes_change_in_the_middle_of_an_allocation():
    """get_mems_allowed's retry: node 1, the only one allowed, is full; its cpuset gets node 0 as the request fails."""
    with Machine.boot("64M", nodes=2) as machine, machine.task(mems_allowed=0b10):
        while machine.alloc_pages(gfp.GFP_USER | NORETRY | NOWARN, 0):
            pass
        seq = machine.mm.mems_allowed_seq
        failures = []

        def change(gfp_mask, order):
            failures.append((gfp_mask, order))
            machine.set_mems_allowed(0b01)

        with machine.when_failing(change):
            page = machine.alloc_page(gfp.GFP_USER | NORETRY | NOWARN)
        assert mmzone.zone_nid(machine.mm, stat.zone_of(machine.mm, page)) == 0
        assert failures == [(gfp.GFP_USER | NORETRY | NOWARN, 0)]
        assert machine.mm.mems_allowed_seq == seq + 2
        assert machine.mm.failing is None


def test_a_change_that_leaves_a_node_does_not_begin_again():
    """cpuset_change_task_nodemask: the sequence count stays, as a node was allowed all the time; the request fails."""
    with Machine.boot("64M", nodes=2) as machine, machine.task(mems_allowed=0b10):
        while machine.alloc_pages(gfp.GFP_USER | NORETRY | NOWARN, 0):
            pass
        failures = []

        def change(gfp_mask, order):
            failures.append(order)
            machine.set_mems_allowed(0b11)

        with machine.when_failing(change):
            assert machine.alloc_page(gfp.GFP_USER | NORETRY | NOWARN) is None
        assert failures == [0]
        assert machine.alloc_page(gfp.GFP_USER | NORETRY | NOWARN)
