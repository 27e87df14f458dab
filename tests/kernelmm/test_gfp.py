# SPDX-License-Identifier: GPL-2.0-only
"""gfp masks: which zone, which mobility, which name, against the kernel's own tables."""

from __future__ import annotations

import lzma
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernelmm import gfp
from physmem.structs.layout import Layout

KERNELS = Path(__file__).parents[1] / "data" / "kernels"


def read_layout(name: str) -> Layout:
    """What the DWARF of a real kernel says."""
    with lzma.open(KERNELS / name / "layout.json.xz") as file:
        return Layout.from_json(file)


NUMA, UP = read_layout("numa"), read_layout("up")


@pytest.fixture(params=[NUMA, UP], ids=["numa", "up"])
def layout(request: pytest.FixtureRequest) -> Layout:
    found: Layout = request.param
    return found


@pytest.mark.parametrize(
    "name",
    [
        *("GFP_ATOMIC", "GFP_KERNEL", "GFP_HIGHUSER_MOVABLE", "GFP_TRANSHUGE", "GFP_BOOT_MASK", "GFP_MOVABLE_MASK"),
        *("GFP_ZONEMASK", "GFP_ZONE_TABLE", "GFP_ZONE_BAD", "__GFP_BITS_SHIFT"),
    ],
)
def test_masks_are_the_kernels(layout: Layout, name: str) -> None:
    assert getattr(gfp, name) == layout.constant(name)


def test_this_node_is_a_matter_of_numa() -> None:
    assert NUMA.constant("GFP_THISNODE") == gfp.GFP_THISNODE
    assert UP.constant("GFP_THISNODE") == 0


@given(flags=st.integers(0, (1 << 32) - 1))
def test_the_zone_is_the_tables(flags: int) -> None:
    modifiers = flags & NUMA.constant("GFP_ZONEMASK")
    assert gfp.gfp_zone(flags) == NUMA.constant("GFP_ZONE_TABLE") >> 2 * modifiers & 3


@pytest.mark.parametrize(
    ("modifiers", "zone"),
    [
        (0, "ZONE_NORMAL"),
        (gfp.__GFP_DMA, "ZONE_DMA"),
        (gfp.__GFP_DMA32, "ZONE_DMA32"),
        (gfp.__GFP_HIGHMEM, "ZONE_NORMAL"),
        (gfp.__GFP_MOVABLE, "ZONE_NORMAL"),
        (gfp.__GFP_MOVABLE | gfp.__GFP_DMA, "ZONE_DMA"),
        (gfp.__GFP_MOVABLE | gfp.__GFP_DMA32, "ZONE_DMA32"),
        (gfp.__GFP_MOVABLE | gfp.__GFP_HIGHMEM, "ZONE_MOVABLE"),
    ],
)
def test_every_combination_that_means_something(layout: Layout, modifiers: int, zone: str) -> None:
    assert gfp.gfp_zone(modifiers | gfp.GFP_KERNEL) == layout.enumerator(zone)
    assert not gfp.GFP_ZONE_BAD >> modifiers & 1


def test_the_other_combinations_mean_nothing() -> None:
    assert gfp.GFP_ZONE_BAD.bit_count() == 8


@given(flags=st.integers(0, (1 << 32) - 1))
def test_mobility(flags: int) -> None:
    found = gfp.gfpflags_to_migratetype(flags, False)
    if flags & gfp.GFP_MOVABLE_MASK == gfp.GFP_MOVABLE_MASK:
        return  # No caller asks for both.
    name = {
        0: "MIGRATE_UNMOVABLE",
        gfp.__GFP_RECLAIMABLE: "MIGRATE_RECLAIMABLE",
        gfp.__GFP_MOVABLE: "MIGRATE_MOVABLE",
    }[flags & gfp.GFP_MOVABLE_MASK]
    assert found == NUMA.constant(name)
    assert gfp.gfpflags_to_migratetype(flags, True) == 0


@pytest.mark.parametrize(
    ("flags", "names"),
    [
        (0, "GFP_NOWAIT"),
        (gfp.GFP_KERNEL | gfp.__GFP_ZERO, "GFP_KERNEL|GFP_ZERO"),
        (gfp.GFP_KERNEL | gfp.__GFP_RECLAIMABLE, "GFP_TEMPORARY"),
        (gfp.GFP_HIGHUSER_MOVABLE, "GFP_HIGHUSER_MOVABLE"),
        (gfp.GFP_TRANSHUGE, "GFP_TRANSHUGE"),
        (gfp.__GFP_IO, "GFP_IO"),
        # FS, HIGHMEM and DMA have no name of their own.
        (gfp.__GFP_FS, "0x80"),
        (gfp.__GFP_DMA | gfp.__GFP_COLD, "GFP_COLD|0x1"),
        (1 << 31, "0x80000000"),
    ],
)
def test_names(flags: int, names: str) -> None:
    assert gfp.gfp_names(flags) == names


def test_every_mask_in_a_real_trace_has_its_name(oracle: Callable[[str], Any]) -> None:
    """The names that a real kernel printed, taken apart: their bits, named again, give the same text."""
    text = oracle("n128_s1_trace").file("trace.txt").read_text()
    printed = set(re.findall(r"gfp_flags=(\S+)", text))
    assert len(printed) > 10
    by_name = {name: mask for mask, name in gfp._TRACE_NAMES}
    for names in printed:
        parts = names.split("|")
        flags = 0
        for part in parts:
            flags |= int(part, 16) if part.startswith("0x") else 0 if part == "GFP_NOWAIT" else by_name[part]
        assert gfp.gfp_names(flags) == names
