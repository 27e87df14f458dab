# SPDX-License-Identifier: GPL-2.0-only
"""Tools made for Linux take a machine of ours for Linux: makedumpfile, drgn, gdb and crash, where there are any."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from kernelmm import gfp
from kernelmm.machine import Machine
from physmem import abi, address
from physmem.convert import convert, opened
from physmem.distill import distill
from physmem.dump import Dump, open_dump
from physmem.image import open_image
from physmem.image.save import Target
from physmem.inspect.buddyinfo import buddyinfo
from physmem.inspect.zones import populated_zones

PG_LRU, PG_PRIVATE = 1 << abi.PG_lru, 1 << abi.PG_private
CACHE, PRIVATE_CACHE, ANONYMOUS = 40, 7, 25


# Beside the interpreter are the tools that come from PyPI.
PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
ORACLE = Path(__file__).parents[1] / "data" / "oracle"
VMCORES = Path(__file__).parents[1] / "data" / "vmcores"


def tool(name: str) -> Callable[..., str]:
    """A way to call a tool that must succeed; its output."""

    def call(*arguments: object) -> str:
        command = [shutil.which(name, path=PATH) or name, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    return call


def needs(name: str) -> pytest.MarkDecorator:
    """Skip where a tool is not installed (all of them come with Debian; drgn from PyPI)."""
    return pytest.mark.skipif(shutil.which(name, path=PATH) is None, reason=f"{name} is not installed")


def own(machine: Machine, count: int, flags: int, mapping: int) -> None:
    """Allocate pages, and mark them as their owner would."""
    for _ in range(count):
        page = machine.alloc_page(gfp.GFP_HIGHUSER_MOVABLE)
        assert page is not None
        # Pages of zeros are another kind to makedumpfile.
        machine.ram.write(machine.page_address(page) - machine.mm.page_offset, b"in use")
        entry = machine.kernel.words(address.page_off(machine.mm, page), 8)
        entry[abi.PAGE_FLAGS // 8] |= np.uint64(flags)
        entry[abi.PAGE_MAPPING // 8] = mapping


@pytest.fixture(scope="module")
def machine() -> Machine:
    """Two nodes, two CPUs, pages in use, and free ones on per-CPU lists."""
    machine = Machine.boot("96M", nodes=2, cpus=2)
    owner = machine.mm.page_offset + 0x1234000
    own(machine, CACHE, PG_LRU, owner)
    own(machine, PRIVATE_CACHE, PG_LRU | PG_PRIVATE, owner)
    with machine.on_cpu(1):
        own(machine, ANONYMOUS, PG_LRU, owner | 1)
    return machine


@pytest.fixture(scope="module")
def vmcore(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tools") / "m.vmcore"
    machine.save(path)
    return path


@pytest.fixture(params=["elf", "kdump", "kdump lzo", "kdump none"])
def saved(request: pytest.FixtureRequest, machine: Machine, tmp_path: Path) -> Path:
    """The machine in a format that every makedumpfile reads."""
    path = tmp_path / "saved"
    assert machine.save(path, *request.param.split()) == []
    return path


def free_lists(dump: Dump) -> str:
    return buddyinfo(populated_zones(dump))


@needs("makedumpfile")
def test_makedumpfile_counts_as_we_do(machine: Machine, saved: Path, tmp_path: Path) -> None:
    """What it leaves out of a dump, and what its dump still has."""
    vmcore = saved
    report = tool("makedumpfile")("--message-level", 16, "-d", 31, vmcore, tmp_path / "out")
    counts = {name: int(value, 16) for name, value in re.findall(r"^ *(\w[\w -]+?) *: (0x[0-9a-f]+)$", report, re.M)}
    assert counts["Free pages"] == machine.kernel.var("vm_stat", 0) + pending(machine)
    assert counts["Non-private cache pages"] == CACHE
    assert counts["Private cache pages"] == PRIVATE_CACHE
    assert counts["User process data pages"] == ANONYMOUS
    assert counts["Original pages"] == machine.ram.ranges.total() >> abi.PAGE_SHIFT
    assert counts["Total pages"] == machine.dump.max_pfn
    with open_image(tmp_path / "out") as dump:
        # Of pages of zeros it keeps one for all.
        kept = counts["Remaining pages"] + counts["Pages filled with zero"]
        assert dump.ranges.total() >> abi.PAGE_SHIFT == kept
        for start, end in dump.ranges:
            assert dump.read(start, end - start) == machine.ram.read(start, end - start)
    with open_dump(tmp_path / "out") as opened:
        assert opened.info.release == "4.0.0-kernelmm"
        assert opened.max_pfn == machine.dump.max_pfn
        assert free_lists(opened) == free_lists(machine.dump)


def pending(machine: Machine) -> int:
    """What the CPUs have not yet added to the number of free pages."""
    kernel = machine.kernel
    pagesets = [
        kernel.per_cpu_ptr(kernel.get(zone.at, "zone.pageset"), cpu)
        for zone in kernel.populated_zones()
        for cpu in kernel.possible_cpus()
    ]
    return sum(kernel.get(pageset, "per_cpu_pageset.vm_stat_diff", 0) for pageset in pagesets)


@needs("makedumpfile")
def test_makedumpfile_finds_the_log(machine: Machine, vmcore: Path, tmp_path: Path) -> None:
    tool("makedumpfile")("--dump-dmesg", vmcore, tmp_path / "log")
    lines = [line.removeprefix("[    0.000000] ") for line in (tmp_path / "log").read_text().splitlines()]
    assert lines == machine.dmesg().splitlines()


DRGN = """
import json
regions = json.loads(input_text)
print(json.dumps({name: prog.read(int(va), 64).hex() for name, va in regions.items()}))
print(json.dumps(prog.read(0x1000000, 64, physical=True).hex()))
"""


def drgn(script: str, vmcore: Path, tmp_path: Path) -> list[str]:
    """What a script prints about a dump without debugging information."""
    (tmp_path / "script.py").write_text(script)
    return tool("drgn")("-q", "-c", vmcore, "--no-default-symbols", tmp_path / "script.py").splitlines()


@needs("drgn")
@pytest.mark.parametrize(
    "how", ["elf", "kdump", "kdump zstd", "kdump lzo", "kdump snappy", "kdump none", "makedumpfile"]
)
def test_drgn_reads_the_same_bytes(machine: Machine, vmcore: Path, tmp_path: Path, how: str) -> None:
    """In the direct map, the kernel's image and the page array, with no debugging information."""
    if how == "makedumpfile":
        if shutil.which("makedumpfile") is None:
            pytest.skip("makedumpfile is not installed")
        tool("makedumpfile")("-c", "-d", 1, vmcore, tmp_path / "kdump")
        vmcore = tmp_path / "kdump"
    else:
        vmcore = tmp_path / "saved"
        machine.save(vmcore, *how.split())
    kernel = machine.kernel
    zone = kernel.zone(1, 1)
    regions = {
        "direct map": zone.at,
        "text": kernel.symbols["_stext"],
        "data": kernel.symbols["init_uts_ns"],
        "page array": machine.pfn_to_page(kernel.get(zone.at, "zone.zone_start_pfn") + 5),
    }
    output = drgn(f"input_text = {json.dumps(json.dumps(regions))}\n{DRGN}", vmcore, tmp_path)
    assert json.loads(output[-2]) == {name: machine.dump.read(va, 64).hex() for name, va in regions.items()}
    assert json.loads(output[-1]) == machine.ram.read(0x1000000, 64).hex()


