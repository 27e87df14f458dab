# SPDX-License-Identifier: GPL-2.0-only
"""numpy reads what construct reads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from physmem.errors import LayoutError
from physmem.structs.field import Field, StructLayout
from physmem.structs.layout import Layout
from physmem.structs.linux_4_0 import NUMA, UP, Config, layout, structs


def same(seen: Any, parsed: Any) -> bool:
    """Whether a numpy value is what construct parsed, as far as numpy has it."""
    if isinstance(seen, np.void):
        if seen.dtype.names is None:
            return True  # a struct that the layout does not declare: bytes
        return all(same(seen[name], parsed[name]) for name in seen.dtype.names)
    if isinstance(seen, np.ndarray):
        return len(seen) == len(parsed) and all(map(same, seen, parsed))
    if isinstance(parsed, dict):
        return same(seen, parsed["counter"])  # an atomic_t is its counter
    if isinstance(parsed, bool):
        return bool(seen) == parsed
    return int(seen) == int(parsed)


CASES = [(c, tag) for c in (NUMA, UP) for tag in structs(c) if structs(c)[tag].size]


@pytest.mark.parametrize(("config", "tag"), CASES, ids=lambda value: value if isinstance(value, str) else value.name)
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_numpy_and_construct_read_the_same(config: Config, tag: str, seed: int) -> None:
    con, dtype = structs(config)[tag], layout(config).dtype(tag)
    data = np.random.default_rng(seed).bytes(2 * con.size)
    assert dtype.itemsize == con.size
    array = np.frombuffer(data, dtype)
    assert same(array[0], con.parse(data))
    assert same(array[1], con.parse(data[con.size :]))


def test_every_plain_field_is_there(kernel: Any) -> None:
    """No field is lost but bitfields, those without bytes, and those inside another."""
    names = set(kernel.compiled.dtype("page").names or ())
    lost = set(kernel.compiled.struct("page").fields) - names
    assert {n for n in lost if "." not in n} == {"inuse", "objects", "frozen"}


def test_a_choice_of_fields_keeps_offsets_and_size(numa: Layout) -> None:
    dtype = numa.dtype("page", ["_mapcount.counter", "flags", "lru", "lru.prev", "private", "first_page"])
    assert dtype.itemsize == 64
    assert {name: dtype.fields[name][1] for name in dtype.names or ()} == {  # type: ignore[index]
        "_mapcount.counter": 24, "flags": 0, "lru": 32, "lru.prev": 40, "private": 48, "first_page": 48,
    }  # fmt: skip
    pages = np.zeros(3, dtype)
    pages["private"][1] = 7
    pages["_mapcount.counter"] = -128
    assert pages["first_page"].tolist() == [0, 7, 0]
    assert pages.tobytes()[24:28] == b"\x80\xff\xff\xff"


@pytest.mark.parametrize(
    ("tag", "name", "reason"),
    [
        ("page", "objects", "a bitfield"),
        ("zone", "_pad1_", "it has no bytes"),
        ("page", "_refcount", "unknown"),
    ],
)
def test_what_has_no_dtype(numa: Layout, tag: str, name: str, reason: str) -> None:
    with pytest.raises(LayoutError, match=f"^built in: .*: struct {tag}: field '{name}' has no dtype: {reason}$"):
        numa.dtype(tag, [name])
    with pytest.raises(LayoutError, match="no struct 'inode'"):
        numa.dtype("inode")


def test_a_struct_inside_itself_is_refused() -> None:
    ring = [
        StructLayout("a", 8, {"b": Field("b", 0, 8, "struct b", "struct", tag="b")}),
        StructLayout("b", 8, {"a": Field("a", 0, 8, "struct a", "struct", tag="a")}),
    ]
    with pytest.raises(LayoutError, match="struct a contains itself"):
        Layout.of(ring, {}, {}, "a ring").dtype("a")


def test_an_element_of_another_size_than_its_type_is_refused() -> None:
    inner = StructLayout("t", 32, {})
    outer = StructLayout("s", 64, {"t": Field("t", 0, 16, "struct t", "struct", dims=(4,), tag="t")})
    with pytest.raises(LayoutError, match=r"^a file: struct s\.t: 16 bytes, but struct t has 32$"):
        Layout.of([inner, outer], {}, {}, "a file").dtype("s")


def test_what_numpy_has_no_type_for_is_bytes() -> None:
    fields = {
        "wide": Field("wide", 0, 16, "__int128", "int", True),
        "u": Field("u", 16, 24, "union u", "union", tag="u"),
        "v": Field("v", 40, 4, "atomic_t", "struct", dims=(2,)),
    }
    dtype = Layout.of([StructLayout("s", 48, fields)], {}, {}, "a file").dtype("s")
    assert [dtype[name].str for name in ("wide", "u")] == ["|V16", "|V24"]
    assert dtype["v"].subdtype == (np.dtype("<i4"), (2,))
