# SPDX-License-Identifier: GPL-2.0-only
"""Programs with debug information: what gcc says of structs is what is read, and what is no such program is refused."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from physmem.cli import main
from physmem.dump import open_dump
from physmem.errors import LayoutError, PhysmemError, SymbolError, UnsupportedError
from physmem.image import VmcoreInfo
from physmem.structs.field import Field
from physmem.structs.layout import Layout
from physmem.symbols import Symbols, in_image, moved, moved_by
from physmem.vmlinux import Vmlinux, is_vmlinux

pytest.importorskip("elftools", reason="pyelftools is not installed")

DATA = Path(__file__).parents[1] / "data"

_SOURCE = r"""
#include <stddef.h>
#include <stdio.h>
typedef _Bool bool;
typedef struct { int counter; } atomic_t;
typedef struct { unsigned long f; } memdesc_flags_t;
typedef struct { unsigned long bits[2]; } nodemask_t;
struct list_head { struct list_head *next, *prev; };
enum zone_type { ZONE_DMA, ZONE_NORMAL = 2, __MAX_NR_ZONES };
enum { MINUS = -2, SECTION_BIT = 7 };
struct address_space;
struct page {
	memdesc_flags_t flags;
	union {
		struct { union { struct list_head lru; void *__filler; }; struct address_space *mapping; };
		struct { unsigned long compound_head; unsigned char order; atomic_t mapcount; };
	};
	union {
		unsigned long counters;
		struct { unsigned inuse:16; unsigned objects:15; unsigned frozen:1; };
	};
	atomic_t _refcount;
	signed char diff;
	bool valid;
	const volatile unsigned short kept;
	int (*call)(void *, const char *, ...);
} __attribute__((aligned(64)));
struct zone {
	const char *name;
	unsigned int grid[2][3];
	struct { struct list_head free_list[4]; unsigned long nr_free; } free_area[11];
	enum zone_type type;
	struct pglist_data *zone_pgdat;
	nodemask_t mask;
	long low:3, high:40;
	unsigned long tail[];
};
struct page a_page;
struct zone a_zone;
int minus = MINUS, bit = SECTION_BIT;
int main(void) {
"""
_FIELDS = {
    "page": [
        *("flags", "lru", "lru.next", "lru.prev", "__filler", "mapping", "compound_head", "order", "mapcount"),
        *("mapcount.counter", "counters", "_refcount", "diff", "valid", "kept", "call"),
    ],
    "zone": ["name", "grid", "free_area", "type", "zone_pgdat", "mask", "mask.bits"],
}


@pytest.fixture(scope="module", params=["-gdwarf-4", "-gdwarf-5", "-gdwarf-5 -gz=zlib", "-gdwarf-2 -gstrict-dwarf"])
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program that prints its own offsets, with debug information of one kind."""
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("gcc is not installed")
    folder = tmp_path_factory.mktemp("vmlinux")
    lines = [
        f'printf("{tag}.{name} %zu %zu\\n", offsetof(struct {tag}, {name}), sizeof(((struct {tag} *)0)->{name}));'
        for tag, names in _FIELDS.items()
        for name in names
    ]
    lines += [f'printf("{tag} %zu\\n", sizeof(struct {tag}));' for tag in _FIELDS]
    (folder / "layout.c").write_text(_SOURCE + "\n".join(lines) + "return 0; }\n")
    flags = request.param.split()
    subprocess.run([compiler, *flags, "-O0", "-o", "vmlinux", "layout.c"], cwd=folder, check=True)
    return folder / "vmlinux"


def test_offsets_are_the_compilers(program: Path) -> None:
    layout = Vmlinux(program).layout
    told = subprocess.run([program], capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(told) == sum(map(len, _FIELDS.values())) + len(_FIELDS)
    for line in told:
        what, *numbers = line.split()
        tag, _, name = what.partition(".")
        if name:
            assert [layout.offsetof(tag, name), layout.sizeof(tag, name)] == [int(n) for n in numbers], what
        else:
            assert layout.sizeof(tag) == int(numbers[0])


def test_fields_are_named_and_typed_as_btf_has_them(program: Path) -> None:
    layout = Vmlinux(program).layout
    page, zone = layout.struct("page").fields, layout.struct("zone").fields
    assert list(page)[:5] == ["flags", "flags.f", "lru", "lru.next", "lru.prev"]
    assert page["flags"] == Field("flags", 0, 8, "memdesc_flags_t", "int", False)
    assert page["lru.prev"] == Field("lru.prev", 16, 8, "struct list_head *", "ptr", target="struct list_head")
    assert page["mapping"].target == "struct address_space"
    assert page["_refcount"].type == "atomic_t"
    assert page["diff"].signed is True
    assert page["valid"].kind == "bool"
    assert page["kept"].type in ("const volatile unsigned short", "volatile const unsigned short")
    assert page["call"].type == "int (*)(void *, const char *, ...)"
    assert zone["grid"].dims == (2, 3)
    assert zone["free_area"].dims == (11,)
    assert zone["tail"].dims == (0,)
    assert zone["type"] == Field("type", zone["type"].offset, 4, "enum zone_type", "enum")


def test_bitfields_are_where_the_compiler_puts_them(program: Path) -> None:
    layout = Vmlinux(program).layout
    counters = layout.offsetof("page", "counters")
    found = [layout.field("page", name) for name in ("inuse", "objects", "frozen")]
    assert [(f.bit_offset, f.bit_size) for f in found] == [
        (8 * counters, 16),
        (8 * counters + 16, 15),
        (8 * counters + 31, 1),
    ]
    low, high = layout.field("zone", "low"), layout.field("zone", "high")
    assert (low.bit_size, high.bit_size, high.bit_offset) == (3, 40, low.bit_offset + 3)


def test_enums_constants_and_what_is_not_there(program: Path) -> None:
    layout = Vmlinux(program).layout
    assert layout.enum("zone_type") == {"ZONE_DMA": 0, "ZONE_NORMAL": 2, "__MAX_NR_ZONES": 3}
    assert (layout.constant("SECTION_BIT"), layout.constant("MINUS", signed=True)) == (7, -2)
    assert layout.has("nodemask_t", "bits")  # a struct by the name of its typedef
    assert {"page", "zone", "list_head"} <= set(layout.structs)
    assert not layout.has("address_space")  # declared, and no more
    with pytest.raises(LayoutError, match=r"vmlinux: no struct 'folio'"):
        layout.struct("folio")


def test_symbols_are_those_of_nm(program: Path) -> None:
    symbols = Vmlinux(program).symbols
    told = subprocess.run(["nm", "--defined-only", program], capture_output=True, text=True, check=True).stdout
    of_nm = {name: int(address, 16) for address, _, name in map(str.split, told.splitlines())}
    assert of_nm["a_page"] == symbols["a_page"]
    assert {name: symbols[name] for name in of_nm} == of_nm
    assert set(of_nm) <= set(symbols)
    assert symbols.find("page") is None  # the end of a name is no name
    build_id = subprocess.run(["readelf", "-n", program], capture_output=True, text=True, check=True).stdout
    match = re.search(r"Build ID: (\w+)", build_id)
    assert match is None or match[1] == Vmlinux(program).build_id


def test_layout_of_a_vmlinux_is_written(program: Path, tmp_path: Path) -> None:
    path = tmp_path / "layout.json"
    result = CliRunner().invoke(main, ["layout", str(program), "-o", str(path)])
    assert (result.exit_code, result.stdout) == (0, f"{path}: 3 structs, 1 enums, 0 constants, 2 symbols\n")
    assert Layout.from_json(path).offsetof("page", "_refcount") == Vmlinux(program).layout.offsetof("page", "_refcount")
    assert Symbols.from_json(path)["_edata"] == Vmlinux(program).symbols["_edata"]


def test_damaged_programs_are_read_or_refused(program: Path, tmp_path: Path) -> None:
    good = program.read_bytes()
    damaged = tmp_path / "damaged"

    @settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.lists(st.tuples(st.integers(0, len(good) - 1), st.binary(min_size=1, max_size=8)), max_size=30))
    def attempt(changes: list[tuple[int, bytes]]) -> None:
        data = bytearray(good)
        for at, new in changes:
            data[at : at + len(new)] = new
        damaged.unlink(missing_ok=True)  # the old one may still be mapped
        damaged.write_bytes(data[: len(good)])
        try:
            found = Vmlinux(damaged)
            for tag in ("page", "zone", "no_such"):
                _ = found.layout.structs.get(tag)
            _ = found.layout.enums.get("zone_type"), found.symbols.find("main"), found.build_id
        except PhysmemError as error:
            assert len(str(error).splitlines()) == 1

    attempt()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "no ELF program"),
        (b"\x7fELF\x02\x01" + bytes(10) + b"\x02\0" + bytes(8), "not understood as ELF|only x86-64"),
        (b"MZ" + bytes(200), "no ELF program of 64 bits"),
    ],
)
def test_what_is_no_vmlinux_is_refused(tmp_path: Path, data: bytes, reason: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    with pytest.raises(LayoutError, match=reason):
        Vmlinux(path)
    assert not is_vmlinux(tmp_path)


def test_no_debug_information_no_symbols(program: Path, tmp_path: Path) -> None:
    stripped = tmp_path / "stripped"
    subprocess.run(["strip", "-o", stripped, program], check=True)
    with pytest.raises(LayoutError, match="neither DWARF nor BTF"):
        _ = Vmlinux(stripped).layout
    with pytest.raises(SymbolError, match="no symbols"):
        _ = Vmlinux(stripped).symbols
    with pytest.raises(LayoutError, match="No such file"):
        Vmlinux(tmp_path / "none")


def test_without_pyelftools_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, program: Path) -> None:
    monkeypatch.setitem(sys.modules, "elftools.elf.elffile", None)
    with pytest.raises(UnsupportedError, match=r"pip install 'physmem\[dwarf\]'"):
        Vmlinux(program)


