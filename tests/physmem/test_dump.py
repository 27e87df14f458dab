# SPDX-License-Identifier: GPL-2.0-only
"""An image with all that is needed to understand it: layout and symbols, translation, nodes, the page array."""

from __future__ import annotations

import json
import lzma
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from physmem.dump import Dump, open_dump
from physmem.errors import (
    AbsentError,
    AddressError,
    CorruptionError,
    ImageError,
    LayoutError,
    PhysmemError,
    SymbolError,
    UsageError,
)
from physmem.image import VmcoreInfo
from physmem.image.notes import Note
from physmem.image.write import write_elf
from physmem.ram import Ram

DATA = Path(__file__).parents[1] / "data"


@pytest.fixture
def dump(oracle: Callable[[str], Any]) -> Iterator[Dump]:
    with open_dump(oracle("n128_s1").a) as dump:
        yield dump


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    """The layout.json of the SMP and NUMA kernel."""
    path = tmp_path / "layout.json"
    path.write_bytes(lzma.decompress((DATA / "kernels/numa/layout.json.xz").read_bytes()))
    return path


def rewritten(dump: Dump, path: Path, change: Callable[[str], str]) -> Path:
    """The image again, with another VMCOREINFO."""
    notes = []
    for note in dump.image.notes:
        data = change(note.desc.decode()).encode() if note.name.startswith("VMCOREINFO") else note.desc
        notes.append(Note(note.name, note.type, data))
    write_elf(path, dump.memory, notes)
    return path


# -- what is known, and from where ------------------------------------------------------------


def test_a_known_kernel_needs_no_files(dump: Dump) -> None:
    assert dump.layout.sizeof("zone") == 1920
    assert dump.symbols["vm_stat"] == 0xFFFFFFFF812F2180
    assert dump.info["OSRELEASE"] == "4.0.0"
    assert (dump.page_offset, dump.start_kernel_map) == (0xFFFF880000000000, 0xFFFFFFFF80000000)


def test_an_unknown_kernel_needs_its_layout(
    dump: Dump, tmp_path: Path, layout: Path, oracle: Callable[[str], Any]
) -> None:
    path = rewritten(dump, tmp_path / "other.vmcore", lambda text: text.replace("OSRELEASE=4.0.0", "OSRELEASE=4.0.99"))
    with pytest.raises(PhysmemError), open_dump(path) as other:
        other.layout.offsetof("zone", "watermark")
    with open_dump(path, layout=layout) as other:
        assert other.layout.sizeof("zone") == 1920
        with pytest.raises(SymbolError, match="the address of 'vm_stat' is unknown"):
            other.symbols["vm_stat"]
    with open_dump(path, layout=layout, symbols=oracle("n128_s1").file("symbols.json")) as other:
        assert other.symbols["vm_stat"] == dump.symbols["vm_stat"]


def test_a_layout_of_another_kernel_is_refused(oracle: Callable[[str], Any], layout: Path) -> None:
    with pytest.raises(LayoutError, match=r"offsetof\(struct zone, .*layout\.json, .* in VMCOREINFO"):
        open_dump(oracle("u128_s1").a, layout=layout)


