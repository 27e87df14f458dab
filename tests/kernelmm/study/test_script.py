# SPDX-License-Identifier: GPL-2.0-only
"""Page scripts as numbers (malformed ones: cli/test_run.py)."""

from __future__ import annotations

from pathlib import Path

import pytest

from kernelmm.study import script
from physmem.errors import UsageError


def test_operations_are_numbers() -> None:
    lines = ["# a comment", "", "a 0 -1 3 80220", "f 0 3", "I", "T 0", "S 0 1 7", "x 0 2 s ff", "n 1 -5", "D"]
    parsed = script.parse(lines, "here")
    assert parsed.ops.tolist() == [
        [ord("a"), 0, -1, 3, 0x80220],
        [ord("f"), 0, 3, 0, 0],
        [ord("T"), -1, 0, 0, 0],
        [ord("S"), 0, 1, 7, 0],
        [ord("x"), 0, 2, ord("s"), 0xFF],
        [ord("n"), -1, 1, -5, 0],
        [ord("D"), -1, 0, 0, 0],
    ]
    assert parsed.lines.tolist() == [3, 4, 6, 7, 8, 9, 10]
    assert (parsed.name, parsed.nr_ids, len(parsed)) == ("here", 9, 7)


def test_a_word_of_64_bits_is_kept() -> None:
    parsed = script.parse(["a 0 0 0 208", "x 0 0 p ffffffffffffffff", "x 0 0 p 8000000000000000"], "here")
    assert parsed.ops[1:, 4].tolist() == [-1, -(1 << 63)]


def test_white_space_is_free() -> None:
    assert script.parse(["\ta  0\t-1 0   208  \r\n"], "x").ops.tolist() == [[97, 0, -1, 0, 0x208]]


def test_the_pages_of_a_split_block_have_ids() -> None:
    parsed = script.parse(["a 0 0 2 208", "S 0 2 10", "f 13 0"], "here")
    assert parsed.nr_ids == 14
    with pytest.raises(UsageError, match="here: line 3: unknown id 14"):
        script.parse(["a 0 0 2 208", "S 0 2 10", "f 14 0"], "here")


def test_an_empty_script() -> None:
    parsed = script.parse([], "empty")
    assert (len(parsed), parsed.ops.shape, parsed.nr_ids) == (0, (0, 5), 1)


def test_files(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nowhere: No such file"):
        script.load(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="nowhere: No such file"):
        script.parse_results(tmp_path / "nowhere")
    (tmp_path / "r").write_text("a  1 2\t3 4\n\nd -1 0 -1 -1\n\n\n")
    assert script.parse_results(tmp_path / "r") == ["a 1 2 3 4", "", "d -1 0 -1 -1"]


def test_operations_without_result() -> None:
    assert [chr(code) for code in b"afFcBgpGPSxndDTIW" if not script.has_result(code)] == ["T", "I", "W"]
