# SPDX-License-Identifier: GPL-2.0-only
"""An open memory image with all that is needed to understand it.

:func:`open_dump` puts together the image, the kernel's layout and symbols, and the address
space: what an inspector, or an emulated machine that attaches, starts from.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

from physmem import paging
from physmem.derived import DERIVED, release_of
from physmem.errors import AbsentError, AddressError, CorruptionError, LayoutError, PhysmemError, UnsupportedError
from physmem.image import Image, VmcoreInfo, find_vmcoreinfo, open_image
from physmem.memory import UNMAPPED, PhysicalMemory
from physmem.memory_model import (
    FLAT_SHIFT,
    Linear,
    MemoryModel,
    PageMap,
    Sectioned,
    flat_chunks,
    model_of,
    section_chunks,
    section_cover,
    section_mem_maps,
)
from physmem.regions import KERNEL_IMAGE_SIZE, KernelImage, PageTables, Regions
from physmem.structs.layout import Layout
from physmem.structs.lazy import Lazy, Overlay
from physmem.symbols import Symbols, moved, moved_by

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from physmem.image.write import Mapping
    from physmem.ram import Ram
    from physmem.space import AddressSpace
    from physmem.vmlinux import Vmlinux
else:
    from physmem.later import np

__all__ = ["KERNEL_IMAGE_SIZE", "Dump", "open_dump"]

_PAGE = 4096
#: More nodes than any x86-64 kernel is built for (NODES_SHIFT is at most 10).
_MAX_NODES = 1024
#: A flat page array of 16 TiB of memory.
_MAX_FLAT_CHUNKS = 1 << 22


def open_dump(
    path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    layout: str | os.PathLike[str] | None = None,
    symbols: str | os.PathLike[str] | None = None,
    vmlinux: str | os.PathLike[str] | None = None,
) -> Dump:
    """Open a memory image and find out how to read it.

    The layout is the one given, or comes with the package if the kernel is a known one, or is what the kernel has in
    its own memory; what its VMCOREINFO says must agree with it.  Its symbol table is looked into for what nothing
    else tells.

    :param path: as for :func:`physmem.image.open_image`
    :param layout: a ``layout.json``
    :param symbols: a ``symbols.json``; where KASLR has moved the kernel since, ``_stext`` tells by how much
    :param vmlinux: the kernel's ``vmlinux`` with debug information, for what no layout and no symbols are given
    :raises ImageError: the image cannot be read
    :raises LayoutError: the layout is unknown, malformed, or not this kernel's
    :raises SymbolError: the symbols are malformed, or one that is needed is missing
    :raises UnsupportedError: pyelftools is not installed, and a vmlinux is to be read
    """
    # Each of these is for some images, and a machine of our own has no need of any.
    from physmem.structs import known
    from physmem.structs.bounds import check_bounds

    linked = None if vmlinux is None else _vmlinux(vmlinux)
    image = open_image(path, raw=layout is not None or linked is not None)
    try:
        info = VmcoreInfo(image.vmcoreinfo or find_vmcoreinfo(image))
        recognised = known.recognise(info)
        told = Layout.from_vmcoreinfo(info)
        names = Symbols({k[7:-1]: info.symbol(k[7:-1]) for k in info if k.startswith("SYMBOL(")}, "VMCOREINFO")
        if recognised is not None:
            names |= Symbols(recognised.symbols, f"known kernel {recognised.name}")
        if symbols is not None:
            given = Symbols.from_json(symbols)
            here = moved(given, moved_by(info, given, given.source))
            # In VMCOREINFO it is not the variable, but what that points to: this boot's.
            names |= Symbols({k: v for k, v in here.items() if k != "mem_section" or k not in names}, given.source)
        if linked is not None:
            linked.check_kernel(info)
            from physmem.kallsyms import KernelSymbols

            table = linked.symbols.moved(moved_by(info, linked.symbols, linked.path))
            names = KernelSymbols(names, lambda: table, linked.path)
        if layout is not None:
            structs = Layout.from_json(layout).merge(told)
        elif linked is not None:
            structs = linked.layout.merge(told)
            if info.get("OSRELEASE", "").startswith("4.0."):
                structs = with_macros(structs, linked)
        elif recognised is not None:
            structs = recognised.layout.merge(told)
        elif info:
            from physmem.kallsyms import KernelSymbols
            from physmem.kernel_layout import find_kallsyms, own_layout

            kernel = KernelImage.of(info, names, told, image)
            names = KernelSymbols(names, lambda: find_kallsyms(info, kernel))
            structs = own_layout(info, names, kernel)
        else:
            reason = "no kernel in it says what it is: give a layout with --layout"
            raise LayoutError(f"{image.path}: {reason}")
        check_bounds(structs)
        return Dump(image, info, structs, names)
    except BaseException:
        image.close()
        raise


def _vmlinux(path: str | os.PathLike[str]) -> Vmlinux:
    from physmem.vmlinux import Vmlinux

    return Vmlinux(path)


def with_macros(structs: Layout, linked: Vmlinux) -> Layout:
    """A Linux 4.0's own layout, with what its debug information does not have: macros, and enums without names."""
    from physmem.structs import linux_4_0  # brings construct along, which takes longer to import than physmem

    declared = linux_4_0.recognise(structs, "vmemmap_populate" in linked.symbols)
    return structs if declared is None else structs.merge(declared)


