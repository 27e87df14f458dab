# SPDX-License-Identifier: GPL-2.0-only
"""docs/coverage.md says what there is: each place it names exists, and it is up to date."""

from __future__ import annotations

import importlib
import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "coverage.md"
ROWS = re.findall(r"^\| `(\w+)` \| (works|not modelled) \| (.+) \|$", DOCUMENT.read_text(), re.M)


def test_every_function_has_one_row_and_a_place_or_a_reason():
    assert len({name for name, _, _ in ROWS}) == len(ROWS) > 190
    assert all(place.strip("`") for _, _, place in ROWS)


@pytest.mark.parametrize(("name", "place"), [(name, place) for name, status, place in ROWS if status == "works"])
def test_place_exists(name, place):
    parts = place.strip("`").split(".")
    split = next(i for i in range(len(parts), 0, -1) if (ROOT.joinpath(*parts[:i]).with_suffix(".py")).exists())
    thing = importlib.import_module(".".join(parts[:split]))
    for part in parts[split:]:
        # Not getattr: in a compiled module, names with two underscores are what they are.
        thing = vars(thing)[part]
    assert callable(thing) or isinstance(thing, property), name


def test_document_is_what_the_tool_writes():
    spec = importlib.util.spec_from_file_location("coverage_tool", ROOT / "tools" / "coverage.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    assert DOCUMENT.read_text() == tool.document()
