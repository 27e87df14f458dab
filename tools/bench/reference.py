# SPDX-License-Identifier: GPL-2.0-only
"""The allocator in C, beside ours: the reference that ``make bench`` measures against.

:class:`Reference` compiles ``reference.c`` for the struct layout of one guest and
runs page scripts on a buffer that holds that guest's physical memory.  Results and
bytes are those of the kernel itself, so that the two engines can be timed in one
process on the same work.

The layout is the JSON form that the images' ``layout.json`` has (``structs``,
``enums``, ``constants``).  Facts: ``include/linux/mmzone.h``, ``arch/x86`` page
tables and per-cpu areas of Linux 4.0.
"""

from __future__ import annotations

import ctypes
import os
import struct
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from physmem.errors import AddressError, LayoutError, SymbolError, UsageError

__all__ = ["Reference", "layout_header"]

Layout: TypeAlias = Mapping[str, Any]
Ops: TypeAlias = npt.NDArray[np.int64]

# Each after the ones that it contains.
STRUCTS = (
    "list_head",
    "page",
    "free_area",
    "per_cpu_pages",
    "per_cpu_pageset",
    "zone",
    "zoneref",
    "zonelist_cache",
    "zonelist",
    "__wait_queue_head",
    "pglist_data",
    "mem_section",
    "vm_event_state",
)

SOURCES = Path(__file__).parent
CFLAGS = ("-std=gnu11", "-O2", "-fno-strict-aliasing", "-fPIC", "-shared")  # strict aliasing is off as in the kernel

INT_MAX = 2**31 - 1
FAIL_PAGE_ALLOC = 140  # bytes of the struct
PRESENT, LARGE = 1 << 0, 1 << 7  # bits of a page table entry
ENTRY_ADDRESS = 0x000F_FFFF_FFFF_F000


def _declare(name: str, kind: Mapping[str, Any], size: int, count: str) -> str:
    """A C declaration of one field: a number, a struct that we know, or else bytes."""
    if kind["kind"] == "struct" and kind.get("tag") in STRUCTS:
        return f"struct {kind['tag']} {name}{count}"
    atomic = kind["kind"] == "struct" and kind.get("tag") is None and kind["size"] in (4, 8)
    if kind["kind"] in ("int", "ptr", "bool", "enum") or atomic:
        sign = "s" if atomic or kind.get("signed") else "u"
        return f"{sign}{kind['size'] * 8} {name}{count}"
    return f"u8 {name}[{size}]"


def layout_header(layout: Layout) -> str:
    """``layout.h``: the structs of a guest, every field at its offset, and the guest's constants.

    :raises LayoutError: a struct that the allocator needs is not in the layout
    """
    lines = ["/* Written by reference.py from the guest's layout. */"]
    for group in (layout["constants"], *layout["enums"].values()):
        for name, value in group.items():
            lines.append(f"#define {name} {value if -INT_MAX <= value <= INT_MAX else f'{value:#x}UL'}")
    for tag in STRUCTS:
        if tag not in layout["structs"]:
            raise LayoutError(f"struct {tag}: not in the layout")
        declared = layout["structs"][tag]
        lines.append(f"struct {tag} {{ union {{\n\tu8 _bytes[{declared['size']}];")
        for field in declared["fields"]:
            if "." in field["name"] or field["bitfield"] or not field["size"]:
                continue
            count = f"[{field['array']}]" if "array" in field else ""
            declaration = _declare(field["name"], field.get("elem", field), field["size"], count)
            lines.append(f"\tstruct {{ u8 _before_{field['name']}[{field['offset']}]; {declaration}; }};")
        lines.append(f'}}; }};\n_Static_assert(sizeof(struct {tag}) == {declared["size"]}, "{tag}");')
    return "\n".join(lines) + "\n"


