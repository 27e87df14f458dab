# SPDX-License-Identifier: GPL-2.0-only
"""An address explained: every number again by other means, and wrong addresses told why."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from physmem.dump import Dump, open_dump
from physmem.inspect.explain import AddressExplanation, explain_address
from physmem.inspect.explain.models import section_of
from physmem.inspect.pageformat import PageFormat
from physmem.inspect.zones import populated_zones
from physmem.ram import Ram

MODERN = ["deb61-256m", "deb61-1g-2node", "deb612-256m"]


def sound(dump: Dump, found: AddressExplanation) -> None:
    """What must hold of the explanation of any address that is mapped in a region of fixed place."""
    assert found.verdict == "mapped"
    assert found.agree
    assert found.walked == dump.virt_to_phys(found.va) == found.frame.phys
    frame = found.frame
    assert [model.page for model in frame.models] == [dump.mem_map + frame.pfn * dump.sizeof_page] * 3
    assert [model.pfn for model in frame.models] == [frame.pfn] * 3
    assert [model.model for model in frame.models if model.own] == ["SPARSEMEM_VMEMMAP"]
    assert frame.back == dump.page_offset + frame.phys
    joined = 0
    for field in found.fields:
        assert int(field.binary, 2) == field.value
        joined = joined << field.width | field.value
    assert joined == found.va
    assert [field.value for field in found.fields[1:-1]] == [level.step.index for level in found.levels]
    json.dumps(found.to_json())


@pytest.mark.parametrize("case", ["n128_s1", "u128_s1", "n256x2_s6n"])
def test_direct_map_of_a_4_0_kernel(open_case: Callable[..., Dump], case: str) -> None:
    dump = open_case(case)
    form = PageFormat(dump.layout)
    for zone in populated_zones(dump):
        pfn = zone.start_pfn + zone.spanned // 2
        found = explain_address(dump, dump.page_offset + (pfn << 12) + 0x123)
        sound(dump, found)
        frame = found.frame
        assert (frame.pfn, frame.node, frame.zone) == (pfn, zone.node, zone.name)
        assert frame.flags == dump.pages(pfn, pfn + 1, ["flags"])[0]["flags"][0]
        assert frame.flag_names == tuple(form.flag_names(frame.flags))
        value = {field.name: field.value for field in frame.flags_fields}
        assert (value.get("node", 0), value["zone"]) == (form.node(frame.flags), form.zone(frame.flags))
        assert sum(field.width for field in frame.flags_fields) == 64
        assert frame.back == found.va


@pytest.mark.parametrize("name", MODERN)
def test_modern_kernels(modern: Callable[[str], Dump], name: str) -> None:
    """Node and zone are those whose span the PFN is in, wherever the kernel put its regions."""
    dump = modern(name)
    for nid, pgdat in dump.pgdats.items():
        start = dump.field(pgdat, "pglist_data", "node_start_pfn")
        for pfn in (start + 5000, start + dump.field(pgdat, "pglist_data", "node_spanned_pages") - 3000):
            found = explain_address(dump, dump.page_offset + (pfn << 12) + 8)
            sound(dump, found)
            assert found.frame.node == nid
            assert found.frame.zone == ("DMA32" if pfn >= 4096 else "DMA")
            assert found.frame.section.flags[:2] == ("PRESENT", "HAS_MEM_MAP")
            assert sum(field.width for field in found.frame.flags_fields) == 64
    sound(dump, explain_address(dump, dump.info.symbol("_stext")))


@settings(max_examples=60, deadline=None)
@given(phys=st.integers(0, 0x7FDFFFF))
def test_any_byte_of_memory(phys: int) -> None:
    dump = shared()
    found = explain_address(dump, dump.page_offset + phys)
    sound(dump, found)
    assert found.frame.phys == phys


_shared: list[Dump] = []


def shared() -> Dump:
    if not _shared:
        _shared.append(open_dump(Path(__file__).parents[2] / "data" / "oracle" / "n128_s1" / "A.vmcore.xz"))
    return _shared[0]


def test_kernel_image(open_case: Callable[..., Dump]) -> None:
    dump = open_case("n128_s1")
    found = explain_address(dump, dump.symbols["mem_section"])
    sound(dump, found)
    assert found.region == "kernel image"
    assert "the same byte in the direct map" in str(found)


def test_an_entry_of_the_page_array(open_case: Callable[..., Dump]) -> None:
    dump = open_case("n128_s1")
    found = explain_address(dump, 0xFFFFEA000014001C)
    assert found.describes.endswith("byte 28 of the struct page of pfn 20480, where it has _count.counter")
    assert found.by_region is None
    assert found.walked == dump.virt_to_phys(0xFFFFEA0000140000) + 0x1C
    assert "not in the direct map" in found.advice[0]


def test_a_page_array_in_sections() -> None:
    """The same memory, read as a kernel would that was built for classic sparse memory."""
    real = shared()
    dump = real.over(real.memory)
    sparse = {**real.layout.constants, "SECTIONS_WIDTH": 19, "SECTIONS_PGSHIFT": 45}
    dump.__dict__["layout"] = replace(real.layout, constants=sparse)
    found = explain_address(dump, 0xFFFF880005000123)
    assert [(model.model, model.own, model.page) for model in found.frame.models] == [
        ("FLATMEM", False, None),
        ("SPARSEMEM", True, 0xFFFFEA0000140000),
        ("SPARSEMEM_VMEMMAP", False, None),
    ]
    assert found.frame.page == 0xFFFFEA0000140000
    assert found.frame.models[1].pfn == 20480
    entry = explain_address(dump, 0xFFFFEA0000140008)
    assert entry.describes.endswith("byte 8 of the struct page of pfn 20480, where it has mapping, s_mem")
    assert "the array of section 0" in entry.describes
    assert entry.region == "hole"
    assert "this kernel maps no vmemmap" in str(found)
    gone = explain_address(dump, 0xFFFF880000000000 + (1 << 36))
    assert gone.frame is None


# -- five levels, pages of all sizes, encryption: tables of our own ----------------------------------------------------


def walked(levels: int, leaf: int, sme: int = 0, flags: int = 0x63) -> AddressExplanation:
    """Map one page at index 300 of each level, in tables at physical 5 MiB; leaf is the shift of its size."""
    real = shared()
    ram = Ram.from_image(real.image)
    whole = Ram(ram.size)
    for start, end in ram.ranges.clip(0, ram.size):
        whole.as_u8[start:end] = ram.as_u8[start:end]
    shifts = [48, 39, 30, 21, 12][5 - levels :]
    va, table = (1 << 64) - (1 << (9 * levels + 12)), 5 << 20
    for shift in shifts:
        va |= 300 << shift
        at = table + 8 * 300
        if shift == leaf:
            whole.set_u64(at, 1 << 30 | flags | (0x80 if shift > 12 else 0) | sme | 1 << 63)
            break
        table += 4096
        whole.set_u64(at, table | 0x67 | sme)
    dump = real.over(whole)
    dump.__dict__["regions"] = replace(real.regions, levels=levels, pgd=5 << 20, sme_mask=sme)
    return explain_address(dump, va | 0x123)


@pytest.mark.parametrize("levels", [4, 5])
@pytest.mark.parametrize("leaf", [12, 21, 30])
def test_levels_and_page_sizes(levels: int, leaf: int) -> None:
    found = walked(levels, leaf)
    names = ["PGD", "P4D", "PUD", "PMD", "PTE"] if levels == 5 else ["PGD", "PUD", "PMD", "PTE"]
    depth = len(names) - {12: 0, 21: 1, 30: 2}[leaf]
    assert [level.step.level for level in found.levels] == names[:depth]
    assert all(level.step.index == 300 for level in found.levels)
    assert (found.verdict, found.page_size) == ("mapped", 1 << leaf)
    assert [field.name for field in found.fields] == ["sign", *names[:depth], "offset"]
    assert found.fields[0].width == (16 if levels == 4 else 7)
    assert found.fields[-1].width == leaf
    assert found.walked == 1 << 30 | 0x123
    assert found.access == "writable, kernel mode only, not executable"
    last = found.levels[-1]
    assert last.names == ["P", "RW", "A", "D", *(["PSE"] if leaf > 12 else []), "NX"]
    # Bit 7 says "page" in tables of larger pages only; in a PTE it is part of the memory type.
    assert {flag.name: flag.bit for flag in last.flags}["PAT"] == (7 if leaf == 12 else 12)
    assert "D" not in {flag.name for flag in found.levels[0].flags}


def test_every_flag_by_name() -> None:
    found = walked(4, 21, flags=0x1FFF)
    assert found.levels[-1].names == [
        *("P", "RW", "US", "PWT", "PCD", "A", "D", "PSE", "G", "PAT", "SOFTW1", "SOFTW2", "SOFTW3", "NX")
    ]


def test_memory_encryption() -> None:
    found = walked(4, 12, sme=1 << 47)
    assert found.walked == 1 << 30 | 0x123
    assert all(level.raw >> 47 & 1 and level.names[-1] == "SME" for level in found.levels)
    assert all(not level.step.entry >> 47 & 1 for level in found.levels)
    assert "SME (bit 47)" in str(found)


# -- wrong addresses ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("va", "verdict", "region", "words"),
    [
        (0xFFFF080005000123, "not canonical", "not canonical", "bits 63 to 48 must all equal bit 47, which is 0"),
        (0xFFFE880005000000, "not canonical", "not canonical", "bit 48 differs"),
        (0x7FFF12345678, "not present", "user half", "the kernel's own tables map nothing for processes"),
        (0, "not present", "user half", "not in the direct map"),
        (0xFFFF880015000000, "not present", "direct map", "where this machine's memory ends"),
        (0xFFFF800000000000, "not present", "hole", "the PGD entry at 0x12f3800 has P clear"),
        (0xFFFFEA0010000000, "not present", "page array (vmemmap)", "no struct page is here"),
        (0xFFFFC90000000123, "table absent", "vmalloc area", "the next table is not in the image"),
        (0xFFFFFFFFFFFFFFFF, "not present", "hole", "has P clear"),
    ],
)
def test_wrong_addresses(open_case: Callable[..., Dump], va: int, verdict: str, region: str, words: str) -> None:
    found = explain_address(open_case("n128_s1"), va)
    assert (found.verdict, found.region, found.frame) == (verdict, region, None)
    assert words in " ".join(str(found).split())
    assert json.loads(json.dumps(found.to_json()))["frame"] is None


@settings(max_examples=200, deadline=None)
@given(va=st.integers(0, (1 << 64) - 1) | st.integers(0, 1 << 40).map(lambda low: 0xFFFF880000000000 + low))
def test_no_address_is_beyond_explanation(va: int) -> None:
    found = explain_address(shared(), va)
    assert (found.verdict == "mapped") == (found.walked is not None)
    assert found.verdict == "mapped" or found.problem
    assert str(found)


def test_sections_that_are_not_there(open_case: Callable[..., Dump]) -> None:
    """A PFN beyond the last section, beyond the last root, and beyond the table of roots."""
    dump = open_case("n128_s1")
    assert section_of(dump, 1 << 20).problem == "the section has no memory"
    assert "is NULL" in section_of(dump, 1 << 30).problem
    assert "is beyond the table" in section_of(dump, 1 << 40).problem


# -- how it looks ------------------------------------------------------------------------------------------------------


class Balanced(HTMLParser):
    """Checks that every element that begins ends."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("va", [0xFFFF880005000123, 0x7FFF12345678])
def test_html_and_terminal_say_the_same(open_case: Callable[..., Dump], va: int) -> None:
    found = explain_address(open_case("n128_s1"), va)
    parser = Balanced()
    parser.feed(found._repr_html_())
    assert not parser.open
    console = Console(width=200, force_terminal=True, file=io.StringIO(), color_system=None)
    console.print(found)
    shown = console.file.getvalue()
    _, parts = found.document()
    for part in parts:
        for word in (part.title, *part.notes[:1], *(cell for row in part.rows for cell in row)):
            assert word in parser.text
            assert word[:60] in shown
    assert repr(found) == f"<AddressExplanation: virtual address {va:016x}>"
