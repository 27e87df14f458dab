# SPDX-License-Identifier: GPL-2.0-only
"""The kernel's own symbol table, which it keeps in its memory for /proc/kallsyms.

Names are compressed: 256 *tokens* stand for the strings that are most frequent in
names, and a name is a row of tokens with its length in front (two bytes if the
first has its top bit set, since 6.1).  Expanded, a name begins with the letter
that nm gives its kind.  Names and addresses are in the same order, of addresses.

Where the tables are, VMCOREINFO says since 6.0; before, they are searched for
(:mod:`physmem.kallsyms_search`).  How addresses are written has changed too:

===========  ==================================================================
until 4.5    as they are
from 4.6     32 bits to be added to a base; if there are per-CPU variables, only
             the negative ones: base - 1 - n, the others are as they are
newest       32 bits to be added to the address of the number itself
===========  ==================================================================

Nothing in memory says which it is, so the one is taken that gives the symbols of
VMCOREINFO their addresses.  Formats: kernel/kallsyms.c, scripts/kallsyms.c.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from physmem.errors import AbsentError, AddressError, LayoutError, SymbolError
from physmem.image import VmcoreInfo
from physmem.kallsyms_names import MAX_TOKEN, TOKENS, Names
from physmem.regions import KernelImage
from physmem.symbols import Symbols, SymbolTable

__all__ = ["Kallsyms", "KernelSymbols", "Tables", "anchors_of", "read_kallsyms"]

#: Far above what kernels have: symbols, bytes of their compressed names.
MAX_SYMBOLS = 1 << 21
MAX_NAMES = 64 << 20

_U64 = (1 << 64) - 1

#: The address of the symbol with a number.
Addresses = Callable[[int], int]

# Symbols that VMCOREINFO has by their own addresses, not by what they point to.
_ANCHORS = ("_stext", "init_uts_ns", "init_top_pgt", "init_level4_pgt", "prb")


@dataclass(frozen=True)
class Tables:
    """Kernel addresses of the tables.

    :ivar relative_base: of the variable; None in kernels that have none
    :ivar wide: whether ``offsets`` has whole addresses of 64 bits
    """

    num_syms: int
    names: int
    token_table: int
    token_index: int
    offsets: int
    relative_base: int | None
    wide: bool = False

    @classmethod
    def of(cls, info: VmcoreInfo) -> Tables | None:
        """Where VMCOREINFO says that they are; None if it does not."""

        def at(name: str) -> int:
            return info.symbol(f"kallsyms_{name}")

        if "SYMBOL(kallsyms_names)" not in info:
            return None
        base = at("relative_base") if "SYMBOL(kallsyms_relative_base)" in info else None
        return cls(at("num_syms"), at("names"), at("token_table"), at("token_index"), at("offsets"), base)

    def moved(self, by: int) -> Tables:
        """The same tables, ``by`` bytes further up."""
        return Tables(
            self.num_syms + by,
            self.names + by,
            self.token_table + by,
            self.token_index + by,
            self.offsets + by,
            None if self.relative_base is None else self.relative_base + by,
            self.wide,
        )


class Kallsyms(SymbolTable):
    """All symbols of a kernel, and their addresses.  Of a name that several have, the first is found.

    :param names: the names of all symbols
    :param addresses: gives the address of each
    """

    def __init__(self, names: Names, addresses: Addresses) -> None:
        self._names = names
        self._addresses = addresses
        self._asked: dict[str, int | None] = {}

    @cached_property
    def _all(self) -> dict[str, int]:
        """Every name, once somebody has asked for all of them."""
        found: dict[str, int] = {}
        for number, name in enumerate(self._names):
            found.setdefault(name.decode("latin-1"), self._addresses(number))
        return found

    def find(self, name: str) -> int | None:
        """The address of a symbol, None if there is none of that name."""
        if "_all" in self.__dict__:
            return self._all.get(name)
        if name not in self._asked:
            number = self._names.find(name)
            self._asked[name] = None if number is None else self._addresses(number)
        return self._asked[name]

    def __getitem__(self, name: str) -> int:
        address = self.find(name)
        if address is None:
            raise KeyError(name)
        return address

    def __iter__(self) -> Iterator[str]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)

    def __repr__(self) -> str:
        return f"<Kallsyms: {len(self._names)} symbols>"


def read_kallsyms(tables: Tables, image: KernelImage, anchors: Mapping[str, int]) -> Kallsyms:
    """Read the symbol table of a kernel.

    :param anchors: the addresses of some symbols: see :func:`anchors_of`
    :raises SymbolError: there is no such table, or it contradicts itself or the anchors
    :raises AbsentError: a table is not in the memory image
    :raises AddressError: it would be outside the kernel's image
    """
    count = int.from_bytes(image.read(tables.num_syms, 4), "little")
    if not 0 < count <= MAX_SYMBOLS:
        raise SymbolError(f"kallsyms: {count} symbols: at most {MAX_SYMBOLS} are read")
    size = tables.token_table - tables.names
    if not 0 < size <= MAX_NAMES:
        raise SymbolError(f"kallsyms: {size} bytes between names and tokens: at most {MAX_NAMES} are read")
    names = Names(image.read_present(tables.names, size), count, *read_tokens(tables, image))
    known = {name: at for name in anchors if (at := names.find(name)) is not None}
    if not known:
        raise SymbolError(f"kallsyms: {count} symbols, and none of {', '.join(anchors)} among them")
    for addresses in _encodings(tables, image, count):
        if all(addresses(at) == anchors[name] for name, at in known.items()):
            return Kallsyms(names, addresses)
    raise SymbolError(f"kallsyms: no encoding that is known gives {', '.join(known)} the address in VMCOREINFO")


def anchors_of(info: VmcoreInfo) -> dict[str, int]:
    """The symbols of VMCOREINFO that tell how the addresses of kallsyms are written."""
    return {name: info.symbol(name) for name in _ANCHORS if f"SYMBOL({name})" in info}


def read_tokens(tables: Tables, image: KernelImage) -> tuple[bytes, Sequence[int]]:
    """The table of tokens, each with a NUL behind it, and where in it each begins; raises as read_kallsyms does."""
    index = struct.unpack(f"<{TOKENS}H", image.read(tables.token_index, 2 * TOKENS))
    table = image.read_present(tables.token_table, index[-1] + MAX_TOKEN + 1)
    return table[: table.find(b"\0", index[-1]) + 1], index


def _encodings(tables: Tables, image: KernelImage, count: int) -> Iterator[Addresses]:
    """The addresses of all symbols, by each way in which they may be written."""
    if tables.wide:
        wide = memoryview(image.read(tables.offsets, 8 * count)).cast("Q")
        yield wide.__getitem__
        return
    offsets = memoryview(image.read(tables.offsets, 4 * count)).cast("i")
    if tables.relative_base is not None:
        base = int.from_bytes(image.read(tables.relative_base, 8), "little")
        yield lambda at: offsets[at] if offsets[at] >= 0 else base - 1 - offsets[at] & _U64
        yield lambda at: base + (offsets[at] & 0xFFFFFFFF) & _U64
    yield lambda at: tables.offsets + 4 * at + offsets[at] & _U64


class KernelSymbols(Symbols):
    """Symbols of which a few are known from the start, and all others when one of them is asked for.

    :param known: what is known; it has precedence
    :param load: reads the kernel's table; called at most once
    :param table_source: what to call that
    """

    def __init__(self, known: Symbols, load: Callable[[], SymbolTable], table_source: str = "kallsyms") -> None:
        super().__init__(known, f"{known.source} + {table_source}")
        self._known = known
        self._load = load
        self._table_source = table_source
        self._failure = ""

    @cached_property
    def table(self) -> SymbolTable | None:
        """The kernel's table; None if it cannot be read."""
        try:
            return self._load()
        except (SymbolError, LayoutError, AbsentError, AddressError) as error:
            self._failure = str(error)
            return None

    def __getitem__(self, name: str) -> int:
        if name in self._known:
            return self._known[name]
        address = None if self.table is None else self.table.find(name)
        if address is None:
            why = f"{self._known.source}; {self._failure}" if self._failure else self.source
            raise SymbolError(f"the address of {name!r} is unknown ({why}): give the kernel's symbols with --symbols")
        return address

    def find(self, name: str) -> int:
        try:
            return self[name]
        except SymbolError:
            return 0

    def __contains__(self, name: object) -> bool:
        if name in self._known:
            return True
        return isinstance(name, str) and self.table is not None and self.table.find(name) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys([*self._known, *(self.table or ())]))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __or__(self, other: Symbols) -> Symbols:
        return KernelSymbols(self._known | other, self._load, self._table_source)
