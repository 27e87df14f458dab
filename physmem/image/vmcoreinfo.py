# SPDX-License-Identifier: GPL-2.0-only
"""VMCOREINFO: the ``KEY=VALUE`` text in which a kernel describes itself to dump readers.

``SYMBOL(name)`` is an address in hexadecimal without ``0x``; ``SIZE(struct)``,
``OFFSET(struct.field)`` and ``LENGTH(array)`` are decimal; ``NUMBER(name)`` is
decimal, may be negative, and is hexadecimal with ``0x`` for some names from
Linux 6.12 on.  Format: Documentation/ABI/testing/sysfs-kernel-vmcoreinfo and
kernel/kexec.c (4.0), kernel/vmcore_info.c (later).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from physmem.errors import LayoutError, PhysmemError, SymbolError

__all__ = ["MAX_BYTES", "VmcoreInfo", "encode", "parse"]

#: The most bytes of text that are read; a kernel's own has at most a page.
MAX_BYTES = 1 << 20

# No 64-bit value has more digits than these allow.
_DECIMAL = re.compile(r"-?[0-9]{1,20}", re.ASCII)
_HEX = re.compile(r"(?:0[xX])?[0-9a-fA-F]{1,16}", re.ASCII)


def parse(data: bytes) -> dict[str, str]:
    """The entries of a VMCOREINFO text, in order; of a key that is repeated, the first.

    A NUL ends a line as a newline does (notes are padded with them).  Lines that are no ``KEY=VALUE`` of printable
    ASCII are passed over.

    :raises LayoutError: the text has more than ``MAX_BYTES`` bytes
    """
    if len(data) > MAX_BYTES:
        raise LayoutError(f"VMCOREINFO of {len(data)} bytes: at most {MAX_BYTES} are read")
    entries: dict[str, str] = {}
    for line in data.replace(b"\0", b"\n").split(b"\n"):
        key, equals, value = line.decode("latin-1").partition("=")
        if key and equals and key.isascii() and key.isprintable() and value.isascii() and value.isprintable():
            entries.setdefault(key, value)
    return entries


def encode(entries: Mapping[str, str]) -> bytes:
    """The text with ``entries``, one a line: ``parse`` gives them back.

    :raises LayoutError: a key or value cannot be written so
    """
    text = "".join(f"{key}={value}\n" for key, value in entries.items()).encode("utf-8")
    if parse(text) != dict(entries):
        raise LayoutError("VMCOREINFO: a key is empty or has a '=', or is not printable ASCII, or a value is not")
    return text


class VmcoreInfo(Mapping[str, str]):
    """The entries of a VMCOREINFO text, and what they mean.

    :param entries: as ``parse`` returns them
    """

    def __init__(self, entries: Mapping[str, str]) -> None:
        self._entries = dict(entries)

    def __getitem__(self, key: str) -> str:
        return self._entries[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def release(self) -> str:
        """The kernel's release, as ``uname -r`` prints it.

        :raises LayoutError: there is none
        """
        return self._value("OSRELEASE", LayoutError)

    @property
    def page_size(self) -> int:
        """PAGE_SIZE in bytes; raises LayoutError if it is not there."""
        return self._decimal("PAGESIZE")

    @property
    def kernel_offset(self) -> int:
        """By how many bytes KASLR moved the kernel's text; 0 if the kernel does not say."""
        return self._hex("KERNELOFFSET", LayoutError) if "KERNELOFFSET" in self else 0

    def symbol(self, name: str) -> int:
        """The address of the kernel symbol ``name``; raises SymbolError."""
        return self._hex(f"SYMBOL({name})", SymbolError)

    def size(self, struct: str) -> int:
        """sizeof the ``struct`` (or typedef) in bytes; raises LayoutError."""
        return self._decimal(f"SIZE({struct})")

    def offset(self, field: str) -> int:
        """Byte offset of ``field``, written "struct.field"; raises LayoutError."""
        return self._decimal(f"OFFSET({field})")

    def length(self, name: str) -> int:
        """Number of elements of the array ``name`` ("array" or "struct.field"); raises LayoutError."""
        return self._decimal(f"LENGTH({name})")

    def number(self, name: str) -> int:
        """The number ``name``, negative as it may be; raises LayoutError."""
        key = f"NUMBER({name})"
        if self.get(key, "").startswith(("0x", "0X")):
            return self._hex(key, LayoutError)
        return self._decimal(key, lowest=-(1 << 63))

    def encode(self) -> bytes:
        """The text again."""
        return encode(self)

    def _value(self, key: str, error: type[PhysmemError]) -> str:
        try:
            return self._entries[key]
        except KeyError:
            raise error(f"VMCOREINFO has no {key}") from None

    def _decimal(self, key: str, lowest: int = 0) -> int:
        value = self._value(key, LayoutError)
        if not _DECIMAL.fullmatch(value) or not lowest <= int(value) < 1 << 64:
            raise LayoutError(f"VMCOREINFO: {key}={value}: not a decimal number from {lowest} to 2**64 - 1")
        return int(value)

    def _hex(self, key: str, error: type[PhysmemError]) -> int:
        value = self._value(key, error)
        if not _HEX.fullmatch(value):
            raise error(f"VMCOREINFO: {key}={value}: not a hexadecimal number of 64 bits")
        return int(value, 16)
