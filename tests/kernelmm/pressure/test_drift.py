# SPDX-License-Identifier: GPL-2.0-only
"""percpu_drift_mark (mm/vmstat.c, mm/page_alloc.c): counters that lag, and who looks at them closely.

Each CPU keeps changes of a zone's counters to itself until they exceed its threshold.  Where all CPUs together
could hide that a zone is below its min mark, the zone has a drift mark; below it, those who must not be wrong add the
differentials up.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kernelmm import Machine, gfp
from kernelmm.core import mmzone, vmstat, watermark
from kernelmm.pressure import kswapd, stat, wakeup
from physmem import abi, address


class Drifting:
    """The largest zone of a machine of four CPUs, with numbers of our own in it."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.mm = machine.mm
        self.z = list(stat.populated_zones(self.mm))[-1]

    def set(self, free: int, diffs: tuple[int, ...], drift_mark: int) -> None:
        """``vm_stat[NR_FREE_PAGES]``, the CPUs' differentials of it, and the mark."""
        mm = self.mm
        mm.as_s64[(self.z + mm.zone_vm_stat + 8 * abi.NR_FREE_PAGES) >> 3] = free
        for cpu, diff in enumerate(diffs):
            at = mmzone.pageset_of(mm, self.z, cpu) + mm.pageset_vm_stat_diff + abi.NR_FREE_PAGES
            mm.as_s8[at] = diff
        mm.as_u64[(self.z + mm.zone_percpu_drift_mark) >> 3] = drift_mark

    def marks(self) -> list[int]:
        """Min, low and high."""
        return [watermark.wmark_pages(self.mm, self.z, which) for which in range(3)]

    def thresholds(self) -> set[int]:
        """Of all CPUs that are online."""
        mm = self.mm
        online = [cpu for cpu in range(mm.nr_cpus) if mmzone.cpu_online(mm, cpu)]
        return {mm.as_s8[mmzone.pageset_of(mm, self.z, cpu) + mm.pageset_stat_threshold] for cpu in online}


@pytest.fixture
def drifting() -> Iterator[Drifting]:
    with Machine.boot("256M", cpus=4) as machine:
        yield Drifting(machine)


def test_zone_page_state_snapshot_adds_the_cpus_of_now(drifting: Drifting) -> None:
    """The zone's counter and every online CPU's differential; below 0 is 0."""
    mm, z = drifting.mm, drifting.z
    drifting.set(1000, (5, -7, 100, -128), 0)
    assert vmstat.zone_page_state(mm, z, abi.NR_FREE_PAGES) == 1000
    assert vmstat.zone_page_state_snapshot(mm, z, abi.NR_FREE_PAGES) == 1000 + 5 - 7 + 100 - 128
    drifting.set(10, (-5, -5, -5, 0), 0)
    assert vmstat.zone_page_state_snapshot(mm, z, abi.NR_FREE_PAGES) == 0
    drifting.set(-3, (5, 0, 0, 0), 0)
    assert vmstat.zone_page_state(mm, z, abi.NR_FREE_PAGES) == 0
    assert vmstat.zone_page_state_snapshot(mm, z, abi.NR_FREE_PAGES) == 2


@pytest.mark.parametrize(
    ("free", "drift_mark", "safe"),
    [
        (1000, 0, True),  # no mark: the counter is good enough
        (1000, 1000, True),  # not below the mark
        (1000, 1001, False),  # below it: 1000 - 4 * 60 are not more than 800
        (1041, 1042, True),  # 801 are
        (1040, 1041, False),  # 800 are not
    ],
)
def test_zone_watermark_ok_safe(drifting: Drifting, free: int, drift_mark: int, safe: bool) -> None:
    mm, z = drifting.mm, drifting.z
    drifting.set(free, (-60, -60, -60, -60), drift_mark)
    assert watermark.zone_watermark_ok(mm, z, 0, 800, 0, 0)
    assert watermark.zone_watermark_ok_safe(mm, z, 0, 800, 0, 0) is safe


def test_kswapd_is_woken_by_what_the_counter_hides(drifting: Drifting) -> None:
    """zone_balanced asks with care; an allocation goes by the counter, and succeeds."""
    mm, z = drifting.mm, drifting.z
    high = drifting.marks()[2]
    drifting.set(high + 50, (-20, -20, -20, -20), 0)
    assert wakeup.zone_balanced(mm, z, 0, 0, 0)
    drifting.set(high + 50, (-20, -20, -20, -20), high + 4 * 20)
    assert not wakeup.zone_balanced(mm, z, 0, 0, 0)
    assert watermark.zone_watermark_ok(mm, z, 0, high, 0, 0)
    pgdat = mm.as_u64[(z + mm.zone_pgdat) >> 3]
    assert not kswapd.kswapd_is_woken(mm, pgdat)
    wakeup.wakeup_kswapd(mm, address.phys_to_virt(mm, z), 0, 1)
    assert kswapd.kswapd_is_woken(mm, pgdat)


def test_refresh_zone_stat_thresholds_as_cpus_go(drifting: Drifting) -> None:
    """The mark is high + CPUs * threshold if that product is more than low - min, and 0 if not.

    256 MiB are two pieces of 128 (less what is reserved: one, whose bits are 1): 2 * fls(CPUs) * (1 + 1).
    """
    kernel = drifting.machine.kernel
    zone = kernel.zone(0, 1)
    seen = []
    for cpus in (4, 3, 2, 1):
        low, mid, high = drifting.marks()
        threshold = 2 * cpus.bit_length() * 2
        mark = high + cpus * threshold if cpus * threshold > mid - low else 0
        assert drifting.thresholds() == {threshold}
        assert kernel.get(zone.at, "zone.percpu_drift_mark") == mark
        seen.append(threshold)
        if cpus > 1:
            drifting.machine.offline_cpu(cpus - 1)
    assert seen == [12, 8, 8, 4]


def test_thresholds_while_kswapd_is_awake(drifting: Drifting) -> None:
    """(low - min) / CPUs of a zone with a mark, so that all together cannot hide the min mark; then as before."""
    mm = drifting.mm
    low, mid, high = drifting.marks()
    drifting.set(high * 10, (0, 0, 0, 0), high + 4 * 12)
    pgdat = mm.as_u64[(drifting.z + mm.zone_pgdat) >> 3]
    kswapd.set_pgdat_percpu_threshold(mm, pgdat, kswapd.calculate_pressure_threshold)
    assert drifting.thresholds() == {max(1, min(125, (mid - low) // 4))}
    assert 4 * max(drifting.thresholds()) <= mid - low
    assert kswapd.run_kswapd(mm, 0)
    assert drifting.thresholds() == {12}


def test_the_vmstat_worker_tells_the_counter(drifting: Drifting) -> None:
    """Differentials are folded by the vmstat worker, once a second: then the counter tells it too."""
    mm, z = drifting.mm, drifting.z
    drifting.set(900, (-60, -60, -60, -60), 1000)
    stat.refresh_cpu_vm_stats(mm)
    assert vmstat.zone_page_state(mm, z, abi.NR_FREE_PAGES) == 660
    assert not watermark.zone_watermark_ok(mm, z, 0, 800, 0, 0)
    assert drifting.machine.alloc_page(gfp.GFP_KERNEL)
