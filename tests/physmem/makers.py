# SPDX-License-Identifier: GPL-2.0-only
"""Makers of what kernels and dump tools make, small enough for tests: BTF, kallsyms, kdump files.

They follow the formats' descriptions, not the readers; ``conftest`` hands them to the tests.
"""

from __future__ import annotations

import contextlib
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from physmem.errors import PhysmemError

INT, PTR, ARRAY, STRUCT, UNION, ENUM, FWD, TYPEDEF, VOLATILE, CONST, RESTRICT = range(1, 12)
FUNC, FUNC_PROTO, VAR, DATASEC, FLOAT, DECL_TAG, TYPE_TAG, ENUM64 = range(12, 20)


@dataclass
class BtfMaker:
    """Adds types one by one; each method returns the new type's number."""

    strings: bytearray = field(default_factory=lambda: bytearray(b"\0"))
    types: bytearray = field(default_factory=bytearray)
    count: int = 0
    places: dict[str, int] = field(default_factory=lambda: {"": 0})

    def string(self, text: str) -> int:
        if text not in self.places:
            self.places[text] = len(self.strings)
            self.strings += text.encode() + b"\0"
        return self.places[text]

    def add(
        self, kind: int, name: str = "", ref: int = 0, vlen: int = 0, flag: bool = False, words: Iterable[int] = ()
    ) -> int:
        info = flag << 31 | kind << 24 | vlen
        for word in (self.string(name), info, ref, *words):
            self.types += struct.pack("<I", word & 0xFFFFFFFF)
        self.count += 1
        return self.count

    def integer(self, name: str, size: int, *, signed: bool = False, boolean: bool = False) -> int:
        return self.add(INT, name, size, words=[(signed | boolean << 2) << 24 | 8 * size])

    def array(self, element: int, count: int) -> int:
        return self.add(ARRAY, words=[element, 0, count])

    def aggregate(self, name: str, size: int, members: Sequence[tuple[str, int, int, int]], kind: int = STRUCT) -> int:
        """A struct or union; members are (name, type, first bit, bits of a bitfield or 0)."""
        flag = any(bits for *_, bits in members)
        words = [w for n, t, bit, bits in members for w in (self.string(n), t, bits << 24 | bit if flag else bit)]
        return self.add(kind, name, size, len(members), flag, words)

    def enum(self, name: str, values: Mapping[str, int], *, wide: bool = False, signed: bool = False) -> int:
        words = []
        for n, value in values.items():
            words += [self.string(n), value, value >> 32] if wide else [self.string(n), value]
        return self.add(ENUM64 if wide else ENUM, name, 8 if wide else 4, len(values), signed, words)

    def function(self, result: int, parameters: Sequence[int]) -> int:
        return self.add(FUNC_PROTO, "", result, len(parameters), words=[w for p in parameters for w in (0, p)])

    def data(self, sizes: Sequence[tuple[int, int]] | None = None) -> bytes:
        """The BTF; with ``sizes`` (bytes behind a record, bytes of an element) for each kind, as 7.2 has them."""
        layout = b"".join(struct.pack("<BBH", *size, 0) for size in sizes or ())
        extra = struct.pack("<II", len(self.types) + len(self.strings), len(layout)) if sizes else b""
        header = struct.pack(
            "<HBBIIIII", 0xEB9F, 1, 0, 24 + len(extra), 0, len(self.types), len(self.types), len(self.strings)
        )
        return header + extra + bytes(self.types) + bytes(self.strings) + layout


TOKENS: dict[int, bytes] = {n: bytes([n]) for n in range(33, 127)}
TOKENS |= {0: b"_base", 1: b"the_", 200: b"sched_", 255: b"x_"}
"""Tokens of a small table: a character each, and a few that are worth more."""


def compress_name(name: str, tokens: Mapping[int, bytes]) -> bytes:
    """A name as a row of tokens, longest first, and its length in front."""
    rest, out = name.encode(), bytearray()
    ordered = sorted(tokens.items(), key=lambda token: -len(token[1]))
    while rest:
        number, text = next((n, t) for n, t in ordered if t and rest.startswith(t))
        out.append(number)
        rest = rest[len(text) :]
    head = bytes([len(out)]) if len(out) < 128 else bytes([len(out) & 0x7F | 0x80, len(out) >> 7])
    return head + bytes(out)


def token_table(tokens: Mapping[int, bytes] = TOKENS) -> tuple[bytes, bytes]:
    """The token table and its index."""
    table, index = b"", b""
    for number in range(256):
        index += struct.pack("<H", len(table))
        table += tokens.get(number, b"") + b"\0"
    return table, index


@dataclass(frozen=True)
class KallsymsImage:
    """The bytes of the tables, and where each begins in them."""

    data: bytes
    places: dict[str, int]


def make_kallsyms(
    symbols: Sequence[tuple[str, int]],
    base: int,
    at: int,
    style: str = "percpu",
    *,
    order: Sequence[str] | None = None,
    marker: str = "<I",
    tokens: Mapping[int, bytes] = TOKENS,
    extra: Mapping[str, bytes] | None = None,
) -> KallsymsImage:
    """The tables of kallsyms, as they would be from the kernel address ``at`` on.

    :param symbols: names with the letter of their kind in front, and addresses
    :param style: ``percpu``, ``relative``, ``place`` (relative to the place of the number) or ``wide``
    :param order: of the tables; by default that of kernels before 6.4
    :param extra: further tables, to be named in ``order``
    """
    names = [compress_name(name, tokens) for name, _ in symbols]
    starts = [0]
    for name in names:
        starts.append(starts[-1] + len(name))
    table, index = token_table(tokens)
    parts = {
        "relative_base": struct.pack("<Q", base),
        "num_syms": struct.pack("<Q", len(symbols)),
        "names": b"".join(names),
        "markers": b"".join(struct.pack(marker, start) for start in starts[:-1:256]),
        "token_table": table,
        "token_index": index,
        "offsets": b"",
        **(extra or {}),
    }
    default = ("offsets", "relative_base", "num_syms", "names", "markers", "token_table", "token_index")
    data, places = bytearray(), {}
    for part in order or (default if style in ("percpu", "relative") else [p for p in default if p != "relative_base"]):
        data += bytes(-len(data) % 8)
        places[part] = len(data)
        if part == "offsets":
            parts[part] = _offsets([address for _, address in symbols], base, at + len(data), style)
        data += parts[part]
    return KallsymsImage(bytes(data), places)


