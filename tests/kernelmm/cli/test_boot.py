# SPDX-License-Identifier: GPL-2.0-only
"""``kernelmm boot``: the machine that was asked for, its image, and what cannot be."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from kernelmm import gfp
from kernelmm.attach import attach
from kernelmm.bringup.kernel import Kernel
from kernelmm.bringup.zonelists import node_distance, zonelist
from kernelmm.bringup.zones import zone_name
from kernelmm.cli import main
from kernelmm.debug.access import PageFault
from kernelmm.machine import Machine
from physmem.cli import main as physmem
from physmem.dump import open_dump
from physmem.e820 import MemoryMap
from physmem.errors import UsageError
from physmem.inspect.check import check
from physmem.ranges import Ranges

ROOT = Path(__file__).resolve().parents[3]


def kernelmm(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_it_says_what_the_machine_has(tmp_path: Path) -> None:
    done = kernelmm("boot", "--mem", "256M", "--nodes", 2, "--cpus", 2, "-o", tmp_path / "m.vmcore")
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0].startswith("Linux version 4.0.0-kernelmm")
    assert [line.split(":")[0] for line in lines[-3:]] == [
        "Node 0, zone      DMA",
        "Node 0, zone    DMA32",
        "Node 1, zone    DMA32",
    ]
    with open_dump(tmp_path / "m.vmcore") as dump:
        assert sorted(dump.pgdats) == [0, 1]
        assert not check(dump).findings


def test_it_loads_what_it_needs(project_environment: dict[str, str]) -> None:
    """Most of the time of a small boot is Python's imports: what reads images or runs scripts is not among them."""
    program = (
        "import sys; from kernelmm.cli import main; main(['boot', '--mem', '16M'], standalone_mode=False); "
        "print(*sys.modules, file=sys.stderr)"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=project_environment, capture_output=True, text=True, check=True)
    loaded = set(done.stderr.split())
    assert "kernelmm.machine" in loaded
    # pathlib is what an editable installation needs to be found.
    others = {"lzma", "tempfile", "zstandard", "matplotlib", "rich", "elftools"}
    images = {f"physmem.image.{name}" for name in ("avml", "codecs", "elf", "flattened", "joined", "kdump", "save")}
    kernels = {"physmem.kallsyms", "physmem.kernel_layout", "physmem.structs.btf", "physmem.vmlinux"}
    study = {f"kernelmm.study.{name}" for name in ("explain", "faults", "run", "script", "trace")}
    assert loaded & (others | images | kernels | study | {"kernelmm.debug.lockdep"}) == set()


@pytest.mark.parametrize(
    ("options", "variables"),
    [
        ([], {}),
        (["--debug-pagealloc"], {"_debug_pagealloc_enabled": 1, "page_poisoning_enabled": 0}),
        (
            ["--debug-pagealloc", "--guardpage-minorder", "2"],
            {"_debug_pagealloc_enabled": 1, "_debug_guardpage_minorder": 2, "_debug_guardpage_enabled": 1},
        ),
        (["--page-poisoning"], {"page_poisoning_enabled": 1}),
        (["--page-owner"], {"page_owner_inited": 1, "_debug_pagealloc_enabled": 0}),
        (["--cmdline", "debug_pagealloc=on page_owner=on"], {"_debug_pagealloc_enabled": 1, "page_owner_inited": 1}),
    ],
)
def test_debugging_aids(tmp_path: Path, options: list[str], variables: dict[str, int]) -> None:
    """They are in the image, which is a build with them, is recognised, and goes on with them."""
    path = tmp_path / "m.vmcore"
    boot("--mem", "32M", *options, "-o", path)
    with Machine.attach(path) as machine:
        assert not check(machine.dump).findings
        assert machine.dump.layout.has("mem_section", "page_ext") == bool(options)
        assert {name: machine.kernel.var(name) for name in variables} == variables
        page = machine.alloc_page(gfp.GFP_KERNEL)
        assert page is not None
        address = machine.page_address(page)
        machine.free_block(page)
        hidden = variables.get("_debug_pagealloc_enabled", 0)
        if hidden:
            with pytest.raises(PageFault):
                machine.read(address)
        else:
            assert machine.read(address)[1:] == (b"\xaa" * 7 if "--page-poisoning" in options else bytes(7))
        if "page_owner_inited" in variables:
            assert machine.page_owner().startswith("Page allocated via order 0")
        else:
            with pytest.raises(UsageError, match="page_owner is not on"):
                machine.page_owner()


