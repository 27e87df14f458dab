# SPDX-License-Identifier: GPL-2.0-only
"""Small valid inputs of every kind, for mutation to begin with."""

from __future__ import annotations

import gzip
import importlib.util
import json
import lzma
import shutil
import struct
import subprocess
import sys
import tempfile
import zlib
from functools import cache
from pathlib import Path
from types import ModuleType

import cramjam
import zstandard
from lzallright import LZOCompressor

from physmem.image import elf_format as elf
from physmem.image import notes
from physmem.image.notes import Note

__all__ = [
    "BASE",
    "avml",
    "btf",
    "elf_core",
    "flattened",
    "kallsyms",
    "kdump",
    "large_kdump",
    "layout_json",
    "lime",
    "packed",
    "some_notes",
    "tables",
    "vmlinux",
]

ROOT = Path(__file__).resolve().parents[2]
PAGE = 4096
#: Bytes of a bitmap's piece where there shall be several of a small file's.
SMALL_PIECE = 4096
#: Kernel address of the image of :func:`kallsyms`.
BASE = 0xFFFFFFFF81000000

INFO = (
    b"OSRELEASE=6.1.0\nPAGESIZE=4096\nSYMBOL(init_uts_ns)=ffffffff81001000\nSYMBOL(swapper_pg_dir)=ffffffff81002000\n"
    b"OFFSET(page.flags)=0\nOFFSET(page._mapcount)=48\nSIZE(page)=64\nSIZE(list_head)=16\nOFFSET(list_head.next)=0\n"
    b"LENGTH(zone.free_area)=11\nSIZE(free_area)=104\nOFFSET(zone.free_area)=192\nSIZE(zone)=1664\nNUMBER(PG_lru)=4\n"
    b"LENGTH(free_area.free_list)=6\nOFFSET(free_area.free_list)=0\nNUMBER(phys_base)=-268435456\n"
    b"NUMBER(VMALLOC_START)=0xffffa48000000000\nSYMBOL(_stext)=ffffffff81000000\nKERNELOFFSET=0\n"
    b"NUMBER(KERNEL_IMAGE_SIZE)=1073741824\nNUMBER(pgtable_l5_enabled)=0\nNUMBER(sme_mask)=0\n"
)