def test_symbols_given_come_before_symbols_known(oracle: Callable[[str], Any], tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text(json.dumps({"vm_stat": "0xffffffff81000000"}))
    with open_dump(oracle("n128_s1").a, symbols=tmp_path / "s.json") as dump:
        assert dump.symbols["vm_stat"] == 0xFFFFFFFF81000000
        assert dump.symbols["jiffies"] == 0xFFFFFFFF812FA5C0


@pytest.mark.parametrize("which", ["path", "layout", "symbols"])
def test_files_that_cannot_be_read(oracle: Callable[[str], Any], tmp_path: Path, which: str) -> None:
    files = {"path": oracle("n128_s1").a, which: tmp_path / "nowhere"}
    with pytest.raises(PhysmemError, match=r"nowhere: .*No such file"):
        open_dump(**files)


def test_a_closed_dump_says_so(oracle: Callable[[str], Any]) -> None:
    dump = open_dump(oracle("n128_s1").a)
    dump.close()
    with pytest.raises(UsageError, match="the image is closed"):
        dump.memory.read(0x12F2000, 8)


# -- looking ------------------------------------------------------------------------------------


def test_values_of_variables(dump: Dump, oracle: Callable[[str], Any]) -> None:
    values = json.loads(oracle("n128_s1").file("symbols.json").read_text())["values_in_A"]
    assert dump.u64(dump.symbols["jiffies"]) == values["jiffies_64"]
    assert dump.s32(dump.symbols["user_min_free_kbytes"]) == values["user_min_free_kbytes"] == -1
    assert dump.pgdats == {int(nid): int(va, 16) for nid, va in values["nodes"].items()}
    assert dump.max_pfn == values["max_pfn"]
    for zone in values["zones"]:
        va = int(zone["addr"], 16)
        assert dump.field(va, "zone", "zone_start_pfn") == zone["zone_start_pfn"]
        assert dump.field(va, "zone", "managed_pages") == zone["managed_pages"]
        assert dump.field(va, "zone", "node") == zone["node"]


def test_signed_fields_have_their_sign(dump: Dump) -> None:
    page = 0xFFFFEA0000000000 + 64 * 5000
    assert dump.field(page, "page", "_mapcount.counter") == -1


def test_fields_that_are_no_integers(dump: Dump) -> None:
    with pytest.raises(LayoutError, match=r"struct zone\.watermark is not an integer"):
        dump.field(dump.pgdats[0], "zone", "watermark")
    with pytest.raises(LayoutError, match="no field 'nonsense'"):
        dump.field(dump.pgdats[0], "zone", "nonsense")


def test_addresses(dump: Dump) -> None:
    assert dump.virt_to_phys(0xFFFF880000001234) == 0x1234
    assert dump.virt_to_phys(0xFFFFFFFF81000010) == 0x1000010
    assert dump.virt_to_phys(0xFFFFEA0000000040) == 0x7400040
    with pytest.raises(AddressError, match="not mapped by the kernel's page tables"):
        dump.virt_to_phys(0xFFFFEA0000000000 + (1 << 30))
    with pytest.raises(AddressError, match="not canonical"):
        dump.virt_to_phys(0x1234_0000_0000_0000)
    with pytest.raises(AbsentError):
        dump.read(0xFFFF880000001000, 8)


def test_two_nodes(oracle: Callable[[str], Any]) -> None:
    with open_dump(oracle("n256x2_s6n").a) as dump:
        assert sorted(dump.pgdats) == [0, 1]
        assert dump.max_pfn == 65504


def test_a_kernel_without_smp_and_numa(oracle: Callable[[str], Any]) -> None:
    with open_dump(oracle("u128_s1").a) as dump:
        assert dump.pgdats == {0: dump.symbols["contig_page_data"]}
        assert (dump.max_pfn, dump.mem_map) == (32736, 0xFFFFEA0000000000)


# -- the page array -----------------------------------------------------------------------------


def test_the_page_array(dump: Dump) -> None:
    pages, exists = dump.pages(0, dump.max_pfn, ["flags", "_count", "private"])
    assert len(pages) == len(exists) == 32736
    assert exists.all()
    for pfn in (1, 5000, 32735):
        page = 0xFFFFEA0000000000 + 64 * pfn
        assert pages["flags"][pfn] == dump.field(page, "page", "flags")
        assert pages["_count"][pfn] == dump.field(page, "page", "_count.counter")
    some, _ = dump.pages(4990, 5010, ["flags"])
    assert (some["flags"] == pages["flags"][4990:5010]).all()


def test_pages_without_an_entry_do_not_exist(dump: Dump) -> None:
    pages, exists = dump.pages(32700, 40000, ["flags"])
    # The page array is mapped in pieces of 2 MiB: 32768 entries.
    assert exists[: 32768 - 32700].all()
    assert not exists[32768 - 32700 :].any()
    assert not pages["flags"][32768 - 32700 :].any()


def test_another_memory_of_the_same_kernel(dump: Dump) -> None:
    ram = Ram.from_image(dump.image)
    other = dump.over(ram)
    page = 0xFFFFEA0000000000 + 64 * 5000
    ram.set_u64(other.virt_to_phys(page), 0x123)
    assert other.field(page, "page", "flags") == 0x123
    assert dump.field(page, "page", "flags") != 0x123


# -- what contradicts itself ----------------------------------------------------------------------


def changed(dump: Dump, va: int, value: int) -> Dump:
    """The dump over a memory with one word changed."""
    ram = Ram.from_image(dump.image)
    ram.set_u64(dump.virt_to_phys(va), value)
    return dump.over(ram)


def test_nodes_that_cannot_be(dump: Dump) -> None:
    node_data = dump.symbols["node_data"]
    with pytest.raises(CorruptionError, match="node"):
        _ = changed(dump, node_data, 0).pgdats
    with pytest.raises(CorruptionError, match="node"):
        _ = changed(dump, node_data + 8, dump.pgdats[0]).pgdats


def test_a_node_that_spans_more_than_there_can_be(dump: Dump) -> None:
    spanned = dump.pgdats[0] + dump.layout.offsetof("pglist_data", "node_spanned_pages")
    with pytest.raises(CorruptionError, match="node_span: node 0 spans"):
        _ = changed(dump, spanned, 1 << 60).max_pfn


def test_phys_base_is_found_through_itself(dump: Dump, oracle: Callable[[str], Any]) -> None:
    assert dump.phys_base == 0
    with pytest.raises(LayoutError, match="phys_base is not found"):
        _ = changed(dump, dump.symbols["phys_base"], 0x123456000).phys_base


def test_images_without_vmcoreinfo(dump: Dump, tmp_path: Path) -> None:
    write_elf(tmp_path / "bare.vmcore", dump.memory)
    with pytest.raises(LayoutError, match=r"bare\.vmcore: .* --layout"):
        open_dump(tmp_path / "bare.vmcore")


def test_what_is_no_image(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no image")
    with pytest.raises(ImageError, match=r"text: .*not a memory image"):
        open_dump(tmp_path / "text")


def test_the_note_is_understood(dump: Dump) -> None:
    assert isinstance(dump.info, VmcoreInfo)
    assert dump.info.symbol("mem_section") == dump.symbols["mem_section"]