@pytest.mark.parametrize(
    "options",
    [
        ["--kmemcheck", "1"],
        ["--cmdline", "kmemcheck=1", "--model", "flatmem"],
        ["--kmemcheck", "1", "--page-owner", "--kernel", "up", "--model", "sparsemem"],
    ],
)
def test_kmemcheck(tmp_path: Path, options: list[str]) -> None:
    path = tmp_path / "m.vmcore"
    boot("--mem", "40M", *options, "-o", path)
    with Machine.attach(path) as machine:
        assert not check(machine.dump).findings
        address = machine.get_free_pages(gfp.GFP_KERNEL)
        assert address is not None
        machine.read(address)
        assert f"64-bit read from uninitialized memory ({address:x})" in machine.dmesg()
        assert (machine.mm.aids.owner is not None) == ("--page-owner" in options)


@pytest.mark.parametrize(
    ("kernel", "model"),
    [
        *((kernel, model) for kernel in ("numa", "smp", "up") for model in ("sparsemem-vmemmap", "sparsemem")),
        *(("smp", "flatmem"), ("up", "flatmem")),
    ],
)
def test_debugging_aids_in_every_build(tmp_path: Path, kernel: str, model: str) -> None:
    """The build that has them is otherwise the one that was asked for, and its images are recognised."""
    path = tmp_path / "m.vmcore"
    cpus = 1 if kernel == "up" else 2
    boot("--mem", "48M", "--kernel", kernel, "--model", model, "--cpus", cpus, "--page-owner", "-o", path)
    with Machine.attach(path) as machine:
        assert (machine.mm.nr_cpus, machine.mm.numa, machine.mm.smp) == (cpus, kernel == "numa", kernel != "up")
        assert machine.dump.model.value == model
        assert not check(machine.dump).findings
        assert machine.alloc_page(gfp.GFP_KERNEL) is not None
        assert machine.page_owner().startswith("Page allocated via order 0")


def test_allocations_that_fail_from_the_start(tmp_path: Path) -> None:
    path = tmp_path / "m.vmcore"
    boot("--mem", "32M", "--fail-page-alloc", "1,100,0,2", "-o", path)
    with Machine.attach(path) as machine:
        machine.fail_page_alloc(ignore_gfp_wait=0, min_order=0)
        pages = [machine.alloc_page(gfp.GFP_KERNEL) for _ in range(4)]
        assert [page is None for page in pages] == [True, True, False, False]


