# SPDX-License-Identifier: GPL-2.0-only
"""meminfo, vmstat and iomem of real images against what their kernels said.

Linux 4.0 was read a moment before A, or after B, by a process that itself takes and gives back a few pages: the rows
that this changes are named here.  The newer kernels are equal, but for those that MOVED names.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from physmem.cli import main
from physmem.dump import Dump
from physmem.errors import AbsentError, CorruptionError, SymbolError
from physmem.inspect.counters import exact
from physmem.inspect.iomem import iomem, resources
from physmem.inspect.meminfo import Row, meminfo, meminfo_text
from physmem.inspect.vmstat import event_name, vmstat
from physmem.ram import Ram
from physmem.symbols import Symbols

DATA = Path(__file__).parents[2] / "data" / "vmcores"
NAMES = sorted(path.name for path in DATA.iterdir() if path.is_dir())

MOVED: dict[str, tuple[set[str], set[str]]] = {
    # Statistics that a CPU had not folded in yet when the file was read.
    "deb61-256m": (
        {"Inactive", "Inactive(anon)", "Unevictable", "Mlocked", "AnonPages", "Mapped"},
        {"nr_inactive_anon", "nr_unevictable", "nr_anon_pages", "nr_mapped", "nr_mlock"}
        | {"nr_zone_inactive_anon", "nr_zone_unevictable"},
    ),
    # A slab that was allocated between the reading of these files and of the others.
    "deb618-512m-2node": (
        {"Slab", "SUnreclaim"},
        {"nr_slab_unreclaimable", "numa_hit", "numa_local", "pgalloc_dma32"},
    ),
}


def keys(text: str) -> list[str]:
    return [line.split()[0].rstrip(":") for line in text.splitlines()]


def differing(mine: str, theirs: str) -> set[str]:
    """Names of the rows that the kernel did not print just so; each must be one that it has."""
    assert set(keys(mine)) <= set(keys(theirs))
    return set(keys("\n".join(set(mine.splitlines()) - set(theirs.splitlines()))))


def vmstat_text(dump: Dump) -> str:
    return "".join(f"{name} {value}\n" for name, value in vmstat(dump).items() if value is not None)


@pytest.mark.parametrize("name", NAMES)
def test_meminfo(modern: Callable[[str], Dump], name: str) -> None:
    rows, theirs = meminfo(modern(name)), (DATA / name / "meminfo.txt").read_text()
    assert [row.name for row in rows] == keys(theirs)
    assert differing(meminfo_text(rows), theirs) == MOVED.get(name, (set(), set()))[0]
    # Their variables are in pages that were cut off, or their symbols were.
    unknown = {row.name for row in rows if row.value is None}
    assert unknown <= {
        *("CommitLimit", "Committed_AS", "Percpu", "HardwareCorrupted", "Zswap", "Zswapped"),
        *("HugePages_Total", "HugePages_Free", "HugePages_Rsvd", "HugePages_Surp", "Hugepagesize", "Hugetlb"),
        *("DirectMap4k", "DirectMap2M", "DirectMap1G"),
    }


@pytest.mark.parametrize("name", NAMES)
def test_vmstat(modern: Callable[[str], Dump], name: str) -> None:
    rows, theirs = vmstat(modern(name)), (DATA / name / "vmstat.txt").read_text()
    assert list(rows) == keys(theirs)
    assert differing(vmstat_text(modern(name)), theirs) == MOVED.get(name, (set(), set()))[1]
    unknown = {row for row, value in rows.items() if value is None}
    assert unknown <= {
        *("nr_dirty_threshold", "nr_dirty_background_threshold", "nr_memmap_pages", "nr_memmap_boot_pages")
    }


@pytest.mark.parametrize("name", NAMES)
def test_iomem(modern: Callable[[str], Dump], name: str) -> None:
    assert iomem(modern(name)) == (DATA / name / "iomem.txt").read_text()


def test_linux_4_0_meminfo(image, open_case, proc):
    case, which, when = image
    rows, theirs = meminfo(open_case(case, which)), proc(case, "meminfo", when)
    # Whether the processor has pages of 1 GiB is not known.
    assert [row.name for row in rows if row.name != "DirectMap1G"] == keys(theirs)
    moving = {"MemFree", "MemAvailable", "Active", "Active(anon)", "AnonPages", "KernelStack", "PageTables"}
    if which == "B":
        moving |= {"Inactive", "Inactive(anon)", "Slab", "SReclaimable", "SUnreclaim", "CmaFree"}
    assert differing(meminfo_text(rows), theirs) <= moving
    known = {row.name for row in rows if row.value is not None}
    assert {"MemTotal", "Buffers", "Cached", "SwapCached", "Shmem", "VmallocTotal", "CmaTotal"} <= known


def test_linux_4_0_vmstat(image, open_case, proc):
    case, which, when = image
    dump, theirs = open_case(case, which), proc(case, "vmstat", when)
    assert list(vmstat(dump)) == keys(theirs)
    moving = {"nr_free_pages", "nr_alloc_batch", "nr_active_anon", "nr_anon_pages", "nr_page_table_pages"}
    moving |= {"nr_kernel_stack", "numa_hit", "numa_local", "pgalloc_dma", "pgalloc_dma32", "pgfree", "pgfault"}
    if which == "B":
        moving |= {"nr_inactive_anon", "nr_slab_reclaimable", "nr_slab_unreclaimable", "nr_free_cma"}
        moving |= {"numa_interleave", "numa_other", "pageoutrun"}
    assert differing(vmstat_text(dump), theirs) <= moving


# -- what the images at hand do not show -------------------------------------------------------------------------------


def with_variables(dump: Dump, **values: int) -> Dump:
    """The dump as if it told where some variables are: in the place of the machine's name."""
    ram = Ram.from_image(dump.image)
    place = (dump.symbols["init_uts_ns"] | 7) + 1
    for i, value in enumerate(values.values()):
        ram.set_u64(dump.virt_to_phys(place + 8 * i), value)
    symbols = dump.symbols | Symbols({name: place + 8 * i for i, name in enumerate(values)}, "test")
    return Dump(dump.image, dump.info, dump._layout, symbols, ram)


