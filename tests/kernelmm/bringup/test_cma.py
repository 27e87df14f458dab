# SPDX-License-Identifier: GPL-2.0-only
"""CMA areas: what Linux 4.0.4 did with the same command lines (tools/oracle's kernel, 64 MiB)."""

from __future__ import annotations

import numpy as np
import pytest

from kernelmm import Machine
from kernelmm.core import mmzone
from physmem import abi
from physmem.errors import UsageError
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


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("16M", "16 MiB at 0x0000000002c00000"),
        ("8M@32M", "8 MiB at 0x0000000002000000"),
        ("6M@33M", "8 MiB at 0x0000000002400000"),
        ("8M@16M-48M", "8 MiB at 0x0000000002800000"),
        ("8M@0-40M", "8 MiB at 0x0000000002000000"),
        ("8M@4M", "8 MiB at 0x0000000000400000"),
    ],
)
def test_where_it_is(value: str, said: str) -> None:
    with Machine.boot("64M", cmdline=f"cma={value}") as machine:
        assert f"cma: Reserved {said}\n" in machine.dmesg()
        page = machine.cma_alloc(1)
        assert page is not None
        assert machine.page_to_pfn(page) << 12 == int(said.split()[-1], 16)


@pytest.mark.parametrize(
    ("value", "why"),
    [
        # The kernel says that it has failed, and goes on.
        ("8M@48M-52M", "cma=0x800000 from 0x3000000 to 0x3400000: there is no such piece"),
        ("8M@16M", "cma=0x800000 at 0x1000000: there is no such piece"),
        # The kernel takes what is no memory.
        ("8M@63M", "cma=0x800000 at 0x4000000: there is no such piece"),
        ("8M@", "cma=8M@: size ''"),
        ("8M@1M-x", "cma=8M@1M-x: size 'x'"),
    ],
)
def test_where_it_cannot_be(value: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        Machine.boot("64M", cmdline=f"cma={value}")
