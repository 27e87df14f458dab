# SPDX-License-Identifier: GPL-2.0-only
"""The verbs of ``physmem``: what they print, for people and as JSON, and how they end."""

from __future__ import annotations

import json
import lzma
import re
import shlex

import pytest

from physmem.cli import main
from physmem.dump import open_dump
from physmem.image.write import write_elf
from physmem.inspect.check import RULES
from physmem.inspect.zones import populated_zones
from physmem.ram import Ram
from physmem.ranges import Ranges

VERBS = tuple(main.verbs)
ON_ONE_IMAGE = ("info", "buddyinfo", "pagetypeinfo", "zoneinfo", "meminfo", "vmstat", "check", "layout")


def proc(oracle, case, name, when):
    text = (oracle / case / "proc.txt").read_text()
    part = re.search(rf"^### /proc/{name} \({when}\)\n(.*?)(?=^### |\Z)", text, re.M | re.S)
    return part[1].rstrip("\n") + "\n"


@pytest.fixture
def damaged(oracle, tmp_path):
    """A copy of A in which one link of a free list, and one count, are wrong."""
    with open_dump(oracle / "n128_s1" / "A.vmcore.xz") as dump:
        ram = Ram.from_image(dump.image)
        zone = list(populated_zones(dump))[1]
        head = zone.free_lists[10][2]
        ram.set_u64(dump.virt_to_phys(head.next), 0)
        ram.set_u64(dump.virt_to_phys(zone.free_lists[3][0].address) + 96, 77)
        path = tmp_path / "damaged.vmcore"
        write_elf(path, ram, dump.image.notes)
    return str(path), (head.next - 32 - 0xFFFFEA0000000000) // 64


# -- all of them -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", VERBS)
def test_help_has_an_example_that_works(verb, run, tmp_path):
    shown = run(verb, "--help").stdout
    assert "--json" in shown
    examples = re.findall(r"^    (physmem .*)$", shown, re.M)
    assert examples
    for line in examples:
        _, *args = shlex.split(line)
        for option in {"-o", "--kpageflags", "--kpagecount"} & set(args):
            args[args.index(option) + 1] = str(tmp_path / args[args.index(option) + 1])
        # Linux 4.0 says nothing of where it has its tree of addresses.
        result = run(*args, case="../vmcores/deb612-256m" if verb == "iomem" else "n128_s1")
        assert result.exit_code == (1 if verb == "diff" else 0), result.output
        assert result.stdout
        assert result.stderr == ""


@pytest.mark.parametrize("verb", ON_ONE_IMAGE)
def test_json_is_json(verb, run):
    result = run(verb, "--json", "A.vmcore.xz")
    assert result.exit_code == 0
    assert json.loads(result.stdout)


@pytest.mark.parametrize("verb", [*ON_ONE_IMAGE, "page", "vtop"])
@pytest.mark.parametrize(
    ("image", "reason"),
    [
        ("nothing.vmcore", "nothing.vmcore: cannot be read: No such file or directory"),
        ("script.txt", "script.txt: offset 0x0: not a memory image"),
        (".", ".: cannot be read: Is a directory"),
    ],
)
def test_bad_images(verb, image, reason, run):
    more = {"page": ["pfn:5"], "vtop": ["ffff880005000000"]}.get(verb, [])
    result = run(verb, image, *more)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith(f"physmem: {reason}")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("option", ["--layout", "--symbols"])
def test_bad_layouts_and_symbols(option, run):
    for file in ("nothing.json", "script.txt"):
        result = run("info", "A.vmcore.xz", option, file)
        assert result.exit_code == 2
        assert result.stderr.startswith(f"physmem: {file}: ")


# -- what an image is --------------------------------------------------------------------------------------------------


def test_info(run):
    out = run("info", "A.vmcore.xz", case="n256x2_s6n").stdout
    assert "image:         A.vmcore.xz\nformat:        ELF core (xz)\nkernel:        4.0.0\n" in out
    assert "pages:         65503, of which 64426 are absent from the image\n" in out
    assert "nodes:         0, 1\n" in out
    assert re.search(r"^ +1  DMA32 +32768 +65503 +32736 +32736 +32214 +31524$", out, re.M)
    assert "and 12 more (--json lists all)" in out


def test_info_as_json(run):
    found = json.loads(run("info", "--json", "A.vmcore.xz", case="n256x2_s6n").stdout)
    assert found["bytes"] == sum(int(end, 16) - int(start, 16) for start, end in found["ranges"]) == 4411392
    assert found["cpus"] == [0]
    assert [zone["present"] for zone in found["zones"]] == [3998, 28672, 32736]
    assert found["page_offset"] == "0xffff880000000000"


