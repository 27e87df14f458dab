# SPDX-License-Identifier: GPL-2.0-only
"""The vocabulary: placement by the rules of the ABI, and real constructs."""

from __future__ import annotations

import construct
import pytest

from physmem.structs.cdecl import (
    bits,
    char,
    enum,
    int_,
    ptr,
    struct,
    typedef,
    u8,
    union,
    unsigned_int,
    unsigned_long,
    when,
)
from physmem.structs.compiler import compile_struct


def offsets(con: object) -> dict[str, int]:
    return {name: f.offset for name, f in compile_struct(con).fields.items()}  # type: ignore[arg-type]


def test_members_are_naturally_aligned_and_the_size_is_a_multiple() -> None:
    con = struct("s", "a" / u8, "b" / unsigned_long, "c" / u8, "d" / int_, "e" / u8)
    assert offsets(con) == {"a": 0, "b": 8, "c": 16, "d": 20, "e": 24}
    assert (con.sizeof(), con.align) == (32, 8)


def test_an_empty_struct_has_no_bytes_and_an_empty_array_aligns() -> None:
    assert struct("empty").sizeof() == 0
    assert offsets(struct("s", "a" / u8, "b" / unsigned_long[0], "c" / u8)) == {"a": 0, "b": 8, "c": 8}


def test_a_larger_alignment_pads_before_and_behind() -> None:
    line = struct("line", "x" / char[0], align=64)
    con = struct("s", "a" / u8, "pad" / line, "b" / u8)
    assert offsets(con) == {"a": 0, "pad": 64, "pad.x": 64, "b": 64}
    assert con.sizeof() == 128


def test_anonymous_members_are_the_enclosing_structs() -> None:
    con = struct("s", "a" / int_, union(None, "b" / unsigned_long, struct(None, "c" / int_, "d" / int_)))
    assert offsets(con) == {"a": 0, "b": 8, "c": 8, "d": 12}
    assert con.parse(bytes([1, 0, 0, 0] * 4)) == {"a": 1, "b": 1 + (1 << 32), "c": 1, "d": 1}


def test_only_structs_and_unions_may_be_anonymous() -> None:
    with pytest.raises(TypeError, match="without a name"):
        struct("s", int_)


def test_a_union_is_built_from_the_first_member_given() -> None:
    con = union("u", "whole" / unsigned_int, "low" / u8)
    assert con.build({"low": 7, "whole": 0x0102}) == b"\2\1\0\0"
    assert con.build({"low": 7}) == b"\7\0\0\0"
    assert con.build({}) == bytes(4)


def test_bitfields_fill_their_units_and_do_not_straddle_them() -> None:
    con = struct("s", "a" / bits(unsigned_int, 20), "b" / bits(unsigned_int, 12), "c" / bits(unsigned_int, 20),
                 "d" / bits(unsigned_int, 13), "e" / u8)  # fmt: skip
    fields = compile_struct(con).fields
    assert {name: (f.bit_offset, f.bit_size) for name, f in fields.items() if f.bitfield} == {
        "a": (0, 20), "b": (20, 12), "c": (32, 20), "d": (64, 13),
    }  # fmt: skip
    assert (fields["b"].offset, fields["e"].offset, con.sizeof()) == (2, 10, 12)
    obj = {"a": 0xABCDE, "b": 0x123, "c": 0x54321, "d": 0x1FFF, "e": 9}
    assert con.parse(con.build(obj)) == obj
    with pytest.raises(construct.ConstructError, match="8192 does not fit 13 bits"):
        con.build({"d": 8192})


def test_unknown_members_are_refused() -> None:
    with pytest.raises(construct.ConstructError, match="struct s has no member 'b'"):
        struct("s", "a" / int_).build({"b": 1})


def test_a_short_buffer_is_refused() -> None:
    with pytest.raises(construct.ConstructError):
        struct("s", "a" / int_).parse(b"\0\0\0")


def test_types_know_their_spelling() -> None:
    con = struct(
        "s",
        "p" / ptr("struct page")[4] * "where to",
        "t" / typedef("my_int", int_),
        "z" / enum("zone_type", {"ZONE_DMA": 0}),
        *when(False, "never" / int_),
    )
    fields = compile_struct(con).fields
    assert [f.spelling for f in fields.values()] == ["struct page *[4]", "my_int", "enum zone_type"]
    assert (fields["p"].doc, fields["p"].target, fields["t"].signed) == ("where to", "struct page", True)
    assert int_.ctype == "int"


def test_an_enum_parses_to_its_name_or_to_a_number() -> None:
    con = struct("s", "z" / enum("zone_type", {"ZONE_DMA": 0, "ZONE_DMA32": 1}))
    assert con.parse(b"\1\0\0\0").z == "ZONE_DMA32"
    assert con.parse(b"\7\0\0\0").z == 7
    assert con.build({"z": "ZONE_DMA32"}) == b"\1\0\0\0"


def test_members_with_an_underscore_count() -> None:
    con = struct("s", "_count" / int_)
    assert con.parse(b"\1\0\0\0") != con.parse(b"\2\0\0\0")
    assert "_count" in repr(con.parse(b"\1\0\0\0"))


def test_only_the_vocabulary_compiles() -> None:
    with pytest.raises(TypeError, match="not declared in the vocabulary"):
        compile_struct(struct("s", "a" / construct.Int8ul))