def _compile(layout: Layout, directory: Path, compiler: str) -> Path:
    """Build the library in a directory; its place."""
    library = directory / "reference.so"
    (directory / "layout.h").write_text(layout_header(layout))
    command = [compiler, *CFLAGS, f"-I{directory}", "-o", os.fspath(library), os.fspath(SOURCES / "reference.c")]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise UsageError(f"{compiler}: cannot run the C compiler: {error.strerror}") from error
    if done.returncode:
        first = next((line for line in done.stderr.splitlines() if "error" in line), f"status {done.returncode}")
        raise LayoutError(f"reference.c does not compile for this layout: {first}")
    return library


class _Machine(ctypes.Structure):
    """``struct machine`` of reference.h."""

    _fields_ = [
        (name, ctypes.c_uint64)
        for name in (
            "ram",
            "vmemmap",
            "virt",
            "node_data",
            "mem_section",
            "per_cpu_offset",
            "cpu_online_bits",
            "jiffies",
            "vm_stat",
            "nr_online_nodes",
            "page_group_by_mobility_disabled",
            "gfp_allowed_mask",
            "vm_event_states",
            "numa_node",
            "free_compound_page",
            "current",
            "fail_page_alloc",
            "cpu",
        )
    ]


class _Task(ctypes.Structure):
    """``struct task`` of reference.h."""

    _fields_ = [("mems_allowed", ctypes.c_uint64), ("mems_allowed_seq", ctypes.c_uint32)]


class _Range(ctypes.Structure):
    """``struct range`` of reference.c."""

    _fields_ = [("place", ctypes.c_uint64), ("saved", ctypes.c_uint64), ("size", ctypes.c_uint64)]


