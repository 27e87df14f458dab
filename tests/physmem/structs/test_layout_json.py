# SPDX-License-Identifier: GPL-2.0-only
"""``layout.json``: out and in again, and files that are not what they should be."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from physmem.errors import LayoutError
from physmem.structs.field import Field, StructLayout
from physmem.structs.layout import Layout


def read(document: Any) -> Layout:
    return Layout.from_json(io.StringIO(json.dumps(document)))


def document() -> Any:
    """A small, correct document, to be spoilt."""
    number = {"type": "int", "size": 4, "kind": "int", "signed": True}
    place = {"name": "f", "offset": 4, "bit_offset": 32, "bit_size": 32, "bitfield": False}
    return {"structs": {"s": {"size": 16, "fields": [place | number]}}, "enums": {"e": {"A": 0}}, "constants": {"C": 1}}


def test_a_real_kernels_file_comes_out_as_it_went_in(kernel: Any) -> None:
    layout = Layout.from_json(io.BytesIO(kernel.layout_json))
    assert Layout.from_json(io.StringIO(layout.to_json())) == layout
    written, original = json.loads(layout.to_json()), json.loads(kernel.layout_json)
    # A typedef'd array is written by its real type: the one thing that is lost.
    for field in original["structs"]["mm_struct"]["fields"]:
        if field["type"] == "cpumask_var_t":
            field["type"] = "struct cpumask [1]"
    assert written == original


def test_a_compiled_layout_comes_back(kernel: Any) -> None:
    compiled, text = kernel.compiled, kernel.compiled.to_json()
    back = Layout.from_json(io.StringIO(text))
    assert (back.structs, back.enums, back.constants) == (compiled.structs, compiled.enums, compiled.constants)
    assert back.source == "layout"
    assert back.to_json() == text


def test_partial_and_many_dimensional_layouts_come_back() -> None:
    fields = {
        "unknown": Field("unknown", 8, None),
        "grid": Field("grid", 0, 2, "short", "int", True, dims=(2, 3)),
        "none": Field("none", 12, 1, "char", "int", True, dims=(0,)),
        "nested": Field("nested", 0, 4, "struct t", "struct", tag="t"),
    }
    layout = Layout.of([StructLayout("s", None, fields)], {}, {}, "layout")
    assert Layout.from_json(io.StringIO(layout.to_json())) == layout
    assert layout.sizeof("s", "grid") == 12
    assert layout.field("s", "grid").spelling == "short [2][3]"


def test_the_source_is_the_file(tmp_path: Path) -> None:
    path = tmp_path / "k.json"
    path.write_text(json.dumps(document()))
    assert Layout.from_json(path).source == str(path)
    assert Layout.from_json(str(path)).offsetof("s", "f") == 4


HUGE = 10**30
SPOILT: list[tuple[str, Any, str]] = [
    ("structs", [], "structs: expected an object, found an array"),
    ("structs", None, "structs: expected an object, found None"),
    ("enums", None, "enums: expected an object, found None"),
    ("constants", 5, "constants: expected an object, found 5"),
    (
        "constants.C",
        "1",
        "constants.C: expected an integer from -9223372036854775808 to 18446744073709551615, found '1'",
    ),
    ("constants.C", 1 << 64, "constants.C: expected an integer from"),
    ("constants.C", True, "constants.C: expected an integer from .*, found True"),
    ("enums.e.A", 1.0, "enums.e.A: expected an integer from .*, found 1.0"),
    ("structs.s.size", -1, "structs.s.size: expected an integer from 0 to 16777216, found -1"),
    ("structs.s.size", HUGE, "structs.s.size: expected an integer"),
    ("structs.s.size", 7, r"structs.s.fields\[0\].offset: 'f' ends outside its struct of 7 bytes"),
    ("structs.s.fields", {}, "structs.s.fields: expected an array, found an object"),
    (
        "structs.s.fields.0",
        3,
        r"structs.s.fields\[0\]\.\w+: expected|structs.s.fields\[0\]: expected an object, found 3",
    ),
    ("structs.s.fields.0.name", 3, r"structs.s.fields\[0\].name: expected a printable string, found 3"),
    ("structs.s.fields.0.name", "a\nb", r"fields\[0\].name: expected a printable string, found 'a\\nb'"),
    ("structs.s.fields.0.offset", -8, r"fields\[0\].offset: expected an integer from 0 to 16777216, found -8"),
    (
        "structs.s.fields.0.offset",
        1 << 40,
        r"fields\[0\].offset: expected an integer from 0 to 16777216, found 1099511627776",
    ),
    ("structs.s.fields.0.offset", 13, r"fields\[0\].offset: 'f' ends outside its struct of 16 bytes"),
    ("structs.s.fields.0.size", 3, r"fields\[0\].size: 3 bytes is no size of a C int"),
    ("structs.s.fields.0.size", None, r"fields\[0\].size: expected an integer"),
    ("structs.s.fields.0.kind", "goto", r"fields\[0\].kind: unknown kind 'goto'"),
    ("structs.s.fields.0.kind", "ptr", r"fields\[0\].size: 4 bytes is no size of a C ptr"),
    ("structs.s.fields.0.signed", "yes", r"fields\[0\].signed: expected true or false, found 'yes'"),
    ("structs.s.fields.0.type", None, r"fields\[0\].type: expected a printable string, found None"),
    ("structs.s.fields.0.bitfield", 0, r"fields\[0\].bitfield: expected true or false, found 0"),
    ("structs.s.fields.0.bitfield", True, ""),
    (
        "structs.s.fields.0.array",
        3,
        r"fields\[0\].elem.kind: expected|fields\[0\].elem: expected an object, found None",
    ),
]


@pytest.mark.parametrize(("key", "value", "message"), SPOILT)
def test_what_is_wrong_is_named(key: str, value: Any, message: str) -> None:
    spoilt = document()
    *path, last = [int(k) if k.isdigit() else k for k in key.split(".")]
    target = spoilt
    for step in path:
        target = target[step]
    target[last] = value
    if not message:  # still correct: a field of all its bits may call itself a bitfield
        assert read(spoilt).field("s", "f").bit_size == 32
        return
    with pytest.raises(LayoutError, match=f"^layout: .*{message}") as error:
        read(spoilt)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 300


def array(count: int, size: int) -> dict[str, Any]:
    element = {"type": "int", "size": 4, "kind": "int", "signed": True}
    place = {"name": "a", "offset": 0, "bit_offset": 0, "bit_size": 8 * size, "bitfield": False}
    return place | {"type": f"int [{count}]", "size": size, "array": count, "elem": element}


@pytest.mark.parametrize(
    ("field", "message"),
    [
        (array(3, 16), "size: expected 12, as its elements take, found 16"),
        (array(-1, 4), "array: expected an integer from 0 to"),
        (array(1 << 24, 1 << 26), "offset: 'a' ends outside its struct of 16 bytes"),
        (array(True, 4), "array: expected an integer"),
    ],
)
def test_arrays_are_checked(field: Any, message: str) -> None:
    spoilt = document()
    spoilt["structs"]["s"]["fields"] = [field]
    with pytest.raises(LayoutError, match=message):
        read(spoilt)


def test_arrays_in_arrays_end_somewhere() -> None:
    deep: dict[str, Any] = {"type": "int", "size": 4, "kind": "int", "signed": True}
    for _ in range(20):
        deep = {"array": 1, "elem": deep, "size": 4, "type": "int"}
    spoilt = document()
    spoilt["structs"]["s"]["fields"][0] = {"name": "f", "offset": 0, "bitfield": False} | deep
    with pytest.raises(LayoutError, match="an array of more than 8 dimensions"):
        read(spoilt)


@pytest.mark.parametrize("name", ["a\nb", "x" * 201])
def test_names_are_printable(name: str) -> None:
    for group, value in {"structs": {"size": 0, "fields": []}, "enums": {}, "constants": 1}.items():
        spoilt = document()
        spoilt[group][name] = value
        with pytest.raises(LayoutError, match=f"^layout: {group}: '[^\\n]{{3,60}} is no name$"):
            read(spoilt)


def test_two_fields_of_one_name() -> None:
    spoilt = document()
    spoilt["structs"]["s"]["fields"] *= 2
    with pytest.raises(LayoutError, match=r"fields\[1\].name: 'f' appears twice"):
        read(spoilt)


@pytest.mark.parametrize(
    "text",
    ["", "{", "nonsense", "[" * 100_000, '{"structs": ' + "9" * 5000 + "}", "\xff"],
    ids=["empty", "cut", "words", "deep", "digits", "bytes"],
)
def test_what_is_not_json(text: str) -> None:
    with pytest.raises(LayoutError, match=r"^layout: not JSON: "):
        Layout.from_json(io.BytesIO(text.encode("latin-1")))


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match=r"none\.json: No such file or directory$"):
        Layout.from_json(tmp_path / "none.json")
    with pytest.raises(LayoutError, match=r"Is a directory$"):
        Layout.from_json(tmp_path)


def test_an_endless_file_is_not_read_to_its_end() -> None:
    class Endless(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            assert size >= 0
            return b" " * size

    with pytest.raises(LayoutError, match="longer than 8388608 bytes, not a layout"):
        Layout.from_json(Endless())  # type: ignore[arg-type]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["structs", "enums", "constants", "s", "size", "fields", "name", "offset", "kind", "array", "elem"]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)


@settings(deadline=None)
@given(json_values)
def test_any_json_is_a_layout_or_an_error(value: Any) -> None:
    try:
        layout = read(value)
    except LayoutError:
        return
    assert Layout.from_json(io.StringIO(layout.to_json())) == layout
