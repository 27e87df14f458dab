# SPDX-License-Identifier: GPL-2.0-only
"""The three memory models: the page array elsewhere, the same allocator, images that everybody can read."""

from __future__ import annotations

import json
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from kernelmm import gfp
from kernelmm.cli import main as kernelmm
from kernelmm.core import mmzone
from kernelmm.machine import Machine
from kernelmm.validate.judge import Judge
from kernelmm.validate.request import judge
from physmem import abi, address, engine
from physmem.cli import main as physmem
from physmem.dump import open_dump
from physmem.e820 import Kind, MemoryMap, Region
from physmem.errors import CorruptionError, UsageError
from physmem.inspect.check import check
from physmem.inspect.diff import diff
from physmem.inspect.sections import pageblock_types
from physmem.inspect.what import Region as Place
from physmem.inspect.what import locate, parse_what
from physmem.memory_model import MemoryModel
from physmem.structs.linux_4_0 import CONFIGS, UP

MIB = 1 << 20
ATOMIC = gfp.GFP_ATOMIC
OTHERS = [name for name, c in CONFIGS.items() if c.model != "sparsemem-vmemmap" and not c.page_extension]
#: A gap of two sections, a node's border inside a section, and no memory at all below 16 MiB.
HOLES = [(16, 200), (490, 700)]


def boot(name: str, **options: object) -> Machine:
    """A machine with holes in its memory, of two nodes if there can be two."""
    memory = MemoryMap.of(
        [Region(start * MIB, end * MIB, Kind.RAM) for start, end in HOLES], 2 if CONFIGS[name].numa else 1
    )
    return Machine.boot(memory, cpus=2 if CONFIGS[name].smp else 1, kernel=CONFIGS[name], **options)


def work(machine: Machine, seed: int) -> list[int]:
    """Allocate and free at random; the PFNs that were given."""
    chance = random.Random(seed)
    given, held = [], []
    for _ in range(600):
        if held and chance.random() < 0.4:
            page, order = held.pop(chance.randrange(len(held)))
            machine.free_block(page, order)
        order = chance.choice([0, 0, 0, 1, 2, 5, 9, 10])
        if (page := machine.alloc_pages(chance.choice([ATOMIC, ATOMIC | gfp.__GFP_MOVABLE]), order)) is not None:
            held.append((page, order))
            given.append(machine.page_to_pfn(page))
    for page, order in held:
        machine.free_block(page, order)
    return given


@pytest.mark.parametrize("deferred", [True, False])
@pytest.mark.parametrize("name", OTHERS)
def test_the_allocator_runs_on_it(name: str, deferred: bool) -> None:
    machine = boot(name, deferred=deferred)
    assert machine.dump.model.value == CONFIGS[name].model
    assert not check(machine.dump).findings
    work(machine, 1)
    assert not check(machine.dump).findings
    machine.drain_all_pages()
    assert machine.kernel.var("totalram_pages") == sum(
        machine.kernel.get(zone.at, "zone.managed_pages") for zone in machine.kernel.zones()
    )


@pytest.mark.parametrize("name", OTHERS)
def test_deferring_makes_no_difference(name: str) -> None:
    one, other = boot(name), boot(name, deferred=False)
    assert work(one, 2) == work(other, 2)
    for start, end in one.ram.ranges:
        assert one.ram.read(start, end - start) == other.ram.read(start, end - start)


def test_the_same_pages_with_every_model() -> None:
    """What is where decides nothing: with the page array in one place or the other, the same blocks are free."""
    given = {}
    for model in ("sparsemem-vmemmap", "sparsemem"):
        machine = Machine.boot("256M", kernel=UP.with_model(model))
        zone = machine.kernel.zone(0, 1)
        given[model] = [machine.kernel.get(zone.at, f"zone.{f}") for f in ("spanned_pages", "present_pages")]
        work(machine, 3)
    assert given["sparsemem-vmemmap"] == given["sparsemem"]