@cache
def makers() -> ModuleType:
    """The makers that the tests have."""
    path = ROOT / "tests" / "physmem" / "makers.py"
    spec = importlib.util.spec_from_file_location("physmem_makers", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


SYMBOLS = b'{"addresses": {"mem_section": "0xffffffff81e00000", "zone": 4096, "x": "ff"}, "note": [1, null, "a"]}'


def some_notes() -> bytes:
    """The notes of a CPU and of the kernel."""
    return notes.encode([Note("CORE", 1, bytes(336)), notes.vmcoreinfo_note(INFO)])


def elf_core() -> list[bytes]:
    """ELF cores: two segments and notes; many segments in extended numbering; overlaps."""
    text = some_notes()
    data = bytes(range(256)) * 16

    def core(loads: list[tuple[int, int, int]], *, extended: bool = False) -> bytes:
        count = len(loads) + 1
        at = elf.EHDR.size + (elf.SHDR.size if extended else 0)
        body = at + count * elf.PHDR.size
        ident = elf.MAGIC + bytes([elf.ELFCLASS64, elf.ELFDATA2LSB, elf.EV_CURRENT]) + bytes(9)
        shoff, shentsize = (elf.EHDR.size, elf.SHDR.size) if extended else (0, 0)
        number = elf.PN_XNUM if extended else count
        out = elf.EHDR.pack(
            ident, elf.ET_CORE, elf.EM_X86_64, 1, 0, at, shoff, 0, 64, elf.PHDR.size, number, shentsize, 0, 0
        )
        if extended:
            out += elf.SHDR.pack(0, 0, 0, 0, 0, 0, 0, count, 0, 0)
        out += elf.PHDR.pack(elf.PT_NOTE, 0, body, 0, 0, len(text), len(text), 0)
        for paddr, filesz, memsz in loads:
            out += elf.PHDR.pack(elf.PT_LOAD, 7, body + len(text), 0, paddr, filesz, memsz, 0)
        return bytes(out + text + data)

    return [
        core([(0x1000, PAGE, PAGE), (0x100000, 0x800, PAGE)]),
        core([(n << 12, PAGE, PAGE) for n in range(40)], extended=True),
        core([(0, PAGE, PAGE), (0, PAGE, PAGE), (0x800, 0x800, 0x800)]),
    ]


def kdump() -> list[bytes]:
    """kdump files of every version and compression, split, incomplete, as diskdump."""
    make = makers().make_kdump
    pages = {n: (bytes([n]) * 8 + bytes(8)) * 256 for n in (1, 2, 5)} | {6: bytes(PAGE)}
    lzo = LZOCompressor()
    compressors = (
        lambda page: (0, page),
        lambda page: (1, zlib.compress(page)),
        lambda page: (2, lzo.compress(page)),
        lambda page: (4, bytes(cramjam.snappy.compress_raw(page))),
        lambda page: (32, zstandard.ZstdCompressor().compress(page)),
    )
    found = [make(pages, 64, version=version, vmcoreinfo=INFO, notes=some_notes()) for version in range(7)]
    found += [make(pages, 64, compress=each) for each in compressors]
    found += [make(pages, 64, signature=b"DISKDUMP"), make(pages, 64, split=(2, 6)), make(pages, 64, one_bitmap=True)]
    found += [make(pages, 64, status=8, missing=[5])]
    return [bytes(each) for each in found]


@cache
def large_kdump() -> bytes:
    """A kdump file of which little is there: pages at the borders of small pieces and of blocks of its bitmaps."""
    piece, block = 8 * SMALL_PIECE, 8 << 9
    end = 5 * piece + 100
    edges = [at + by for at in (block, 3 * block, piece, 2 * piece, 4 * piece) for by in (-2, -1, 0, 1)]
    zeros = [*range(5 * block - 3, 5 * block + 130), *range(2 * piece + block, 2 * piece + 3 * block), end - 1]
    pages = {pfn: bytes(PAGE) for pfn in zeros} | {pfn: pfn.to_bytes(8, "little") * 512 for pfn in edges}
    return bytes(makers().make_kdump(pages, end, vmcoreinfo=INFO, notes=some_notes()))


def flattened() -> list[bytes]:
    """The flattened form of a kdump file and of an ELF core, in order and with records that overlap."""
    found = []
    for data in (kdump()[6], elf_core()[0]):
        half = len(data) // 2
        found.append(makers().flatten(data, [(0, len(data))]))
        found.append(makers().flatten(data, [(half, len(data)), (0, half + 100), (10, 50), (0, 24)]))
    return found


def lime() -> list[bytes]:
    """LiME: two ranges."""
    head = struct.Struct("<4sIQQ8x")
    page = bytes(range(256)) * 16
    return [head.pack(b"EMiL", 1, 0x1000, 0x1FFF) + page + head.pack(b"EMiL", 1, 0x100000, 0x100FFF) + page]


def avml() -> list[bytes]:
    """AVML: two ranges of snappy frames."""
    head = struct.Struct("<4sIQQ8x")
    out = b""
    for start, size in ((0x1000, 3 * PAGE), (0x100000, 70000)):
        frames = bytes(cramjam.snappy.compress((bytes(range(256)) * 300)[:size]))
        out += head.pack(b"AVML", 2, start, start + size - 1) + frames + struct.pack("<Q", len(frames))
    return [out]


def packed(data: bytes) -> list[bytes]:
    """The data in every compression, once and in two streams."""
    half = len(data) // 2
    found = []
    for pack in (gzip.compress, lzma.compress, zstandard.ZstdCompressor().compress):
        found += [pack(data), pack(data[:half]) + pack(data[half:])]
    return found


def btf() -> list[bytes]:
    """BTF with every kind of type, with and without the sizes of its records."""
    m = makers()
    maker = m.BtfMaker()
    word = maker.integer("unsigned long", 8)
    signed = maker.integer("int", 4, signed=True)
    counter = maker.aggregate("", 4, [("counter", signed, 0, 0)])
    atomic = maker.add(m.TYPEDEF, "atomic_t", counter)
    head = maker.add(m.FWD, "list_head")
    pointer = maker.add(m.PTR, "", head)
    links = maker.aggregate("list_head", 16, [("next", pointer, 0, 0), ("prev", pointer, 64, 0)])
    kinds = maker.enum("migratetype", {"MIGRATE_UNMOVABLE": 0, "MIGRATE_TYPES": 6})
    maker.enum("wide", {"A": 1 << 40, "B": -1}, wide=True, signed=True)
    lists = maker.array(links, 6)
    area = maker.aggregate("free_area", 104, [("free_list", lists, 0, 0), ("nr_free", word, 768, 0)])
    both = maker.aggregate("", 16, [("lru", links, 0, 0), ("private", word, 0, 0)], m.UNION)
    maker.aggregate("page", 64, [("flags", word, 0, 0), ("", both, 64, 0), ("_refcount", atomic, 416, 0)])
    maker.aggregate("zone", 1664, [("free_area", maker.array(area, 11), 1536, 0), ("kind", kinds, 0, 0)])
    maker.aggregate("flags", 4, [("a", signed, 0, 3), ("b", signed, 3, 5)])
    proto = maker.function(signed, [word, 0])
    maker.add(m.FUNC, "kmalloc", proto, 1)
    maker.add(m.CONST, "", maker.add(m.VOLATILE, "", maker.add(m.RESTRICT, "", pointer)))
    maker.add(m.VAR, "jiffies", word, words=[1])
    maker.add(m.DATASEC, ".data", 8, 1, words=[1, 0, 8])
    maker.add(m.FLOAT, "double", 8)
    maker.add(m.DECL_TAG, "tag", links, words=[0])
    maker.add(m.TYPE_TAG, "user", word)
    fixed = {m.INT: 4, m.ARRAY: 12, m.VAR: 4, m.DECL_TAG: 4}
    element = {m.STRUCT: 12, m.UNION: 12, m.ENUM: 8, m.FUNC_PROTO: 8, m.DATASEC: 12, m.ENUM64: 12}
    sizes = [(fixed.get(kind, 0), element.get(kind, 0)) for kind in range(20)]
    return [maker.data(), maker.data(sizes)]


def kallsyms() -> list[bytes]:
    """The tables of kallsyms in a kernel's image, in every style; in front, where VMCOREINFO says that they are."""
    symbols = [("T_stext", BASE), *((f"tsched_the_{n}", BASE + 16 * n) for n in range(300)), ("Dprb", BASE + 0x4000)]
    found = []
    for style in ("percpu", "relative", "place", "wide"):
        made = makers().make_kallsyms(symbols, BASE, BASE, style)
        names = ("num_syms", "names", "token_table", "token_index", "offsets", "relative_base")
        found.append(struct.pack("<6I", *(made.places.get(name, 0) for name in names)) + made.data)
    return found


def layout_json() -> list[bytes]:
    """A layout.json with every kind of field."""
    word = {"type": "unsigned long", "size": 8, "kind": "int", "signed": False}
    links = {"type": "struct list_head", "size": 16, "kind": "struct", "tag": "list_head"}
    plain = {"bitfield": False, "bit_size": 64}
    fields = [
        {"name": "flags", "offset": 0, "bit_offset": 0, **plain, **word},
        {"name": "lru", "offset": 8, "bit_offset": 64, **plain, "bit_size": 128, **links},
        {"name": "mapping", "offset": 24, "bit_offset": 192, **plain, "type": "struct x *", "size": 8, "kind": "ptr"},
        {
            "name": "list",
            "offset": 32,
            "bit_offset": 256,
            **plain,
            "bit_size": 256,
            "type": "struct list_head[2]",
            "size": 32,
            "array": 2,
            "elem": links,
        },
    ]
    fields[2]["target"] = "struct x"
    bits = {"type": "unsigned int", "size": 4, "kind": "int", "signed": False}
    bits |= {"name": "b", "offset": 64, "bitfield": True, "bit_offset": 513, "bit_size": 3}
    document = {
        "structs": {"page": {"size": 72, "fields": [*fields, bits]}, "list_head": {"size": 16, "fields": []}},
        "enums": {"migratetype": {"MIGRATE_UNMOVABLE": 0}},
        "constants": {"PAGE_SHIFT": 12, "MAX_ORDER": 11},
    }
    return [json.dumps(document).encode(), json.dumps(document, indent=1).encode()]


def tables() -> list[bytes]:
    """Page tables in five pages: a 4 KiB, a 2 MiB and a 1 GiB mapping under one top; in front, an address."""
    pages = [bytearray(PAGE) for _ in range(5)]
    for page, index, entry in ((0, 0, 0x1003), (0, 511, 0x1003), (1, 0, 0x2003), (1, 1, 0x40000083), (2, 0, 0x3003)):
        struct.pack_into("<Q", pages[page], 8 * index, entry)
    struct.pack_into("<Q", pages[2], 8, 0x200083)
    struct.pack_into("<Q", pages[3], 0, 0x4003)
    memory = b"".join(bytes(page) for page in pages)
    return [struct.pack("<Q", va) + memory for va in (0, 0x200000, 0x40000000, 0xFFFFFF8000000000)]


_PROGRAM = """
typedef struct { int counter; } atomic_t;
struct list_head { struct list_head *next, *prev; };
enum zone_type { ZONE_DMA, ZONE_NORMAL = 2 };
struct page { unsigned long flags; union { struct list_head lru; void *mapping; }; unsigned a:3, b:9; atomic_t count; };
struct zone { const char *name; enum zone_type type; struct list_head lists[4][3]; int (*call)(void *, ...); };
struct page page; struct zone zone;
int main(void) { return page.a; }
"""


@cache
def vmlinux() -> list[bytes]:
    """Small programs with DWARF 4 and 5, if there is a gcc; else the head of one."""
    compiler = shutil.which("gcc")
    if compiler is None:
        return [elf.EHDR.pack(elf.MAGIC + b"\2\1\1".ljust(12, b"\0"), 2, 62, 1, 0, 0, 0, 0, 64, 56, 0, 64, 0, 0)]
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for version in (4, 5):
            options = [f"-gdwarf-{version}", "-nostdlib", "-no-pie", "-Wl,-e,main", "-Wl,-z,noseparate-code", "-xc"]
            out = str(Path(folder) / "vmlinux")
            subprocess.run([compiler, *options, "-o", out, "-"], input=_PROGRAM.encode(), check=True)
            found.append(Path(out).read_bytes())
    return found