def test_a_layout_that_is_given_is_used(run, oracle, tmp_path):
    layout = tmp_path / "layout.json"
    layout.write_bytes(lzma.decompress((oracle.parent / "kernels" / "numa" / "layout.json.xz").read_bytes()))
    found = json.loads(run("info", "--json", "A.vmcore.xz", "--layout", str(layout)).stdout)
    assert found["layout"].startswith(str(layout))


# -- the files of /proc ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["n128_s1", "n256x2_s6n", "u128_s3"])
@pytest.mark.parametrize(("image", "when"), [("A", "before A"), ("B", "after B")])
def test_buddyinfo_byte_for_byte(case, image, when, run, oracle):
    assert run("buddyinfo", f"{image}.vmcore.xz", case=case).stdout == proc(oracle, case, "buddyinfo", when)


def test_buddyinfo_as_json(run):
    found = json.loads(run("buddyinfo", "--json", "A.vmcore.xz").stdout)
    assert found[0] == {"node": 0, "zone": "DMA", "free": [2, 1, 2, 2, 1, 2, 1, 2, 1, 2, 2]}


def test_pagetypeinfo(run, oracle):
    mine = run("pagetypeinfo", "A.vmcore.xz", case="n256x2_s6n").stdout.splitlines()
    theirs = proc(oracle, "n256x2_s6n", "pagetypeinfo", "before A").splitlines()
    assert len(mine) == len(theirs)
    assert sum(a != b for a, b in zip(mine, theirs, strict=True)) == 2
    found = json.loads(run("pagetypeinfo", "--json", "A.vmcore.xz").stdout)
    assert found["zones"][1]["pageblocks"]["Movable"] == 49
    assert found["zones"][1]["free"]["Movable"][10] == 20


def test_pagetypeinfo_of_a_corrupt_list(run, damaged):
    path, _ = damaged
    result = run("pagetypeinfo", path)
    assert result.exit_code == 1
    assert "Page block order: 9" in result.stdout
    assert result.stderr == (
        "physmem: node 0 zone DMA32 order 10 Movable: page's next is 0x0, which is no entry of a list\n"
    )


def test_zoneinfo(run):
    out = run("zoneinfo", "A.vmcore.xz").stdout
    assert out.startswith("Node 0, zone      DMA\n  pages free     3756\n        min      45\n")
    assert "        protection: (0, 105, 105, 105)\n  pagesets\n    cpu: 0\n              count: 0\n" in out
    (dma, dma32) = json.loads(run("zoneinfo", "--json", "A.vmcore.xz").stdout)
    assert (dma["watermark"], dma32["pagesets"][0]["count"]) == ({"min": 45, "low": 56, "high": 67}, 40)
    assert (dma["all_unreclaimable"], dma32["stat"]["nr_free_pages"]) == (None, 24443)


# -- pages and addresses -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["pfn:20480", "pfn:0x5000", "phys:5000000", "ffffea0000140000", "ffff880005000000"])
def test_page(what, run):
    out = run("page", "A.vmcore.xz", what).stdout
    assert out.startswith("pfn:         20480 (0x5000)\n")
    assert "state:       free: head of a block of order 10 (1024 pages), entry " in out
    assert "  flags:     0x1ffe00000000000 ()\n" in out
    assert "  _mapcount: -128\n" in out
    found = json.loads(run("page", "--json", "A.vmcore.xz", what).stdout)
    assert (found["pfn"], found["state"], found["order"], found["head"]) == (20480, "free", 10, 20480)
    assert found["list"] == {"order": 10, "migratetype": 2, "cpu": None}
    assert found["fields"]["_mapcount"] == -128
    assert found["fields"]["lru.next"].startswith("0xffffea")


def test_page_that_is_reserved(run):
    out = run("page", "A.vmcore.xz", "ffffffff81000123").stdout
    assert "asked:       kernel image 0xffffffff81000123, 0x123 bytes in\n" in out
    assert "  flags:     0x1ffe00000000400 (reserved)\n" in out


def test_page_that_is_none(run):
    result = run("page", "A.vmcore.xz", "pfn:100000")
    assert result.exit_code == 0
    assert "state:       no page: there is no struct page for this PFN\n" in result.stdout
    assert json.loads(run("page", "--json", "A.vmcore.xz", "pfn:100000").stdout)["fields"] == {}


@pytest.mark.parametrize("what", ["zzz", "pfn:1.5", "12345678901234567", "pfn:99999999999999", "5000"])
def test_page_of_nonsense(what, run):
    result = run("page", "A.vmcore.xz", what)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("physmem: ")


