# SPDX-License-Identifier: GPL-2.0-only
"""Guard pages, hidden and poisoned frames, page_owner: each rule of the kernel, and that nothing is lost."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kernelmm import Debug, Machine, PageFault
from kernelmm.core import mmzone
from kernelmm.gfp import __GFP_MOVABLE, __GFP_NOWARN, GFP_ATOMIC, GFP_KERNEL
from kernelmm.pressure import codes, contig, scanners
from physmem import engine
from physmem.errors import UsageError
from physmem.inspect.check import check
from physmem.structs.linux_4_0 import CONFIGS

#: PTE of a frame of the direct map: present, writable, accessed, dirty, global, not executable; and hidden.
MAPPED, HIDDEN = 1 << 63 | 0x163, 1 << 63 | 0x60
ADDRESS = 0xFFFFFFFFFF000


def boot(**options: Any) -> Machine:
    return Machine.boot("32M", debug=Debug(**options))


def pte(machine: Machine, addr: int) -> int:
    return list(machine.dump.steps(addr))[-1].entry


def frame_flags(machine: Machine, page: int) -> int:
    return pte(machine, machine.page_address(page)) & ~ADDRESS


def free_pages(machine: Machine) -> int:
    machine.drain_all_pages()
    return int(sum(zone.vm_stat["NR_FREE_PAGES"] for zone in check_zones(machine))) + diffs(machine)


def check_zones(machine: Machine) -> list[Any]:
    from physmem.inspect.zones import populated_zones

    return list(populated_zones(machine.dump))


def diffs(machine: Machine) -> int:
    """What the CPU has not yet added to the zones' counts of free pages."""
    from physmem.inspect.zones import pagesets

    found = [pageset.vm_stat_diff for zone in check_zones(machine) for pageset in pagesets(machine.dump, zone)]
    return sum(int(diff["NR_FREE_PAGES"]) for diff in found if diff)


def test_off_by_default() -> None:
    with Machine.boot("32M") as machine:
        assert machine.mm.aids is None
        assert not machine.mm.debugging
        with pytest.raises(UsageError, match="page_owner is not on"):
            machine.page_owner()


def test_options_that_contradict_each_other() -> None:
    with pytest.raises(UsageError, match="must be from 0 to 5"):
        boot(debug_pagealloc=True, guardpage_minorder=6)
    with pytest.raises(UsageError, match="needs debug_pagealloc"):
        boot(guardpage_minorder=1)


# -- hidden frames ----------------------------------------------------------------


def test_the_direct_map_has_small_pages_only() -> None:
    """probe_page_size_mask: with CONFIG_DEBUG_PAGEALLOC neither 2 MiB nor 1 GiB."""
    with boot(debug_pagealloc=True) as machine:
        for phys in (2 << 20, 8 << 20, 20 << 20):
            assert list(machine.dump.steps(machine.mm.page_offset + phys))[-1].level == "PTE"


def test_free_frames_have_no_mapping() -> None:
    """__set_pages_np clears PRESENT and RW, and with them GLOBAL; __set_pages_p sets all three."""
    with boot(debug_pagealloc=True) as machine:
        page = machine.alloc_pages(GFP_KERNEL, 2)
        assert page is not None
        frames = [page + 64 * i for i in range(4)]
        assert [frame_flags(machine, frame) for frame in frames] == [MAPPED] * 4
        machine.free_block(page, 2)
        assert [frame_flags(machine, frame) for frame in frames] == [HIDDEN] * 4
        assert check(machine.dump).findings == []


def test_all_that_is_free_at_boot_is_hidden() -> None:
    with boot(debug_pagealloc=True) as machine:
        for zone in check_zones(machine):
            for order, lists in enumerate(zone.free_lists):
                for head in lists:
                    at = head.next
                    while at != head.address:
                        block = machine.page_address(at - 32)
                        ptes = {pte(machine, block + 4096 * i) & ~ADDRESS for i in range(1 << order)}
                        assert ptes == {HIDDEN}
                        at = machine.dump.u64(at)