RATIOS = {"vm_dirty_ratio": 20, "dirty_background_ratio": 10, "vm_dirty_bytes": 0, "dirty_background_bytes": 0}


@pytest.mark.parametrize("name", ["deb510-512m", "deb72-1g-2node"])
def test_dirty_thresholds(modern: Callable[[str], Dump], name: str) -> None:
    said = dict(line.split() for line in (DATA / name / "vmstat.txt").read_text().splitlines())
    rows = vmstat(with_variables(modern(name), **RATIOS))
    for row in ("nr_dirty_threshold", "nr_dirty_background_threshold"):
        assert str(rows[row]) == said[row]
    rows = vmstat(with_variables(modern(name), **RATIOS | {"vm_dirty_bytes": 8193, "dirty_background_bytes": 1 << 20}))
    assert (rows["nr_dirty_threshold"], rows["nr_dirty_background_threshold"]) == (3, 1)


def test_buffers_are_unknown_if_files_are_cached(edit, open_case):
    copy = edit("n128_s1")
    assert exact(copy.dump, "NR_FILE_PAGES") == exact(copy.dump, "NR_SHMEM") == 491
    copy.add(copy.zone().address, "zone", "vm_stat", 3, list(copy.zone().vm_stat).index("NR_FILE_PAGES"))
    values = {row.name: row.value for row in meminfo(copy.dump)}
    assert (values["Buffers"], values["Cached"], values["SwapCached"]) == (None, None, None)
    assert "Buffers" not in meminfo_text(meminfo(copy.dump))


def test_the_sums_are_those_of_zones_and_nodes(modern: Callable[[str], Dump]) -> None:
    dump = modern("deb72-1g-2node")
    symbols = {name: dump.symbols[name] for name in ("node_data", "nr_cpu_ids", "__per_cpu_offset", "_totalram_pages")}
    symbols["__cpu_online_mask"] = dump.symbols["__cpu_online_mask"]
    few = Dump(dump.image, dump.info, dump._layout, Symbols(symbols, "test"))
    few.__dict__["regions"] = dump.regions
    rows = vmstat(few)
    whole = vmstat(dump)
    assert rows["pgfree"] is None
    told = {name: value for name, value in rows.items() if value is not None}
    numa = {"numa_hit", "numa_miss", "numa_foreign", "numa_interleave", "numa_local", "numa_other"}
    assert len(told) > 70
    assert {name for name in told if told[name] != whole[name]} <= numa


def test_formats() -> None:
    rows = [Row("MemTotal", 12), Row("HardwareCorrupted", 3), Row("HugePages_Free", 4, ""), Row("Percpu", None)]
    assert meminfo_text(rows) == (
        "MemTotal:             12 kB\nHardwareCorrupted:     3 kB\nHugePages_Free:        4\n"
    )
    assert event_name("COMPACTSTALL") == "compact_stall"
    assert event_name("DIRECT_MAP_LEVEL3_COLLAPSE") == "direct_map_level3_collapses"


@pytest.mark.parametrize("verb", ["meminfo", "vmstat"])
def test_json_names_what_is_unknown(verb: str) -> None:
    path = str(DATA / "deb612-256m" / "image.vmcore.xz")
    found = json.loads(CliRunner().invoke(main, [verb, path, "--json"]).stdout)
    shown = keys(CliRunner().invoke(main, [verb, path]).stdout)
    assert list(found["values"]) == shown
    assert found["unknown"]
    assert not set(found["unknown"]) & set(shown)


# -- trees of addresses that are none ----------------------------------------------------------------------------------


def tree(dump: Dump, **links: int) -> Dump:
    """A copy in which the first resource has other links."""
    ram = Ram.from_image(dump.image)
    first = dump.field(dump.symbols["iomem_resource"], "resource", "child")
    for name, value in links.items():
        ram.set_u64(dump.virt_to_phys(first + dump.layout.offsetof("resource", name)), value)
    return dump.over(ram)


@pytest.mark.parametrize("link", ["sibling", "child"])
def test_a_tree_without_an_end(modern: Callable[[str], Dump], link: str) -> None:
    dump = modern("deb612-256m")
    first = dump.field(dump.symbols["iomem_resource"], "resource", "child")
    with pytest.raises(CorruptionError, match="has no end"):
        iomem(tree(dump, **{link: first}))


def test_names(modern: Callable[[str], Dump]) -> None:
    dump = modern("deb612-256m")
    assert next(iter(resources(tree(dump, name=0)))).name == "<BAD>"
    first = dump.field(dump.symbols["iomem_resource"], "resource", "child")
    strange = tree(dump, start=int.from_bytes(b"\x1b[31mRe\0", "little"), name=first)
    assert next(iter(resources(strange))).name == "?[31mRe"


def test_linux_4_0_does_not_say_where_its_tree_is(open_case):
    with pytest.raises((SymbolError, AbsentError), match="iomem_resource"):
        iomem(open_case("n128_s1"))
