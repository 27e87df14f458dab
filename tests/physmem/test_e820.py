# SPDX-License-Identifier: GPL-2.0-only
"""Memory maps: from sizes, from text, from a real machine's /proc/iomem; and the ones that cannot be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from physmem.e820 import Kind, MemoryMap, Region, parse_size
from physmem.errors import UsageError
from physmem.ranges import Ranges

MIB = 1 << 20
GIB = 1 << 30


def iomem(case: Any) -> str:
    """/proc/iomem of a recording's guest."""
    text: str = case.file("proc.txt").read_text()
    return text.split("### /proc/iomem (before A)\n")[1].split("\n\n")[0]


# -- sizes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "size"),
    [("4096", 4096), ("256M", 256 * MIB), ("1t", 1 << 40), ("2GiB", 2 * GIB), ("3gb", 3 * GIB), ("0x10k", 1 << 14)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["12Q", "", "M", "-1M", "1.5G", "1 M", "٣M", "9" * 40, "1MM", "0xM"])
def test_what_is_no_size_is_refused_with_the_text(text: str) -> None:
    with pytest.raises(UsageError, match="not a number with one of the suffixes"):
        parse_size(text)


@pytest.mark.parametrize("size", ["1M", "0", "5M1", 5 * MIB + 1])
def test_a_machine_has_whole_pages_above_one_mebibyte(size: int | str) -> None:
    with pytest.raises(UsageError):
        MemoryMap.from_size(size)


def test_a_small_pc_is_all_below_the_pci_hole() -> None:
    assert MemoryMap.from_size("64M").usable == Ranges([(0, 0x9FC00), (MIB, 64 * MIB)])


def test_what_is_above_the_pci_hole_moves_above_4_gib() -> None:
    memory = MemoryMap.from_size("5G")
    assert memory.usable == Ranges([(0, 0x9FC00), (MIB, 3 * GIB), (4 * GIB, 6 * GIB)])
    assert memory.end == 6 * GIB
    # As QEMU counts: the 384 KiB that devices have below 1 MiB are part of the size.
    assert memory.usable.total() == 5 * GIB - MIB + 0x9FC00


# -- nodes ----------------------------------------------------------------------------------------


@given(st.integers(32, 1 << 14), st.integers(1, 8))
def test_nodes_share_the_memory_evenly(mebibytes: int, count: int) -> None:
    memory = MemoryMap.from_size(mebibytes * MIB, count)
    sizes = [(memory.usable & node).total() for node in memory.nodes]
    assert len(sizes) == count
    assert sum(sizes) == memory.usable.total()
    assert max(sizes) - min(sizes) <= 8 * MIB
    assert all(start % (4 * MIB) == 0 for node in memory.nodes for start, _ in node)


def test_distances_are_near_and_far_by_default() -> None:
    assert MemoryMap.from_size("64M", 2).distances == ((10, 20), (20, 10))


def test_memory_cannot_be_split_into_more_nodes_than_it_has_blocks() -> None:
    with pytest.raises(UsageError, match="too few for 8 nodes"):
        MemoryMap.from_size("16M", 8)


@pytest.mark.parametrize("count", [0, -1, 2000])
def test_impossible_numbers_of_nodes(count: int) -> None:
    with pytest.raises(UsageError, match="nodes"):
        MemoryMap.from_size("64M", count)


# -- text -----------------------------------------------------------------------------------------


def test_the_kernels_own_notation() -> None:
    memory = MemoryMap.from_text("""
        [    0.000000] BIOS-e820: [mem 0x0000000000000000-0x000000000009fbff] usable
        [    0.000000] BIOS-e820: [mem 0x0000000000100000-0x0000000007fdffff] usable
        BIOS-e820: [mem 0x0000000007fe0000-0x0000000007ffffff] ACPI data
        SRAT: Node 0 PXM 0 [mem 0x00000000-0x03ffffff]
        SRAT: Node 1 PXM 1 [mem 0x04000000-0x07ffffff]
    """)
    assert [region.kind for region in memory.regions] == [Kind.RAM, Kind.RAM, Kind.ACPI]
    assert memory.regions[1].end == 0x7FE0000
    assert memory.nodes == (Ranges([(0, 64 * MIB)]), Ranges([(64 * MIB, 128 * MIB)]))


def test_notation_by_hand() -> None:
    memory = MemoryMap.from_text(
        """
        0x0-0x3ffffff usable      # node 0
        0x4000000-0x7ffffff usable
        node 0: 0x0-0x3ffffff
        node 1: 0x4000000-0x7ffffff
        distance 0 1 15
        """
    )
    assert memory.distances == ((10, 15), (20, 10))