@pytest.mark.parametrize("name", OTHERS)
def test_a_page_frame_has_one_name_of_each_kind(name: str) -> None:
    machine = boot(name)
    mm, dump = machine.mm, machine.dump
    for pfn in (4096, 8000, 51199, 125440, 131072, 179199):
        page = machine.pfn_to_page(pfn)
        assert machine.page_to_pfn(page) == pfn == dump.page_map.pfn(page)
        assert dump.page_map.page(pfn) == page
        assert address.page_address(mm, page) == mm.page_offset + (pfn << 12) == machine.page_address(page)
        assert address.virt_to_page(mm, mm.page_offset + (pfn << 12)) == page
        assert address.page_off(mm, page) == page - mm.page_offset == address.off(mm, page)
        place = locate(dump, parse_what(f"{page + 24:x}"))
        assert (place.region, place.pfn, place.offset) == (Place.STRUCT_PAGE, pfn, 24)
    assert dump.page_map.pfn(page + 8) == -1
    assert dump.page_map.pfn(mm.page_offset + 0x1000) == -1
    for bad in (page + 8, mm.page_offset + 64, 64, (1 << 64) - 64):
        with pytest.raises(CorruptionError, match="not an element of the page array"):
            address.page_off(mm, bad)


@pytest.mark.parametrize("name", ["numa-sparsemem", "up-sparsemem"])
def test_flags_have_the_section(name: str) -> None:
    """SECTION | NODE | ZONE | LAST_CPUPID | FLAGS, from the top (include/linux/page-flags-layout.h)."""
    machine = boot(name)
    constant = machine.dump.layout.constant
    assert (constant("SECTIONS_WIDTH"), constant("SECTIONS_PGSHIFT")) == (19, 45)
    assert constant("NODES_PGSHIFT") == (39 if CONFIGS[name].numa else 0)
    pages, exists = machine.dump.pages(0, machine.dump.max_pfn, ["flags"])
    pfns = np.flatnonzero(exists)
    assert (pages["flags"][pfns] >> np.uint64(45) == pfns >> 15).all()
    # Sections 0 and 1 and 3 to 5 have memory, 2 has none.
    assert sorted({int(nr) for nr in pfns >> 15}) == [0, 1, 3, 4, 5]
    page = machine.alloc_page(ATOMIC)
    assert page is not None
    machine.kernel.words(address.page_off(machine.mm, page), 1)[0] ^= np.uint64(1 << 45)
    with pytest.raises(CorruptionError, match=r"has section \d in its flags"):
        address.page_to_pfn(machine.mm, page)


def test_sections_point_to_their_arrays() -> None:
    machine = boot("numa-sparsemem")
    kernel = machine.kernel
    root = kernel.var("mem_section")
    for nr in (0, 1, 3, 4, 5):
        coded = kernel.get(root + nr * 16, "mem_section.section_mem_map")
        assert coded & 3 == 3
        assert (coded & ~3) + (nr << 15) * 64 == machine.pfn_to_page(nr << 15)
    # A section's array is on its node.
    border = kernel.get(kernel.node_data(1), "pglist_data.node_start_pfn") << 12
    assert kernel.phys(machine.pfn_to_page(1)) < border <= kernel.phys(machine.pfn_to_page(5 << 15))


@pytest.mark.parametrize("name", ["smp-flatmem", "up-flatmem"])
def test_one_flat_array(name: str) -> None:
    machine = boot(name)
    kernel = machine.kernel
    start, pgdat = 16 << 8, kernel.node_data(0)
    assert kernel.get(pgdat, "pglist_data.node_start_pfn") == start
    assert kernel.get(pgdat, "pglist_data.node_mem_map") == kernel.var("mem_map") + start * 64
    # The holes have entries as well, for pages that will never be free.
    pages, exists = machine.dump.pages(start, machine.dump.max_pfn, ["flags", "_count"])
    assert exists.all()
    assert (pages["flags"][(200 - 16) << 8 : (490 - 16) << 8] >> np.uint64(abi.PG_reserved) & np.uint64(1)).all()
    assert not machine.dump.pages(0, start, ["flags"])[1].any()
    # Zones have their pageblock flags.
    zone = kernel.zone(0, 1)
    usemap = kernel.get(zone.at, "zone.pageblock_flags")
    assert usemap > machine.mm.page_offset
    types = pageblock_types(machine.dump)
    assert [mmzone.pageblock_migratetype(machine.mm, pfn) for pfn in range(start, 700 << 8, 512)] == [
        int(kind) for kind in types[start >> 9 :]
    ]
    assert set(types[: start >> 9]) == {-1}


def test_a_zone_may_begin_inside_a_pageblock() -> None:
    memory = MemoryMap.of([Region(5 * MIB + 0x5000, 90 * MIB, Kind.RAM)])
    machine = Machine.boot(memory, kernel=CONFIGS["up-flatmem"])
    assert not check(machine.dump).findings
    work(machine, 4)
    assert not check(machine.dump).findings