def test_use_after_free_is_caught() -> None:
    with boot(debug_pagealloc=True) as machine:
        addr = machine.get_free_pages(GFP_KERNEL)
        assert addr is not None
        machine.write(addr + 4094, b"ab")
        assert machine.read(addr + 4094, 2) == b"ab"
        machine.free_pages(addr)
        for access, error in ((lambda: machine.read(addr), 0), (lambda: machine.write(addr, b"x"), 2)):
            with pytest.raises(PageFault, match="unable to handle kernel paging request") as caught:
                access()
            lines = caught.value.text.splitlines()
            assert lines[0] == f"BUG: unable to handle kernel paging request at {addr:016x}"
            assert re.fullmatch(r"PGD [0-9a-f]+ PUD [0-9a-f]+ PMD [0-9a-f]+ PTE 80000000[0-9a-f]{5}060", lines[1])
            assert re.fullmatch(rf"Oops: 000{error} \[#\d\] SMP DEBUG_PAGEALLOC", lines[2])
            assert caught.value.address == addr
        assert machine.console.lines[-1].endswith("DEBUG_PAGEALLOC")


# -- guard pages ------------------------------------------------------------------


def test_small_halves_become_guard_pages() -> None:
    """expand: halves of an order below the minorder are not put on a list, nor counted as free."""
    with boot(debug_pagealloc=True, guardpage_minorder=3) as machine:
        ext = machine.mm.aids.ext
        while True:
            machine.drain_all_pages()
            # Once the small blocks are gone, a larger one is split.
            page = machine.alloc_pages(GFP_KERNEL, 0)
            assert page is not None
            if ext.test(machine.mm, page + 64, ext.guard):
                break
        pfn = machine.page_to_pfn(page)
        assert pfn % 8 == 0
        for offset, order in ((1, 0), (2, 1), (4, 2)):
            guard = page + 64 * offset
            view = machine.page(guard)
            assert ext.test(machine.mm, guard, ext.guard)
            assert (view._count, view._mapcount, view.private) == (0, -1, order)
            assert machine.dump.u64(guard + 32) == machine.dump.u64(guard + 40) == guard + 32
            assert frame_flags(machine, guard) == HIDDEN
        before = free_pages(machine)
        machine.free_block(page)
        # The page and its seven neighbours are free again, as one block (or part of a larger).
        assert free_pages(machine) == before + 8
        assert not any(ext.test(machine.mm, page + 64 * i, ext.guard) for i in range(8))
        assert all(machine.page(page + 64 * i).private == 0 for i in (1, 2, 4))
        assert check(machine.dump).findings == []


@pytest.mark.parametrize("minorder", [0, 1, 5])
def test_nothing_is_lost(minorder: int) -> None:
    with boot(debug_pagealloc=True, guardpage_minorder=minorder) as machine:
        before = free_pages(machine)
        blocks = []
        for order in (0, 3, 1, 0, 2, 5, 0, 4) * 5:
            for gfp in (GFP_KERNEL, GFP_ATOMIC | __GFP_MOVABLE):
                page = machine.alloc_pages(gfp | __GFP_NOWARN, order)
                if page is not None:
                    blocks.append((page, order))
        held = sum(1 << order for _, order in blocks)
        assert free_pages(machine) <= before - held
        for page, order in blocks[::2] + blocks[1::2]:
            machine.free_block(page, order)
        assert free_pages(machine) == before
        assert check(machine.dump).findings == []


def test_failures_are_not_reported_while_memory_lies_idle() -> None:
    """warn_alloc_failed is silent with a guard minorder: much memory is unusable on purpose."""
    with boot(debug_pagealloc=True, guardpage_minorder=1) as machine:
        while machine.alloc_pages(GFP_ATOMIC, 9):
            pass
        assert "page allocation failure" not in machine.dmesg()


# -- poison -----------------------------------------------------------------------


def test_freed_frames_are_poisoned() -> None:
    with boot(page_poisoning=True) as machine:
        ext = machine.mm.aids.ext
        addr = machine.get_free_pages(GFP_KERNEL, 1)
        assert addr is not None
        page = machine.virt_to_page(addr)
        machine.write(addr, b"secret" * 100)
        machine.free_pages(addr, 1)
        assert machine.read(addr, 8192) == b"\xaa" * 8192
        assert ext.test(machine.mm, page, ext.poison)
        assert ext.test(machine.mm, page + 64, ext.poison)
        again = machine.get_free_pages(GFP_KERNEL, 1)
        assert again == addr
        assert not ext.test(machine.mm, page, ext.poison)
        assert "pagealloc" not in machine.dmesg()


