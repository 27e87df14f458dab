# SPDX-License-Identifier: GPL-2.0-only
"""Where a kernel's variables and functions are: name to address, and where that was learnt.

A per-cpu variable's "address" on an SMP kernel is its offset in each CPU's area.
"""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping

from physmem.errors import SymbolError
from physmem.image import VmcoreInfo

__all__ = ["SymbolTable", "Symbols", "in_image", "moved", "moved_by"]

_MAX_BYTES = 64 << 20
#: Where a kernel's image can be: KERNEL_IMAGE_SIZE is at most 1 GiB.
_IMAGE = range(0xFFFFFFFF80000000, 0xFFFFFFFFC0000000)
#: KASLR moves it by multiples of this (CONFIG_PHYSICAL_ALIGN).
_ALIGN = 1 << 21


def in_image(address: int) -> bool:
    """Whether an address moves with the kernel's image; the offsets of per-CPU variables do not."""
    return address in _IMAGE


def moved(addresses: Mapping[str, int], by: int) -> dict[str, int]:
    """The addresses of a kernel whose image is ``by`` bytes further up."""
    return {name: address + by if in_image(address) else address for name, address in addresses.items()}


def moved_by(info: VmcoreInfo, addresses: Mapping[str, int], source: str) -> int:
    """How far a kernel is from where a table of its symbols has it: by ``_stext``, 0 if that is not in both.

    :param source: what to call the table
    :raises SymbolError: by as much as no kernel is moved, so that the table is another kernel's
    """
    if "SYMBOL(_stext)" not in info or "_stext" not in addresses:
        return 0
    by = info.symbol("_stext") - addresses["_stext"]
    if by % _ALIGN:
        raise SymbolError(f"{source}: another kernel's: _stext is {by:#x} bytes from where the image has it")
    return by


class SymbolTable(Mapping[str, int], ABC):
    """All symbols of a kernel, of which few are asked for."""

    @abstractmethod
    def find(self, name: str) -> int | None:
        """The address of a symbol, None if there is none of that name."""


class Symbols(Mapping[str, int]):
    """Addresses by name; an unknown name is an error that says what to do, never a guess.

    :param addresses: address of each symbol, ``u64``
    :param source: where they were learnt, in words
    """

    def __init__(self, addresses: Mapping[str, int], source: str) -> None:
        self._addresses = dict(addresses)
        self.source = source

    @classmethod
    def from_json(cls, path: str | os.PathLike[str]) -> Symbols:
        """Read a ``symbols.json``: an object ``addresses`` of names and addresses (``"0xffff..."`` or numbers).

        :raises SymbolError: the file is unreadable or malformed; the message names the file and the key
        """
        name = os.fspath(path)
        try:
            with open(path, "rb") as file:
                data = file.read(_MAX_BYTES + 1)
        except OSError as error:
            raise SymbolError(f"{name}: {error.strerror}") from None
        if len(data) > _MAX_BYTES:
            raise SymbolError(f"{name}: more than {_MAX_BYTES} bytes")
        try:
            content = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise SymbolError(f"{name}: not JSON: {error}") from None
        table = content.get("addresses", content) if isinstance(content, dict) else None
        if not isinstance(table, dict):
            raise SymbolError(f"{name}: no object 'addresses' of names and addresses")
        addresses = {}
        for symbol, value in table.items():
            if isinstance(value, str):
                try:
                    value = int(value, 16)
                except ValueError:
                    raise SymbolError(f"{name}: {symbol}: {value!r} is not a hexadecimal address") from None
            if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 64:
                raise SymbolError(f"{name}: {symbol}: {value!r} is not an address of 64 bits")
            addresses[symbol] = value
        return cls(addresses, name)

    def __getitem__(self, name: str) -> int:
        try:
            return self._addresses[name]
        except KeyError:
            raise SymbolError(
                f"the address of {name!r} is unknown ({self.source}): give the kernel's symbols with --symbols"
            ) from None

    def find(self, name: str) -> int:
        """The address of a symbol that a kernel need not have; 0 if it is unknown."""
        return self._addresses.get(name, 0)

    def __contains__(self, name: object) -> bool:
        return name in self._addresses

    def __iter__(self) -> Iterator[str]:
        return iter(self._addresses)

    def __len__(self) -> int:
        return len(self._addresses)

    def __or__(self, other: Symbols) -> Symbols:
        """Both; where both know a name, the right one's address."""
        return Symbols(self._addresses | other._addresses, f"{self.source} + {other.source}")
