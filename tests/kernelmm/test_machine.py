# SPDX-License-Identifier: GPL-2.0-only
"""The front door: every operation, its arguments, and what leaves it when something is wrong."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import kernelmm
from kernelmm import Machine, VmBugOn
from kernelmm.gfp import (
    __GFP_COMP,
    __GFP_MOVABLE,
    __GFP_NOWARN,
    __GFP_THISNODE,
    __GFP_ZERO,
    GFP_ATOMIC,
    GFP_DMA32,
    GFP_KERNEL,
)
from physmem.errors import (
    AddressError,
    CorruptionError,
    ImageError,
    LayoutError,
    PhysmemError,
    UnsupportedError,
    UsageError,
)
from physmem.image import open_image

QUIET = GFP_ATOMIC | __GFP_NOWARN


@pytest.fixture
def machine(oracle: Callable[[str], Any]) -> Iterator[Machine]:
    with Machine.attach(oracle("n128_s1").a) as machine:
        yield machine


@pytest.fixture
def two_nodes(oracle: Callable[[str], Any]) -> Iterator[Machine]:
    with Machine.attach(oracle("n256x2_s6n").a) as machine:
        yield machine


def contents(machine: Machine) -> str:
    digest = hashlib.sha256()
    for start, end in machine.ram.ranges:
        digest.update(machine.ram.read(start, end - start))
    return digest.hexdigest()


def free_page_count(machine: Machine) -> int:
    """Pages on the free lists and the per-cpu lists, as the zones and pagesets count them."""
    mm, count = machine.mm, 0
    for pgdat in machine.dump.pgdats.values():
        for index in range(mm.max_nr_zones):
            zone = pgdat + mm.pgdat_node_zones + index * mm.sizeof_zone
            if machine.dump.field(zone, "zone", "present_pages") == 0:
                continue
            for order in range(11):
                at = zone + mm.zone_free_area + order * mm.sizeof_free_area + mm.free_area_nr_free
                count += machine.dump.u64(at) << order
            pageset = machine.dump.field(zone, "zone", "pageset") + mm.per_cpu_offset(0)
            count += machine.dump.field(pageset, "per_cpu_pages", "count")
    return count


# -- allocating and freeing -------------------------------------------------------


@pytest.mark.parametrize("order", range(11))
def test_a_block_comes_and_goes(machine: Machine, order: int) -> None:
    before = free_page_count(machine)
    page = machine.alloc_pages(GFP_KERNEL, order)
    assert page is not None
    pfn = machine.page_to_pfn(page)
    assert pfn % (1 << order) == 0
    assert machine.pfn_to_page(pfn) == page
    assert free_page_count(machine) == before - (1 << order)
    assert machine.page(page)._count == 1
    machine.free_block(page, order)
    assert machine.page(page)._count == 0
    assert free_page_count(machine) == before


def test_addresses_and_pages_are_two_names_of_one_thing(machine: Machine) -> None:
    before = free_page_count(machine)
    addr = machine.get_free_pages(GFP_KERNEL, 3)
    assert addr is not None
    page = machine.virt_to_page(addr)
    assert machine.page_address(page) == addr == 0xFFFF880000000000 + machine.page_to_pfn(page) * 4096
    assert machine.virt_to_page(addr + 4095) == page
    assert machine.virt_to_page(addr + 4096) == page + 64
    machine.free_pages(addr, 3)
    assert free_page_count(machine) == before


def test_the_null_address_is_no_page_and_does_nothing(machine: Machine) -> None:
    before = contents(machine)
    machine.free_pages(None)
    machine.free_pages(0, 3)
    assert contents(machine) == before


def test_a_zeroed_page(machine: Machine) -> None:
    addr = machine.get_zeroed_page(GFP_KERNEL)
    assert addr is not None
    machine.free_pages(addr)


def test_zeroing_clears_what_the_image_has(machine: Machine) -> None:
    """Page contents are absent from these images: the first page that is there stands in for one."""
    start = next(iter(machine.ram.ranges))[0]
    addr = machine.mm.page_offset + start
    assert any(machine.ram.read(start, 4096))
    machine.mm.clear_pages(machine.virt_to_page(addr), 0)
    assert not any(machine.ram.read(start, 4096))


@pytest.mark.parametrize(("size", "pages"), [(1, 1), (4096, 1), (4097, 2), (5 * 4096, 5), (4 << 20, 1024)])
def test_exact_allocations_take_just_enough(machine: Machine, size: int, pages: int) -> None:
    before = free_page_count(machine)
    addr = machine.alloc_pages_exact(size, GFP_KERNEL)
    assert addr is not None
    assert free_page_count(machine) == before - pages
    first = machine.virt_to_page(addr)
    assert [machine.page(first + 64 * i)._count for i in range(pages)] == [1] * pages
    machine.free_pages_exact(addr, size)
    assert free_page_count(machine) == before


def test_exact_allocations_that_cannot_be(machine: Machine) -> None:
    assert machine.alloc_pages_exact((4 << 20) + 1, QUIET) is None
    assert machine.alloc_pages_exact(1 << 64, QUIET) is None
    with pytest.raises(UsageError, match="size 0: must be from 1 to"):
        machine.alloc_pages_exact(0, GFP_KERNEL)


def test_the_kernels_null_is_none(machine: Machine) -> None:
    assert machine.alloc_pages(QUIET, 11) is None
    assert machine.alloc_pages(QUIET, 1 << 20) is None
    assert machine.get_free_pages(QUIET, 11) is None
    taken = []
    while (page := machine.alloc_pages(QUIET, 10)) is not None:
        taken.append(page)
    assert len(taken) > 10
    assert len(set(taken)) == len(taken)


def test_references_keep_a_page(machine: Machine) -> None:
    before = free_page_count(machine)
    page = machine.alloc_page(GFP_KERNEL)
    assert page is not None
    machine.get_page(page)
    machine.free_block(page)
    assert machine.page(page)._count == 1
    assert free_page_count(machine) == before - 1
    machine.put_page(page)
    assert free_page_count(machine) == before


def test_a_compound_page_is_one_page(machine: Machine) -> None:
    before = free_page_count(machine)
    page = machine.alloc_pages(GFP_KERNEL | __GFP_COMP, 3)
    assert page is not None
    head, tail = machine.page(page), machine.page(page + 5 * 64)
    assert head.flag_names == ["head"]
    assert tail.flag_names == ["tail"]
    assert (head.order, tail.order) == (3, None)
    assert tail.first_page == page
    machine.get_page(page + 5 * 64)
    assert (head._count, tail._mapcount) == (2, 0)
    machine.put_page(page + 5 * 64)
    machine.put_page(page)
    assert free_page_count(machine) == before


def test_split_pages_are_freed_one_by_one(machine: Machine) -> None:
    before = free_page_count(machine)
    page = machine.alloc_pages(GFP_KERNEL, 2)
    assert page is not None
    machine.split_page(page, 2)
    for i in range(4):
        machine.free_block(page + 64 * i)
        assert free_page_count(machine) == before - 3 + i


def test_draining_returns_the_per_cpu_lists(machine: Machine) -> None:
    pages = [machine.alloc_page(GFP_KERNEL | __GFP_MOVABLE) for _ in range(40)]
    for page in pages:
        assert page is not None
        machine.free_block(page)
    zone = machine.dump.pgdats[0] + machine.mm.sizeof_zone
    pageset = machine.dump.field(zone, "zone", "pageset") + machine.mm.per_cpu_offset(0)
    for drain in (machine.drain_local_pages, machine.drain_all_pages):
        extra = machine.alloc_page(GFP_KERNEL)
        assert extra is not None
        machine.free_block(extra)
        before = free_page_count(machine)
        assert machine.dump.field(pageset, "per_cpu_pages", "count") > 0
        drain()
        assert machine.dump.field(pageset, "per_cpu_pages", "count") == 0
        assert free_page_count(machine) == before


# -- nodes and CPUs ---------------------------------------------------------------


@pytest.mark.parametrize("nid", [0, 1])
def test_a_node_of_ones_own_choice(two_nodes: Machine, nid: int) -> None:
    for how in ({"nid": nid}, {"nodemask": 1 << nid}, {"nodemask": [nid]}, {"nid": 1 - nid, "nodemask": {nid}}):
        page = two_nodes.alloc_pages(GFP_KERNEL, **how)  # type: ignore[arg-type]
        assert page is not None
        assert two_nodes.page(page).nid == nid


def test_this_node_only(two_nodes: Machine) -> None:
    taken = []
    while (page := two_nodes.alloc_pages(QUIET | __GFP_THISNODE, 9, nid=1)) is not None:
        taken.append(two_nodes.page(page).nid)
    assert set(taken) == {1}
    page = two_nodes.alloc_pages(QUIET, 9, nid=1)
    assert page is not None
    assert two_nodes.page(page).nid == 0


def test_the_cpus_node_comes_first(two_nodes: Machine) -> None:
    page = two_nodes.alloc_pages(GFP_KERNEL, nid=-1)
    assert page is not None
    assert two_nodes.page(page).nid == two_nodes.mm.numa_node_id()


@pytest.mark.parametrize("nid", [-2, 1, 63, 1 << 40])
def test_no_such_node(machine: Machine, nid: int) -> None:
    with pytest.raises(UsageError, match=f"the machine has no node {nid}"):
        machine.alloc_pages(GFP_KERNEL, nid=nid)


@pytest.mark.parametrize("nodemask", [0, [], -1, [64], 1 << 64])
def test_no_such_nodemask(machine: Machine, nodemask: Any) -> None:
    with pytest.raises(UsageError, match="must be from"):
        machine.alloc_pages(GFP_KERNEL, nodemask=nodemask)


def test_a_nodemask_without_memory_gives_nothing(machine: Machine) -> None:
    assert machine.alloc_pages(QUIET, nodemask=[5]) is None


def test_another_cpu_for_a_while(machine: Machine) -> None:
    with machine.on_cpu(0):
        assert machine.cpu == 0
    for cpu in (1, -1, 8192):
        with pytest.raises(UsageError, match=f"the machine has no online CPU {cpu}"), machine.on_cpu(cpu):
            pass
    assert machine.cpu == 0


@pytest.mark.parametrize("here", [0, 1])
def test_the_running_cpu_is_drained_last(here: int) -> None:
    """As on_each_cpu_mask has it, which waits for the others first: what was drained last is handed out first."""
    with Machine.boot("64M", cpus=2) as machine, machine.on_cpu(here):
        pages = [machine.alloc_page(GFP_DMA32) for _ in range(40)]
        machine.drain_all_pages()
        freed = [pages[20], pages[22]]
        for cpu in (0, 1):
            with machine.on_cpu(cpu):
                machine.free_block(freed[cpu] or 0)
        machine.drain_all_pages()
        assert next(page for page in iter(lambda: machine.alloc_page(GFP_DMA32), None) if page in freed) == freed[here]


def test_a_kernel_without_smp_and_numa(oracle: Callable[[str], Any]) -> None:
    with Machine.attach(oracle("u128_s1").a) as machine, machine.on_cpu(0):
        before = free_page_count(machine)
        page = machine.alloc_pages(GFP_KERNEL, 1, nid=0)
        assert page is not None
        machine.free_block(page, 1)
        machine.drain_all_pages()
        assert free_page_count(machine) == before
        assert repr(machine) == "<Machine Linux 4.0.0, 32736 pages, 1 nodes, 1 CPUs>"


# -- arguments --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gfp", "order", "message"),
    [
        (-1, 0, "gfp -1: must be from 0 to 4294967295"),
        (1 << 32, 0, "gfp 4294967296: must be from 0 to 4294967295"),
        (GFP_KERNEL, -1, "order -1: must be from 0 to"),
        (GFP_KERNEL, 1 << 40, "order 1099511627776: must be from 0 to"),
    ],
)
def test_arguments_out_of_range(machine: Machine, gfp: int, order: int, message: str) -> None:
    before = contents(machine)
    with pytest.raises(UsageError, match=message):
        machine.alloc_pages(gfp, order)
    assert contents(machine) == before


PAGE_ARRAY = 0xFFFFEA0000000000
BAD_PAGES = {
    "null": None,
    "zero": 0,
    "not aligned": PAGE_ARRAY + 32,
    "before the array": PAGE_ARRAY - 64,
    "after the last pfn": PAGE_ARRAY + 32736 * 64,
    "a direct-map address": 0xFFFF880001000000,
    "more than 64 bits": 1 << 70,
    "negative": -64,
}


@pytest.mark.parametrize("page", BAD_PAGES.values(), ids=BAD_PAGES)
@pytest.mark.parametrize(
    "operation",
    ["free_block", "get_page", "put_page", "page", "page_address", "page_to_pfn", "split_page"],
)
def test_what_is_no_struct_page(machine: Machine, operation: str, page: Any) -> None:
    before = contents(machine)
    more = (1,) if operation == "split_page" else ()
    with pytest.raises(AddressError, match="not a struct page"):
        getattr(machine, operation)(page, *more)
    assert contents(machine) == before


def test_a_block_that_leaves_the_page_array(machine: Machine) -> None:
    page = machine.pfn_to_page(32735)
    with pytest.raises(AddressError, match="2 pages from here leave the page array"):
        machine.free_block(page, 1)


@pytest.mark.parametrize("order", [-1, 11, 64])
def test_orders_that_no_block_has(machine: Machine, order: int) -> None:
    page = machine.alloc_page(GFP_KERNEL)
    assert page is not None
    for call in (machine.free_block, machine.split_page):
        with pytest.raises(UsageError, match=f"order {order}: must be from 0 to 10"):
            call(page, order)
    with pytest.raises(UsageError, match=f"order {order}: must be from 0 to 10"):
        machine.free_pages(machine.page_address(page), order)


BAD_ADDRESSES = {
    "user": 0x7FFF_1234_5000,
    "below the direct map": 0xFFFF87FFFFFFF000,
    "past the end of memory": 0xFFFF880000000000 + 32736 * 4096,
    "struct page": PAGE_ARRAY,
    "past the kernel image": 0xFFFFFFFFA0000000,
    "more than 64 bits": 1 << 64,
    "negative": -4096,
}


@pytest.mark.parametrize("addr", BAD_ADDRESSES.values(), ids=BAD_ADDRESSES)
def test_what_is_no_page_frame(machine: Machine, addr: int) -> None:
    before = contents(machine)
    with pytest.raises(AddressError, match=r"no page frame is here: the direct map begins at .* from 0 to 32735"):
        machine.free_pages(addr)
    with pytest.raises(AddressError):
        machine.free_pages_exact(addr, 1)
    with pytest.raises(AddressError):
        machine.virt_to_page(addr)
    assert contents(machine) == before


def test_a_block_that_leaves_memory(machine: Machine) -> None:
    with pytest.raises(AddressError):
        machine.free_pages(0xFFFF880000000000 + 32735 * 4096, 1)


@pytest.mark.parametrize("pfn", [-1, 32736, 1 << 60])
def test_no_such_pfn(machine: Machine, pfn: int) -> None:
    with pytest.raises(AddressError, match=f"pfn {pfn} has no struct page: pfns go from 0 to 32735"):
        machine.pfn_to_page(pfn)


# -- what does not fit ------------------------------------------------------------


@pytest.mark.parametrize("error", [IndexError("index out of bounds"), OverflowError("too large"), ValueError("bad")])
def test_a_memory_fault_is_our_own_error_and_names_the_operation(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fails(*_: object) -> None:
        raise error

    monkeypatch.setattr("kernelmm.machine.compound.get_page", fails)
    page = machine.alloc_page(GFP_KERNEL)
    assert page is not None
    with pytest.raises(CorruptionError, match="memory_access: get_page: a value in memory leads out of its bounds"):
        machine.get_page(page)


def test_what_is_not_modelled_says_so(machine: Machine) -> None:
    page = machine.alloc_pages(GFP_KERNEL | __GFP_COMP, 1)
    assert page is not None
    machine.ram.set_u64(machine.dump.virt_to_phys(page) + 64 + machine.dump.layout.offsetof("page", "compound_dtor"), 8)
    with pytest.raises(UnsupportedError, match="not modelled: a compound page with a destructor"):
        machine.put_page(page)


def test_the_last_reference_to_a_page_on_an_lru_list(machine: Machine) -> None:
    page = machine.alloc_page(GFP_KERNEL)
    assert page is not None
    at = machine.mm.ram
    phys = machine.dump.virt_to_phys(page)
    at.set_u64(phys, at.u64(phys) | 1 << 5)
    # It is on no list: taking it off one finds that out.
    with pytest.raises(CorruptionError, match="list_links"):
        machine.put_page(page)


# -- a page's fields --------------------------------------------------------------


def test_fields_by_name(machine: Machine) -> None:
    page = machine.alloc_page(GFP_KERNEL)
    assert page is not None
    view = machine.page(page)
    assert (view._count, view._mapcount, view.mapping, view.private) == (1, -1, 0, 0)
    assert (view.lru.next, view["lru.prev"]) == (0xDEAD000000100100, 0xDEAD000000200200)
    assert view.flags == machine.dump.field(page, "page", "flags")
    assert (view.zone, view.nid, view.flag_names, view.order) == ("DMA32", 0, [], None)
    assert view.migratetype == 0
    assert view.pfn == machine.page_to_pfn(page)
    assert repr(view).startswith(f"<page {page:#x} pfn:{view.pfn} node:0 zone:DMA32 count:1 mapcount:0 flags:- order:")
    assert repr(view.lru) == "<lru: next prev>"
    assert {"_count", "lru", "flag_names"} <= set(dir(view))
    machine.free_block(page)
    assert view._count == 0, "the view is live"
    for name in ("inuse", "nonsense", "__nonsense__"):
        with pytest.raises(AttributeError, match=name):
            getattr(view, name)
    with pytest.raises(LayoutError, match="not an integer"):
        view["lru"]


def test_a_free_blocks_head_knows_its_order(machine: Machine) -> None:
    block = machine.alloc_pages(GFP_KERNEL, 10)
    assert block is not None
    machine.free_block(block, 10)
    view = machine.page(block)
    assert (view._mapcount, view.order) == (-128, 10)


# -- files ------------------------------------------------------------------------


def test_the_image_is_never_changed(oracle: Callable[[str], Any], tmp_path: Path) -> None:
    image = tmp_path / "plain.vmcore"
    with Machine.attach(oracle("n128_s1").a) as machine:
        machine.save(image)
    before = image.read_bytes()
    with Machine.attach(image) as machine:
        machine.run(oracle("n128_s1").script)
        assert image.read_bytes() == before


@pytest.mark.parametrize("name", ["out.vmcore", "out.vmcore.xz", "out.vmcore.gz", "out.vmcore.zst"])
def test_what_is_saved_is_what_there_was_as_it_is_now(machine: Machine, tmp_path: Path, name: str) -> None:
    assert machine.alloc_page(GFP_KERNEL) is not None
    machine.save(tmp_path / name)
    with open_image(tmp_path / name) as saved:
        assert saved.ranges == machine.dump.image.ranges
        assert saved.notes == machine.dump.image.notes
        assert saved.vmcoreinfo["OSRELEASE"] == "4.0.0"
        for start, end in saved.ranges:
            assert saved.read(start, end - start) == machine.ram.read(start, end - start)
    assert sorted(p.name for p in tmp_path.iterdir()) == [name]


def test_the_dump_is_live(machine: Machine) -> None:
    page = machine.alloc_page(GFP_KERNEL)
    assert page is not None
    assert machine.dump.field(page, "page", "_count.counter") == 1
    machine.free_block(page)
    assert machine.dump.field(page, "page", "_count.counter") == 0


def test_a_closed_machine_still_has_its_memory(machine: Machine, tmp_path: Path) -> None:
    machine.close()
    machine.close()
    assert machine.alloc_page(GFP_KERNEL) is not None
    machine.save(tmp_path / "after.kdump")
    with Machine.attach(tmp_path / "after.kdump") as other:
        pass
    other.save(tmp_path / "again.vmcore")


@pytest.mark.parametrize(
    ("image", "told"),
    [
        ("vmcores/deb510-512m/image", "struct page has no pfmemalloc; only a kernel laid out as Linux 4.0"),
        ("vmcores/deb61-256m/image", "struct per_cpu_pageset has no pcp.lists; only a kernel laid out as Linux 4.0"),
        ("oracle404/wait/A", "struct per_cpu_pageset is not known for this kernel .*: give a layout with --layout"),
    ],
)
def test_who_brings_a_kernel_that_cannot_be_gone_on_with_is_told_why(image: str, told: str) -> None:
    with pytest.raises(LayoutError, match=told):
        Machine.attach(Path(__file__).parents[1] / "data" / f"{image}.vmcore.xz")


def test_images_that_cannot_be_attached(tmp_path: Path, oracle: Callable[[str], Any]) -> None:
    with pytest.raises(ImageError, match=r"nowhere: .*No such file"):
        Machine.attach(tmp_path / "nowhere")
    (tmp_path / "text").write_text("not an image")
    with pytest.raises(ImageError, match=r"text: .*not a memory image"):
        Machine.attach(tmp_path / "text")
    with pytest.raises(PhysmemError, match=r"layout.json"):
        Machine.attach(oracle("n128_s1").a, layout=tmp_path / "layout.json")
    with pytest.raises(PhysmemError, match=r"symbols.json"):
        Machine.attach(oracle("n128_s1").a, symbols=tmp_path / "symbols.json")


def test_a_case_with_its_own_layout_and_symbols(oracle: Callable[[str], Any], tmp_path: Path) -> None:
    import lzma

    packed = Path(__file__).parents[1] / "data/kernels/numa/layout.json.xz"
    layout = tmp_path / "layout.json"
    layout.write_bytes(lzma.decompress(packed.read_bytes()))
    case = oracle("n128_s7")
    with Machine.attach(case.a, layout=layout, symbols=case.file("symbols.json")) as machine:
        assert machine.run(case.script) == case.result.read_text().splitlines()


# -- importing --------------------------------------------------------------------


def test_importing_the_package_leaves_the_choice_of_engine_open(project_environment: dict[str, str]) -> None:
    program = (
        "import sys, kernelmm, kernelmm.cli\n"
        "from physmem import engine\n"
        "assert not any(name.startswith('kernelmm.core') for name in sys.modules)\n"
        "engine.select('interpreted')\n"
        "from kernelmm import Machine\n"
        "assert sys.modules['kernelmm.core.buddy'].__file__.endswith('.py')\n"
    )
    environment = {name: value for name, value in project_environment.items() if name != "PHYSMEM_ENGINE"}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)


def test_the_package_exports_what_it_says() -> None:
    assert kernelmm.__all__ == ["Debug", "Machine", "PageFault", "VmBugOn"]
    assert kernelmm.Debug().build is not None
    assert issubclass(kernelmm.PageFault, Exception)
    assert kernelmm.VmBugOn is VmBugOn
    with pytest.raises(AttributeError, match="nonsense"):
        _ = kernelmm.nonsense


def test_zero_is_a_flag_like_any_other(machine: Machine) -> None:
    assert machine.alloc_pages(GFP_KERNEL | __GFP_ZERO, 4) is not None
