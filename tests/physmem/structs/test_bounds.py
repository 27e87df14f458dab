# SPDX-License-Identifier: GPL-2.0-only
"""Layouts with absurd numbers are refused before anything is made as large as they say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from physmem.dump import open_dump
from physmem.errors import LayoutError
from physmem.structs import linux_4_0
from physmem.structs.bounds import check_bounds, check_struct
from physmem.structs.field import Field, StructLayout
from physmem.structs.layout import Layout


def layout_with(**constants: int) -> Layout:
    return Layout.of([], {}, constants, "a test")


@pytest.mark.parametrize("config", sorted(linux_4_0.CONFIGS))
def test_real_kernels_pass(config: str) -> None:
    check_bounds(linux_4_0.layout(linux_4_0.CONFIGS[config]))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MAX_PHYSMEM_BITS", 1 << 60),
        ("MAX_PHYSMEM_BITS", 53),
        ("MAX_PHYSMEM_BITS", 3),
        ("MAX_PHYSMEM_BITS", -1),
        ("PAGE_SHIFT", 16),
        ("PFN_SECTION_SHIFT", 63),
        ("SECTION_SIZE_BITS", 64),
        ("SECTION_BLOCKFLAGS_BITS", 1 << 32),
        ("pageblock_order", 64),
        ("MAX_NUMNODES", 1 << 20),
        ("NR_CPUS", 1 << 30),
        ("SECTIONS_PER_ROOT", 0),
    ],
)
def test_constants(name: str, value: int) -> None:
    with pytest.raises(LayoutError, match=f"a test: {name} is 0x"):
        check_bounds(layout_with(**{name: value}))


@pytest.mark.parametrize(("tag", "size"), [("page", 16 << 20), ("page", 8), ("list_head", 8), ("zone", 1 << 20)])
def test_sizes(tag: str, size: int) -> None:
    with pytest.raises(LayoutError, match=f"a test: struct {tag} of {size} bytes"):
        check_struct(StructLayout(tag, size, {}), "a test")


@pytest.mark.parametrize(
    ("tag", "name", "dims"),
    [
        ("zone", "free_area", (1 << 24,)),
        ("free_area", "free_list", (17,)),
        ("pglist_data", "node_zones", (4, 4)),
        ("per_cpu_pages", "lists", (1 << 20,)),
    ],
)
def test_lengths(tag: str, name: str, dims: tuple[int, ...]) -> None:
    # Elements without bytes fit into any struct.
    struct = StructLayout(tag, 256, {name: Field(name, 0, 0, "struct x", "struct", dims=dims)})
    with pytest.raises(LayoutError, match=rf"a test: struct {tag}\.{name} has \d+ elements"):
        check_struct(struct, "a test")
    with pytest.raises(LayoutError, match="elements: at most"):
        check_bounds(Layout.of([struct], {}, {}, "a test"))


def test_an_unknown_size_is_nothing_to_refuse() -> None:
    check_struct(StructLayout("page", None, {"flags": Field("flags", 0, None)}), "a test")


@pytest.mark.parametrize(
    "edit",
    [
        {"constants": {"MAX_PHYSMEM_BITS": 1 << 60}},
        {"constants": {"MAX_PHYSMEM_BITS": 46, "PAGES_PER_SECTION": 1 << 62}},
        {"structs": {"page": {"size": 1 << 24, "fields": []}}},
    ],
)
def test_a_layout_file_with_absurd_numbers(tmp_path: Path, edit: dict[str, Any]) -> None:
    path = tmp_path / "layout.json"
    path.write_text(json.dumps({"structs": {}, "enums": {}, "constants": {}} | edit))
    memory = tmp_path / "memory"
    memory.write_bytes(bytes(4096))
    with pytest.raises(LayoutError, match=r"layout\.json"):
        open_dump(memory, layout=path)
