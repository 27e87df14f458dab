# SPDX-License-Identifier: GPL-2.0-only
"""Memory and CPUs that go and come, CMA, and the context of the caller."""

from __future__ import annotations

import errno

import pytest

from kernelmm import Machine, gfp
from kernelmm.core import mmzone
from kernelmm.pressure import cpusets, kswapd
from kernelmm.pressure.workload import Workload
from physmem import abi, address
from physmem.errors import UsageError
from physmem.inspect.check import check

SECTION = 32768


def zone(m, name, nid=0):
    kernel = m.kernel
    return kernel.zone(nid, kernel.layout.enumerator(name))


def get(m, where, field):
    return m.kernel.get(where.at, f"zone.{field}")


def healthy(m):
    assert check(m.dump).findings == []


def test_a_section_goes_offline_with_its_pages_moved_and_comes_back():
    m = Machine.boot("512M", cpus=2)
    work = Workload(m.mm)
    file, task = work.open(), work.fork("t")
    file.write(0, 100, b"data")
    task.mmap_anon(500, data=b"anon")
    pfns = [address.page_to_pfn(m.mm, task.page(i)) for i in range(500)]
    start = max({pfn // SECTION for pfn in pfns}, key=[pfn // SECTION for pfn in pfns].count) * SECTION
    dma32 = zone(m, "ZONE_DMA32")
    before = {name: get(m, dma32, name) for name in ("present_pages", "managed_pages", "spanned_pages")}
    free = m.kernel.var("totalram_pages")
    result = m.offline_memory(start, SECTION)
    if result:  # the task's section holds pages of the kernel's own: it stays, as a kernel's would
        assert result in (-errno.EBUSY, -errno.EAGAIN)
        healthy(m)
        start = next(s for s in range(3 * SECTION, 0, -SECTION) if m.is_memory_removable(s, SECTION))
        assert m.offline_memory(start, SECTION) == 0
    assert "Offlined Pages 32768" in m.dmesg()
    assert get(m, dma32, "present_pages") == before["present_pages"] - SECTION
    assert get(m, dma32, "managed_pages") == before["managed_pages"] - SECTION
    assert get(m, dma32, "spanned_pages") == before["spanned_pages"]
    assert m.kernel.var("totalram_pages") == free - SECTION
    assert m.page(m.pfn_to_page(start + 77)).flags >> abi.PG_reserved & 1
    assert all(not start <= address.page_to_pfn(m.mm, task.page(i)) < start + SECTION for i in range(500))
    assert all(m.ram.read(address.page_to_phys(m.mm, task.page(i)), 4) == b"anon" for i in range(500))
    healthy(m)
    assert m.offline_memory(start, SECTION) == -errno.EBUSY  # its pages are reserved now
    assert m.online_memory(start, SECTION) == 0
    assert m.online_memory(start, SECTION) == -errno.EBUSY
    assert {name: get(m, dma32, name) for name in before} == before
    healthy(m)


def test_min_free_kbytes_and_batches_follow():
    """init_per_zone_wmark_min: the square root of sixteen times the memory."""
    m = Machine.boot("512M")
    whole = m.kernel.var("min_free_kbytes")
    start = next(s for s in (3 * SECTION, 2 * SECTION) if m.offline_memory(s, SECTION) == 0)
    less = m.kernel.var("min_free_kbytes")
    assert less < whole
    assert m.online_memory(start, SECTION) == 0
    # The high marks of the time before count in it: a little more than at boot, when there were none.
    assert less < m.kernel.var("min_free_kbytes")
    assert abs(m.kernel.var("min_free_kbytes") - whole) < 16


MOVABLE = vars(gfp)["__GFP_MOVABLE"]


@pytest.fixture
def with_normal():
    """A machine with two sections of ZONE_NORMAL that nothing of the kernel's is in: ZONE_MOVABLE is above."""
    m = Machine.boot("5G", movablecore=(1 << 30) + (768 << 20), cpus=2)
    normal = zone(m, "ZONE_NORMAL")
    assert get(m, normal, "present_pages") == 2 * SECTION
    return m, normal, get(m, normal, "zone_start_pfn")


def test_an_empty_zone_leaves_the_zonelists_and_returns(with_normal):
    """build_all_zonelists, zone_pcp_reset and setup_zone_pageset."""
    m, normal, start = with_normal
    page = m.alloc_pages(gfp.GFP_KERNEL)
    assert m.page_to_pfn(page) >= start
    assert m.offline_memory(start, 2 * SECTION) == -errno.EBUSY  # somebody has that page, and it is on no list
    m.free_block(page)
    m.drain_all_pages()
    assert m.offline_memory(start, 2 * SECTION) == 0
    assert get(m, normal, "present_pages") == get(m, normal, "managed_pages") == 0
    assert get(m, normal, "pageset") == m.kernel.symbols["boot_pageset"]
    assert m.page_to_pfn(m.alloc_pages(gfp.GFP_KERNEL)) < start
    healthy(m)
    assert m.online_memory(start, 2 * SECTION) == 0
    assert m.page_to_pfn(m.alloc_pages(gfp.GFP_KERNEL)) >= start
    assert m.dmesg().count("Built 1 zonelists in Node order") >= 3
    healthy(m)


def test_a_pinned_page_is_tried_for_two_minutes(with_normal):
    m, _, start = with_normal
    file = Workload(m.mm).open()
    file.read(0, gfp_mask=gfp.GFP_USER | MOVABLE)
    file.write(0)
    file.pin(0)
    section = m.page_to_pfn(file.page(0)) // SECTION * SECTION
    assert section >= start
    m.drain_all_pages()
    jiffies = m.mm.as_u64[m.mm.var_jiffies >> 3]
    result = m.offline_memory(section, SECTION)
    assert result in (-errno.EAGAIN, -errno.EBUSY)
    if result == -errno.EAGAIN:
        assert m.mm.as_u64[m.mm.var_jiffies >> 3] - jiffies == 121 * m.mm.hz
        assert "memory offlining [mem 0x" in m.dmesg()
    assert file.page(0)
    healthy(m)


def test_a_page_that_nobody_takes_is_tried_for_two_minutes():
    """Damaged memory: a page on an LRU list, says its flag, to which nobody has a reference."""
    m = Machine.boot("256M")
    start = 40960
    # Now there is something of them in memory.
    assert m.alloc_contig_range(start, start + 1024) == 0
    assert m.free_contig_range(start, 1024) == 0
    m.drain_all_pages()
    flags = address.page_off(m.mm, m.pfn_to_page(start + 100)) + abi.PAGE_FLAGS
    m.mm.as_u64[flags >> 3] |= 1 << abi.PG_lru
    jiffies = m.mm.as_u64[m.mm.var_jiffies >> 3]
    assert m.offline_memory(start, 1024) == -errno.EAGAIN
    assert m.mm.as_u64[m.mm.var_jiffies >> 3] - jiffies == 121 * m.mm.hz
    m.mm.as_u64[flags >> 3] &= ~(1 << abi.PG_lru)
    healthy(m)


def test_what_cannot_be_offlined():
    m = Machine.boot("256M")
    assert m.offline_memory(100, SECTION) == -errno.EINVAL
    assert m.offline_memory(0, SECTION) == -errno.EINVAL  # two zones
    assert not m.is_memory_removable(0, SECTION)
    with pytest.raises(UsageError, match="no struct page"):
        m.offline_memory(64 * SECTION, SECTION)


def test_a_cpu_that_goes_leaves_nothing_behind():
    m = Machine.boot("128M", cpus=2)
    with m.on_cpu(1):
        for page in [m.alloc_pages(gfp.GFP_KERNEL) for _ in range(20)]:
            m.free_block(page)
    layout = m.dump.layout
    pgfree = layout.enumerator("PGFREE")

    def events():
        offsets = (m.mm.percpu_vm_event_states + m.mm.per_cpu_offset(cpu) for cpu in (0, 1))
        return [m.mm.as_u64[(address.off(m.mm, at) >> 3) + pgfree] for at in offsets]

    total = sum(events())
    m.offline_cpu(1)
    assert events() == [total, 0]
    dma32 = m.kernel.phys(zone(m, "ZONE_DMA32").at)
    assert m.mm.as_s32[(mmzone.pageset_of(m.mm, dma32, 1) + abi.PCP_COUNT) >> 2] == 0
    diffs = mmzone.pageset_of(m.mm, dma32, 1) + m.mm.pageset_vm_stat_diff
    assert not any(m.mm.as_s8[diffs + i] for i in range(m.mm.cold.nr_stat_items))
    healthy(m)
    with pytest.raises(UsageError, match="no online CPU 1"), m.on_cpu(1):
        pass
    with pytest.raises(UsageError, match="last one"):
        m.offline_cpu(0)
    m.online_cpu(1)
    with m.on_cpu(1):
        assert m.alloc_pages(gfp.GFP_KERNEL)
    healthy(m)


def test_cma_lends_its_pages_and_gets_them_back():
    m = Machine.boot("128M", cma=8 << 20)
    work = Workload(m.mm)
    file = work.open()
    file.read(0, 25000)
    first = m.cma_alloc(1000, align=4)
    second = m.cma_alloc(1000)
    assert None not in (first, second)
    assert first != second
    assert m.page_to_pfn(first) % 16 == 0
    assert m.cma_alloc(2048) is None
    assert m.cma_release(first, 1000)
    assert m.cma_release(second, 1000)
    assert not m.cma_release(m.pfn_to_page(100), 1)
    healthy(m)
    with pytest.raises(UsageError, match="no CMA area 1"):
        m.cma_alloc(1, area=1)


def test_the_callers_context_is_in_its_record_and_put_back():
    m = Machine.boot("256M", nodes=2, cpus=2)
    mm = m.mm
    with m.task(flags=abi.PF_MEMALLOC, realtime=True, mems_allowed=0b10, in_interrupt=True, memdie=True):
        assert (mm.task_flags, mm.rt_task, mm.in_interrupt, mm.memdie) == (abi.PF_MEMALLOC, True, True, True)
    assert (mm.task_flags, mm.rt_task, mm.in_interrupt, mm.memdie) == (0, False, False, False)
    with m.task(mems_allowed=0b10):
        assert m.page(m.alloc_pages(gfp.GFP_USER)).flags >> mm.nodes_pgshift & mm.nodes_mask == 1
        assert mm.mems_allowed_seq % 2 == 0
    assert not mm.cpusets_enabled
    assert m.page(m.alloc_pages(gfp.GFP_USER)).flags >> mm.nodes_pgshift & mm.nodes_mask == 0


def test_a_saved_machine_keeps_its_tasks_nodes(tmp_path):
    m = Machine.boot("128M", nodes=2)
    cpusets.cpuset_inc(m.mm, 0b11)
    cpusets.set_mems_allowed(m.mm, 0b10)
    m.save(tmp_path / "m.vmcore")
    again = Machine.attach(tmp_path / "m.vmcore")
    assert (again.mm.mems_allowed, again.mm.mems_allowed_seq, again.mm.cpusets_enabled) == (0b10, 2, True)
    again.close()


def test_a_booted_machine_has_sleeping_kswapds():
    m = Machine.boot("128M", nodes=2)
    for nid in (0, 1):
        assert not kswapd.kswapd_is_woken(m.mm, mmzone.node_data(m.mm, nid))