class _Layout:
    """What attaching asks of a layout; a name that is not there is a LayoutError."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def _find(self, *path: str) -> Any:
        found: Any = self._layout
        for name in path:
            if name not in found:
                raise LayoutError(f"{' '.join(path)}: not in the layout")
            found = found[name]
        return found

    def constant(self, name: str) -> int:
        return int(self._find("constants", name))

    def size(self, tag: str) -> int:
        """Bytes of a struct."""
        return int(self._find("structs", tag, "size"))

    def offset(self, tag: str, field: str) -> int:
        """Bytes from the start of a struct to a field."""
        for each in self._find("structs", tag, "fields"):
            if each["name"] == field:
                return int(each["offset"])
        raise LayoutError(f"struct {tag}: no {field} (the C reference is for SMP and NUMA kernels)")


class Reference:
    """Linux 4.0's allocator in C, attached to physical memory in a buffer.

    :param ram: writable buffer, byte 0 is physical address 0; it is changed in place and must stay alive
    :param layout: struct layout, enumerators and constants of the guest's kernel (SMP and NUMA)
    :param symbols: kernel addresses of variables, by name
    :param phys_base: where the kernel image was loaded, less where it was linked, in bytes
    :param cpu: the CPU that runs the operations
    :param compiler: the C compiler, by default ``$CC`` or ``cc``

    :raises LayoutError: the layout is not one of an SMP and NUMA kernel, or of a page array mapped by 2 MiB pages
    :raises SymbolError: a symbol is missing
    :raises AddressError: a pointer in the memory leads out of the buffer
    :raises UsageError: there is no compiler, or the guest's settings need more than the reference has
    """

    def __init__(
        self,
        ram: bytearray | memoryview | Any,
        layout: Layout,
        symbols: Mapping[str, int],
        *,
        phys_base: int = 0,
        cpu: int = 0,
        compiler: str | None = None,
    ) -> None:
        self._ram = memoryview(ram).cast("B")
        if self._ram.readonly:
            raise UsageError("the C reference wants a writable buffer")
        self._layout = _Layout(layout)
        self._symbols = symbols
        self._phys_base = phys_base
        self._chunk = 1 << self._layout.constant("PMD_SHIFT")
        for tag, field in (("per_cpu_pageset", "vm_stat_diff"), ("zone", "node"), ("zonelist", "zlcache")):
            self._layout.offset(tag, field)
        with tempfile.TemporaryDirectory(prefix="reference-") as directory:
            compiler = compiler or os.environ.get("CC", "cc")
            self._library = ctypes.CDLL(os.fspath(_compile(layout, Path(directory), compiler)))
        for function in (self._library.ref_replay, self._library.ref_time):
            function.restype = ctypes.c_int64
        self._base = ctypes.addressof(ctypes.c_char.from_buffer(self._ram))
        self._attach(cpu)
        self._metadata = self._find_metadata()
        self.save()

    # -- reading the image --

    def _symbol(self, name: str) -> int:
        try:
            return self._symbols[name]
        except KeyError:
            raise SymbolError(f"{name}: address unknown") from None

    def _phys(self, address: int, size: int) -> int:
        """Physical address of a kernel address in the kernel image or the direct map."""
        if address >= self._layout.constant("__START_KERNEL_map"):
            phys = address - self._layout.constant("__START_KERNEL_map") + self._phys_base
        else:
            phys = address - self._layout.constant("PAGE_OFFSET")
        if not 0 <= phys <= len(self._ram) - size:
            raise AddressError(address, "outside the memory")
        return phys

    def _read(self, address: int, form: str = "Q") -> int:
        """The number of the given struct module form at a kernel address."""
        phys = self._phys(address, struct.calcsize(form))
        value: int = struct.unpack_from(f"<{form}", self._ram, phys)[0]
        return value

    def _entry(self, table: int, index: int) -> int:
        """Entry of the page table at a physical address; 0 if absent."""
        phys = (table & ENTRY_ADDRESS) + 8 * index
        if phys > len(self._ram) - 8:
            raise AddressError(phys, "page table outside the memory")
        entry: int = struct.unpack_from("<Q", self._ram, phys)[0]
        return entry if entry & PRESENT else 0

    def _vmemmap_chunks(self) -> list[int | None]:
        """Physical address of each 2 MiB of the page array, None for a hole."""
        size = self._layout.size("page")
        if self._chunk % size:
            raise LayoutError(f"struct page of {size} bytes: the C reference wants a power of two")
        array = self._read(self._symbol("max_pfn")) * size
        if array > len(self._ram):
            raise AddressError(self._symbol("max_pfn"), "max_pfn: a page array larger than the memory")
        start = self._layout.constant("VMEMMAP_START")
        return [self._walk(address) for address in range(start, start + array, self._chunk)]

    def _walk(self, address: int) -> int | None:
        """Physical address of 2 MiB of the page array; None if nothing is mapped there."""
        entry = self._phys(self._symbol("init_level4_pgt"), 4096)
        for shift in (39, 30, 21):
            entry = self._entry(entry, address >> shift & 511)
            if not entry:
                return None
            if bool(entry & LARGE) != (shift == 21):
                raise LayoutError(f"vmemmap {address:#x}: the C reference wants a page array mapped by 2 MiB pages")
        phys = entry & ENTRY_ADDRESS & -self._chunk
        if phys > len(self._ram) - self._chunk:
            raise AddressError(address, "page array outside the memory")
        return phys

    def _attach(self, cpu: int) -> None:
        """Fill in ``struct machine`` from the symbols and the page table."""
        zone_reclaim_mode = self._read(self._symbol("zone_reclaim_mode"), "i")
        if zone_reclaim_mode:
            raise UsageError(f"zone_reclaim_mode {zone_reclaim_mode}: the C reference cannot reclaim")
        nr_cpu_ids = self._read(self._symbol("nr_cpu_ids"), "i")
        self._cpus = range(min(nr_cpu_ids, self._layout.constant("NR_CPUS")))
        if cpu not in self._cpus:
            raise UsageError(f"cpu {cpu}: the guest has {nr_cpu_ids}")
        self._chunks = self._vmemmap_chunks()
        direct_map = self._layout.constant("PAGE_OFFSET")
        virt = [direct_map + phys for phys in range(0, len(self._ram), self._chunk)]
        for i, phys in enumerate(self._chunks):
            if phys is not None:
                virt[phys // self._chunk] = self._layout.constant("VMEMMAP_START") + i * self._chunk
        self._virt = (ctypes.c_uint64 * len(virt))(*virt)
        self._vmemmap = (ctypes.c_uint64 * len(self._chunks))(
            *(0 if phys is None else self._base + phys for phys in self._chunks)
        )
        # The task of all nodes; the real one's record is a slab's.
        self._task = _Task(mems_allowed=(1 << 64) - 1)
        self._machine = _Machine(
            ram=self._base,
            vmemmap=ctypes.addressof(self._vmemmap),
            virt=ctypes.addressof(self._virt),
            vm_event_states=self._symbol("vm_event_states"),
            numa_node=self._symbol("numa_node"),
            free_compound_page=self._symbol("free_compound_page"),
            current=ctypes.addressof(self._task),
            cpu=cpu,
        )
        for name, symbol in (
            ("node_data", "node_data"),
            ("mem_section", "mem_section"),
            ("per_cpu_offset", "__per_cpu_offset"),
            ("cpu_online_bits", "cpu_online_bits"),
            ("jiffies", "jiffies"),
            ("vm_stat", "vm_stat"),
            ("nr_online_nodes", "nr_online_nodes"),
            ("page_group_by_mobility_disabled", "page_group_by_mobility_disabled"),
            ("gfp_allowed_mask", "gfp_allowed_mask"),
        ):
            setattr(self._machine, name, self._base + self._phys(self._symbol(symbol), 8))

        if "fail_page_alloc" in self._symbols:
            self._machine.fail_page_alloc = self._base + self._phys(self._symbols["fail_page_alloc"], FAIL_PAGE_ALLOC)

    def _find_metadata(self) -> list[tuple[str, int, int]]:
        """See :attr:`metadata`."""
        layout = self._layout
        found = [("page array", phys, self._chunk) for phys in self._chunks if phys is not None]
        areas = [self._read(self._symbol("__per_cpu_offset") + 8 * cpu) for cpu in self._cpus]

        def add(name: str, address: int, size: int) -> None:
            found.append((name, self._phys(address, size), size))

        for nid in range(layout.constant("MAX_NUMNODES")):
            pgdat = self._read(self._symbol("node_data") + 8 * nid)
            if not pgdat:
                continue
            add(f"node {nid}", pgdat, layout.size("pglist_data"))
            for i in range(layout.constant("MAX_NR_ZONES")):
                pageset = self._read(pgdat + i * layout.size("zone") + layout.offset("zone", "pageset"))
                for cpu, area in enumerate(areas):
                    add(f"pageset of node {nid} zone {i} cpu {cpu}", pageset + area, layout.size("per_cpu_pageset"))
        per_root = layout.constant("SECTIONS_PER_ROOT")
        for nr in range(-(-self._read(self._symbol("max_pfn")) // layout.constant("PAGES_PER_SECTION"))):
            root = self._read(self._symbol("mem_section") + 8 * (nr // per_root))
            section = root + nr % per_root * layout.size("mem_section")
            usemap = self._read(section + layout.offset("mem_section", "pageblock_flags")) if root else 0
            if usemap:
                add(f"pageblock flags of section {nr}", usemap, layout.constant("SECTION_BLOCKFLAGS_BITS") // 8)
        add("vm_stat", self._symbol("vm_stat"), 8 * layout.constant("NR_VM_ZONE_STAT_ITEMS"))
        for cpu, area in enumerate(areas):
            add(f"vm_event_states of cpu {cpu}", self._symbol("vm_event_states") + area, layout.size("vm_event_state"))
        return found

    # -- the public face --

    @property
    def ram(self) -> memoryview:
        """The memory that it works on."""
        return self._ram

    @property
    def metadata(self) -> list[tuple[str, int, int]]:
        """What the allocator writes, but for pages that it zeroes: (name, physical address, bytes)."""
        return list(self._metadata)

    def save(self) -> None:
        """Take the memory as it is now for what :meth:`restore` and :meth:`time` go back to."""
        self._saved = [bytearray(self._ram[phys : phys + size]) for _, phys, size in self._metadata]
        self._ranges = (_Range * len(self._saved))(
            *(
                _Range(self._base + phys, ctypes.addressof(ctypes.c_char.from_buffer(copy)), size)
                for (_, phys, size), copy in zip(self._metadata, self._saved, strict=True)
            )
        )

    def restore(self) -> None:
        """Put :attr:`metadata` back as it was saved.  Zeroed pages stay zeroed: the allocator never reads them."""
        for (_, phys, size), copy in zip(self._metadata, self._saved, strict=True):
            self._ram[phys : phys + size] = copy

    def replay(self, ops: Ops, results: bool = True) -> npt.NDArray[np.int64] | None:
        """Run operations once, from the memory as it is; no page is allocated at the start.

        :param ops: ``int64[n][5]``: letter, id and the columns of the page script (gfp as a number)
        :returns: ``int64[n][4]``: pfn, order, migratetype, count, as in ``result.txt``; None if not wanted
        :raises UsageError: an operation is malformed (then none was run), or needs reclaim
        """
        ops, pages = self._prepare(ops)
        out = np.empty((len(ops), 4), np.int64) if results else None
        done = self._library.ref_replay(
            ctypes.byref(self._machine),
            ctypes.c_void_p(ops.ctypes.data),
            ctypes.c_int64(len(ops)),
            ctypes.c_void_p(pages.ctypes.data),
            ctypes.c_uint64(len(pages)),
            ctypes.c_void_p(out.ctypes.data if out is not None else None),
        )
        self._check(ops, done)
        return out

    def time(self, ops: Ops, repeat: int = 1) -> list[int]:
        """Run operations ``repeat`` times, each from the saved memory; nanoseconds of each run.

        The clock is read in C around the operations alone, with no results.  The memory is left as after one run.

        :raises UsageError: as :meth:`replay`
        """
        if repeat < 1:
            raise UsageError(f"repeat {repeat}: at least one run")
        ops, pages = self._prepare(ops)
        nanoseconds = (ctypes.c_int64 * repeat)()
        done = self._library.ref_time(
            ctypes.byref(self._machine),
            ctypes.c_void_p(ops.ctypes.data),
            ctypes.c_int64(len(ops)),
            ctypes.c_void_p(pages.ctypes.data),
            ctypes.c_uint64(len(pages)),
            self._ranges,
            ctypes.c_uint64(len(self._ranges)),
            ctypes.c_int64(repeat),
            nanoseconds,
        )
        self._check(ops, done)
        return list(nanoseconds)

    def _prepare(self, ops: Ops) -> tuple[Ops, npt.NDArray[np.uint64]]:
        """The operations in C order, and a slot for the page of every id."""
        ops = np.ascontiguousarray(ops, np.int64)
        if ops.ndim != 2 or ops.shape[1] != 5:
            raise UsageError(f"operations of shape {ops.shape}: five columns wanted")
        split = ops[ops[:, 0] == ord("S")]
        last = max(ops[:, 1].max(initial=0), (split[:, 3] + (1 << split[:, 2].clip(0, 10)) - 1).max(initial=0))
        if last >= 2**32:
            raise UsageError(f"page id {last}: too large")
        return ops, np.zeros(int(last) + 1, np.uint64)

    def _check(self, ops: Ops, done: int) -> None:
        if done < len(ops):
            code, *arguments = (int(value) for value in ops[done])
            letter = chr(code) if 32 < code < 127 else str(code)
            raise UsageError(f"operation {done} ({letter} {arguments}): malformed, or more than the C reference has")
