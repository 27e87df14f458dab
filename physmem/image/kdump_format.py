# SPDX-License-Identifier: GPL-2.0-only
"""The bytes of kdump-compressed files, as makedumpfile and hypervisors write them.

In blocks of one page each: the header, the sub header (with VMCOREINFO and the
notes somewhere behind it), two bitmaps of all page frames - those that are
memory, and those that were dumped - and a descriptor for every dumped page; the
pages' data follows.  Numbers are those of the machine that was dumped: little-endian.

A dump without the first bitmap has the second one alone.  The flattened form,
which can be written to a pipe, is a stream of (offset, bytes) records with
big-endian numbers.  Format: IMPLEMENTATION and diskdump_mod.h of makedumpfile,
diskdump.h of crash.
"""

from __future__ import annotations

import struct

__all__ = [
    "BLOCK",
    "DESCRIPTOR",
    "DISKDUMP",
    "FLAT_END",
    "FLAT_HEADER",
    "FLAT_HEADER_BYTES",
    "FLAT_RECORD",
    "FLAT_SIGNATURE",
    "HEADER",
    "INCOMPLETE",
    "KDUMP",
    "LZO",
    "SNAPPY",
    "SUB_HEADER",
    "SUB_HEADER_BYTES",
    "ZLIB",
    "ZSTD",
]

#: First bytes of a file by makedumpfile, and by the older diskdump, which has no sub header of this kind.
KDUMP = b"KDUMP   "
DISKDUMP = b"DISKDUMP"

#: PAGE_SIZE of x86-64, which is the size of a block there.
BLOCK = 4096

#: signature, header_version; utsname: sysname, nodename, release, version, machine, domainname; timestamp; status,
#: block_size, sub_hdr_size, bitmap_blocks, max_mapnr, total_ram_blocks, device_blocks, written_blocks, current_cpu,
#: nr_cpus
HEADER = struct.Struct("<8si65s65s65s65s65s65s6xqqIiiIIIIIIi")

#: phys_base; dump_level (from header_version 1 on); split, start_pfn, end_pfn (2); offset_vmcoreinfo,
#: size_vmcoreinfo (3); offset_note, size_note (4); offset_eraseinfo, size_eraseinfo (5); start_pfn_64, end_pfn_64,
#: max_mapnr_64 (6)
SUB_HEADER = struct.Struct("<QiiQQQQQQQQQQQ")

#: How many bytes of it each header_version has.
SUB_HEADER_BYTES = (8, 12, 32, 48, 64, 80, 104)

#: A page: where its data is in the file, how many bytes, how they are compressed; behind that, page_flags.
DESCRIPTOR = struct.Struct("<QII8x")

# Flags of a descriptor; those of the header say the same of the file.
ZLIB = 0x01
LZO = 0x02
SNAPPY = 0x04
ZSTD = 0x20
#: In the header's status: there was no room for all pages; a page that was not written has offset 0.
INCOMPLETE = 0x08

FLAT_SIGNATURE = b"makedumpfile\0\0\0\0"
#: signature, type, version: both 1
FLAT_HEADER = struct.Struct(">16sqq")
#: The header's place in the file; the first record follows.
FLAT_HEADER_BYTES = 4096
#: offset in the file that is meant, bytes that follow
FLAT_RECORD = struct.Struct(">qq")
#: Both fields of the last record.
FLAT_END = -1
