# SPDX-License-Identifier: GPL-2.0-only
"""The parsers, each as a function of bytes that must end, or raise an error of the package in one line."""

from __future__ import annotations

import atexit
import contextlib
import functools
import shutil
import struct
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from kernelmm.study import script
from physmem import paging
from physmem.dump import Dump, open_dump
from physmem.e820 import MemoryMap
from physmem.errors import PhysmemError
from physmem.image import Image, VmcoreInfo, bitmap, notes, open_image, vmcoreinfo
from physmem.image.base import Extent, MappedImage
from physmem.image.bitmap import PageBitmap
from physmem.image.kdump import Kdump
from physmem.image.source import Source
from physmem.inspect.buddyinfo import buddyinfo
from physmem.inspect.check import check
from physmem.inspect.kpage import KPages
from physmem.inspect.page import inspect_page
from physmem.inspect.pageformat import PageFormat
from physmem.inspect.pagetypeinfo import pagetypeinfo
from physmem.inspect.pagetypes import Histogram
from physmem.inspect.rows import ByNumpy
from physmem.inspect.states import survey
from physmem.inspect.what import locate, parse_what
from physmem.inspect.zones import populated_zones
from physmem.kallsyms import KernelSymbols, Tables, read_kallsyms
from physmem.kallsyms_search import find_tables
from physmem.kernel_layout import find_kallsyms, own_layout
from physmem.ranges import Ranges
from physmem.regions import KernelImage
from physmem.structs import known
from physmem.structs.bounds import check_bounds, check_struct
from physmem.structs.btf_layout import read_btf
from physmem.structs.layout import Layout
from physmem.symbols import Symbols
from physmem.vmlinux import Vmlinux
from tools.fuzz import seeds
from tools.fuzz.damage import EDIT, Damaged, Words, machine

__all__ = ["TARGETS", "Target", "attempt"]

_ORACLE = seeds.ROOT / "tests" / "data"
#: Bytes of memory that are read of an image that opens.
_READ = 1 << 20


@dataclass(frozen=True)
class Target:
    """A parser.

    :ivar make: gives the function that is fuzzed, after what has to be done once
    :ivar seeds: valid inputs
    :ivar room: the most bytes of an input
    :ivar edit: bytes of one mutation, where an input is a list of them; 0 where the input is the file itself
    :ivar inputs: after how many inputs the fuzzer starts anew
    """

    name: str
    make: Callable[[], Callable[[bytes], None]]
    seeds: Callable[[], Sequence[bytes]]
    room: int
    edit: int = 0
    inputs: int = 50_000


def attempt(function: Callable[[bytes], None], data: bytes) -> None:
    """Run it; whatever is not an error of the package, in one line, comes out."""
    try:
        function(data)
    except PhysmemError as error:
        text = str(error)
        if not text or len(text.splitlines()) > 1:
            raise AssertionError(f"not one line: {text!r}") from error


# -- files ---------------------------------------------------------------------


