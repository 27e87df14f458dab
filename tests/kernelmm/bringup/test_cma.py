# SPDX-License-Identifier: GPL-2.0-only
"""CMA areas that cannot be: what Linux 4.0.4 did with the same command line (tools/oracle's kernel, 64 MiB)."""

from __future__ import annotations

import numpy as np

from kernelmm import Machine
from kernelmm.core import mmzone
from physmem import abi
from physmem.inspect.check import check

PAGEBLOCK = abi.PAGEBLOCK_NR_PAGES


def kinds(machine: Machine, start: int, end: int) -> list[int]:
    return [mmzone.pageblock_migratetype(machine.mm, pfn) for pfn in range(start, end, PAGEBLOCK)]


def reserved(machine: Machine, start: int, end: int) -> int:
    flags, exists = machine.dump.pages(start, end, ["flags"])
    return int(np.count_nonzero(np.asarray(flags["flags"]).reshape(-1)[exists] >> np.uint64(abi.PG_reserved) & 1))


def test_an_area_across_zones() -> None:
    """cma_activate_area: 6 pageblocks lie before ZONE_MOVABLE, and are freed; 2 behind it stay reserved."""
    with Machine.boot("64M", cma=16 << 20, movablecore=8 << 20) as machine:
        kernel = machine.kernel
        area = kernel.symbols["cma_areas"]
        base, border = kernel.get(area, "cma.base_pfn"), kernel.var("zone_movable_pfn")
        assert kernel.get(area, "cma.count") == 0
        assert base < border < base + 4096
        before = (border - base) // PAGEBLOCK
        assert kinds(machine, base, base + 4096) == [machine.mm.migrate_cma] * before + [2] * (8 - before)
        assert reserved(machine, base, border) == 0
        assert reserved(machine, border, base + 4096) == base + 4096 - border
        free_cma = sum(kernel.get(zone.at, "zone.vm_stat", machine.mm.nr_free_cma_pages) for zone in kernel.zones())
        assert free_cma == before * PAGEBLOCK
        assert kernel.var("totalcma_pages") == 4096
        # Nobody gets anything from it, and the page of its bitmap is free again.
        assert machine.cma_alloc(1) is None
        assert machine.page(machine.virt_to_page(kernel.get(area, "cma.bitmap")))["_count"] == 0
        assert "cma: CMA area reserved could not be activated" in machine.dmesg()
        assert not check(machine.dump).findings


def test_an_area_in_one_zone_says_nothing() -> None:
    with Machine.boot("64M", cma=8 << 20) as machine:
        assert "could not be activated" not in machine.dmesg()
        assert machine.cma_alloc(1) is not None