def test_text_gives_the_map_back(oracle: Callable[[str], Any]) -> None:
    for memory in (MemoryMap.from_size("5G", 3), MemoryMap.from_text(iomem(oracle("n256x2_s6n")), nodes=2)):
        assert MemoryMap.from_text(memory.text()) == memory


def test_proc_iomem_of_a_real_machine(oracle: Callable[[str], Any]) -> None:
    """Its top level counts: the kernel's image lies inside memory; buses and devices are none."""
    memory = MemoryMap.from_text(iomem(oracle("n128_s1")))
    assert memory.usable == Ranges([(0x1000, 0x9FC00), (0x100000, 0x7FE0000)])
    assert Region(0x7FE0000, 0x8000000, Kind.RESERVED) in memory.regions
    two = MemoryMap.from_text(iomem(oracle("n256x2_s6n")), nodes=2)
    assert [node.end for node in two.nodes] == [128 * MIB, 0xFFE0000]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no usable memory"),
        ("0x0-0xfff reserved", "no usable memory"),
        ("0x0-0x1fff usable\n0x1000-0x2fff reserved", "overlap"),
        ("0x2000-0x1fff usable", "line 1: .*ends before it begins"),
        ("0x0-0xfff useable", "line 1: unknown type 'useable'.*'ACPI NVS'"),
        ("\nhello", "line 2: 'hello' is no line of a memory map"),
        ("0x0-0x400000000fff usable", "46 bits"),
        ("0x0-0xffff usable\nnode 1: 0x0-0xffff", "node 0 is missing"),
        ("0x0-0xffff usable\nnode 0: 0x0-0x7fff", "belongs to no node"),
        ("0x0-0xffff usable\nnode 0: 0x0-0xffff\nnode 1: 0x8000-0xffff", "node 1 overlaps"),
        ("0x0-0xffff usable\nnode 0: 0x10000-0x1ffff", "usable memory that belongs to no node"),
        ("0x0-0xffff usable\nnode 4000: 0x0-0xffff", "line 2: node 4000"),
        ("0x0-0xffff usable\ndistance 0 0 11", "must be 10"),
        ("0x0-0xffff usable\ndistance 0 1 20", "there are 1 nodes"),
        ("00000000-00000000 : System RAM", "hides addresses"),
    ],
)
def test_impossible_maps_say_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as error:
        MemoryMap.from_text(text, "FILE")
    assert str(error.value).startswith("FILE: ")
    assert "\n" not in str(error.value)


def test_distances_are_within_what_firmware_can_say() -> None:
    regions = [Region(0, 64 * MIB, Kind.RAM)]
    halves = [Ranges([(0, 32 * MIB)]), Ranges([(32 * MIB, 64 * MIB)])]
    for bad in (9, 10, 255):
        with pytest.raises(UsageError, match="11 to 254"):
            MemoryMap.of(regions, halves, [[10, bad], [20, 10]])
    with pytest.raises(UsageError, match="2 by 2"):
        MemoryMap.of(regions, halves, [[10]])


@given(st.text(st.characters(codec="latin-1"), max_size=200))
def test_no_text_is_a_surprise(text: str) -> None:
    """Whatever it is, it is a map or a UsageError."""
    message = ""
    try:
        assert MemoryMap.from_text(text).usable
    except UsageError as error:
        message = str(error)
    assert "\n" not in message


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "map"
    path.write_text("0x0-0xffffff usable")
    assert MemoryMap.from_file(path).end == 1 << 24
    with pytest.raises(UsageError, match="No such file"):
        MemoryMap.from_file(tmp_path / "none")
    path.write_bytes(bytes(2 * MIB))
    with pytest.raises(UsageError, match="not a memory map"):
        MemoryMap.from_file(path)
    path.write_text("0x0-0xffffff usable\nnode 0: 0x0-0xffffff")
    with pytest.raises(UsageError, match="nodes of its own"):
        MemoryMap.from_file(path, nodes=2)


# -- mem= -----------------------------------------------------------------------------------------


def test_a_limit_cuts_memory_and_keeps_nodes() -> None:
    memory = MemoryMap.from_size("256M", 2).limited(64 * MIB)
    assert memory.end == 64 * MIB
    assert len(memory.nodes) == len(memory.distances) == 2
    assert not memory.usable & memory.nodes[1]
    assert MemoryMap.from_size("64M").limited(GIB) == MemoryMap.from_size("64M")


def test_a_limit_leaves_some_memory() -> None:
    with pytest.raises(UsageError, match="no usable memory"):
        MemoryMap.from_text("0x100000-0xffffff usable").limited(4096)