def test_vtop(run):
    out = run("vtop", "A.vmcore.xz", "0xffff880005000123").stdout.splitlines()
    assert out[0] == "ffff880005000123"
    assert [line.split()[0] for line in out[1:5]] == ["level", "PGD", "PUD", "PMD"]
    assert re.search(r"PMD +0x[0-9a-f]+ +40 +0x[0-9a-f]+ +80000000050001e3 +page of 2 MiB +PRESENT\|RW", out[4])
    assert out[5:] == [
        "page tables:  physical 0x5000123",
        "direct map:   physical 0x5000123",
        "pfn:          20480 (0x5000), absent from the image",
        "struct page:  ffffea0000140000",
    ]


def test_vtop_as_json(run):
    found = json.loads(run("vtop", "--json", "A.vmcore.xz", "ffffffff8133ab00").stdout)
    assert [step["level"] for step in found["steps"]] == ["PGD", "PUD", "PMD", "PTE"]
    assert found["region"] == "kernel image"
    assert found["phys"] == found["by_region"] == "0x133ab00"
    assert (found["pfn"], found["present"], found["page_size"]) == (0x133A, True, 4096)


def test_vtop_of_what_is_not_mapped(run):
    result = run("vtop", "A.vmcore.xz", "ffffe00000000000")
    assert result.exit_code == 2
    assert "PGD" in result.stdout
    assert result.stderr == "physmem: address 0xffffe00000000000: the PGD entry is not present\n"
    result = run("vtop", "A.vmcore.xz", "4000000000000000")
    assert (result.exit_code, result.stdout) == (2, "")
    result = run("vtop", "A.vmcore.xz", "hello")
    assert result.stderr == "physmem: 'hello': not an address: expected up to 16 hexadecimal digits\n"


# -- check and diff ----------------------------------------------------------------------------------------------------


def test_check_of_a_healthy_image(run):
    result = run("check", "A.vmcore.xz")
    assert (result.exit_code, result.stdout) == (0, f"clean: nothing found by {len(RULES) - 1} rules\n")
    found = json.loads(run("check", "--json", "A.vmcore.xz").stdout)
    assert found.pop("not_applicable").keys() == {"block_ram"}
    checked = [rule for rule in RULES if rule != "block_ram"]
    assert found == {"clean": True, "findings": [], "counts": {}, "checked": checked, "not_checked": {}}


def test_check_of_a_damaged_image(run, damaged):
    path, pfn = damaged
    result = run("check", path)
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["pfn", "rule", "detail"]
    assert lines[1].split()[:2] == [str(pfn), "list_link"]
    assert lines[2].split()[:2] == ["-", "nr_free"]
    assert lines[-1] == f"2 found by {len(RULES) - 1} rules"
    found = json.loads(run("check", "--json", path).stdout)
    assert [(each["rule"], each["pfn"]) for each in found["findings"]] == [("list_link", pfn), ("nr_free", None)]
    assert found["counts"] == {"list_link": 1, "nr_free": 1}


def test_check_says_what_it_could_not_check(run, oracle, tmp_path):
    """An image without the page that has the pageblock flags, as a dump tool may have left it out."""
    with open_dump(oracle / "n128_s1" / "A.vmcore.xz") as dump:
        ram = Ram.from_image(dump.image)
        root = dump.u64(dump.symbols["mem_section"])
        page = dump.virt_to_phys(dump.field(root, "mem_section", "pageblock_flags")) & -4096
        ram.ranges = ram.ranges.difference(Ranges([(page, page + 4096)]))
        write_elf(tmp_path / "A", ram, dump.image.notes)
    result = run("check", str(tmp_path / "A"))
    assert result.exit_code == 0
    assert "not checked: nr_isolate_pageblock, pageblock_type, cma_list, isolate_list: the flags of 64" in result.stdout
    assert result.stdout.endswith(f"\nnothing found by {len(RULES) - 5} of {len(RULES) - 1} rules\n")


def test_check_lists_its_rules(run):
    lines = run("check", "--rules").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["rule", *RULES]


def test_diff_of_two_images(run):
    result = run("diff", "A.vmcore.xz", "B.vmcore.xz")
    assert result.exit_code == 1
    for line in (
        "  free_area[0].nr_free             7 -> 2",
        "  lock                             0x6161 -> 0xc3c3",
        "  vm_stat[NR_ALLOC_BATCH]          -2 -> 11",
        "  pfn 25600      Movable -> Unmovable",
        "pages: 462 changed",
        "  free -> in use                   372",
    ):
        assert line in result.stdout.splitlines()
    assert "no difference" not in result.stdout