# -- moved kernels ---------------------------------------------------------------------------------

_LINKED = {"_stext": 0xFFFFFFFF81000000, "node_data": 0xFFFFFFFF82800000, "boot_pageset": 0x2E300}


def test_a_kernel_that_kaslr_moved() -> None:
    info = VmcoreInfo({"SYMBOL(_stext)": "ffffffff9a400000"})
    by = moved_by(info, _LINKED, "vmlinux")
    assert by == 0x19400000
    assert moved(_LINKED, by) == {
        "_stext": 0xFFFFFFFF9A400000,
        "node_data": 0xFFFFFFFF9BC00000,
        "boot_pageset": 0x2E300,
    }
    assert in_image(0xFFFFFFFF80000000)
    assert not in_image(0xFFFF888000000000)
    assert moved_by(VmcoreInfo({}), _LINKED, "vmlinux") == 0
    with pytest.raises(SymbolError, match="vmlinux: another kernel's: _stext is 0x1000 bytes from"):
        moved_by(VmcoreInfo({"SYMBOL(_stext)": "ffffffff81001000"}), _LINKED, "vmlinux")


def test_another_kernels_vmlinux_is_refused(program: Path) -> None:
    image = DATA / "vmcores" / "deb61-256m" / "image.vmcore.xz"
    with pytest.raises(LayoutError, match="another kernel: its build ID is"):
        open_dump(image, vmlinux=program)