def test_what_was_written_to_a_free_frame_is_reported() -> None:
    """check_poison_mem: from the first to the last wrong byte; one bit is told apart from more."""
    with boot(page_poisoning=True) as machine:
        for offset, data, kind in (
            (16, b"\xab", "single bit error"),
            (16, b"\xad", "memory corruption"),
            (0x10, b"Hello, world! ..", "memory corruption"),
            (0xFFE, b"\0\0", "memory corruption"),
        ):
            addr = machine.get_free_pages(GFP_KERNEL)
            assert addr is not None
            machine.free_pages(addr)
            machine.write(addr + offset, data)
            lines = len(machine.console.lines)
            assert machine.get_free_pages(GFP_KERNEL) == addr
            text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in data)
            assert machine.console.lines[lines:] == [
                f"pagealloc: {kind}",
                f"{addr + offset:016x}: {data.hex(' '):<49}{text}",
                "CPU: 0 PID: 1 Comm: init Not tainted 4.0.0-kernelmm #1",
            ]
            machine.free_pages(addr)


def test_a_long_error_has_a_line_for_16_bytes() -> None:
    with boot(page_poisoning=True) as machine:
        addr = machine.get_free_pages(GFP_KERNEL)
        assert addr is not None
        machine.free_pages(addr)
        machine.write(addr + 8, b"\1" + b"\xaa" * 20 + b"\2")
        machine.get_free_pages(GFP_KERNEL)
        lines = machine.console.lines[-3:-1]
        assert lines[0].startswith(f"{addr + 8:016x}: 01 aa aa ")
        assert lines[1] == f"{addr + 24:016x}: {'aa aa aa aa aa 02':<49}......"


# -- page_owner -------------------------------------------------------------------


def caller_of_the_allocator(machine: Machine, gfp: int, order: int) -> int:
    page = machine.alloc_pages(gfp, order)
    assert page is not None
    return page


def records(machine: Machine) -> dict[int, list[str]]:
    found = [record.split("\n") for record in machine.page_owner().split("\n\n") if record]
    return {int(record[1].split()[1]): record for record in found}


def test_who_allocated_what() -> None:
    with boot(page_owner=True) as machine:
        page = caller_of_the_allocator(machine, GFP_KERNEL, 2)
        pfn = machine.page_to_pfn(page)
        record = records(machine)[pfn]
        # The fast path adds __GFP_HARDWALL.
        assert record[0] == "Page allocated via order 2, mask 0x200d0"
        kind = machine.mm.aids.kernel and machine.dump and record[1].split()[5]
        fallback = "        " if kind == "0" else "Fallback"
        assert record[1] == f"PFN {pfn} Block {pfn // 512} type {kind} {fallback} Flags {' ' * 12}"
        symbol = r"\+0x[0-9a-f]+/0x[0-9a-f]+ \[.*test_debug\]"
        assert re.fullmatch(rf" \[<ffffffffa[0-9a-f]{{7}}>\] caller_of_the_allocator{symbol}", record[2])
        assert re.fullmatch(rf" \[<ffffffffa[0-9a-f]{{7}}>\] test_who_allocated_what{symbol}", record[3])
        machine.free_block(page, 2)
        assert pfn not in records(machine)


def test_every_page_of_a_split_block_has_an_owner() -> None:
    """split_page: order 0 and mask 0, as if each had been allocated by itself."""
    with boot(page_owner=True) as machine:
        page = machine.alloc_pages(GFP_KERNEL, 1)
        assert page is not None
        pfn = machine.page_to_pfn(page)
        assert pfn + 1 not in records(machine)
        machine.split_page(page, 1)
        found = records(machine)
        assert found[pfn][0] == found[pfn + 1][0] == "Page allocated via order 0, mask 0x0"


def test_pages_from_before_have_the_boot_as_owner() -> None:
    """init_early_allocated_pages: neither free nor reserved; the memory of page_ext itself, for a start."""
    with boot(page_owner=True) as machine:
        early = [r for r in records(machine).values() if r[0] == "Page allocated via order 0, mask 0x0"]
        told = sum(int(n) for n in re.findall(r"found early allocated (\d+) pages", machine.dmesg()))
        assert len(early) == told == 88 * 32768 // 4096
        assert re.search(r"start_kernel\+.*\[kernelmm\.boot\]", early[0][2])


def test_a_bad_page_says_who_had_it() -> None:
    with boot(page_owner=True) as machine:
        page = caller_of_the_allocator(machine, GFP_KERNEL, 0)
        machine.ram.set_u32(machine.dump.virt_to_phys(page) + 24, 3)
        machine.free_block(page)
        assert "page dumped because: nonzero mapcount\nPage allocated via order 0" in machine.dmesg()
        assert "] caller_of_the_allocator+" in machine.dmesg()


