# SPDX-License-Identifier: GPL-2.0-only
"""What kernels since 6.1 say of themselves in /proc, against what their dumps tell with nothing besides."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from physmem.dump import Dump
from physmem.inspect.buddyinfo import buddyinfo
from physmem.inspect.check import check
from physmem.inspect.pagetypeinfo import pagetypeinfo
from physmem.inspect.zoneinfo import zoneinfo_file
from physmem.inspect.zones import pagesets, populated_zones

DATA = Path(__file__).parents[2] / "data" / "vmcores"
NAMES = sorted(path.name for path in DATA.iterdir() if path.is_dir())

#: Rows of zoneinfo that the guest changed between what it said and the dump, a moment later.
MOVED = {
    # Statistics that a CPU had not folded in yet when the file was read.
    "deb61-256m": {
        *("nr_inactive_anon", "nr_unevictable", "nr_anon_pages", "nr_mapped"),
        *("nr_zone_inactive_anon", "nr_zone_unevictable", "nr_mlock"),
    },
    "deb61-1g-2node": set(),
    # The kernel tunes it by itself.
    "deb612-256m": {"high:"},
}


@pytest.mark.parametrize("name", NAMES)
def test_buddyinfo(modern: Callable[[str], Dump], name: str) -> None:
    assert buddyinfo(populated_zones(modern(name))) == (DATA / name / "buddyinfo_at_dump.txt").read_text()


@pytest.mark.parametrize("name", NAMES)
def test_pagetypeinfo(modern: Callable[[str], Dump], name: str) -> None:
    found = pagetypeinfo(modern(name))
    assert found.breaks == ()
    assert found.text() == (DATA / name / "pagetypeinfo.txt").read_text()


@pytest.mark.parametrize("name", NAMES)
def test_zoneinfo(modern: Callable[[str], Dump], name: str) -> None:
    mine, theirs = zoneinfo_file(modern(name)), (DATA / name / "zoneinfo.txt").read_text()
    rows = zip(mine.splitlines(), theirs.splitlines(), strict=True)
    assert {row.split()[0] for row, said in rows if row != said} == MOVED.get(name, set())


@pytest.mark.parametrize("name", NAMES)
def test_healthy_kernels_are_clean(modern: Callable[[str], Dump], name: str) -> None:
    found = check(modern(name))
    assert (found.findings, found.not_checked) == ([], {})
    assert set(found.not_applicable) <= {"nr_free_cma", "cma_list", "pcp_migratetype"}


@pytest.mark.parametrize("name", NAMES)
def test_per_cpu_pages_add_up(modern: Callable[[str], Dump], name: str) -> None:
    dump = modern(name)
    for zone in populated_zones(dump):
        for pageset in pagesets(dump, zone):
            orders, names = zip(*((kind.order, kind.name) for kind in pageset.kinds), strict=True)
            if dump.release < (5, 14):
                assert (orders, names) == ((0, 0, 0), ("Unmovable", "Movable", "Reclaimable"))
            else:
                assert orders == (0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 9, 9)
                assert names[-2:] == ("other", "Movable")


def test_a_list_that_the_kernel_does_not_count_to_the_end(modern: Callable[[str], Dump]) -> None:
    found = pagetypeinfo(modern("deb61-256m"))
    found.zones[0].free[0][0] = 99_999
    assert " 99999 " in found.text()
    found.zones[0].free[0][0] = 100_001
    assert "Unmovable >100000      0 " in found.text()
