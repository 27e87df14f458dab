# SPDX-License-Identifier: GPL-2.0-only
"""Damaged memory: an error with rule and PFN, or the kernel's own indifference; never a crash, never a hang."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from kernelmm import Machine
from kernelmm.gfp import __GFP_NOWARN, GFP_ATOMIC
from physmem import engine
from physmem.errors import CorruptionError, PhysmemError

HERE = Path(__file__).parent
SEEDS = 25
#: Seconds; all runs together take a few.
TIME_LIMIT = 300


@cache
def outcomes(name: str, oracle: Path, path: str) -> dict[str, list[Any]]:
    """How each run of damaged.py ended with one engine: class, message, rule, PFN, hash of memory."""
    child = subprocess.run(
        [sys.executable, str(HERE / "damaged.py"), str(oracle), str(SEEDS)],
        env={"PHYSMEM_ENGINE": name, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=TIME_LIMIT,
    )
    assert child.returncode == 0, child.stderr
    ran, told = json.loads(child.stdout)
    assert ran == name
    return dict(told)


@pytest.fixture(params=engine.ENGINES)
def told(
    request: pytest.FixtureRequest, oracle: Callable[[str], Any], project_environment: dict[str, str]
) -> dict[str, list[Any]]:
    if request.param not in engine.available():
        pytest.skip(str(engine.why_interpreted()))
    return outcomes(request.param, oracle("n128_s1").a.parents[1], project_environment["PYTHONPATH"])


def test_every_damage_ends_well_or_with_our_own_error(told: dict[str, list[Any]]) -> None:
    assert {outcome[0] for outcome in told.values()} <= {"ok", "CorruptionError", "AddressError", "UnsupportedError"}
    assert not [outcome for outcome in told.values() if "\n" in outcome[1]]
    # Most of what was damaged on purpose is found; much of what was damaged at random is never looked at.
    assert sum(outcome[0] != "ok" for outcome in told.values()) > 50


EXPECTED = {
    "free list head leads to NULL": ("CorruptionError", "page_pointer"),
    "free list head leads to user space": ("CorruptionError", "page_pointer"),
    "free list head leads to unmapped": ("CorruptionError", "page_pointer"),
    "free list head leads to odd": ("CorruptionError", "page_pointer"),
    "free list head leads to all ones": ("CorruptionError", "page_pointer"),
    "free page's next leads to NULL": ("CorruptionError", "list_links"),
    "free page's next leads to unmapped": ("CorruptionError", "list_links"),
    "free page's prev leads to user space": ("CorruptionError", "list_links"),
    "free list head leads to a page in use": ("CorruptionError", "list_links"),
    "free list head leads to another list's page": ("CorruptionError", "list_links"),
    "free list leads to itself": ("CorruptionError", "list_links"),
    "per-cpu list leads to NULL": ("CorruptionError", "page_pointer"),
    "per-cpu list leads to user space": ("CorruptionError", "page_pointer"),
    "per-cpu count 1073741824": ("CorruptionError", "pcp_count"),
    "zonelist leads to user space": ("AddressError", ""),
    "zonelist leads to unmapped": ("AddressError", ""),
    "zonelist without an end": ("CorruptionError", "zonelist"),
    "zoneref of a zone before the first": ("CorruptionError", "zonelist"),
    "free list head leads to the last word": ("CorruptionError", "page_pointer"),
    "free page's next leads to the last word": ("CorruptionError", "list_links"),
    "free page's prev leads to the last word": ("CorruptionError", "list_links"),
    "zonelist leads to the last word": ("AddressError", ""),
    "zone's pageset leads to the last word": ("AddressError", ""),
    "node_data leads to the last word": ("AddressError", ""),
    "zone's pageset leads to unmapped": ("AddressError", ""),
    "zone's pgdat leads to user space": ("AddressError", ""),
    "node_data leads to NULL": ("AddressError", ""),
    "node_data leads to odd": ("AddressError", ""),
    "mem_section leads to user space": ("AddressError", ""),
    "pageblock flags lead to unmapped": ("AddressError", ""),
    "pageblocks of migratetype 7": ("CorruptionError", "migratetype"),
}


@pytest.mark.parametrize("damage", EXPECTED)
def test_what_is_damaged_is_named(told: dict[str, list[Any]], damage: str) -> None:
    kind, rule = EXPECTED[damage]
    assert told[damage][:1] + told[damage][2:3] == [kind, rule], told[damage]


def test_both_engines_end_alike(oracle: Callable[[str], Any], project_environment: dict[str, str]) -> None:
    missing = engine.why_interpreted()
    if missing:
        pytest.skip(missing)
    path = project_environment["PYTHONPATH"]
    one, other = (outcomes(name, oracle("n128_s1").a.parents[1], path) for name in engine.ENGINES)
    assert {name: (one[name], other[name]) for name in one if one[name] != other[name]} == {}


# -- on the engine at hand --------------------------------------------------------------


def test_the_error_has_the_pfn_and_the_script_line(oracle: Callable[[str], Any], tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("# comment\na 0 -1 0 208\na 1 -1 10 228\n")
    with Machine.attach(oracle("n128_s1").a) as machine:
        head = machine.dump.pgdats[0] + machine.mm.sizeof_zone + machine.mm.zone_free_area
        head += 10 * machine.mm.sizeof_free_area + 16 * 2
        first = machine.dump.u64(head) - 32
        machine.ram.set_u64(machine.dump.virt_to_phys(first + 40), 0)
        with pytest.raises(CorruptionError, match=f"pfn {machine.page_to_pfn(first)}: list_links") as caught:
            machine.run(script)
        assert caught.value.pfn == machine.page_to_pfn(first)
        assert caught.value.__notes__ == [f"{script}: line 3"]


@pytest.mark.parametrize("count", [-1, -(1 << 31), 1 << 30])
def test_a_per_cpu_count_that_cannot_be_is_refused_before_a_page_moves(
    oracle: Callable[[str], Any], count: int
) -> None:
    """Lists that lead back to themselves through damage would be drained for as long as it says."""
    with Machine.attach(oracle("n128_s1").a) as machine:
        mm, dump = machine.mm, machine.dump
        pageset = dump.field(dump.pgdats[0] + mm.sizeof_zone, "zone", "pageset") + mm.per_cpu_offset(0)
        machine.ram.set_u32(dump.virt_to_phys(pageset), count & 0xFFFFFFFF)
        before = [machine.ram.read(start, end - start) for start, end in machine.ram.ranges]
        with pytest.raises(CorruptionError, match=f"pcp_count: .* have not the {count} pages"):
            machine.drain_local_pages()
        assert before == [machine.ram.read(start, end - start) for start, end in machine.ram.ranges]


def test_a_compound_page_with_an_impossible_order(oracle: Callable[[str], Any]) -> None:
    with Machine.attach(oracle("n128_s1").a) as machine:
        page = machine.alloc_pages(GFP_ATOMIC | 0x4000, 3)
        assert page is not None
        machine.ram.set_u64(machine.dump.virt_to_phys(page + 64 + 40), 1 << 40)
        with pytest.raises(CorruptionError, match="buddy_order: block of order 1099511627776, the largest is 10"):
            machine.put_page(page)


@pytest.mark.parametrize("value", [0, 0x1000, 0xFFFFEA0000000000, (1 << 64) - 64])
def test_a_tail_whose_head_is_elsewhere(oracle: Callable[[str], Any], value: int) -> None:
    with Machine.attach(oracle("n128_s1").a) as machine:
        page = machine.alloc_pages(GFP_ATOMIC | 0x4000, 1)
        assert page is not None
        machine.ram.set_u64(machine.dump.virt_to_phys(page + 64 + 48), value)
        with contextlib.suppress(CorruptionError):
            machine.put_page(page + 64)
        with contextlib.suppress(CorruptionError):
            machine.get_page(page + 64)


DAMAGED_IMAGES = {
    "nr_cpu_ids": ("nr_cpu_ids", 4, [0, 9, 0xFFFFFFFF]),
    "__per_cpu_offset": ("__per_cpu_offset", 8, [0, 0x1000, (1 << 64) - 8]),
    "node_data": ("node_data", 8, [0x1000, 0xFFFFFFFFFFFFFFF8, 0xFFFF8800FFFFFFF8]),
    "mem_section": ("mem_section", 8, [0x1000, 0xFFFFFFFFFFFFFFF8, 0xFFFF880007FE0000]),
    "init_level4_pgt": ("init_level4_pgt", 8, [0, 0xFFFFFFFFFFFFFFFF]),
    "cpu_online_bits": ("cpu_online_bits", 8, [0, 0xFFFFFFFFFFFFFFFF]),
}


@pytest.mark.parametrize("damage", DAMAGED_IMAGES)
def test_an_image_damaged_before_it_is_attached(oracle: Callable[[str], Any], tmp_path: Path, damage: str) -> None:
    symbol, size, values = DAMAGED_IMAGES[damage]
    for value in values:
        with Machine.attach(oracle("n128_s1").a) as machine:
            phys = machine.dump.virt_to_phys(machine.dump.symbols[symbol])
            machine.ram.write(phys, value.to_bytes(size, "little"))
            machine.save(tmp_path / "damaged.vmcore")
        with contextlib.suppress(PhysmemError), Machine.attach(tmp_path / "damaged.vmcore") as machine:
            page = machine.alloc_pages(GFP_ATOMIC | __GFP_NOWARN, 3)
            if page is not None:
                machine.free_block(page, 3)
            machine.drain_all_pages()