def test_owners_survive_in_an_image(tmp_path: Path) -> None:
    """The names of the callers are in the machine's memory, and so are the aids that are on."""
    with boot(page_owner=True, debug_pagealloc=True, guardpage_minorder=2) as machine:
        caller_of_the_allocator(machine, GFP_KERNEL, 1)
        machine.drain_all_pages()
        text = machine.page_owner()
        machine.save(tmp_path / "A.vmcore")
        following = machine.alloc_pages(GFP_KERNEL, 0)
    with Machine.attach(tmp_path / "A.vmcore") as other:
        assert other.mm.guard_minorder == 2
        assert other.page_owner() == text
        assert other.alloc_pages(GFP_KERNEL, 0) == following


def test_names_that_do_not_fit_are_numbers() -> None:
    with boot(page_owner=True) as machine:
        callers = machine.mm.aids.owner.callers
        machine.kernel.set_var("caller_symbols_len", 1 << 18)
        known = callers.address("module", "name", 8)
        assert callers.symbol(known + 4) == "name+0x4/0x8 [module]"
        machine.kernel.set_var("caller_symbols_len", (1 << 32) - 1)
        fresh = type(callers)(machine.kernel)
        assert fresh.symbol(known + 4) == f"{known + 4:#x}"


# -- a flat memory map ------------------------------------------------------------


def flat(size: str = "33M", kernel: str = "smp-flatmem", **options: Any) -> Machine:
    return Machine.boot(size, kernel=CONFIGS[kernel], debug=Debug(**options))


@pytest.mark.parametrize("kernel", ["smp-flatmem", "up-flatmem"])
def test_one_array_for_the_node(kernel: str) -> None:
    """alloc_node_page_ext: from memblock, above 16 MiB, from the block on that the node begins in, and to its end's."""
    with flat(kernel=kernel, page_owner=True) as machine:
        ext = machine.mm.aids.ext
        at = machine.kernel.get(machine.kernel.node_data(0), "pglist_data.node_page_ext")
        phys = machine.dump.virt_to_phys(at)
        assert phys >= 16 << 20
        assert phys % 4096 == 0
        # From PFN 1 to 8448, and 1024 more, for neither is at the border of a block.
        assert f"allocated {88 * (8447 + 1024)} bytes of page_ext" in machine.dmesg()
        assert [ext.lookup(pfn) for pfn in (0, 1, 8447)] == [phys, phys + 88, phys + 88 * 8447]
        pages, _ = machine.dump.pages(phys >> 12, (phys >> 12) + 1, ["flags"])
        assert int(pages["flags"][0]) >> 10 & 1, "reserved"


def test_flat_aids_begin_before_any_page_is_free() -> None:
    """page_ext_init_flatmem is called before mem_init: all pages are reserved, and none was allocated early."""
    with flat(page_owner=True) as machine:
        told = re.findall(r"found early allocated (\d+) pages", machine.dmesg())
        assert told == ["0", "0"]
        lines = machine.console.lines
        assert next(i for i, line in enumerate(lines) if "page_ext" in line) < next(
            i for i, line in enumerate(lines) if line.startswith("Memory: ")
        )
        assert records(machine) == {}
        page = caller_of_the_allocator(machine, GFP_KERNEL, 1)
        record = records(machine)[machine.page_to_pfn(page)]
        assert record[0] == "Page allocated via order 1, mask 0x200d0"
        assert "caller_of_the_allocator+" in record[2]
        machine.free_block(page, 1)
        assert records(machine) == {}


def test_flat_guards_and_hidden_frames() -> None:
    with flat(debug_pagealloc=True, guardpage_minorder=2) as machine:
        mm = machine.mm
        page = machine.alloc_pages(GFP_KERNEL, 0)
        assert page is not None
        buddy = page + 64
        assert mm.aids.ext.test(mm, buddy, mm.aids.ext.guard)
        assert frame_flags(machine, page) == MAPPED
        assert frame_flags(machine, buddy) == HIDDEN
        machine.free_block(page)
        machine.drain_all_pages()
        assert not mm.aids.ext.test(mm, buddy, mm.aids.ext.guard)
        with pytest.raises(PageFault):
            machine.read(machine.page_address(page))
        assert not check(machine.dump).findings


def test_flat_poison(tmp_path: Path) -> None:
    """Pages are poisoned as they become free for the first time, too."""
    with flat(page_poisoning=True) as machine:
        page = machine.alloc_pages(GFP_KERNEL, 0)
        assert page is not None
        assert machine.read(machine.page_address(page), 4096) == b"\xaa" * 4096
        machine.free_block(page)
        machine.write(machine.page_address(page) + 16, b"too late")
        machine.save(tmp_path / "A.vmcore")
    with Machine.attach(tmp_path / "A.vmcore") as other:
        assert other.alloc_pages(GFP_KERNEL, 0) == page
        assert "pagealloc: memory corruption" in other.dmesg()