def _scratch() -> Path:
    """A file to be written again and again."""
    folder = tempfile.mkdtemp(prefix="fuzz-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder) / "input"


def _file_target(raw: bool = False) -> Callable[[bytes], None]:
    path = _scratch()

    def run(data: bytes) -> None:
        # A new file each time: one that is mapped must not be cut short.
        path.unlink(missing_ok=True)
        path.write_bytes(data)
        with open_image(path, max_expanded=1 << 22, raw=raw) as image:
            _look(image)

    return run


def _look(image: Image) -> None:
    """Use everything that an image has."""
    left = _READ
    for start, end in _some(image.ranges):
        for phys in {start, max(start, end - 100)}:
            with contextlib.suppress(PhysmemError):
                left -= len(image.read(phys, min(end - phys, 5000, left)))
                image.u64(phys)
                image.array(phys, np.uint64, min((end - phys) // 8, 600))
    for phys, data in image.segments():
        assert image.ranges.covers(phys, phys + len(data))
        left -= len(data)
        if left < 0:
            break
    assert image.size == image.ranges.end
    with contextlib.suppress(PhysmemError):
        image.read(image.size - 1, 2)
    _look_at_info(VmcoreInfo(image.vmcoreinfo))


def _some(ranges: Ranges) -> Iterator[tuple[int, int]]:
    for number, interval in enumerate(ranges):
        if number < 32:
            yield interval


def _look_at_info(info: VmcoreInfo) -> None:
    known.recognise(info)
    for key in info:
        kind, _, name = key.rstrip(")").partition("(")
        ask: dict[str, Callable[[str], Any]] = {
            "SYMBOL": info.symbol,
            "NUMBER": info.number,
            "SIZE": info.size,
            "OFFSET": info.offset,
            "LENGTH": info.length,
        }
        with contextlib.suppress(PhysmemError):
            ask.get(kind, str)(name)
    layout = Layout.from_vmcoreinfo(info)
    check_bounds(layout)


def _vmcoreinfo(data: bytes) -> None:
    info = VmcoreInfo(vmcoreinfo.parse(data))
    assert vmcoreinfo.parse(info.encode()) == dict(info)
    _look_at_info(info)


def _notes(data: bytes) -> None:
    try:
        found = notes.parse(data)
    except notes.NoteError as error:
        assert 0 <= error.offset <= len(data)
        return
    assert notes.parse(notes.encode(found)) == found


_VMLINUX = functools.cache(_scratch)


# -- what is in memory ---------------------------------------------------------


class _Bytes(Source):
    """Bytes in place of a file."""

    def __init__(self, data: bytes) -> None:
        self.path, self.compression, self.size = "fuzz", "", len(data)
        self.data = data  # type: ignore[assignment]

    def close(self) -> None:
        """Nothing is held."""


def _memory(data: bytes) -> MappedImage:
    """The bytes as physical memory from address 0 on."""
    return MappedImage(_Bytes(data), [Extent(0, len(data), 0)], (), {})


def _kallsyms(data: bytes) -> None:
    places = struct.unpack("<6I", data[:24].ljust(24, b"\0"))
    num_syms, names, table, index, offsets, base = (seeds.BASE + place for place in places)
    memory = _memory(data[24:])
    image = KernelImage(memory, seeds.BASE, 0, 1 << 30)
    anchors = {"_stext": seeds.BASE, "prb": seeds.BASE + 0x4000}
    candidates = [Tables(num_syms, names, table, index, offsets, base if places[5] else None, wide=not places[5])]
    with contextlib.suppress(PhysmemError):
        _ = next(iter(read_kallsyms(candidates[0], image, anchors)), None)
    for tables in find_tables(memory, 0, seeds.BASE):
        with contextlib.suppress(PhysmemError):
            found = read_kallsyms(tables, image, anchors)
            assert all(found[name] == address for name, address in anchors.items() if name in found)


def _btf(data: bytes) -> None:
    layout = read_btf(data)
    for names, get in (
        (layout.structs, lambda name: check_struct(layout.struct(name), "fuzz")),
        (layout.enums, layout.enum),
        (layout._enumerators, layout.enumerator),
    ):
        with contextlib.suppress(PhysmemError):
            for number, name in enumerate(names):
                if number > 200:
                    break
                with contextlib.suppress(PhysmemError):
                    found: Any = get(name)
                    if hasattr(found, "fields"):
                        layout.dtype(name, list(found.fields)[:20])


def _vmlinux(data: bytes) -> None:
    path = _VMLINUX()
    # A new file each time: the old one may still be mapped.
    path.unlink(missing_ok=True)
    path.write_bytes(data)
    found = Vmlinux(path)
    for look in (
        lambda: [found.layout.structs.get(tag) for tag in ("page", "zone", "list_head", "none")],
        lambda: (found.layout.enums.get("zone_type"), found.layout._enumerators.get("PG_head")),
        lambda: (found.symbols.find("main"), found.build_id),
    ):
        with contextlib.suppress(PhysmemError):
            look()


def _paging(data: bytes) -> None:
    va = int.from_bytes(data[:8], "little")
    memory = _memory(data[8:] or b"\0")
    for levels in (4, 5):
        for address in (va, va | 0xFFFF << 48, 0xFFFFEA0000000000):
            with contextlib.suppress(PhysmemError):
                walk = paging.walk(memory, 0, address, levels)
                assert len(walk.steps) <= levels
        paging.chunks(memory, 0, va & ~((1 << 21) - 1) & (1 << 47) - 1, (va & (1 << 47) - 1) + (64 << 21), levels)


def _json(read: Callable[[Path], object]) -> Callable[[bytes], None]:
    path = _scratch()

    def run(data: bytes) -> None:
        path.write_bytes(data)
        found = read(path)
        if isinstance(found, Layout):
            check_bounds(found)
            assert found.to_json()

    return run


def _script(data: bytes) -> None:
    script.run_numbers(script.parse(data.decode("latin-1").splitlines(), "fuzz"))


def _memory_map(data: bytes) -> None:
    found = MemoryMap.from_text(data.decode("utf-8", "replace"), "fuzz")
    assert MemoryMap.from_text(found.text(), "again") == found


def _bitmap() -> Callable[[bytes], None]:
    """A kdump file whose bitmaps have several pieces, read when they are asked for: against all their bits.

    Pieces are smaller than they are, so that several are soon looked through.
    """
    path, file = _scratch(), Words(bytearray(seeds.large_kdump()))

    def run(data: bytes) -> None:
        path.unlink(missing_ok=True)
        with file.edited(data):
            path.write_bytes(file.data)
        with mock.patch.object(bitmap, "_PIECE", seeds.SMALL_PIECE), open_image(path) as image:
            _look(image)
            assert isinstance(image, Kdump)
            for bits in (image._described, image._present):
                _ask_bitmap(
                    bits, [value for _, _, value in EDIT.iter_unpack(data[: len(data) // EDIT.size * EDIT.size])]
                )

    return run


def _ask_bitmap(asked: PageBitmap, numbers: Sequence[int]) -> None:
    """What a bitmap answers, against all of its bits; some of the questions are about these numbers."""
    count, step = 8 * asked._size, seeds.SMALL_PIECE
    data = b"".join(asked._bits[at : at + step] for at in range(0, asked._size, step))
    bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")
    if asked._last:
        bits[count - 8 + asked._last :] = 0
    below = np.append(0, np.cumsum(bits, dtype=np.int64))
    assert asked.total == below[-1]
    assert asked.end == (np.flatnonzero(bits)[-1] + 1 if bits.any() else 0)
    edges = np.flatnonzero(np.diff(bits, prepend=0, append=0)).reshape(-1, 2)
    for number in {0, 7, step * 8 - 1, step * 8, asked.end, count, *(each % (count + 9) for each in numbers[:8])}:
        inside = number < count
        assert (number in asked) == (inside and bool(bits[number]))
        assert asked.rank(number) == below[min(number, count)]
        end = number + (numbers[0] if numbers else 0) % 30_000
        missing = np.flatnonzero(bits[number:end] == 0)
        lowest = number + int(missing[0]) if len(missing) else max(number, count)
        assert asked.first_missing(number, end) == (lowest if lowest < end else None)
        cut = edges[(edges[:, 1] > number) & (edges[:, 0] < end)].clip(number, end) if end > number else edges[:0]
        assert asked.runs(number, end).tolist() == cut.tolist()


# -- whole machines --------------------------------------------------------------


def _inspect(make: Callable[[], Dump]) -> Callable[[], Callable[[bytes], None]]:
    def once() -> Callable[[bytes], None]:
        dump = make()
        memory = Damaged(dump.image)

        def run(data: bytes) -> None:
            with memory.edited(data):
                seen = dump.over(memory)
                for look in (
                    lambda: list(buddyinfo(list(populated_zones(seen)))),
                    lambda: pagetypeinfo(seen),
                    lambda: check(seen),
                    lambda: inspect_page(seen, locate(seen, parse_what(f"pfn:{int.from_bytes(data[:2], 'little')}"))),
                ):
                    with contextlib.suppress(PhysmemError):
                        look()

        return run

    return once


def _kpages() -> Callable[[bytes], None]:
    """kpageflags, kpagecount and states of machines of several kernels, by either way of sorting pages."""
    names = ("deb510-512m", "deb61-256m", "deb612-256m", "deb618-512m-2node")
    dumps = [open_dump(_ORACLE / "vmcores" / name / "image.vmcore.xz") for name in names] + [machine()]
    memories = [Damaged(dump.image) for dump in dumps]

    def run(data: bytes) -> None:
        which = sum(data[:4]) % len(dumps)
        with memories[which].edited(data):
            seen = dumps[which].over(memories[which])
            for look in (_both_ways, lambda dump: deque(survey(dump), 0)):
                with contextlib.suppress(PhysmemError):
                    look(seen)

    return run


def _both_ways(dump: Dump) -> None:
    """All of both files, compiled and not."""
    form = PageFormat(dump.layout)
    plain = iter(KPages(dump, ByNumpy(dump, form)))
    found = Histogram()
    for piece in KPages(dump):
        found.add(piece)
        other = next(plain)
        assert piece.start == other.start
        assert (piece.flags == other.flags).all()
        assert (piece.counts == other.counts).all()
    assert next(plain, None) is None
    assert found.text()


def _modern() -> Callable[[bytes], None]:
    """A real dump from its first byte on: regions, symbols, types, zones, pages."""
    with open_image(_ORACLE / "vmcores" / "deb61-256m" / "image.vmcore.xz") as image:
        memory = Damaged(image)
        info = VmcoreInfo(image.vmcoreinfo)

    def run(data: bytes) -> None:
        with memory.edited(data):
            told = Layout.from_vmcoreinfo(info)
            names = Symbols({k[7:-1]: info.symbol(k[7:-1]) for k in info if k.startswith("SYMBOL(")}, "VMCOREINFO")
            kernel = KernelImage.of(info, names, told, memory)
            names = KernelSymbols(names, lambda: find_kallsyms(info, kernel))
            structs = own_layout(info, names, kernel)
            seen = Dump(image, info, structs, names, memory)
            for look in (
                lambda: seen.pages(0, min(seen.max_pfn, 1 << 17), ["flags"]),
                lambda: seen.layout.struct("zone"),
                lambda: list(buddyinfo(list(populated_zones(seen)))),
                lambda: pagetypeinfo(seen),
            ):
                with contextlib.suppress(PhysmemError):
                    look()

    return run


def _random_edits() -> list[bytes]:
    chance = np.random.default_rng(1)
    return [chance.bytes(EDIT.size * count) for count in (1, 4, 16, 32)]


def _texts(*paths: str) -> Callable[[], list[bytes]]:
    return lambda: [(seeds.ROOT / "tests" / "data" / path).read_bytes()[:3000] for path in paths]


_E820 = b"""BIOS-e820: [mem 0x0000000000000000-0x000000000009fbff] usable
BIOS-e820: [mem 0x0000000000100000-0x000000001ffdffff] usable
[    0.000000] BIOS-e820: [mem 0x000000001ffe0000-0x000000001fffffff] reserved
00001000-0009fbff : System RAM
node 0: 0x0-0xfffffff
node 1: 0x10000000-0x1fffffff
distance 0 1 20
"""

_SCRIPTS = ("oracle/n128_s1/script.txt", "oracle/n128_s16_fault/script.txt", "oracle/n128cma_s17_contig/script.txt")

TARGETS = {
    target.name: target
    for target in (
        Target("elf", _file_target, seeds.elf_core, 16 << 10),
        Target("kdump", _file_target, seeds.kdump, 32 << 10),
        Target("flattened", _file_target, seeds.flattened, 48 << 10),
        Target("lime", _file_target, seeds.lime, 16 << 10),
        Target("avml", _file_target, seeds.avml, 16 << 10),
        Target("raw", lambda: _file_target(raw=True), lambda: [bytes(4096) + seeds.INFO.ljust(4096, b"\0")], 16 << 10),
        Target("compression", _file_target, lambda: seeds.packed(seeds.elf_core()[0]), 16 << 10),
        Target("notes", lambda: _notes, lambda: [seeds.some_notes()], 4 << 10),
        Target("vmcoreinfo", lambda: _vmcoreinfo, lambda: [seeds.INFO], 4 << 10),
        Target("kallsyms", lambda: _kallsyms, seeds.kallsyms, 16 << 10),
        Target("btf", lambda: _btf, seeds.btf, 8 << 10),
        Target("vmlinux", lambda: _vmlinux, seeds.vmlinux, 24 << 10),
        Target("layout-json", lambda: _json(Layout.from_json), seeds.layout_json, 8 << 10),
        Target("symbols-json", lambda: _json(Symbols.from_json), lambda: [seeds.SYMBOLS], 4 << 10),
        Target("paging", lambda: _paging, seeds.tables, 24 << 10),
        Target("page-script", lambda: _script, _texts(*_SCRIPTS), 4 << 10),
        Target("memory-map", lambda: _memory_map, lambda: [_E820], 4 << 10),
        Target("kdump-bitmap", _bitmap, _random_edits, 32 * EDIT.size, EDIT.size, 5000),
        Target("free-lists", _inspect(machine), _random_edits, 32 * EDIT.size, EDIT.size, 3000),
        Target("dump", _modern, _random_edits, 64 * EDIT.size, EDIT.size, 3000),
        Target("kpages", _kpages, _random_edits, 64 * EDIT.size, EDIT.size, 1000),
    )
}
