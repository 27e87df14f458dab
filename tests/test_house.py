# SPDX-License-Identifier: GPL-2.0-only
"""The laws of the house: who may import whom, the picture that is drawn from it, and examples that run."""

from __future__ import annotations

import doctest
import importlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def house(root: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "tools/house.py", *options], cwd=root, capture_output=True, text=True, check=False
    )


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the packages' sources, to change."""
    for name in ("physmem", "kernelmm", "tools", "docs"):
        ignored = shutil.ignore_patterns("__pycache__", "*.so", "*.xz", "*.json")
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)
    return tmp_path


def test_the_laws_are_kept_and_the_picture_is_fresh() -> None:
    done = house(ROOT, "--check")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("room", "line", "law"),
    [
        ("physmem/paging.py", "def f():\n    from kernelmm import gfp\n", "physmem.paging imports kernelmm.gfp"),
        ("physmem/ranges.py", "from physmem.dump import Dump\n", "a circle of imports: "),
    ],
)
def test_a_broken_law_is_noticed(checkout: Path, room: str, line: str, law: str) -> None:
    path = checkout / room
    path.write_text(path.read_text() + line)
    done = house(checkout)
    assert done.returncode == 1
    assert law in done.stderr


def test_a_new_room_makes_the_picture_stale(checkout: Path) -> None:
    (checkout / "physmem/attic.py").write_text("from physmem.dump import Dump\n")
    assert "stale" in house(checkout, "--check").stderr
    assert house(checkout).returncode == 0
    assert ">attic<" in (checkout / "docs/house.svg").read_text()
    assert house(checkout, "--check").returncode == 0


def with_examples() -> list[str]:
    """The modules whose docstrings show a session."""
    found = []
    for package in ("physmem", "kernelmm"):
        for path in sorted((ROOT / package).rglob("*.py")):
            if re.search(r"^\s*>>> ", path.read_text(), re.MULTILINE):
                name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
                found.append(name.removesuffix(".__init__"))
    return found


@pytest.mark.parametrize("name", with_examples())
def test_examples_in_docstrings_happen_as_shown(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    result = doctest.testmod(importlib.import_module(name), optionflags=flags)
    assert result.attempted
    assert result.failed == 0


def test_no_room_has_outgrown_one_concept() -> None:
    grown = {}
    for package in ("physmem", "kernelmm", "tools"):
        for path in (ROOT / package).rglob("*.py"):
            count = len(path.read_text().splitlines())
            if count > 600:
                grown[path.relative_to(ROOT).as_posix()] = count
    assert grown == {}
