# SPDX-License-Identifier: GPL-2.0-only
"""Distilled images: the same answers, and not a byte of what was in memory."""

from __future__ import annotations

import json
import lzma
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from physmem.cli import main
from physmem.distill import distill, metadata
from physmem.distill.kept import Kept
from physmem.dump import Dump, open_dump
from physmem.errors import UsageError
from physmem.image import open_image
from physmem.image.blanked import Blanked
from physmem.image.notes import Note
from physmem.image.save import Target
from physmem.image.write import write_elf
from physmem.inspect import meminfo
from physmem.ram import Ram
from physmem.ranges import Ranges

DATA = Path(__file__).parents[1] / "data"
ORACLE = {name: DATA / "oracle" / name / "A.vmcore.xz" for name in ("n128_s1", "n256x2_s6n", "u128_s1")}
MODERN = {name: DATA / "vmcores" / name / "image.vmcore.xz" for name in ("deb61-256m", "deb61-1g-2node", "deb612-256m")}
IMAGES = ORACLE | MODERN
SMALL = ["deb61-256m", "deb612-256m"]
PAGE = 4096

#: Four bytes in a row, so that no piece of four is anything else.
CANARY = b"\xc5\x1e\xa9\x73"
LEAKS = [CANARY[i:] + CANARY[:i] for i in range(4)]


