# SPDX-License-Identifier: GPL-2.0-only
"""kallsyms: tables in the form of every kernel, where VMCOREINFO says and where it does not."""

from __future__ import annotations

import random
import struct
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from physmem import engine, kallsyms_names
from physmem.errors import AbsentError, SymbolError
from physmem.image import VmcoreInfo
from physmem.kallsyms import Kallsyms, KernelSymbols, Tables, anchors_of, read_kallsyms
from physmem.kallsyms_search import find_tables
from physmem.kernel_layout import find_kallsyms
from physmem.ram import Ram
from physmem.ranges import Ranges
from physmem.regions import START_KERNEL_MAP, KernelImage
from physmem.symbols import Symbols

STEXT = START_KERNEL_MAP + 0x100000
TABLES_AT = 0x140008
RAM = 0x180000

SYMBOLS = [
    ("Anumber_per_cpu", 0x1A000),
    ("T_stext", STEXT),
    ("Tx_page_offset_base", STEXT + 0x10),
    ("Dpage_offset_base", STEXT + 0x1000),
    ("tsame_name", STEXT + 0x1001),
    ("tsame_name", STEXT + 0x1002),
    ("binit_uts_ns", STEXT + 0x2000),
    *((f"t__the_sched_name_{i}", STEXT + 0x3000 + i) for i in range(600)),
    ("R" + "long" * 40, STEXT + 0x9000),
]
INFO = {"SYMBOL(_stext)": f"{STEXT:x}", "SYMBOL(init_uts_ns)": f"{STEXT + 0x2000:x}"}


def memory_of(made: Any, *, at: int = TABLES_AT, absent: Ranges | None = None) -> KernelImage:
    """The kernel's image, with the tables in it."""
    ram = Ram(RAM, Ranges([(0, RAM)]) - (absent or Ranges()))
    ram.as_u8[at : at + len(made.data)] = made.data
    return KernelImage(ram, START_KERNEL_MAP, 0, 1 << 30)


def tables_of(made: Any, *, wide: bool = False) -> Tables:
    at = {name: START_KERNEL_MAP + TABLES_AT + place for name, place in made.places.items()}
    names = ("num_syms", "names", "token_table", "token_index", "offsets")
    return Tables(*(at[name] for name in names), at.get("relative_base"), wide)


def make(makers: ModuleType, style: str, **how: Any) -> Any:
    symbols = SYMBOLS if style == "percpu" else SYMBOLS[1:]
    return makers.make_kallsyms(symbols, STEXT, START_KERNEL_MAP + TABLES_AT, style, **how)


NEW_ORDER = ["num_syms", "names", "markers", "token_table", "token_index", "offsets", "relative_base"]


@pytest.mark.parametrize(
    ("style", "order"),
    [
        ("percpu", None),
        ("relative", None),
        ("percpu", NEW_ORDER),
        ("relative", NEW_ORDER),
        ("place", NEW_ORDER[:-1]),
        ("wide", None),
    ],
)
def test_every_way_to_write_addresses(makers: ModuleType, style: str, order: list[str] | None) -> None:
    made = make(makers, style, order=order)
    found = read_kallsyms(tables_of(made, wide=style == "wide"), memory_of(made), anchors_of(VmcoreInfo(INFO)))
    expected: dict[str, int] = {}
    for name, address in SYMBOLS[style != "percpu" :]:
        expected.setdefault(name[1:], address)
    assert dict(found) == expected
    assert len(found) == len(expected)
    assert found["page_offset_base"] == STEXT + 0x1000
    assert found.find("offset_base") is None
    assert found.find("Dpage_offset_base") is None
    assert "x_page_offset_base" in found
    with pytest.raises(KeyError):
        found["nothing"]
    assert repr(found) == f"<Kallsyms: {len(SYMBOLS) - (style != 'percpu')} symbols>"