def test_a_flat_memory_map_has_one_node() -> None:
    with pytest.raises(UsageError, match="2 nodes: the kernel is built for at most 1"):
        Machine.boot("256M", nodes=2, kernel=CONFIGS["smp-flatmem"])


# -- images ---------------------------------------------------------------------------------------


SCRIPT = """
import sys
sys.path.insert(0, sys.argv[3])
from kernelmm.machine import Machine
from tests.kernelmm.test_memory_models import work

machine = Machine.attach(sys.argv[1])
print(work(machine, 7))
machine.save(sys.argv[2])
"""


@pytest.fixture(scope="module", params=["numa-sparsemem", "smp-flatmem"])
def image(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    path = tmp_path_factory.mktemp("model") / "m.vmcore"
    memory = MemoryMap.from_size("48M", 2 if CONFIGS[request.param].numa else 1)
    machine = Machine.boot(memory, cpus=2, kernel=CONFIGS[request.param])
    work(machine, 5)
    machine.save(path)
    return request.param, path


def test_both_engines_go_on_alike(image: tuple[str, Path], tmp_path: Path, project_environment: dict[str, str]) -> None:
    """Saved, opened in another process by each engine, with no layout given: the same pages and the same bytes."""
    here = Machine.attach(image[1])
    expected = work(here, 7)
    here.save(tmp_path / "here")
    for name in engine.available():
        command = [sys.executable, "-c", SCRIPT, str(image[1]), str(tmp_path / name), str(Path(__file__).parents[2])]
        environment = project_environment | {"PHYSMEM_ENGINE": name}
        done = subprocess.run(command, check=True, env=environment, capture_output=True, text=True)
        assert json.loads(done.stdout) == expected
        assert (tmp_path / name).read_bytes() == (tmp_path / "here").read_bytes()


@pytest.mark.parametrize(
    "verb", [["info"], ["buddyinfo"], ["pagetypeinfo"], ["zoneinfo"], ["check"], ["page"], ["vtop"]], ids=lambda v: v[0]
)
def test_inspectors_read_it(image: tuple[str, Path], verb: list[str]) -> None:
    name, path = image
    with open_dump(path) as dump:
        assert dump.model.value == CONFIGS[name].model
        page = dump.page_map.page(5000)
    arguments = {"page": [f"{page:x}"], "vtop": [f"{page:x}"]}.get(verb[0], [])
    done = CliRunner().invoke(physmem, [*verb, str(path), *arguments])
    assert done.exit_code == 0, done.output
    if verb[0] == "page":
        assert "5000 (0x1388)" in done.output
        assert f"{page:016x}" in done.output


def test_what_changed_is_found(image: tuple[str, Path], tmp_path: Path) -> None:
    machine = Machine.attach(image[1])
    pfn = machine.page_to_pfn(machine.alloc_pages(ATOMIC, 3) or 0)
    machine.save(tmp_path / "later")
    with open_dump(image[1]) as old, open_dump(tmp_path / "later") as new:
        changed = diff(old, new)
    assert pfn in {page.pfn for page in changed.pages.listed}


def test_what_is_distilled_says_and_does_the_same(image: tuple[str, Path], tmp_path: Path) -> None:
    """Without the contents of pages: the same views, and the allocator goes on as on the whole."""
    small = tmp_path / "small.kdump"
    done = CliRunner().invoke(physmem, ["distill", str(image[1]), "-o", str(small)])
    assert done.exit_code == 0, done.output
    for verb in ("buddyinfo", "pagetypeinfo", "zoneinfo", "vmstat", "iomem", "pcp", "check"):
        whole, distilled = (CliRunner().invoke(physmem, [verb, str(path)]) for path in (image[1], small))
        assert whole.exit_code == distilled.exit_code == 0, (verb, distilled.output)
        assert whole.output == distilled.output
    assert work(Machine.attach(small), 7) == work(Machine.attach(image[1]), 7)


def test_kpageflags_and_kpagecount(image: tuple[str, Path], tmp_path: Path) -> None:
    """Of each page frame, by its own struct page."""
    files = tmp_path / "flags", tmp_path / "count"
    arguments = ["pages", str(image[1]), "--kpageflags", str(files[0]), "--kpagecount", str(files[1])]
    done = CliRunner().invoke(physmem, arguments)
    assert done.exit_code == 0, done.output
    flags, counts = (np.fromfile(path, "<u8") for path in files)
    with open_dump(image[1]) as dump:
        pages, exists = dump.pages(0, dump.max_pfn, ["flags", "_mapcount"])
        assert len(flags) == len(counts) == dump.max_pfn
    words, mapcounts = pages["flags"], pages["_mapcount"]
    for kpf, expected in (
        (20, ~exists),
        (10, exists & (mapcounts == abi.PAGE_BUDDY_MAPCOUNT_VALUE)),
        (32, exists & (words >> np.uint64(abi.PG_reserved) & np.uint64(1) != 0)),
    ):
        assert ((flags >> np.uint64(kpf) & np.uint64(1) != 0) == expected).all()
        assert expected.any() or kpf == 20
    # page_mapcount of whatever it is, as 64 bits; pages that no zone has are all zeros, and so mapped once.
    mapped = (mapcounts.astype(np.int64) + 1).view(np.uint64)
    assert (counts == np.where(exists, mapped, 0)).all()


@pytest.mark.parametrize("name", ["numa", *OTHERS])
def test_frees_are_judged(name: str) -> None:
    """The verdicts are those of any memory model; what leads from page to page does on each."""
    machine = boot(name)
    blocks = [machine.alloc_pages(ATOMIC, order) or 0 for order in (0, 2)]
    compound = machine.alloc_pages(ATOMIC | gfp.__GFP_COMP, 3) or 0
    tail = machine.page_address(compound) + 4096 * 3
    free = machine.page_address(blocks[0])
    assert machine.judge_free(free).right
    assert machine.judge_free(machine.page_address(blocks[1]), 2).right
    assert machine.judge_free(machine.page_address(compound), 3).right
    assert f"pfn {machine.page_to_pfn(compound)}" in str(machine.judge_free(tail, 0))
    machine.free_block(blocks[0])
    again = machine.judge_free(free)
    assert not again.right
    # It is on the CPU's list: what its links lead to says so.
    assert "CPU 0" in str(again)
    for call in (f"__free_pages {compound:x} 3", f"__free_pages pfn:{machine.page_to_pfn(compound)} 3"):
        assert judge(Judge(machine.dump), call).right
    with pytest.raises(UsageError, match="not a struct page"):
        judge(Judge(machine.dump), "__free_pages ffff880000000008 0")
    # The hole of two sections; a flat page array has entries there as well.
    hole = judge(Judge(machine.dump), f"free phys:{300 * MIB:x} 0")
    assert not hole.right


def test_calls_are_explained(image: tuple[str, Path], project_environment: dict[str, str]) -> None:
    command = [
        sys.executable,
        "-c",
        "from kernelmm.cli import main; main()",
        "explain",
        str(image[1]),
        "alloc GFP_KERNEL 10; free $ 10",
    ]
    environment = {name: value for name, value in project_environment.items() if name != "PHYSMEM_ENGINE"}
    done = subprocess.run(command, check=False, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "__rmqueue_smallest" in done.stdout


@pytest.mark.skipif(shutil.which("makedumpfile") is None, reason="makedumpfile is not installed")
def test_makedumpfile_counts_as_we_do(image: tuple[str, Path], tmp_path: Path) -> None:
    command = ["makedumpfile", "--message-level", "16", "-d", "31", str(image[1]), str(tmp_path / "out")]
    done = subprocess.run(command, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stdout + done.stderr
    counts = dict(re.findall(r"^ *(\w[\w -]+?) *: (0x[0-9a-f]+)$", done.stdout + done.stderr, re.M))
    machine = Machine.attach(image[1])
    kernel = machine.kernel
    pending = sum(
        kernel.get(kernel.per_cpu_ptr(kernel.get(zone.at, "zone.pageset"), cpu), "per_cpu_pageset.vm_stat_diff", 0)
        for zone in kernel.populated_zones()
        for cpu in kernel.possible_cpus()
    )
    assert int(counts["Free pages"], 16) == kernel.var("vm_stat", 0) + pending
    assert int(counts["Total pages"], 16) == machine.dump.max_pfn
    with open_dump(tmp_path / "out") as opened:
        assert opened.model in (MemoryModel.SPARSEMEM, MemoryModel.FLATMEM)
        assert opened.info.release.startswith("4.0.0-kernelmm-")


@pytest.mark.parametrize("model", ["sparsemem-vmemmap", "sparsemem", "flatmem"])
def test_the_command(model: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(kernelmm, ["boot", "--mem", "48M", "--model", model, "-o", str(tmp_path / "m.vmcore")])
    assert done.exit_code == 0, done.output
    with open_dump(tmp_path / "m.vmcore") as dump:
        assert dump.model.value == model
        assert not check(dump).findings