def _offsets(addresses: Sequence[int], base: int, at: int, style: str) -> bytes:
    if style == "wide":
        return b"".join(struct.pack("<Q", address) for address in addresses)
    encode: dict[str, Callable[[int, int], int]] = {
        "percpu": lambda _, address: address if address < 1 << 31 else base - 1 - address,
        "relative": lambda _, address: address - base,
        "place": lambda i, address: address - (at + 4 * i),
    }
    return b"".join(struct.pack("<I", encode[style](i, a) & 0xFFFFFFFF) for i, a in enumerate(addresses))


PAGE = 4096
ZLIB, LZO, SNAPPY, INCOMPLETE, ZSTD = 1, 2, 4, 8, 0x20


def make_kdump(
    pages: Mapping[int, bytes],
    max_mapnr: int,
    *,
    version: int = 6,
    compress: Callable[[bytes], tuple[int, bytes]] = lambda page: (ZLIB, zlib.compress(page)),
    signature: bytes = b"KDUMP   ",
    machine: bytes = b"x86_64",
    status: int = 0,
    split: tuple[int, int] | None = None,
    missing: Iterable[int] = (),
    one_bitmap: bool = False,
    vmcoreinfo: bytes = b"",
    notes: bytes = b"",
) -> bytearray:
    """A kdump-compressed file.

    :param pages: by PFN; pages of zeros share one place in the file
    :param compress: flags of the descriptor, and the data
    :param split: the PFNs [start, end) that this file is for
    :param missing: pages whose data was not written
    """
    start, end = split or (0, max_mapnr)
    sub_blocks = 1 + -(-(len(vmcoreinfo) + len(notes)) // PAGE)
    bitmap = bytearray(-(-max_mapnr // (8 * PAGE)) * PAGE)
    for pfn in pages:
        bitmap[pfn // 8] |= 1 << pfn % 8
    bitmaps = bytes(bitmap) if one_bitmap else b"\xff" * len(bitmap) + bytes(bitmap)
    info_at = 2 * PAGE
    note_at = info_at + len(vmcoreinfo)
    header = struct.pack(
        "<8si65s65s65s65s65s65s6xqqIiiIIIIIIi",
        *(signature, version, b"Linux", b"", b"", b"", machine, b"", 0, 0, status),
        *(PAGE, sub_blocks, len(bitmaps) // PAGE, min(max_mapnr, 0xFFFFFFFF), 0, 0, 0, 0, 1),
    )
    sub = struct.pack("<Qi", 0, 31)
    if version >= 2:
        sub += struct.pack("<iQQ", split is not None, *(split or (0, 0)))
    if version >= 3:
        sub += struct.pack("<QQ", info_at if vmcoreinfo else 0, len(vmcoreinfo))
    if version >= 4:
        sub += struct.pack("<QQ", note_at if notes else 0, len(notes))
    if version >= 5:
        sub += struct.pack("<QQ", 0, 0)
    if version >= 6:
        sub += struct.pack("<QQQ", *(split or (0, 0)), max_mapnr)
        sub = sub[:16] + bytes(16) + sub[32:]  # the narrow ones are not written any more
    image = bytearray(header.ljust(PAGE, b"\0") + sub[: 104 if version else 8].ljust(PAGE, b"\0"))
    image += (vmcoreinfo + notes).ljust((sub_blocks - 1) * PAGE, b"\0")
    image += bitmaps
    here = sorted(pfn for pfn in pages if start <= pfn < end)
    data_at = len(image) + 24 * len(here)
    descriptors, data, zero_at = b"", b"", 0
    for pfn in here:
        flags, content = compress(pages[pfn]) if any(pages[pfn]) else (0, pages[pfn])
        if pfn in missing:
            descriptors += bytes(24)
            continue
        place = data_at + len(data)
        if not any(pages[pfn]):
            place = zero_at = zero_at or place
            content = content if place == data_at + len(data) else b""
            descriptors += struct.pack("<QIIQ", place, PAGE, 0, 0)
        else:
            descriptors += struct.pack("<QIIQ", place, len(content), flags, 0)
        data += content
    return image + descriptors + data


def flatten(data: bytes, cuts: Sequence[tuple[int, int]], *, end: bool = True) -> bytes:
    """The flattened form of a file: a record for each (start, end) of it, in this order."""
    out = struct.pack(">16sqq", b"makedumpfile", 1, 1).ljust(4096, b"\0")
    for first, last in cuts:
        out += struct.pack(">qq", first, last - first) + data[first:last]
    return out + (struct.pack(">qq", -1, -1) if end else b"")


@contextlib.contextmanager
def read_or_refused() -> Iterator[None]:
    """What is done here ends well, or with an error of the package that has one line."""
    try:
        yield
    except PhysmemError as error:
        if "\n" in str(error) or not str(error):
            raise AssertionError(f"not one line: {error!r}") from error