def test_json(tmp_path: Path) -> None:
    done = kernelmm("boot", "--mem", "64M", "--cma", "8M", "--movablecore", "16M", "--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert [zone["zone"] for zone in told["zones"]] == ["DMA", "DMA32", "Movable"]
    assert told["totalram_pages"] == sum(zone["managed"] for zone in told["zones"])


def test_a_memory_map_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "map"
    path.write_text("0x0-0x9fbff usable\n0x100000-0x3ffffff usable\n0x4000000-0x4ffffff reserved\n")
    done = kernelmm("boot", "--e820", path, "--limit", "48M", "--json")
    assert done.exit_code == 0, done.output
    zones = json.loads(done.stdout)["zones"]
    assert sum(zone["present"] for zone in zones) == 0x9E + (47 << 8)


def boot(*arguments: object) -> tuple[list[dict[str, Any]], list[str]]:
    """The zones of a machine and its log, both of one boot."""
    done = kernelmm("boot", *arguments)
    assert done.exit_code == 0, done.output
    row = re.compile(r"Node (\d+), zone +(\w+): (\d+) pages from pfn (\d+), (\d+) managed, (\d+) free, watermarks .*")
    lines = done.stdout.splitlines()
    names = ("node", "zone", "present", "start_pfn", "managed", "free")
    zones = [dict(zip(names, match.groups(), strict=True)) for line in lines if (match := row.fullmatch(line))]
    return [{k: v if k == "zone" else int(v) for k, v in zone.items()} for zone in zones], lines[: -len(zones)]


def pages(zones: list[dict[str, Any]], what: str = "present", **where: object) -> int:
    """Sum over the zones that are as said."""
    return sum(zone[what] for zone in zones if all(zone[name] == value for name, value in where.items()))


def test_16_mib() -> None:
    zones, _ = boot("--mem", "16M")
    assert [zone["zone"] for zone in zones] == ["DMA"]
    # Without page 0 and the 384 KiB below 1 MiB that are no memory.
    assert pages(zones) == 4096 - 98


def test_reserved_ranges_are_present_and_not_managed() -> None:
    plain, _ = boot("--mem", "64M")
    zones, _ = boot("--mem", "64M", "--reserve", "4M@32M", "--reserve", "0x1000@0x3000000")
    assert pages(zones) == pages(plain)
    assert pages(zones, "managed") == pages(plain, "managed") - 1024 - 1


def test_limit_and_cmdline_mem_are_the_same() -> None:
    assert boot("--mem", "64M", "--limit", "32M")[0] == boot("--mem", "64M", "--cmdline", "mem=32M")[0]
    assert pages(boot("--mem", "64M", "--limit", "32M")[0]) == 8192 - 98


@pytest.mark.parametrize("how", [["--kernelcore", "96M"], ["--movablecore", "32M"], ["--cmdline", "movablecore=32M"]])
def test_movable_memory(how: list[str]) -> None:
    zones, log = boot("--mem", "128M", *how)
    assert [zone["zone"] for zone in zones] == ["DMA", "DMA32", "Movable"]
    # To a multiple of 4 MiB, and the pages that are no memory are not the kernel's.
    assert pages(zones, zone="Movable") in (28 << 8, 32 << 8)
    assert any(line.startswith("  Node 0: 0x") for line in log)


def test_percent_is_of_what_the_kernel_has() -> None:
    zones, _ = boot("--mem", "256M", "--cmdline", "movablecore=25% mem=128M")
    assert pages(zones, zone="Movable") == 32 << 8
    zones, _ = boot("--mem", "128M", "--cmdline", "kernelcore=50%")
    assert pages(zones, zone="Movable") == 60 << 8


def test_cma(tmp_path: Path) -> None:
    boot("--mem", "64M", "--cma", "8M", "-o", tmp_path / "m.vmcore")
    with open_dump(tmp_path / "m.vmcore") as dump:
        assert Kernel.attached(attach(dump), dump).var("totalcma_pages") == 8 << 8


@pytest.mark.parametrize("order", ["node", "zone"])
def test_zonelist_order(tmp_path: Path, order: str) -> None:
    """Two nodes with a DMA32 and a Movable zone each: whose zone is second tells the order."""
    common = ("--mem", "256M", "--nodes", 2, "--movablecore", "64M")
    _, log = boot(*common, "--zonelist-order", order, "-o", tmp_path / "a.vmcore")
    assert f"Built 2 zonelists in {order.capitalize()} order, mobility grouping on" in "\n".join(log)
    with open_dump(tmp_path / "a.vmcore") as dump:
        kernel = Kernel.attached(attach(dump), dump)
        where = {zone.at: (zone.nid, zone_name(kernel, zone.idx)) for zone in kernel.zones()}
        found = [where[at] for at, _ in zonelist(kernel, 1, 0)]
    theirs, mine = [(0, "Movable"), (0, "DMA32"), (0, "DMA")], [(1, "Movable"), (1, "DMA32")]
    by_zone = [mine[0], theirs[0], mine[1], *theirs[1:]]
    assert found == (mine + theirs if order == "node" else by_zone)
    # The same, told to the kernel in its words; but for its log, which has the words.
    assert f"Built 2 zonelists in {order.capitalize()}" in "\n".join(
        boot(*common, "--cmdline", f"numa_zonelist_order={order[0]}")[1]
    )


def test_distances_are_in_the_kernels_table(tmp_path: Path) -> None:
    near = ("--distance", 0, 2, 15)
    boot("--mem", "192M", "--nodes", 3, *near, "--distance", 1, 2, 40, "-o", tmp_path / "m.vmcore")
    with open_dump(tmp_path / "m.vmcore") as dump:
        kernel = Kernel.attached(attach(dump), dump)
        table = [[node_distance(kernel, i, j) for j in range(3)] for i in range(3)]
        assert table == [[10, 20, 15], [20, 10, 40], [15, 40, 10]]
        where = {zone.at: zone.nid for zone in kernel.zones()}
        nids = [list(dict.fromkeys(where[at] for at, _ in zonelist(kernel, nid, 0))) for nid in range(3)]
    assert nids == [[0, 2, 1], [1, 0, 2], [2, 0, 1]]


@pytest.mark.parametrize(("option", "size"), [("--gbpages", 1 << 30), ("--no-gbpages", 2 << 20)])
def test_pages_of_the_direct_map(tmp_path: Path, option: str, size: int) -> None:
    boot("--mem", "2G", option, "-o", tmp_path / "m.kdump")
    done = CliRunner().invoke(physmem, ["vtop", str(tmp_path / "m.kdump"), "ffff880040000000", "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["page_size"] == size


@pytest.mark.parametrize(("build", "numa", "smp"), [("numa", True, True), ("smp", False, True), ("up", False, False)])
def test_builds_of_the_kernel(tmp_path: Path, build: str, numa: bool, smp: bool) -> None:
    boot("--mem", "32M", "--kernel", build, "-o", tmp_path / "m.vmcore")
    with open_dump(tmp_path / "m.vmcore") as dump:
        assert dump.layout.has("zone", "node") == numa
        assert dump.layout.has("per_cpu_pageset", "stat_threshold") == smp


@pytest.mark.parametrize(("case", "nodes"), [("n128_s1", 1), ("n256x2_s6n", 2), ("u128_s1", 1)])
def test_a_real_machines_iomem(tmp_path: Path, case: str, nodes: int) -> None:
    """The zones span and have as many pages as the machine that /proc/iomem is from."""
    real = ROOT / "tests" / "data" / "oracle" / case
    text = (real / "proc.txt").read_text().split("### /proc/iomem (before A)\n")[1].split("\n\n")[0]
    (tmp_path / "iomem").write_text(text)
    build = "up" if case.startswith("u") else "numa"
    zones, _ = boot("--e820", tmp_path / "iomem", "--nodes", nodes, "--kernel", build)
    with open_dump(real / "A.vmcore.xz") as dump:
        kernel = Kernel.attached(attach(dump), dump)
        names = {idx: name.removeprefix("ZONE_") for name, idx in dump.layout.enum("zone_type").items()}
        assert [(z["node"], z["zone"].upper(), z["present"], z["start_pfn"]) for z in zones] == [
            (
                zone.nid,
                names[zone.idx],
                kernel.get(zone.at, "zone.present_pages"),
                kernel.get(zone.at, "zone.zone_start_pfn"),
            )
            for zone in kernel.populated_zones()
        ]


def test_memory_at_both_ends_of_the_address_space(tmp_path: Path) -> None:
    """The last 256 MiB of 64 TiB; the hole between costs nothing, in no step of the way."""
    (tmp_path / "map").write_text("0x0-0x3ffffff usable\n0x3ffff0000000-0x3fffffffffff usable\n")
    zones, _ = boot("--e820", tmp_path / "map", "--no-deferred", "-o", tmp_path / "m.vmcore")
    assert [zone["zone"] for zone in zones] == ["DMA", "DMA32", "Normal"]
    assert pages(zones, zone="Normal") == 256 << 8
    with open_dump(tmp_path / "m.vmcore") as dump:
        assert dump.max_pfn == 1 << 34
        assert not check(dump).findings


@pytest.mark.parametrize(
    ("text", "nodes", "options"),
    [
        # Sizes that no order divides.
        ("0x0-0x9fbff usable\n0x100000-0x10fffff usable\n", [0], []),
        ("0x0-0x40000fff usable\n", [0], []),
        # Ends inside a page: the page is no memory; and memory that begins and ends in the middle of one.
        ("0x0-0x3ffffff usable\n0x4000000-0x5000800 usable\n0x5001000-0x7ffffff usable\n", [0], ["--cma", "8M"]),
        ("0x100001-0x3fffffe usable\n", [0], []),
        # A node in two parts, around another's.
        (
            "0x0-0x3ffffff usable\n0x10000000-0x13ffffff usable\n0x20000000-0x23ffffff usable\n"
            "node 0: 0x0-0x3ffffff\nnode 1: 0x10000000-0x13ffffff\nnode 0: 0x20000000-0x23ffffff\n",
            [0, 1],
            [],
        ),
        # Reserved ranges that overlap, repeat, leave memory, cover the kernel's image.
        (
            "0x0-0x3ffffff usable\n",
            [0],
            [*("--reserve", "4M@32M", "--reserve", "6M@30M", "--reserve", "4M@32M"), "--reserve", "4M@1T"],
        ),
        ("0x0-0x3ffffff usable\n", [0], ["--reserve", "16M@16M", "--reserve", "1@63M"]),
        # More for the kernel than there is: nothing is left to be movable.
        ("0x0-0x3ffffff usable\n", [0], ["--kernelcore", "1G"]),
    ],
)
def test_odd_machines(tmp_path: Path, text: str, nodes: list[int], options: list[str]) -> None:
    """All of the memory that can be used is, and no page is counted twice."""
    (tmp_path / "map").write_text(text)
    zones, _ = boot("--e820", tmp_path / "map", *options, "-o", tmp_path / "m.vmcore")
    with open_dump(tmp_path / "m.vmcore") as dump:
        assert sorted(dump.pgdats) == nodes
        assert not check(dump).findings
        frames = MemoryMap.from_text(text).usable - Ranges([(0, 4096), (640 << 10, 1 << 20)])
        whole = sum(max((end >> 12) - -(-start >> 12), 0) for start, end in frames)
    assert pages(zones) == whole
    assert 0 < pages(zones, "free") <= pages(zones, "managed") < whole


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--mem", "12Q"], "suffixes"),
        (["--mem", "-1"], "suffixes"),
        (["--mem", "100T"], "46 bits"),
        (["--mem", "1G", "--e820", "map"], "two ways"),
        (["--e820", "/nonexistent"], "No such file"),
        (["--nodes", "0"], "0 nodes"),
        (["--cpus", "100"], "100 CPUs"),
        (["--mem", "2M"], "too little memory"),
        (["--cma", "x"], "suffixes"),
        (["--cma", "1G"], "no such piece of memory"),
        (["--mem", "16M", "--reserve", "64M@0"], "too little memory"),
        (["--nodes", "65", "--mem", "1G"], "at most 64"),
        (["--movablecore", "1T"], "movablecore=0x10000000000: the machine has"),
        (["--limit", "12Q"], "suffixes"),
        (["--reserve", "4M"], "expected SIZE@START"),
        (["--reserve", "4M@12Q"], "suffixes"),
        (["--reserve", "0@4M"], "not from 1 byte"),
        (["--distance", "0", "5", "20"], "there are 1 nodes"),
        (["--nodes", "2", "--distance", "0", "1", "300"], "from 11 to 254"),
        (["--cmdline", "mem=12Q"], "mem=12Q: size '12Q'"),
        (["--cmdline", "mem=0"], "mem=0: no memory at all"),
        (["--cmdline", "movablecore=120%"], "movablecore=120%: more than all"),
        (["--cmdline", "kernelcore"], "kernelcore: size ''"),
        (["--cmdline", "numa_zonelist_order=best"], "zonelist order 'best'"),
        (["--cmdline", "numa=fake=0"], "numa=fake=0: 0 nodes"),
        (["--cmdline", "hashdist=x"], "hashdist=x: not a number"),
        (["--cmdline", "nr_cpus=0"], "nr_cpus=0: not a number of CPUs"),
        (["--cmdline", "debug_guardpage_minorder=x"], "debug_guardpage_minorder=x: not an order"),
        (["--cmdline", "memmap=1M@0x40000000000000"], "memmap=1M@0x40000000000000: "),
        (["--cmdline", "x" * 2048], "at most 2047 fit"),
        (["--cmdline", "a\nb"], "cannot be printed"),
        (["--guardpage-minorder", "2"], "needs debug_pagealloc"),
        (["--debug-pagealloc", "--guardpage-minorder", "6"], "must be from 0 to 5"),
        (["--fail-page-alloc", "1,2"], "fail_page_alloc"),
    ],
)
def test_what_cannot_be(arguments: list[str], message: str, tmp_path: Path) -> None:
    done = kernelmm("boot", *arguments, "-o", tmp_path / "m.vmcore")
    assert done.exit_code == 2
    assert done.stderr.count("\n") == 1
    assert message in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0x0-0x3ffffff usable\n0x3000000-0x4ffffff reserved\n", "overlap"),
        ("0x0-0x3ffffff fast\n", "line 1: unknown type 'fast'"),
        ("0x0-0x3ffffff usable\n0x400000000000-0x40ffffffffff usable\n", "46 bits"),
        ("0x0-0x3ffffff reserved\n", "no usable memory"),
        ("0x0-0x3ffffff usable\nwhat\n", "line 2: 'what' is no line"),
        ("0x3ffffff-0x0 usable\n", "line 1: 0x3ffffff-0x0 ends"),
        ("00000000-00000000 : System RAM\n", "hides addresses"),
        ("0x0-0x3ffffff usable\nnode 0: 0x0-0x1ffffff\n", "belongs to no node"),
        ("0x0-0x3ffffff usable\nnode 1: 0x0-0x3ffffff\n", "node 0 is missing"),
        ("", "no usable memory"),
    ],
)
def test_maps_that_cannot_be(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "map").write_text(text)
    done = kernelmm("boot", "--e820", tmp_path / "map", "-o", tmp_path / "m.vmcore")
    assert done.exit_code == 2
    assert done.stderr.count("\n") == 1
    assert str(tmp_path / "map") in done.stderr
    assert message in done.stderr or message.replace("0x", "") in done.stderr
    assert [each.name for each in tmp_path.iterdir()] == ["map"]


def test_a_machine_that_this_computer_has_no_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kernelmm.bringup.host.available", lambda: 4 << 30)
    for option in ("--no-deferred", "--page-owner"):
        done = kernelmm("boot", "--mem", "512G", option)
        assert done.exit_code == 2
        assert done.stderr.endswith(
            "takes 8.0 GiB of this computer's memory for its struct pages, and 4.0 GiB are available\n"
        )
    assert kernelmm("boot", "--mem", "1T").exit_code == 0