def test_names_that_have_the_same_number(makers: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make(makers, "percpu")
    # As if all names were made of strings that cannot be told apart.
    monkeypatch.setattr(kallsyms_names, "_number", lambda text: 0)
    monkeypatch.setattr("physmem.engine._chosen", "compiled")
    found = read_kallsyms(tables_of(made), memory_of(made), anchors_of(VmcoreInfo(INFO)))
    assert found["__the_sched_name_599"] == STEXT + 0x3000 + 599
    assert found["long" * 40] == STEXT + 0x9000
    assert found.find("the_sched_name_599") is None


@given(
    st.lists(st.binary(min_size=1, max_size=12).filter(lambda text: b"\0" not in text), min_size=1, max_size=9),
    st.data(),
)
def test_the_number_of_a_name_is_that_of_its_tokens(tokens: list[bytes], data: st.DataObject) -> None:
    table = b"".join(token + b"\0" for token in tokens).ljust(1 << 12, b"\0")
    firsts = [table.index(token + b"\0") for token in tokens]
    index = (firsts + [len(table) - 1] * kallsyms_names.TOKENS)[: kallsyms_names.TOKENS]
    rows = data.draw(
        st.lists(st.lists(st.integers(0, len(tokens) - 1), min_size=1, max_size=200), min_size=1, max_size=9)
    )
    packed = b"".join(
        (bytes([len(row)]) if len(row) < 128 else bytes([len(row) & 127 | 128, len(row) >> 7])) + bytes(row)
        for row in rows
    )
    expected = [b"".join(tokens[i] for i in row)[1:] for row in rows]
    for chosen in engine.ENGINES:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("physmem.engine._chosen", chosen)
            names = kallsyms_names.Names(packed, len(rows), table, index)
        assert list(names) == expected
        assert [names.find(name.decode("latin-1")) for name in expected] == [expected.index(name) for name in expected]


def test_what_is_behind_the_names_may_be_absent(makers: ModuleType) -> None:
    order = ["token_table", "token_index", "offsets", "relative_base", "num_syms", "names"]
    made = make(makers, "percpu", order=order)
    end = -(-(TABLES_AT + len(made.data)) // 4096) * 4096
    image = memory_of(made, absent=Ranges([(end, 0x170000)]))
    tables = tables_of(made)
    # The tokens once more, behind what is absent, as they are in all kernels.
    table, _ = makers.token_table()
    image.memory.as_u8[0x170000 : 0x170000 + len(table)] = table  # type: ignore[attr-defined]
    tables = replace(tables, token_table=START_KERNEL_MAP + 0x170000)
    assert read_kallsyms(tables, image, {"_stext": STEXT})["init_uts_ns"] == STEXT + 0x2000
    with pytest.raises(AbsentError):
        read_kallsyms(replace(tables, offsets=START_KERNEL_MAP + end), image, {"_stext": STEXT})


# -- malformed ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("part", "at", "data", "reason"),
    [
        ("num_syms", 0, struct.pack("<I", 0), "0 symbols: at most"),
        ("num_syms", 0, struct.pack("<I", 1 << 31), "2147483648 symbols: at most"),
        ("num_syms", 0, struct.pack("<I", 100000), "leave their table of"),
        ("names", 0, b"\xff\xff", "leave their table of"),
        ("token_index", 2 * ord("s"), b"\xff\xff", "the tokens contradict their index"),
        ("relative_base", 0, struct.pack("<Q", STEXT + 1), "no encoding that is known gives _stext, init_uts_ns"),
        ("offsets", 4, bytes(4), "no encoding that is known"),
    ],
)
def test_tables_that_contradict_themselves(makers: ModuleType, part: str, at: int, data: bytes, reason: str) -> None:
    made = make(makers, "percpu")
    image = memory_of(made)
    place = TABLES_AT + made.places[part] + at
    image.memory.as_u8[place : place + len(data)] = data  # type: ignore[attr-defined]
    with pytest.raises(SymbolError, match=reason):
        read_kallsyms(tables_of(made), image, anchors_of(VmcoreInfo(INFO)))


def test_another_kernel(makers: ModuleType) -> None:
    made = make(makers, "percpu")
    with pytest.raises(SymbolError, match="608 symbols, and none of prb among them"):
        read_kallsyms(tables_of(made), memory_of(made), {"prb": 1})


def test_tokens_before_names(makers: ModuleType) -> None:
    made = make(makers, "percpu")
    tables = tables_of(made).moved(0)
    backwards = Tables(tables.num_syms, tables.names, tables.names, tables.token_index, tables.offsets, None)
    with pytest.raises(SymbolError, match="0 bytes between names and tokens"):
        read_kallsyms(backwards, memory_of(made), {"_stext": STEXT})


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 1 << 32))
def test_any_tables_are_read_or_refused(makers: ModuleType, seed: int) -> None:
    chance = random.Random(seed)
    made = make(makers, chance.choice(["percpu", "place", "wide"]))
    image = memory_of(made)
    for _ in range(chance.randrange(1, 8)):
        part = chance.choice(list(made.places))
        place = TABLES_AT + made.places[part] + chance.randrange(64)
        image.memory.as_u8[place] = chance.choice([0, 0x7F, 0x80, 0xFF])  # type: ignore[attr-defined]
    with makers.read_or_refused():
        dict(read_kallsyms(tables_of(made), image, {"_stext": STEXT}))
    with makers.read_or_refused():
        dict(find_kallsyms(VmcoreInfo(INFO), image))


