# SPDX-License-Identifier: GPL-2.0-only
"""The tree behind /proc/iomem of our own machines."""

from __future__ import annotations

from pathlib import Path

import pytest

from kernelmm.boot import BootConfig, boot
from kernelmm.bringup.resource import insert_resource
from physmem.dump import open_dump
from physmem.e820 import MemoryMap
from physmem.image.write import write_elf
from physmem.inspect.check import check
from physmem.inspect.iomem import iomem, resources
from physmem.structs.linux_4_0 import CONFIGS

ORACLE = Path(__file__).parents[2] / "data" / "oracle"


def told(text):
    """What /proc/iomem says of memory, without devices and the kernel's image."""
    kinds = ("System RAM", "reserved", "ACPI Tables", "ACPI Non-volatile Storage")
    return [line for line in text.splitlines() if not line.startswith(" ") and line.split(" : ")[1] in kinds]


@pytest.mark.parametrize("case", ["n128_s1", "n256x2_s6n"])
def test_the_map_of_a_real_machine(case):
    text = (ORACLE / case / "proc.txt").read_text().split("### /proc/iomem (before A)\n")[1].split("\n\n")[0]
    booted = boot(BootConfig(MemoryMap.from_text(text)))
    found = iomem(booted.dump)
    assert told(found) == told(text)
    assert [line.split(" : ")[1] for line in found.splitlines() if line.startswith("  0")] == [
        *("Kernel code", "Kernel data", "Kernel bss")
    ]


@pytest.mark.parametrize("config", sorted(CONFIGS))
def test_a_saved_image_has_it(config, tmp_path):
    booted = boot(BootConfig(MemoryMap.from_size("64M"), kernel=CONFIGS[config]))
    path = tmp_path / "m.vmcore"
    write_elf(path, booted.kernel.ram, booted.dump.image.notes)
    with open_dump(path) as dump:
        assert iomem(dump) == iomem(booted.dump)
        assert "  Kernel" not in iomem(dump).splitlines()[0]
        found = check(dump)
        assert found.findings == []
        assert "block_ram" not in found.not_applicable


def test_acpi_and_what_mem_leaves_out():
    text = """\
BIOS-e820: [mem 0x0000000000000000-0x000000000009fbff] usable
BIOS-e820: [mem 0x0000000000100000-0x0000000003ffffff] usable
BIOS-e820: [mem 0x0000000004000000-0x0000000004000fff] ACPI data
BIOS-e820: [mem 0x0000000004001000-0x0000000004001fff] ACPI NVS
BIOS-e820: [mem 0x0000000004002000-0x0000000004002fff] unusable
"""
    booted = boot(BootConfig(MemoryMap.from_text(text), mem=48 << 20))
    rows = [(each.name, each.start, each.end + 1) for each in resources(booted.dump) if each.depth == 0]
    assert rows == [
        ("reserved", 0, 0x1000),
        ("System RAM", 0x1000, 0x9FC00),
        ("System RAM", 1 << 20, 48 << 20),
        ("ACPI Tables", 0x4000000, 0x4001000),
        ("ACPI Non-volatile Storage", 0x4001000, 0x4002000),
        ("Unusable memory", 0x4002000, 0x4003000),
    ]


def test_insert_resource():
    kernel = boot(BootConfig(MemoryMap.from_size("64M"))).kernel
    root, new = kernel.symbols["iomem_resource"], kernel.symbols["__brk_base"]

    def insert(at, start, end):
        name = kernel.get(kernel.symbols["code_resource"], "resource.name")
        for field, value in {"start": start, "end": end, "name": name}.items():
            kernel.set(at, f"resource.{field}", value)
        return insert_resource(kernel, root, at)

    ram = kernel.get(kernel.symbols["code_resource"], "resource.parent")
    code, bss = (kernel.get(kernel.symbols[f"{part}_resource"], "resource.start") for part in ("code", "bss"))
    end = kernel.get(kernel.symbols["bss_resource"], "resource.end")
    # Not one that overlaps another in part, be it at its beginning or at its end.
    assert not insert(new, code - 4096, code)
    assert not insert(new, end, end + 4096)
    # One around what is there becomes its parent; one in a gap comes between its neighbours; one inside goes inside.
    assert insert(new, code - 4096, end)
    assert kernel.get(ram, "resource.child") == new
    assert kernel.get(new, "resource.child") == kernel.symbols["code_resource"]
    assert kernel.get(kernel.symbols["bss_resource"], "resource.parent") == new
    assert insert(new + 64, end + 1, end + 2)
    assert kernel.get(new, "resource.sibling") == new + 64
    assert insert(new + 128, bss, bss + 16)
    assert kernel.get(kernel.symbols["bss_resource"], "resource.child") == new + 128
    # The same addresses again: the new one is outside.
    assert insert(new + 192, bss, bss + 16)
    assert kernel.get(new + 128, "resource.parent") == new + 192