class Dump:
    """A memory image, understood.

    :ivar image: the file
    :ivar memory: the physical memory that is looked at: the image, or an emulated RAM made of it
    :ivar info: the kernel's VMCOREINFO
    :ivar symbols: its variables
    """

    def __init__(
        self, image: Image, info: VmcoreInfo, layout: Layout, symbols: Symbols, memory: PhysicalMemory | None = None
    ) -> None:
        self.image = image
        self.memory: PhysicalMemory = image if memory is None else memory
        self.info = info
        self.symbols = symbols
        self._layout = layout

    def close(self) -> None:
        """Let go of the image file."""
        self.image.close()

    def __enter__(self) -> Dump:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def over(self, memory: PhysicalMemory) -> Dump:
        """The same kernel, looked at in another memory (an emulated RAM that was made of the image)."""
        return Dump(self.image, self.info, self._layout, self.symbols, memory)

    # -- layout --------------------------------------------------------------

    @cached_property
    def layout(self) -> Layout:
        """The kernel's structs, enums and constants, with those that follow from where it has its regions."""
        derived: Lazy[int] = Lazy(self._derived, self._derivable)
        return replace(self._layout, constants=Overlay(self._layout.constants, derived))

    @cached_property
    def release(self) -> tuple[int, int]:
        """Version and patchlevel of the kernel, as in (6, 1)."""
        return release_of(self.info, self._layout)

    def _derived(self, name: str) -> int | None:
        return DERIVED[name](self) if name in DERIVED else None

    def _derivable(self) -> Iterator[str]:
        for name in DERIVED:
            with contextlib.suppress(PhysmemError):
                self._derived(name)
                yield name

    @cached_property
    def sizeof_page(self) -> int:
        """Bytes of a ``struct page``."""
        # VMCOREINFO tells it, at once; a layout that is not this kernel's has been refused.
        told = self.info.get("SIZE(page)", "")
        return int(told) if told.isdecimal() and int(told) else self._layout.sizeof("page")

    # -- translation ---------------------------------------------------------

    @cached_property
    def regions(self) -> Regions:
        """Where the kernel has its regions; raises what :meth:`Regions.of` does."""
        try:
            return Regions.of(self.info, self.symbols, self._layout, self.memory)
        except LayoutError as error:
            raise LayoutError(f"{self.image.path}: {error}") from None

    @property
    def page_offset(self) -> int:
        """PAGE_OFFSET: kernel address of physical 0 in the direct map."""
        return self.regions.page_offset

    @property
    def start_kernel_map(self) -> int:
        """__START_KERNEL_map: where the kernel's image is mapped."""
        return self.regions.start_kernel_map

    @property
    def phys_base(self) -> int:
        """Physical address that __START_KERNEL_map would map."""
        return self.regions.phys_base

    @property
    def pgd(self) -> int:
        """Physical address of the kernel's top page table (swapper_pg_dir, init_level4_pgt)."""
        return self.regions.pgd

    @cached_property
    def tables(self) -> PhysicalMemory:
        """The memory as page tables are to be read: where it is encrypted, without the bit that says so."""
        return PageTables(self.memory, self.regions.sme_mask) if self.regions.sme_mask else self.memory

    def steps(self, va: int) -> Iterator[paging.Step]:
        """Translate a kernel address by the kernel's page tables, one level at a time; see :func:`paging.steps`."""
        return paging.steps(self.tables, self.pgd, va, self.regions.levels)

    def virt_to_phys(self, va: int) -> int:
        """Physical address behind a kernel address: by region where that is fixed, by page tables elsewhere.

        :raises AddressError: nothing is mapped there
        """
        phys = self.regions.linear(va)
        if phys is None:
            phys = paging.walk(self.tables, self.pgd, va, self.regions.levels).phys
        if phys is None:
            raise AddressError(va, "not mapped by the kernel's page tables")
        return phys

    def read(self, va: int, size: int) -> bytes:
        """``size`` bytes at a kernel address that do not cross a change of mapping; AbsentError, AddressError."""
        return self.memory.read(self.virt_to_phys(va), size)

    def text(self, va: int, most: int, *, whole: bool = False) -> str:
        """The C string at a kernel address, or as much of it as ``most`` bytes have and the image does.

        :raises AbsentError: the image has nothing of it; with ``whole`` also, if it lacks a part
        :raises AddressError: likewise, of an address that is none
        """
        here = min(most, _PAGE - va % _PAGE)
        data = self.read(va, here)
        if b"\0" not in data and here < most:
            try:
                data += self.read(va + here, most - here)
            except (AbsentError, AddressError):
                if whole:
                    raise
        return data.partition(b"\0")[0].decode("latin-1")

    def u64(self, va: int) -> int:
        """``u64`` at a kernel address."""
        return self.memory.u64(self.virt_to_phys(va))

    def s32(self, va: int) -> int:
        """``int`` at a kernel address."""
        return int.from_bytes(self.read(va, 4), "little", signed=True)

    def field(self, va: int, tag: str, name: str) -> int:
        """An integer or pointer field of the struct ``tag`` at a kernel address."""
        f = self.layout.field(tag, name)
        if f.size is None or f.size > 8:
            raise LayoutError(f"struct {tag}.{name} is not an integer")
        return int.from_bytes(self.read(va + f.offset, f.size), "little", signed=bool(f.signed))

    def kernel_mapping(self) -> Mapping | None:
        """Where the kernel's image is, for debuggers; None if VMCOREINFO tells them, or nothing does."""
        from physmem.image.write import Mapping

        if "NUMBER(phys_base)" in self.info:
            return None
        with contextlib.suppress(PhysmemError):
            start, end = self.symbols["_text"], self.symbols["_end"]
            phys = self.regions.image.phys(start)
            if start < end and end in self.regions.image:
                return Mapping(start, phys, phys + end - start)
        return None

    # -- nodes and the page array --------------------------------------------

    @cached_property
    def pgdats(self) -> dict[int, int]:
        """Kernel address of each node's ``struct pglist_data``, by node id.

        :raises CorruptionError: there is no node, or two of them have the same address
        """
        if "node_data" not in self.symbols:
            return {0: self.symbols["contig_page_data"]}
        length = min(self.layout.constants.get("MAX_NUMNODES", _MAX_NODES), _MAX_NODES)
        pointers = memoryview(self.read(self.symbols["node_data"], 8 * length)).cast("Q")
        found = {nid: pointer for nid, pointer in enumerate(pointers) if pointer}
        if not found or len(set(found.values())) != len(found):
            raise CorruptionError("node_data", f"{len(found)} nodes at {len(set(found.values()))} addresses")
        return found

    @cached_property
    def max_pfn(self) -> int:
        """One past the highest page frame number of any node.

        :raises CorruptionError: a node reaches beyond physical addresses
        """
        top = 0
        for nid, pgdat in self.pgdats.items():
            start = self.field(pgdat, "pglist_data", "node_start_pfn")
            spanned = self.field(pgdat, "pglist_data", "node_spanned_pages")
            top = max(top, start + spanned)
            if top > 1 << (self.layout.constant("MAX_PHYSMEM_BITS") - 12):
                raise CorruptionError("node_span", f"node {nid} spans {spanned:#x} pages from pfn {start:#x}")
        return top

    @cached_property
    def model(self) -> MemoryModel:
        """The kernel's memory model."""
        return model_of(self.layout, has_sections="mem_section" in self.symbols)

    @cached_property
    def mem_map(self) -> int:
        """Kernel address of the ``struct page`` of PFN 0: VMEMMAP_START, or on FLATMEM the variable ``mem_map``.

        :raises UnsupportedError: classic sparse memory has no such address
        """
        if self.model is MemoryModel.SPARSEMEM:
            raise UnsupportedError(f"{self.image.path}: a page array in sections has no one beginning")
        return (
            self.regions.vmemmap if self.model is MemoryModel.SPARSEMEM_VMEMMAP else self.u64(self.symbols["mem_map"])
        )

    @cached_property
    def section_bases(self) -> npt.NDArray[np.uint64]:
        """Of each section of classic sparse memory, where the ``struct page`` of PFN 0 would be; 0: it has no array."""
        shift = self.layout.constant("PFN_SECTION_SHIFT")
        count = -(-self.max_pfn >> shift)
        bases = section_mem_maps(self.memory, self.layout, self.virt_to_phys, self.symbols["mem_section"], count)
        # An array that is not in memory as a whole is none.
        phys = section_chunks(bases, shift, self.sizeof_page, self.page_offset)
        bytes_each = self.sizeof_page << shift
        end = self.memory.ranges.end
        inside = (
            (phys != np.uint64(UNMAPPED)) & (phys < np.uint64(end)) & (np.uint64(end) - phys >= np.uint64(bytes_each))
        )
        return np.where(inside, bases, np.uint64(0))

    @cached_property
    def page_map(self) -> PageMap:
        """PFNs and the addresses of their ``struct page``, each into the other."""
        if self.model is MemoryModel.SPARSEMEM:
            return Sectioned(self.section_bases, self.layout.constant("PFN_SECTION_SHIFT"), self.sizeof_page)
        start = self._flat_start if self.model is MemoryModel.FLATMEM else 0
        return Linear(self.mem_map, self.sizeof_page, self.max_pfn, start)

    def page_of(self, pfn: int) -> int:
        """``pfn_to_page`` of one PFN, whether the machine has it or not; 0 if its section has no page array."""
        if self.model is MemoryModel.SPARSEMEM_VMEMMAP:
            # Without asking for the nodes, which takes reading the kernel's types.
            return self.mem_map + pfn * self.sizeof_page
        return self.page_map.page(pfn)

    @cached_property
    def _flat_start(self) -> int:
        """The first PFN of a flat page array, which begins with a whole block of the largest order."""
        start = min(self.field(pgdat, "pglist_data", "node_start_pfn") for pgdat in self.pgdats.values())
        return start & -self.layout.constant("MAX_ORDER_NR_PAGES")

    @cached_property
    def memmap(self) -> tuple[npt.NDArray[np.uint64], int]:
        """Physical address of each chunk of the page array (UNMAPPED where there is none), and log2 of its bytes.

        :raises CorruptionError: a flat page array that no machine has
        """
        size = self.max_pfn * self.sizeof_page
        if self.model is MemoryModel.SPARSEMEM_VMEMMAP:
            return paging.chunks(self.tables, self.pgd, self.mem_map, self.mem_map + size, self.regions.levels)
        if self.model is MemoryModel.SPARSEMEM:
            shift = self.layout.constant("PFN_SECTION_SHIFT")
            chunks = section_chunks(self.section_bases, shift, self.sizeof_page, self.page_offset)
            return chunks, shift + self.sizeof_page.bit_length() - 1
        if size >> FLAT_SHIFT > _MAX_FLAT_CHUNKS:
            raise CorruptionError("page_array", f"a flat page array of {size:#x} bytes")
        return flat_chunks(self.mem_map, self._flat_start, self.max_pfn, self.page_offset), FLAT_SHIFT

    def pages(self, start: int, stop: int, fields: list[str]) -> tuple[npt.NDArray[np.void], npt.NDArray[np.bool_]]:
        """The ``struct page`` of PFNs [start, stop): a structured array with ``fields``, and which of them exist.

        A page without a ``struct page``, or whose ``struct page`` is absent from the image, reads as zeros and
        is marked False.
        """
        chunk_phys, shift = self.memmap
        dtype = self.layout.dtype("page", fields)
        array = np.zeros(stop - start, dtype)
        exists = np.zeros(stop - start, bool)
        per_chunk = (1 << shift) // self.sizeof_page
        pfn = start
        while pfn < stop:
            chunk = pfn // per_chunk
            upto = min(stop, (chunk + 1) * per_chunk)
            phys = int(chunk_phys[chunk]) if chunk < len(chunk_phys) else UNMAPPED
            if phys != UNMAPPED:
                at = phys + (pfn % per_chunk) * self.sizeof_page
                for first, last in self.memory.ranges.clip(at, at + (upto - pfn) * self.sizeof_page):
                    i = -(-(first - at) // self.sizeof_page)
                    j = (last - at) // self.sizeof_page
                    if j > i:
                        where = slice(pfn - start + i, pfn - start + j)
                        array[where] = self.memory.array(at + i * self.sizeof_page, dtype, j - i)
                        exists[where] = True
            pfn = upto
        return array, exists

    def space(self, ram: Ram) -> dict[str, object]:
        """The keyword arguments of an :class:`AddressSpace` (or of a subclass) over ``ram``."""
        memmap, shift = self.memmap
        space: dict[str, object] = {
            "page_offset": self.page_offset,
            "start_kernel_map": self.start_kernel_map,
            "phys_base": self.phys_base,
            "kernel_image_size": self.regions.kernel_image_size,
            "memmap": np.ascontiguousarray(memmap).data,
            "memmap_shift": shift,
            "list_poison1": self.layout.constant("LIST_POISON1"),
            "list_poison2": self.layout.constant("LIST_POISON2"),
        }
        if self.model is MemoryModel.SPARSEMEM_VMEMMAP:
            return space | {"mem_map": self.mem_map}
        # The page array is in the direct map.
        space["vmemmap"] = UNMAPPED
        if self.model is MemoryModel.FLATMEM:
            return space | {"mem_map": self.mem_map}
        return space | {
            "mem_map": UNMAPPED,
            "sections": self.section_bases.data,
            "section_cover": section_cover(memmap, shift, ram.size).data,
            "section_shift": self.layout.constant("PFN_SECTION_SHIFT"),
            "sections_pgshift": self.layout.constant("SECTIONS_PGSHIFT"),
        }

    def address_space(self, ram: Ram) -> AddressSpace:
        """An :class:`AddressSpace` over an emulated RAM that was made of this dump."""
        from physmem.space import AddressSpace

        return AddressSpace(ram, **self.space(ram))  # type: ignore[arg-type]