# -- search ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("style", "marker", "at"),
    [("percpu", "<I", TABLES_AT), ("relative", "<I", 0x110000), ("percpu", "<Q", TABLES_AT), ("wide", "<Q", 0x100008)],
)
def test_search(makers: ModuleType, style: str, marker: str, at: int) -> None:
    symbols = SYMBOLS if style == "percpu" else SYMBOLS[1:]
    made = makers.make_kallsyms(symbols, STEXT, START_KERNEL_MAP + at, style, marker=marker)
    image = memory_of(made, at=at)
    # Something that looks like the beginning of a table, and is none.
    image.memory.as_u8[0x17F000:0x17F014] = b"0\0001\0002\0003\0004\0005\0006\0007\0008\0009\0"  # type: ignore[attr-defined]
    found = find_kallsyms(VmcoreInfo(INFO), image)
    assert found["page_offset_base"] == STEXT + 0x1000
    assert len(found) == len({name for name, _ in symbols})


def test_search_with_the_order_of_names_behind_the_markers(makers: ModuleType) -> None:
    order = ["offsets", "relative_base", "num_syms", "names", "markers", "seqs", "token_table", "token_index"]
    made = makers.make_kallsyms(
        SYMBOLS, STEXT, START_KERNEL_MAP + TABLES_AT, order=order, extra={"seqs": bytes(range(1, 4)) * len(SYMBOLS)}
    )
    found = find_kallsyms(VmcoreInfo(INFO), memory_of(made))
    assert found["init_uts_ns"] == STEXT + 0x2000


def test_search_across_pieces(makers: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make(makers, "percpu")
    image = memory_of(made)
    digits = TABLES_AT + made.places["token_table"] + 2 * 48
    for border in range(digits - 40, digits + 500, 30):
        # The pieces begin with the kernel.
        monkeypatch.setattr("physmem.kallsyms_search._PIECE", border - 0x100000)
        assert len(list(find_tables(image.memory, 0x100000, STEXT))) >= 1


def test_nothing_to_be_found() -> None:
    with pytest.raises(SymbolError, match="not found in the kernel's image"):
        find_kallsyms(VmcoreInfo(INFO), KernelImage(Ram(RAM), START_KERNEL_MAP, 0, 1 << 30))


def test_memory_that_looks_like_tables_everywhere(makers: ModuleType) -> None:
    """The search gives up: it does not take longer and longer."""
    table, index = makers.token_table()
    one = (table + bytes(-len(table) % 8) + index).ljust(4096, b"\0")
    numbers = struct.pack("<QQ", STEXT, 0x1FFFFF)
    memory = numbers * 0x4000 + one * 64
    ram = Ram(0x100000 + len(memory))
    ram.as_u8[0x100000:] = memory
    assert len(list(find_tables(ram, 0x100000, STEXT))) <= 16


# -- symbols on demand -------------------------------------------------------


def test_symbols_are_read_when_one_is_missing(makers: ModuleType) -> None:
    made = make(makers, "percpu")
    image = memory_of(made)
    calls = []

    def load() -> Kallsyms:
        calls.append(1)
        return read_kallsyms(tables_of(made), image, anchors_of(VmcoreInfo(INFO)))

    symbols = KernelSymbols(Symbols({"_stext": 5, "mem_section": 6}, "VMCOREINFO"), load)
    assert symbols["mem_section"] == 6
    assert symbols["_stext"] == 5
    assert "_stext" in symbols
    assert calls == []
    assert symbols["page_offset_base"] == STEXT + 0x1000
    assert "init_uts_ns" in symbols
    assert "nothing" not in symbols
    assert 5 not in symbols  # type: ignore[comparison-overlap]
    assert calls == [1]
    assert symbols.source == "VMCOREINFO + kallsyms"
    assert next(iter(symbols)) == "_stext"
    assert len(symbols) == len({name for name, _ in SYMBOLS}) + 1
    with pytest.raises(SymbolError, match=r"'nothing' is unknown \(VMCOREINFO \+ kallsyms\): give .* --symbols"):
        symbols["nothing"]
    more = symbols | Symbols({"nothing": 7, "init_uts_ns": 8}, "a file")
    assert (more["nothing"], more["init_uts_ns"], more["same_name"]) == (7, 8, STEXT + 0x1001)


def test_symbols_that_cannot_be_read() -> None:
    def load() -> Kallsyms:
        raise SymbolError("kallsyms: not found in the kernel's image")

    symbols = KernelSymbols(Symbols({"_stext": 5}, "VMCOREINFO"), load)
    assert "page_offset_base" not in symbols
    assert list(symbols) == ["_stext"]
    with pytest.raises(SymbolError, match=r"unknown \(VMCOREINFO; kallsyms: not found in the kernel's image\)"):
        symbols["page_offset_base"]
