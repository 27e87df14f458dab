# SPDX-License-Identifier: GPL-2.0-only
"""Names and addresses: unknown is an error that says what to do, never a guess."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from physmem.errors import SymbolError
from physmem.symbols import Symbols


def test_a_mapping_of_names(oracle: Callable[[str], Any]) -> None:
    symbols = Symbols.from_json(oracle("n128_s1").file("symbols.json"))
    assert symbols["vm_stat"] == 0xFFFFFFFF812F2180
    assert symbols["vm_event_states"] == 0xEC20
    assert "vm_stat" in symbols
    assert len(symbols) == len(list(symbols)) > 70
    assert symbols.source.endswith("symbols.json")


def test_an_unknown_name_says_where_was_looked_and_what_helps() -> None:
    with pytest.raises(
        SymbolError, match=r"the address of 'jiffies' is unknown \(here\): give the kernel's symbols with --symbols"
    ):
        Symbols({"a": 1}, "here")["jiffies"]


def test_two_sources() -> None:
    both = Symbols({"a": 1, "b": 2}, "one") | Symbols({"b": 3, "c": 4}, "two")
    assert dict(both) == {"a": 1, "b": 3, "c": 4}
    assert both.source == "one + two"


@pytest.mark.parametrize(
    "content",
    [{"addresses": {"a": "0xffff", "b": "ffff", "c": 65535}}, {"a": "0xffff", "b": "FFFF", "c": 65535}],
)
def test_spellings(tmp_path: Path, content: object) -> None:
    (tmp_path / "s.json").write_text(json.dumps(content))
    assert set(Symbols.from_json(tmp_path / "s.json").values()) == {0xFFFF}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "not JSON"),
        ("[1, 2]", "no object 'addresses'"),
        ('{"addresses": 5}', "no object 'addresses'"),
        ('{"a": "xyz"}', "a: 'xyz' is not a hexadecimal address"),
        ('{"a": -1}', "a: -1 is not an address of 64 bits"),
        ('{"a": 18446744073709551616}', "a: 18446744073709551616 is not an address of 64 bits"),
        ('{"a": "10000000000000000"}', "a: 18446744073709551616 is not an address of 64 bits"),
        ('{"a": true}', "a: True is not an address of 64 bits"),
        ('{"a": 1.5}', "a: 1.5 is not an address of 64 bits"),
        ('{"a": null}', "a: None is not an address of 64 bits"),
        ("[" * 100_000, "not JSON"),
        ("\x80\xff", "not JSON"),
    ],
)
def test_malformed_files(tmp_path: Path, content: str, reason: str) -> None:
    (tmp_path / "s.json").write_text(content, encoding="latin-1")
    with pytest.raises(SymbolError) as caught:
        Symbols.from_json(tmp_path / "s.json")
    assert f"s.json: {reason}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(SymbolError, match="nowhere: No such file"):
        Symbols.from_json(tmp_path / "nowhere")
    with pytest.raises(SymbolError, match="Is a directory"):
        Symbols.from_json(tmp_path)