@needs("drgn")
@pytest.mark.parametrize("name", ["converted.vmcore", "converted.kdump"])
@pytest.mark.parametrize("image", [ORACLE / "n128_s1" / "A.vmcore.xz", VMCORES / "deb61-1g-2node" / "image.vmcore.xz"])
def test_drgn_reads_what_was_converted(image: Path, name: str, tmp_path: Path) -> None:
    """A 4.0 kernel does not say where it was loaded: that is in the program header of its image."""
    with opened(str(image)) as source:
        convert(source, Target.of(tmp_path / name))
    with open_dump(image) as dump:
        addresses = [dump.symbols["init_uts_ns"], dump.pgdats[0], dump.mem_map + 64 * 5000]
        expected = [dump.read(va, 64).hex() for va in addresses]
    script = f"for va in {addresses}: print(prog.read(va, 64).hex())"
    assert drgn(script, tmp_path / name, tmp_path)[-3:] == expected


@needs("drgn")
@pytest.mark.parametrize("image", [ORACLE / "n128_s1" / "A.vmcore.xz", VMCORES / "deb612-256m" / "image.vmcore.xz"])
def test_drgn_reads_what_was_distilled(image: Path, tmp_path: Path) -> None:
    """By way of its page tables; as kdump with zstd for the newer one, as ELF for the one that drgn needs it for."""
    name = tmp_path / ("out.vmcore" if "oracle" in str(image) else "out.kdump")
    with open_dump(image) as dump:
        distill(dump, Target.of(name, compression="zstd" if name.suffix == ".kdump" else None))
        addresses = [dump.pgdats[0], dump.mem_map + 64 * 5000, dump.symbols["node_data"]]
        expected = [dump.read(va, 8).hex() for va in addresses]
    script = f"for va in {addresses}: print(prog.read(va, 8).hex())"
    assert drgn(script, name, tmp_path)[-3:] == expected


@needs("gdb")
def test_gdb_reads_it(machine: Machine, vmcore: Path) -> None:
    """Through the direct map; each CPU is a thread."""
    va = machine.kernel.zone(0, 1).at
    output = tool("gdb")("-q", "-batch", "-ex", f"core-file {vmcore}", "-ex", f"x/2gx {va:#x}", "-ex", "info threads")
    words = machine.kernel.words(va - machine.mm.page_offset, 2).tolist()
    assert f"{va:#x}:\t{words[0]:#018x}\t{words[1]:#018x}" in output
    assert "LWP 1" in output
    assert "LWP 2" in output


@needs("crash")
@pytest.mark.parametrize("how", ["elf", "kdump", "kdump zstd", "makedumpfile"])
def test_crash_knows_the_kernel(machine: Machine, vmcore: Path, tmp_path: Path, how: str) -> None:
    """By its release.  To analyse a dump it wants the kernel's debugging information, of which there is none."""
    if how == "makedumpfile":
        if shutil.which("makedumpfile") is None:
            pytest.skip("makedumpfile is not installed")
        tool("makedumpfile")("-d", 31, vmcore, tmp_path / "out")
    else:
        machine.save(tmp_path / "out", *how.split())
    assert tool("crash")("--osrelease", tmp_path / "out").splitlines()[-1] == "4.0.0-kernelmm"
