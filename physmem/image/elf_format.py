# SPDX-License-Identifier: GPL-2.0-only
"""The headers of ELF64 little-endian files, as far as core files use them.

Formats: System V ABI with the AMD64 supplement, elf(5); PN_XNUM as in the Linux
header <uapi/linux/elf.h>.  The names are those of the formats.
"""

from __future__ import annotations

import struct

__all__ = [
    "EHDR",
    "ELFCLASS64",
    "ELFDATA2LSB",
    "EM_X86_64",
    "ET_CORE",
    "EV_CURRENT",
    "MAGIC",
    "MAX_SEGMENTS",
    "PHDR",
    "PN_XNUM",
    "PT_LOAD",
    "PT_NOTE",
    "SHDR",
]

MAGIC = b"\x7fELF"

#: Elf64_Ehdr: e_ident, e_type, e_machine, e_version, e_entry, e_phoff, e_shoff, e_flags, e_ehsize, e_phentsize,
#: e_phnum, e_shentsize, e_shnum, e_shstrndx
EHDR = struct.Struct("<16sHHIQQQIHHHHHH")
#: Elf64_Phdr: p_type, p_flags, p_offset, p_vaddr, p_paddr, p_filesz, p_memsz, p_align
PHDR = struct.Struct("<IIQQQQQQ")
#: Elf64_Shdr: sh_name, sh_type, sh_flags, sh_addr, sh_offset, sh_size, sh_link, sh_info, sh_addralign, sh_entsize
SHDR = struct.Struct("<IIQQQQIIQQ")

ELFCLASS64 = 2
ELFDATA2LSB = 1
EV_CURRENT = 1
ET_CORE = 4
EM_X86_64 = 62
PT_LOAD = 1
PT_NOTE = 4
#: An e_phnum that says: the number is in sh_info of section header 0.
PN_XNUM = 0xFFFF

#: The most program headers that are read or written here.
MAX_SEGMENTS = 1 << 20