def test_a_flat_machine_too_small_for_its_aids() -> None:
    with pytest.raises(UsageError, match="too little memory to boot"):
        Machine.boot("4M", kernel=CONFIGS["smp-flatmem"], debug=Debug(page_owner=True))


# -- both engines -----------------------------------------------------------------

SCRIPT = """
import hashlib, random, sys
from kernelmm import Debug, Machine
from kernelmm.gfp import GFP_KERNEL, GFP_ATOMIC, __GFP_MOVABLE
from physmem.structs.linux_4_0 import CONFIGS
m = Machine.boot("32M", kernel=CONFIGS[sys.argv[2]], debug=Debug(**eval(sys.argv[1])))
rng, held = random.Random(1), []
for _ in range(400):
    if held and rng.random() < 0.45:
        m.free_block(*held.pop(rng.randrange(len(held))))
    else:
        order = rng.choice((0, 0, 0, 1, 2, 3))
        page = m.alloc_pages(rng.choice((GFP_KERNEL, GFP_ATOMIC | __GFP_MOVABLE)), order)
        if page is not None:
            held.append((page, order))
print(hashlib.sha256(b"".join(m.ram.read(a, b - a) for a, b in m.ram.ranges)).hexdigest())
"""


@pytest.mark.parametrize("kernel", ["numa", "smp-flatmem"])
@pytest.mark.parametrize(
    "options",
    [{"debug_pagealloc": True, "guardpage_minorder": 2, "page_owner": True}, {"page_poisoning": True}],
    ids=["guards", "poison"],
)
def test_both_engines_leave_the_same_bytes(
    options: dict[str, Any], kernel: str, project_environment: dict[str, str]
) -> None:
    if engine.why_interpreted() is not None:
        pytest.skip(engine.why_interpreted() or "")
    seen = set()
    for name in engine.ENGINES:
        environment = {**project_environment, "PHYSMEM_ENGINE": name}
        command = [sys.executable, "-c", SCRIPT, repr(options), kernel]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        seen.add(done.stdout)
    assert len(seen) == 1


def test_pages_taken_where_they_lie_are_mapped_again() -> None:
    """map_pages of mm/compaction.c: split_free_page does not map what it takes, its callers do."""
    with Machine.boot("64M", debug=Debug(debug_pagealloc=True)) as machine:
        mm = machine.mm
        start = next(
            pfn for pfn in range(8192, 15000, 1024) if machine.page(machine.pfn_to_page(pfn))._mapcount == -128
        )
        page = machine.pfn_to_page(start)
        assert frame_flags(machine, page) == HIDDEN
        assert contig.alloc_contig_range(mm, start, start + 512, 2) == 0
        assert {frame_flags(machine, page + 64 * i) for i in range(512)} == {MAPPED}
        # What was taken too much has been freed again.
        assert frame_flags(machine, page + 64 * 512) == HIDDEN
        contig.free_contig_range(mm, start, 512)
        assert {frame_flags(machine, page + 64 * i) for i in range(1024)} == {HIDDEN}


def test_what_pages_move_to_is_mapped() -> None:
    """map_pages of isolate_freepages: the free scanner's pages, before anything is copied there."""
    with Machine.boot("64M", debug=Debug(debug_pagealloc=True)) as machine:
        mm = machine.mm
        zone = mmzone.node_data(mm, 0) + mm.pgdat_node_zones + mm.sizeof_zone
        cc = scanners.CompactControl(mm, zone, -1, 0, codes.MIGRATE_SYNC, ignore_skip_hint=True)
        mmzone.set_pageblock_migratetype(mm, cc.end_pfn - 512, 2)
        taken = machine.alloc_page(GFP_KERNEL | __GFP_MOVABLE)
        assert taken is not None
        cc.migrate_pfn, cc.free_pfn, cc.nr_migratepages = cc.start_pfn, cc.end_pfn - 512, 32
        scanners.isolate_freepages(cc)
        pages = list(cc.freepages)
        assert len(pages) >= 32
        assert {frame_flags(machine, page) for page in pages} == {MAPPED}
        scanners.release_freepages(cc)
        assert {frame_flags(machine, page) for page in pages} == {HIDDEN}