def test_diff_lists_pages(run):
    short = run("diff", "A.vmcore.xz", "B.vmcore.xz").stdout
    long = run("diff", "--pages", "A.vmcore.xz", "B.vmcore.xz").stdout
    assert "links of lists" in short
    assert "links of lists" not in long
    assert "free_area[0].free_list[Movable].next" in long
    assert re.search(r"^ +340  free +in use +_mapcount -128 -> -1, _count 0 -> 1, lru.next 0x", long, re.M)


def test_diff_as_json(run):
    found = json.loads(run("diff", "--json", "A.vmcore.xz", "B.vmcore.xz").stdout)
    assert found["differ"]
    assert found["pages"]["changed"] == len(found["pages"]["listed"]) == 462
    assert found["pages"]["transitions"][0] == {"old": "free", "new": "in use", "pages": 372}
    assert {"pfn": 25600, "old": "Movable", "new": "Unmovable"} in found["pageblocks"]


def test_diff_of_equal_images(run):
    result = run("diff", "A.vmcore.xz", "A.vmcore.xz")
    assert (result.exit_code, result.stdout) == (0, "no difference\n")
    assert not json.loads(run("diff", "--json", "A.vmcore.xz", "A.vmcore.xz").stdout)["differ"]


def test_diff_of_different_kernels(run):
    result = run("diff", "A.vmcore.xz", "../u128_s1/A.vmcore.xz")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "not of the same kernel as A.vmcore.xz" in result.stderr


def test_diff_names_memory_of_one_image_only(run, oracle, tmp_path):
    with open_dump(oracle / "n128_s1" / "A.vmcore.xz") as dump:
        ram = Ram.from_image(dump.image)
        page = dump.virt_to_phys(dump.symbols["vm_stat"]) & -4096
        ram.ranges = ram.ranges.difference(Ranges([(page, page + 4096)]))
        write_elf(tmp_path / "A", ram, dump.image.notes)
    result = run("diff", "A.vmcore.xz", str(tmp_path / "A"))
    assert result.exit_code == 0
    assert result.stdout == (
        f"only in the first image: 1 pages, {page:#x}-{page + 4095:#x}\n"
        "not compared: vm_stat: physical 0x12f2180: absent from the image (312 bytes were asked for)\n"
        "no difference\n"
    )


# -- layout ------------------------------------------------------------------------------------------------------------


def test_layout_writes_what_layout_and_symbols_read(run, tmp_path):
    path = tmp_path / "layout.json"
    result = run("layout", "A.vmcore.xz", "-o", str(path))
    assert result.exit_code == 0
    assert re.fullmatch(r".*layout\.json: \d+ structs, \d+ enums, \d+ constants, \d+ symbols\n", result.stdout)
    written = json.loads(path.read_text())
    assert written["addresses"]["node_data"] == "0xffffffff8133ab00"
    plain = run("buddyinfo", "A.vmcore.xz").stdout
    assert run("buddyinfo", "A.vmcore.xz", "--layout", str(path), "--symbols", str(path)).stdout == plain
    found = json.loads(run("info", "--json", "A.vmcore.xz", "--layout", str(path), "--symbols", str(path)).stdout)
    assert found["symbols"].endswith(str(path))


def test_layout_to_standard_output_or_as_a_summary(run, tmp_path):
    assert json.loads(run("layout", "A.vmcore.xz").stdout)["structs"]["page"]["size"] == 64
    result = run("layout", "--json", "A.vmcore.xz", "-o", str(tmp_path / "x"))
    assert json.loads(result.stdout)["structs"] >= 20


def test_layout_that_cannot_be_written(run, tmp_path):
    result = run("layout", "A.vmcore.xz", "-o", str(tmp_path / "no" / "x"))
    assert result.exit_code == 2
    assert "cannot be written" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_vtop_explain(run):
    result = run("vtop", "A.vmcore.xz", "ffff880005000123", "--explain")
    assert result.exit_code == 0
    for part in ("by subtraction", "both agree", "SPARSEMEM_VMEMMAP *", "zone = flags >> 56 & 0x3 = 1: DMA32"):
        assert part in result.stdout
    told = json.loads(run("vtop", "--json", "--explain", "A.vmcore.xz", "ffff880005000123").stdout)
    assert told["frame"]["pfn"] == 20480
    assert [level["names"] for level in told["walk"]][-1] == ["P", "RW", "A", "D", "PSE", "G", "NX"]


@pytest.mark.parametrize("va", ["7fff12345678", "ffff080000000000", "0"])
def test_vtop_explains_what_leads_nowhere(run, va):
    result = run("vtop", "A.vmcore.xz", va, "--explain")
    assert (result.exit_code, result.stderr) == (1, "")
    assert "It leads nowhere" in result.stdout
    assert run("vtop", "A.vmcore.xz", "not-hex", "--explain").exit_code == 2
