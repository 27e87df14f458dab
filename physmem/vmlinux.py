# SPDX-License-Identifier: GPL-2.0-only
"""A kernel as it is linked, before it is compressed and booted: a ``vmlinux``, with its symbols and debug information.

Types come from DWARF, or from BTF if there is no DWARF.  Addresses are those for which the kernel was linked; where
KASLR has moved it, ``_stext`` in VMCOREINFO tells by how much.  The file may be anything: sizes are checked before
they are used.
"""

from __future__ import annotations

import mmap
import os
import re
import zlib
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import zstandard

from physmem.errors import LayoutError, SymbolError, UnsupportedError
from physmem.image import VmcoreInfo
from physmem.structs.bounds import check_struct
from physmem.structs.btf_layout import LazyLayout, read_btf, read_types
from physmem.structs.dwarf import SECTIONS, Dwarf
from physmem.structs.lazy import Lazy
from physmem.symbols import SymbolTable, in_image

__all__ = ["LinkedSymbols", "Vmlinux", "is_vmlinux"]

_MAX_SECTIONS = 1 << 16
#: The most bytes of a section that is kept compressed; the largest of a kernel with everything built in has 600 MiB.
_MAX_EXPANDED = 1 << 30
_ZLIB, _ZSTD = 1, 2
_EXEC, _DYN = 2, 3

_SYM = np.dtype([("name", "<u4"), ("info", "u1"), ("other", "u1"), ("shndx", "<u2"), ("value", "<u8"), ("size", "<u8")])


def is_vmlinux(path: str | os.PathLike[str]) -> bool:
    """Whether a file is an ELF program (and not a core file, as memory images are)."""
    try:
        with open(path, "rb") as file:
            head = file.read(18)
    except OSError:
        return False
    return head[:6] == b"\x7fELF\x02\x01" and int.from_bytes(head[16:18], "little") in (_EXEC, _DYN)


class LinkedSymbols(SymbolTable):
    """The symbols of an ELF file, found when they are asked for.  Of a name that several have, the first is found.

    :param table: its ``.symtab``
    :param names: its ``.strtab``
    :param moved: bytes by which what is in the kernel's image has been moved
    """

    def __init__(self, table: npt.NDArray[np.void], names: bytes, moved: int = 0) -> None:
        defined = table[(table["shndx"] != 0) & (table["name"] != 0)]
        self._offsets = defined["name"].astype(np.int64)
        self._values = defined["value"]
        self._names = names
        self._moved = moved

    def moved(self, by: int) -> LinkedSymbols:
        """The same symbols in an image that is ``by`` bytes from where it was linked; per-CPU offsets stay."""
        other = LinkedSymbols(np.empty(0, _SYM), self._names, by)
        other._offsets, other._values = self._offsets, self._values
        return other

    def find(self, name: str) -> int | None:
        """The address of a symbol, None if there is none of that name."""
        wanted = name.encode("latin-1", "replace") + b"\0"
        # A name may be the end of a longer one, which the linker keeps once.
        at = self._names.find(wanted)
        best: int | None = None
        while at >= 0:
            found = np.flatnonzero(self._offsets == at)
            if len(found) and (best is None or int(found[0]) < best):
                best = int(found[0])
            at = self._names.find(wanted, at + 1)
        return None if best is None else self._address(int(self._values[best]))

    def _address(self, value: int) -> int:
        return value + self._moved if in_image(value) else value

    def __getitem__(self, name: str) -> int:
        address = self.find(name)
        if address is None:
            raise KeyError(name)
        return address

    def __iter__(self) -> Iterator[str]:
        seen = dict.fromkeys(self._offsets.tolist())
        names = (self._names[at : self._names.find(b"\0", at)] for at in seen if at < len(self._names))
        return iter(dict.fromkeys(name.decode("latin-1") for name in names))

    def __len__(self) -> int:
        return sum(1 for _ in self)