def physmem(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def distilled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("distilled")
    for name, image in IMAGES.items():
        result = physmem("distill", image, "-o", folder / f"{name}.kdump")
        assert result.exit_code == 0, result.output
        assert result.stderr == ""
    return {name: folder / f"{name}.kdump" for name in IMAGES}


# -- the same answers ------------------------------------------------------------

VERBS = ["buddyinfo", "pagetypeinfo", "zoneinfo", "fragmentation", "pcp", "pages", "check", "check --json"]
VERBS += [f"page pfn:{pfn}" for pfn in (0, 1, 100, 5000, 20000, 1 << 30)]


@pytest.mark.parametrize("name", IMAGES)
def test_every_verb_answers_as_before(distilled: dict[str, Path], name: str) -> None:
    for line in VERBS:
        verb, *rest = line.split()
        before, after = (physmem(verb, image, *rest) for image in (IMAGES[name], distilled[name]))
        assert (before.exit_code, before.stderr) == (after.exit_code, after.stderr), line
        # Whether a page is in the image is another thing: most are not.
        texts = [result.stdout.replace("absent from the image", "in the image") for result in (before, after)]
        assert texts[0] == texts[1], line


@pytest.mark.parametrize("name", IMAGES)
def test_every_page_every_symbol_every_translation(distilled: dict[str, Path], name: str) -> None:
    with open_dump(IMAGES[name]) as before, open_dump(distilled[name]) as after:
        assert after.pgdats == before.pgdats
        assert after.max_pfn == before.max_pfn
        assert after.info.items() >= before.info.items()
        for one, other in zip(before.memmap, after.memmap, strict=True):
            assert np.array_equal(one, other)
        fields = ["flags", "lru.next", "lru.prev"]
        for one, other in zip(*(dump.pages(0, dump.max_pfn, fields) for dump in (before, after)), strict=True):
            assert np.array_equal(one, other)
        assert list(after.symbols) == list(before.symbols)
        assert [after.symbols[name] for name in after.symbols] == [before.symbols[name] for name in before.symbols]
        for va in (before.page_offset + 0x100000, before.mem_map + 64 * 1000, before.symbols["init_uts_ns"]):
            assert list(after.steps(va)) == list(before.steps(va))
        for tag in ("page", "zone", "pglist_data", "free_area"):
            assert after.layout.struct(tag) == before.layout.struct(tag)


@pytest.mark.parametrize("name", IMAGES)
def test_what_is_left_is_small(distilled: dict[str, Path], name: str) -> None:
    with open_dump(IMAGES[name]) as dump:
        array = dump.max_pfn * dump.sizeof_page
    assert distilled[name].stat().st_size < array // 4
    with open_image(distilled[name]) as image, open_image(IMAGES[name]) as before:
        assert image.format == "kdump-compressed"
        assert image.ranges - before.ranges == Ranges()
        assert [note.name for note in image.notes] == ["VMCOREINFO"]
        # What memory the machine had is not forgotten.
        assert image.frames == before.ranges


def test_distilling_again_changes_nothing(distilled: dict[str, Path], tmp_path: Path) -> None:
    for name in ("n128_s1", "deb612-256m"):
        assert physmem("distill", distilled[name], "-o", tmp_path / "again.kdump").exit_code == 0
        assert (tmp_path / "again.kdump").read_bytes() == distilled[name].read_bytes()


@pytest.mark.parametrize("output", ["o.vmcore.xz", "o", "o.lime"])
def test_every_format(tmp_path: Path, output: str) -> None:
    result = physmem("distill", ORACLE["n128_s1"], "-o", tmp_path / output, "--json")
    assert result.exit_code == 0
    told = json.loads(result.stdout)
    assert told["format"] == {"o": "kdump", "o.lime": "lime", "o.vmcore.xz": "elf"}[output]
    assert told["parts"]["page array"] == 32768 * 64
    assert told["size"] == (tmp_path / output).stat().st_size
    if output != "o.lime":
        before = physmem("pagetypeinfo", ORACLE["n128_s1"])
        assert physmem("pagetypeinfo", tmp_path / output).stdout == before.stdout


# -- not a byte of what was in memory --------------------------------------------


def haunted(dump: Dump, tmp_path: Path, extra: Any = None) -> Path:
    """The dump's machine, with canaries in every page frame that the cut-down image does not have.

    These are the pages of processes, of files, of the kernel's own allocations, and the free ones.  Of the kernel's
    own image everything stays absent that is.
    """
    first, last = (dump.regions.image.phys(dump.symbols[name]) for name in ("_stext", "_end"))
    kernel = Ranges([(first & -(2 << 20), last)])
    end = dump.max_pfn << 12
    size = max(end, -(-dump.image.size // PAGE) * PAGE)
    ram = Ram(size, Ranges([(0, size)]) - (kernel - dump.image.ranges))
    for start, stop in ram.ranges - dump.image.ranges:
        ram.write(start, CANARY * ((stop - start) // 4))
    for phys, data in dump.image.segments():
        ram.write(phys, bytes(data))
    if extra is not None:
        extra(ram)
    path = tmp_path / "haunted.vmcore"
    write_elf(path, ram, [*dump.image.notes, Note("CORE", 1, CANARY * 84)], virt_of=dump.page_offset)
    return path


def leaks(path: Path) -> list[str]:
    """Where canaries are in an image."""
    found = []
    with open_image(path) as image:
        for start, end in image.ranges:
            data = image.read(start, end - start)
            found += [f"{start + data.find(leak):#x}" for leak in LEAKS if leak in data]
        found += [note.name for note in image.notes if any(leak in note.desc for leak in LEAKS)]
    return found


def tree(dump: Dump) -> Iterator[tuple[int, int]]:
    """Addresses and sizes of what /proc/iomem is made of."""
    pending = [dump.symbols["iomem_resource"]]
    while pending:
        at = pending.pop()
        if at:
            yield at, dump.layout.sizeof("resource")
            name = dump.field(at, "resource", "name")
            yield name, len(dump.read(name, min(32, 4096 - name % 4096)).split(b"\0")[0]) + 1
            pending += [dump.field(at, "resource", "child"), dump.field(at, "resource", "sibling")]
    table = dump.u64(dump.symbols["e820_table"])
    yield table, 4 + 20 * dump.field(table, "e820_table", "nr_entries")


@pytest.mark.parametrize("name", [*ORACLE, *SMALL])
def test_no_byte_of_other_pages_survives(tmp_path: Path, name: str, distilled: dict[str, Path]) -> None:
    with open_dump(IMAGES[name]) as dump:
        path = haunted(dump, tmp_path)
    assert leaks(path)
    assert physmem("distill", path, "-o", tmp_path / "out.kdump").exit_code == 0
    assert leaks(tmp_path / "out.kdump") == []
    assert physmem("pagetypeinfo", tmp_path / "out.kdump").stdout == physmem("pagetypeinfo", IMAGES[name]).stdout
    with open_image(tmp_path / "out.kdump") as image, open_image(distilled[name]) as plain:
        assert all(image.read(start, end - start) == plain.read(start, end - start) for start, end in plain.ranges)


@pytest.mark.parametrize("name", SMALL)
def test_no_byte_beside_a_struct_survives(tmp_path: Path, name: str) -> None:
    """In pages of the slab allocator: to the byte, on both sides."""
    with open_dump(IMAGES[name]) as dump:
        known: dict[int, list[tuple[int, int]]] = {}
        for at, size in tree(dump):
            for va in range(at, at + size):
                known.setdefault(dump.virt_to_phys(va) // PAGE, []).append((dump.virt_to_phys(va), 1))
        image = dump.regions.image
        inside = range(image.phys(dump.symbols["_stext"]), image.phys(dump.symbols["_end"]))
        reserved = 1 << dump.layout.enumerator("PG_reserved")
        slab = {
            frame: bytes_
            for frame, bytes_ in known.items()
            if frame * PAGE not in inside and not int(dump.pages(frame, frame + 1, ["flags"])[0]["flags"][0]) & reserved
        }
        assert slab

        def plant(ram: Ram) -> None:
            for frame, kept in slab.items():
                before = ram.read(frame * PAGE, PAGE)
                ram.write(frame * PAGE, CANARY * (PAGE // 4))
                for phys, size in kept:
                    ram.write(phys, before[phys % PAGE : phys % PAGE + size])
            # The half of the top page table that belongs to processes.
            ram.write(dump.pgd, CANARY * (PAGE // 8))

        path = haunted(dump, tmp_path, plant)
        with open_image(path) as planted:
            assert all(CANARY in planted.read(frame * PAGE, PAGE) for frame in slab)
        assert physmem("distill", path, "-o", tmp_path / "out.kdump").exit_code == 0
        assert leaks(tmp_path / "out.kdump") == []
        with open_dump(tmp_path / "out.kdump") as out:
            assert list(tree(out)) == list(tree(dump))
            assert all(out.read(at, size) == dump.read(at, size) for at, size in tree(dump))


@pytest.mark.parametrize("name", SMALL)
def test_a_stray_pointer_does_not_lead_into_a_process(tmp_path: Path, name: str) -> None:
    """A damaged kernel's pointer to the lists of its CPUs, into an anonymous page or one of a file."""
    with open_dump(IMAGES[name]) as dump:
        flags, _ = dump.pages(0, dump.max_pfn, ["flags"])
        lru = np.flatnonzero(flags["flags"] >> np.uint64(dump.layout.enumerator("PG_lru")) & np.uint64(1))
        victim = next(int(pfn) for pfn in lru if (int(pfn) << 12) not in dump.image.ranges)
        zone = dump.pgdats[0] + dump.layout.offsetof("pglist_data", "node_zones")
        field = dump.virt_to_phys(zone + dump.layout.offsetof("zone", "per_cpu_pageset"))
        offset = dump.u64(dump.symbols["__per_cpu_offset"])
        pointer = dump.page_offset + (victim << 12) + 64 - offset & (1 << 64) - 1
        path = haunted(dump, tmp_path, lambda ram: ram.set_u64(field, pointer))
    result = physmem("distill", path, "-o", tmp_path / "out.kdump")
    assert result.exit_code == 0
    assert f"left out what the kernel's pointers say is in pages of processes or files: ({victim},)" in result.stderr
    assert leaks(tmp_path / "out.kdump") == []
    with open_image(tmp_path / "out.kdump") as image:
        assert victim << 12 not in image.ranges


def test_the_names_of_the_host_are_not_kept(tmp_path: Path) -> None:
    with open_dump(ORACLE["n128_s1"]) as dump:
        at = dump.virt_to_phys(dump.symbols["init_uts_ns"]) + 4

        def plant(ram: Ram) -> None:
            ram.write(at + 65, CANARY * 16)
            ram.write(at + 5 * 65, CANARY * 16)

        path = haunted(dump, tmp_path, plant)
    assert physmem("distill", path, "-o", tmp_path / "out.kdump").exit_code == 0
    assert leaks(tmp_path / "out.kdump") == []
    with open_image(tmp_path / "out.kdump") as image:
        assert image.read(at + 2 * 65, 5) == b"4.0.0"


def test_every_variable_that_is_asked_for_is_kept() -> None:
    """Where another of its page is kept, one that is not would be 0, as CommitLimit once was."""
    asked: set[str] = set()
    for path in Path(meminfo.__file__).parent.rglob("*.py"):
        for line in path.read_text().splitlines():
            if re.search(r"variable\((self\.)?dump, |= _pfn\(dump, ", line):
                asked |= set(re.findall(r'"([a-z_]+[a-z0-9_]*)"', line))
    assert {"sysctl_overcommit_ratio", "vm_dirty_bytes", "zero_page_pfn", "huge_zero_folio"} <= asked
    # Its address is all that is asked for.
    assert asked - {"empty_zero_page"} <= {*metadata._WORDS.split(), *metadata._ARRAYS}


def test_what_is_freed_after_boot_is_not_kept() -> None:
    """Variables of the kernel's init sections: their pages are somebody else's by now."""
    with open_dump(MODERN["deb61-256m"]) as dump:
        kept = Kept(dump)
        kept._freed = range(dump.symbols["max_pfn"], dump.symbols["max_pfn"] + 8)
        kept.at("variables", dump.symbols["max_pfn"], 8)
        kept.at("variables", dump.symbols["node_data"], 8)
        assert kept.bytes().total() == 8


# -- the parts -------------------------------------------------------------------


def test_a_memory_of_which_some_bytes_are_seen() -> None:
    ram = Ram(0x10000, Ranges([(0, 0x4000), (0x8000, 0x9000)]))
    for start, end in ram.ranges:
        ram.write(
            start, bytes(range(1, 256)) * 16 * ((end - start) // PAGE) + bytes([7] * (16 * (end - start) // PAGE))
        )
    seen = Blanked(ram, Ranges([(0x10, 0x20), (0xFFF, 0x1001), (0x5000, 0x6000), (0x8F00, 0x9100)]))
    assert seen.ranges == Ranges([(0, 0x2000), (0x8000, 0x9000)])
    assert seen.shown.total() == 0x10 + 2 + 0x100
    data = seen.read(0, 0x2000)
    assert data[0x10:0x20] == ram.read(0x10, 0x10)
    assert data[0xFFF:0x1001] == ram.read(0xFFF, 2)
    assert sum(byte != 0 for byte in data) == 18
    assert seen.u64(0x1C) == int.from_bytes(ram.read(0x1C, 4), "little")
    assert seen.array(0x8F00, "u1", 0x100).tobytes() == ram.read(0x8F00, 0x100)
    assert (seen.size, seen.read(0x800, 8)) == (0x9000, bytes(8))


def test_what_cannot_be(tmp_path: Path) -> None:
    with open_image(ORACLE["n128_s1"]) as image:
        write_elf(tmp_path / "bare.vmcore", image, [])
    (tmp_path / "text").write_text("nothing")
    for arguments, reason in (
        (["text", "-o", "out"], "text: offset 0x0: not a memory image"),
        (["bare.vmcore", "-o", "out"], "give a layout with --layout"),
        ([ORACLE["n128_s1"], "-o", "none/out"], "cannot be written"),
        ([ORACLE["n128_s1"], "-o", "out.vmcore", "--compression", "zstd"], "'zstd' is for kdump"),
    ):
        names = [tmp_path / a if isinstance(a, str) and not a.startswith("-") and a != "zstd" else a for a in arguments]
        result = physmem("distill", *names)
        assert result.exit_code == 2, result.output
        assert reason in result.stderr
    assert not (tmp_path / "out").exists()
    with open_dump(ORACLE["n128_s1"]) as dump:
        bare = Dump(dump.image, type(dump.info)({}), dump.layout, dump.symbols)
        with pytest.raises(UsageError, match="has no VMCOREINFO"):
            distill(bare, Target.of(tmp_path / "out"))


# -- faults ----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["out.kdump", "out.vmcore", "out.vmcore.gz"])
def test_a_disk_that_fills_up(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    assert physmem("distill", ORACLE["n128_s1"], "-o", path).exit_code == 0
    length = path.stat().st_size
    path.write_bytes(b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with open_dump(ORACLE["n128_s1"]) as dump:
        for limit in (0, 4096, length // 2, length - 1):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limits[1]))
            try:
                with pytest.raises(Exception, match=r"cannot be written: File too large$"):
                    distill(dump, Target.of(path))
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            assert list(tmp_path.iterdir()) == [path]
            assert path.read_bytes() == b"old"


KILLED = """
import os, signal, sys
from physmem.distill import distill
from physmem.dump import open_dump
from physmem.image.save import Target
done = 0
def progress(step):
    global done
    done += step
    if done > 1 << 20:
        os.kill(os.getpid(), signal.SIGKILL)
with open_dump(sys.argv[1]) as dump:
    distill(dump, Target.of(sys.argv[2]), progress)
"""


def test_a_process_that_is_killed(tmp_path: Path, project_environment: dict[str, str]) -> None:
    path = tmp_path / "out.kdump"
    path.write_bytes(b"old")
    command = [sys.executable, "-c", KILLED, str(ORACLE["n128_s1"]), str(path)]
    done = subprocess.run(command, env=project_environment, check=False, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == b"old"


def test_an_image_that_is_cut_short_meanwhile(tmp_path: Path) -> None:
    source, path = tmp_path / "a.vmcore", tmp_path / "out.kdump"
    source.write_bytes(lzma.decompress(ORACLE["n128_s1"].read_bytes()))
    path.write_bytes(b"old")

    def cut(step: int) -> None:
        with source.open("r+b") as file:
            file.truncate(1 << 20)

    with open_dump(source) as dump, pytest.raises(Exception, match="was cut short while it was open"):
        distill(dump, Target.of(path), cut)
    assert sorted(tmp_path.iterdir()) == [source, path]
    assert path.read_bytes() == b"old"