class Vmlinux:
    """A ``vmlinux``.

    :param path: the file
    :raises LayoutError: it is no ELF program for x86-64, or is malformed
    :raises UnsupportedError: pyelftools is not installed
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        try:
            from elftools.elf.elffile import ELFFile
        except ImportError:
            raise UnsupportedError("reading a vmlinux needs pyelftools: pip install 'physmem[dwarf]'") from None
        try:
            with open(path, "rb") as file:
                if not is_vmlinux(path):
                    raise self._fail("no ELF program of 64 bits (a vmlinux is; bzImage and vmlinuz are not)")
                self._size = os.fstat(file.fileno()).st_size
                self._data = memoryview(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ))
                self._sections = self._read_headers(ELFFile(file))
        except OSError as error:
            raise LayoutError(f"{self.path}: {error.strerror or error}") from None
        except (LayoutError, MemoryError):
            raise
        except Exception as error:
            # pyelftools raises whatever Python does where bytes are not what they should be.
            text = " ".join(str(error).split())[:100]
            raise self._fail(f"not understood as ELF: {type(error).__name__} {text}".rstrip()) from None

    def _fail(self, reason: str) -> LayoutError:
        return LayoutError(f"{self.path}: {reason}")

    def _read_headers(self, elf: Any) -> dict[str, tuple[int, int, bool]]:
        """Of each section, where it is in the file, its bytes there, and whether they are compressed."""
        if elf["e_machine"] != "EM_X86_64":
            raise self._fail(f"for the machine {elf['e_machine']}: only x86-64 is read")
        if elf.num_sections() > _MAX_SECTIONS:
            raise self._fail(f"{elf.num_sections()} sections: at most {_MAX_SECTIONS} are read")
        found: dict[str, tuple[int, int, bool]] = {}
        for section in elf.iter_sections():
            header = section.header
            if header["sh_type"] == "SHT_NOBITS":
                continue
            start, size = header["sh_offset"], header["sh_size"]
            if start + size > self._size:
                raise self._fail(f"section {section.name!r}: {size} bytes at {start:#x} are not in the file")
            found.setdefault(section.name, (start, size, bool(header["sh_flags"] & 1 << 11)))
        return found

    def section(self, name: str) -> bytes | memoryview:
        """The bytes of a section, none if there is no such section; LayoutError if they cannot be had."""
        start, size, compressed = self._sections.get(name, (0, 0, False))
        data = self._data[start : start + size]
        if not compressed:
            return data
        kind, expanded = int.from_bytes(data[:4], "little"), int.from_bytes(data[8:16], "little")
        if size < 24 or expanded > _MAX_EXPANDED:
            raise self._fail(f"section {name!r}: {expanded} bytes, compressed: at most {_MAX_EXPANDED} are read")
        try:
            if kind == _ZLIB:
                out = zlib.decompressobj().decompress(data[24:], expanded)
            elif kind == _ZSTD:
                out = zstandard.ZstdDecompressor().stream_reader(data[24:]).read(expanded)
            else:
                raise self._fail(f"section {name!r}: compressed by an unknown method ({kind})")
        except (zlib.error, zstandard.ZstdError) as error:
            raise self._fail(f"section {name!r}: {error}") from None
        if len(out) != expanded:
            raise self._fail(f"section {name!r}: {len(out)} bytes when expanded, not {expanded}")
        return out

    # -- what it tells ---------------------------------------------------------------------------

    @cached_property
    def layout(self) -> LazyLayout:
        """Its structs and enums.

        :raises LayoutError: it has neither DWARF nor BTF, or what it has is malformed
        """
        if ".debug_info" in self._sections:
            found = read_types(Dwarf({name: self.section(name) for name in SECTIONS}, self.path))
        elif ".BTF" in self._sections:
            found = read_btf(bytes(self.section(".BTF")), self.path)
        else:
            raise self._fail("neither DWARF nor BTF in it: the kernel's debug package has a vmlinux with DWARF")
        return LazyLayout(
            Lazy(
                lambda tag: check_struct(found.structs[tag], self.path) if tag in found.structs else None,
                lambda: iter(found.structs),
            ),
            found.enums,
            found.constants,
            found.source,
            found.enumerators,
        )

    @cached_property
    def symbols(self) -> LinkedSymbols:
        """Its symbols, at the addresses for which it was linked; SymbolError if it has none."""
        table, names = self.section(".symtab"), bytes(self.section(".strtab"))
        if len(table) < _SYM.itemsize or not names:
            raise SymbolError(f"{self.path}: no symbols in it (stripped)")
        if not names.endswith(b"\0"):
            raise SymbolError(f"{self.path}: the names of its symbols do not end")
        return LinkedSymbols(np.frombuffer(table, _SYM, len(table) // _SYM.itemsize), names)

    @cached_property
    def build_id(self) -> str | None:
        """The build ID that its linker gave it, in hexadecimal; None if it has none."""
        for section in (".notes", ".note.gnu.build-id"):
            data = bytes(self.section(section))
            at = data.find(b"\x04\0\0\0\x14\0\0\0\x03\0\0\0GNU\0")
            if at >= 0 and at % 4 == 0:
                return data[at + 16 : at + 36].hex()
        return None

    def check_kernel(self, info: VmcoreInfo) -> None:
        """Refuse a memory image of another kernel; LayoutError."""
        theirs = info.get("BUILD-ID", "")
        if self.build_id and re.fullmatch("[0-9a-f]{40}", theirs) and theirs != self.build_id:
            raise self._fail(f"another kernel: its build ID is {self.build_id}, the image's kernel has {theirs}")
